"""What work comes to: what goes through models, and a plan of a whole command, from a sample."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean

from codi_lens.wording import count

_LEAST_SPREAD = 0.3
"""How far times of the same work are apart at least, as a share."""


@dataclass
class Fed:
    """What went through a model.

    Attributes:
        tokens: positions, padding included.
        passes: forward passes.
    """

    tokens: int = 0
    passes: int = 0


_fed: ContextVar[Fed | None] = ContextVar("fed", default=None)


def note_pass(tokens: int) -> None:
    """Say that so many positions go through a model together."""
    if (fed := _fed.get()) is not None:
        fed.tokens += tokens
        fed.passes += 1


@contextmanager
def counting() -> Iterator[Fed]:
    """What goes through any model meanwhile.

    >>> with counting() as fed:
    ...     note_pass(12)
    >>> fed
    Fed(tokens=12, passes=1)
    """
    fed = Fed()
    before = _fed.set(fed)
    try:
        yield fed
    finally:
        _fed.reset(before)


@dataclass
class Kind:
    """Batches that cost alike for each of their positions."""

    positions: int = 0
    sampled: float = 0
    tokens: int = 0
    seconds: list[float] = field(default_factory=list)


@dataclass
class StagePlan:
    """What one stage of a rehearsed command comes to.

    Attributes:
        name: what is done.
        interventions: how many act in it, each in runs of its own.
        runs: of a problem, clean or under an intervention.
        batches: of runs.
        kinds: batches that start alike, of which one was timed.
        within: whether it is done while the stage before it is, and has no bar of its own.
    """

    name: str
    interventions: int = 0
    runs: int = 0
    batches: int = 0
    kinds: dict[Hashable, Kind] = field(default_factory=dict)
    within: bool = True

    @property
    def tokens(self) -> int:
        """Positions that go through the model, about: answers are as long as in the sample."""
        each = (kind.tokens * kind.positions / kind.sampled for kind in self.kinds.values())
        return round(sum(each))

    @property
    def time(self) -> str:
        """How long it takes, by its sample."""
        return duration(self.seconds(fmean))

    def seconds(self, pick: Callable[[Sequence[float]], float]) -> float:
        """How long it takes, by one of the times that each kind's sample took."""
        each = (pick(k.seconds) * k.positions / k.sampled for k in self.kinds.values())
        return sum(each)


@dataclass
class Plan:
    """What a command comes to, estimated from a sample.

    Attributes:
        stages: in the order of the command.
        folder: what reports are written to meanwhile; removed afterwards.
        repeats: how often a batch is run again at most, so that its time counts.
        rest: seconds of what is done once, whatever the sample: statistics, figures, files.
        sampled: seconds that running the sample took.
        files: what reports left in the folder: how many files,
        bytes: and their size.
    """

    folder: Path
    repeats: int = 2
    stages: list[StagePlan] = field(default_factory=list)
    rest: float = 0.0
    sampled: float = 0.0
    files: int = 0
    bytes: int = 0

    @property
    def interventions(self) -> int:
        """In all stages."""
        return sum(stage.interventions for stage in self.stages)

    @property
    def runs(self) -> int:
        """Of a problem, clean or under an intervention."""
        return sum(stage.runs for stage in self.stages)

    @property
    def tokens(self) -> int:
        """Positions that go through the model, about."""
        return sum(stage.tokens for stage in self.stages)

    @property
    def seconds(self) -> tuple[float, float, float]:
        """How long it takes, at least and at most by what the sample says."""
        least, mean, most = (
            sum(stage.seconds(pick) for stage in self.stages) for pick in (min, fmean, max)
        )
        least, most = (
            min(least, mean * (1 - _LEAST_SPREAD)),
            max(most, mean * (1 + _LEAST_SPREAD)),
        )
        return mean + self.rest, least + self.rest, most + self.rest

    def __str__(self) -> str:
        """One line a stage, and the sum."""
        lines = [
            f"{stage.name}: {count(stage.interventions, 'intervention')}, "
            f"{count(stage.runs, 'run')} in {stage.batches:,} batch{'es' * (stage.batches != 1)}, "
            f"about {count(stage.tokens, 'token')}, {stage.time}"
            for stage in self.stages
        ]
        return "\n".join([*lines, self.summary])

    @property
    def summary(self) -> str:
        """What all of it comes to."""
        mean, least, most = map(duration, self.seconds)
        return (
            f"{self.runs:,} runs, about {self.tokens:,} tokens: {mean}, from {least} to {most} by "
            "the sample."
        )


def duration(seconds: int | float) -> str:
    """A time as a sentence gives it.

    >>> [duration(each) for each in (0.25, 12.4, 300, 7200, 5e5)]
    ['0.2 s', '12 s', '5 min', '2.0 h', '5.8 days']
    """
    for limit, unit, name, digits in (
        (10, 1, "s", 1),
        (120, 1, "s", 0),
        (7200, 60, "min", 0),
        (2e5, 3600, "h", 1),
    ):
        if seconds < limit:
            return f"{seconds / unit:.{digits}f} {name}"
    return f"{seconds / 86400:.1f} days"
