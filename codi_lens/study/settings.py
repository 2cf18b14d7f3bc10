"""What the study is asked with: one model or two, and its thresholds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from codi_lens.attention.thresholds import (
    CONSISTENT_STD,
    MULTI_PURPOSE_THRESHOLD,
    SEQUENTIAL_THRESHOLD,
    SKIP_THRESHOLD,
    STRONG_HUB,
)
from codi_lens.errors import AttentionError, OutputError, finite_number


@dataclass(frozen=True)
class StudyThresholds:
    """The study's thresholds, most of which it calls somewhat arbitrary.

    Attributes:
        consistent_std: Attention is consistent if its mean deviation over problems is below this.
        strong_hub: A hub is strong if its column sum exceeds this many times 1 / n_thoughts.
        sequential: Sequential flow if the entries [i, i-1] average more than this.
        last_step: The last step attends to the one before if that entry exceeds this.
        skip: Skip connections if the last row's first half averages more than this.
        multi_purpose: A head is Multi-Purpose if two normalised scores exceed this.
        critical: A head is critical if its composite exceeds this.
        strong_head: A head has a visible pattern if its largest mean entry exceeds this.
        strong_share: Patterns are not random if more than this share of heads has a visible one.
        strong_top: The top 20 heads are expected to have a largest mean entry above this.
    """

    consistent_std: int | float = CONSISTENT_STD
    strong_hub: int | float = STRONG_HUB
    sequential: int | float = SEQUENTIAL_THRESHOLD
    last_step: int | float = 0.15
    skip: int | float = SKIP_THRESHOLD
    multi_purpose: int | float = MULTI_PURPOSE_THRESHOLD
    critical: int | float = 0.7
    strong_head: int | float = 0.4
    strong_share: int | float = 0.1
    strong_top: int | float = 0.5

    def __post_init__(self) -> None:
        """Refuse what nothing can exceed.

        Raises:
            AttentionError: a threshold that is not a finite number.
        """
        for field in fields(self):
            name = f"The threshold {field.name}"
            finite_number(name, getattr(self, field.name), AttentionError)


def check_models(models: Sequence[Any]) -> None:
    """Raise an OutputError unless there are one or two models."""
    if not 1 <= len(models) <= 2:
        raise OutputError(f"The study takes one model, or two to compare, not {len(models)}.")
