"""The integral of slopes from 0 to 1, refined until it is complete.

Integrated gradients sum to what the outcome changes by from one end of the path to the other
(completeness; Sundararajan et al. 2017). Where the answer turns from one number to another the
outcome is steep, and few points miss it. So each part of the path is checked against the outcome at
its own ends, and halved where the two differ.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from codi_lens.errors import InterventionError, finite_number, whole_number

Slopes = Callable[[Sequence[int], Float[np.ndarray, " row"]], tuple[Tensor, Tensor]]
"""Of which problem each row is, and its gate: the outcomes [row], and the slopes by every unit."""


@dataclass(frozen=True)
class Refining:
    """When an integral is complete.

    Attributes:
        steps: points in each part of the path (Gauss-Legendre).
        tolerance: how far the sum of all attributions of a problem may be from the effect, in the
            outcome's unit, or as a share of the effect where that is more.
        max_steps: points for one problem, at most.
    """

    steps: int = 8
    tolerance: float = 0.02
    max_steps: int = 1024

    def checked(self) -> Refining:
        """Itself.

        Raises:
            InterventionError: fewer than one step, fewer points than steps, or a tolerance that is
                not above 0.
        """
        whole_number("steps", self.steps, 1, error=InterventionError)
        whole_number("max_steps", self.max_steps, self.steps, error=InterventionError)
        if finite_number("tolerance", self.tolerance) <= 0:
            raise InterventionError(f"tolerance must be above 0, not {self.tolerance:g}.")
        return self

    def allowed(self, effect: Float[np.ndarray, "*unit"]) -> Float[np.ndarray, "*unit"]:
        """How far sums may be from these effects."""
        return self.tolerance * np.maximum(1.0, np.abs(effect))


@dataclass(frozen=True, eq=False)
class Integral:
    """The integrals of a few problems.

    Attributes:
        values: the integral of the slopes.
        effect: the outcome at 1 minus that at 0; NaN for a problem without one.
        gap: the sum of the values minus the effect.
        points: how many points were taken.
    """

    values: Float[Tensor, "problem ..."]
    effect: Float[np.ndarray, " problem"]
    gap: Float[np.ndarray, " problem"]
    points: Int[np.ndarray, " problem"]


def integrate(slopes_at: Slopes, n: int, refining: Refining, rows_at_once: int) -> Integral:
    """Integrate the slopes of `n` problems along their paths, each as finely as it needs.

    Args:
        slopes_at: runs the model.
        n: how many problems.
        refining: when an integral is complete, and when to stop.
        rows_at_once: rows per run of the model.
    """
    ends, like = _outcomes(slopes_at, [*range(n)] * 2, [0.0] * n + [1.0] * n, rows_at_once)
    effect = ends[n:] - ends[:n]
    allowed = refining.allowed(effect)
    parts: list[list[_Part]] = [
        [_Part(i, 0.0, 1.0, ends[i], ends[n + i])] if np.isfinite(effect[i]) else []
        for i in range(n)
    ]
    points = np.zeros(n, dtype=int)
    new = [part for each in parts for part in each]
    while new:
        _take(slopes_at, new, refining.steps, rows_at_once)
        for part in new:
            points[part.problem] += refining.steps
        split: list[_Part] = []
        for i in sorted({part.problem for part in new}):
            room = (refining.max_steps - points[i]) // (2 * refining.steps)
            split += _worst(parts[i], float(allowed[i]), int(room))
        new = _halved(slopes_at, split, rows_at_once)
        for part in split:
            parts[part.problem].remove(part)
        for part in new:
            parts[part.problem].append(part)
    values = [
        torch.stack([part.values for part in each]).sum(dim=0) if each else like * torch.nan
        for each in parts
    ]
    gap = np.array([sum(part.gap for part in each) if each else np.nan for each in parts])
    return Integral(torch.stack(values), effect, gap, points)


@dataclass(eq=False)
class _Part:
    """A part of one problem's path, the outcomes at its ends, and its integral once taken."""

    problem: int
    low: float
    high: float
    at_low: float
    at_high: float
    values: Tensor = field(default_factory=lambda: torch.zeros(()))

    @property
    def gap(self) -> float:
        return float(self.values.sum()) - (self.at_high - self.at_low)


def _worst(parts: Sequence[_Part], allowed: float, room: int) -> list[_Part]:
    """The parts to halve: all that miss more than their share, the worst first, as many as fit."""
    if sum(abs(part.gap) for part in parts) <= allowed:
        return []
    found = sorted(parts, key=lambda part: -abs(part.gap))
    share = allowed / (2 * len(parts))
    return [part for part in found if abs(part.gap) > share][:room]


def _halved(slopes_at: Slopes, parts: Sequence[_Part], rows_at_once: int) -> list[_Part]:
    if not parts:
        return []
    middles = [(part.low + part.high) / 2 for part in parts]
    values, _ = _outcomes(slopes_at, [part.problem for part in parts], middles, rows_at_once)
    halves: list[_Part] = []
    for part, middle, value in zip(parts, middles, values, strict=True):
        halves.append(_Part(part.problem, part.low, middle, part.at_low, value))
        halves.append(_Part(part.problem, middle, part.high, value, part.at_high))
    return halves


def _take(slopes_at: Slopes, parts: Sequence[_Part], steps: int, rows_at_once: int) -> None:
    """Integrate over each part."""
    nodes, weights = np.polynomial.legendre.leggauss(steps)
    at_once = max(1, rows_at_once // steps)
    for start in range(0, len(parts), at_once):
        some = parts[start : start + at_once]
        gates = [part.low + (part.high - part.low) * (nodes + 1) / 2 for part in some]
        rows = [part.problem for part in some for _ in nodes]
        _, slopes = slopes_at(rows, np.concatenate(gates))
        by_part = slopes.double().unflatten(0, (len(some), steps))
        shares = torch.tensor(weights / 2).to(by_part)
        for part, each in zip(some, by_part, strict=True):
            part.values = (part.high - part.low) * torch.tensordot(shares, each, dims=1)


def _outcomes(
    slopes_at: Slopes, problems: Sequence[int], gates: Sequence[float], rows_at_once: int
) -> tuple[Float[np.ndarray, " row"], Tensor]:
    """Outcomes at these gates, and the slopes of one row, for their shape."""
    found: list[np.ndarray] = []
    like = torch.zeros(())
    for start in range(0, len(problems), rows_at_once):
        rows = slice(start, start + rows_at_once)
        values, slopes = slopes_at(problems[rows], np.array(gates[rows]))
        found.append(values.double().cpu().numpy())
        like = torch.zeros_like(slopes[0], dtype=torch.float64)
    return np.concatenate(found), like
