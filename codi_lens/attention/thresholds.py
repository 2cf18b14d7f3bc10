"""The published study's thresholds for attention, most of which it calls somewhat arbitrary."""

MULTI_PURPOSE_THRESHOLD = 0.7
"""The study's: both of a head's two highest normalised scores must exceed it."""
STRONG_HUB = 2.0
"""The study calls a hub strong if its column sum exceeds twice 1 / n_thoughts."""
SEQUENTIAL_THRESHOLD = 0.3
"""The study sees sequential flow if its entries [i, i-1] average more than this."""
SKIP_THRESHOLD = 0.1
"""The study sees skip connections if its entries [last, first half] average more than this."""
CONSISTENT_STD = 0.2
"""The study calls attention consistent if its mean deviation over problems is below this."""
