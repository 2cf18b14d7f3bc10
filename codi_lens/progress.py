"""Where a long computation is: one line on stderr that names its stage, in a terminal alone."""

from __future__ import annotations

from tqdm import tqdm


class Stages:
    """Call it as each stage begins, and `end` after the last.

    Args:
        what: is computed: "tiny-gpt2".
        n: how many stages there are.
        shown: False for no line, not even in a terminal.

    >>> begin = Stages("tiny-gpt2", 2)
    >>> begin("head scores")
    >>> begin("evidence")
    >>> begin.end()
    """

    def __init__(self, what: str, n: int, *, shown: bool = True) -> None:
        """Show nothing yet."""
        self._what = what
        self._line = tqdm(
            total=n,
            bar_format="{desc} ({n_fmt} of {total_fmt}, {elapsed})",
            leave=False,
            delay=1e-9,  # no line before the first stage has a name
            disable=None if shown else True,  # None: unless stderr is a terminal
        )

    def __call__(self, stage: str) -> None:
        """Show that a stage begins."""
        self._line.set_description_str(f"{self._what}: {stage}", refresh=False)
        self._line.update()
        self._line.refresh()

    def end(self) -> None:
        """Take the line away."""
        self._line.close()
