"""What the original CODI code computes on a tiny random checkpoint, and where it is kept."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from codi_lens import CodiModel

ROOT = Path(__file__).parents[2]
FIXTURES = ROOT / "tests" / "fixtures"
ORACLE_SETTINGS: dict[str, Any] = {"lora_alpha": 32, "n_thoughts": 6, "remove_eos": True}
# The oracle's README gives these: the recurrence amplifies float32 noise in free runs.
FORCED, FREE, FREE_ATTENTION = 5e-5, 1e-3, 3e-4


@dataclass(frozen=True)
class Oracle:
    """A tiny random checkpoint and what the original code computes on it."""

    checkpoint: Path
    base: Path
    tensors: dict[str, Tensor]
    questions: list[dict[str, Any]]
    model: CodiModel

    @property
    def texts(self) -> list[str]:
        return [question["text"] for question in self.questions]

    def ids(self, i: int) -> list[int]:
        return self.tensors[f"q{i}.input_ids"].tolist()


def largest(a: object, b: object) -> float:
    return float(np.abs(np.asarray(a) - np.asarray(b)).max())
