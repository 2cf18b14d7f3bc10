"""Long work, batch by batch: done, or rehearsed, which counts all of it and does a sample.

Whatever runs a model on batch after batch hands each batch to a `Stage`. Within `rehearse` a stage
counts all batches, and runs the first of each kind; what the others would give is made up from
these. So a plan comes from the code that does the work, whatever that is.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

from codi_lens.errors import OutputError
from codi_lens.wording import count

Given = TypeVar("Given")
_SLOW, _QUICK = 10.0, 1.0
"""Seconds from which on a batch is not repeated after its warm-up, and not twice."""
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
_plan: ContextVar[Plan | None] = ContextVar("plan", default=None)


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


def rehearsing() -> bool:
    """Whether work is planned, not done."""
    return _plan.get() is not None


@dataclass
class _Kind:
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
    """

    name: str
    interventions: int = 0
    runs: int = 0
    batches: int = 0
    kinds: dict[Hashable, _Kind] = field(default_factory=dict)

    @property
    def tokens(self) -> int:
        """Positions that go through the model, about: answers are as long as in the sample."""
        each = (kind.tokens * kind.positions / kind.sampled for kind in self.kinds.values())
        return round(sum(each))

    @property
    def time(self) -> str:
        """How long it takes, by its sample."""
        return duration(self.seconds(_mean))

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
        rest: seconds of what is done once, whatever the sample: statistics, figures, files.
        sampled: seconds that running the sample took.
        files: what reports left in the folder: how many files,
        bytes: and their size.
    """

    folder: Path
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
            sum(stage.seconds(pick) for stage in self.stages) for pick in (min, _mean, max)
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


@contextmanager
def rehearse() -> Iterator[Plan]:
    """Plan whatever runs a model within: extractions, sweeps, and the reports made of them.

    Everything is counted by the code that would do it. Of each kind of batch one is run, timed; the
    results of the others are made up from it, so that what follows has something to work on. None
    of these results mean anything, nor do files written of them.

    >>> from codi_lens import CodiModel, rehearse, sweep_heads
    >>> from codi_lens.problems import word_problems
    >>> model = CodiModel.from_pretrained("tiny-gpt2")
    >>> with rehearse() as plan:
    ...     table = sweep_heads(model, word_problems(200), progress=False)
    >>> plan.interventions, plan.runs  # 24 heads, and clean runs of problems and donors
    (24, 5200)
    """
    with TemporaryDirectory() as folder:
        plan = Plan(Path(folder).resolve())
        before, begin = _plan.set(plan), time.perf_counter()
        try:
            yield plan
        finally:
            _plan.reset(before)
            plan.rest = time.perf_counter() - begin - plan.sampled
            files = [path for path in plan.folder.rglob("*") if path.is_file()]
            plan.files, plan.bytes = len(files), sum(path.stat().st_size for path in files)


class Stage:
    """A part of long work in which batch after batch is run.

    Args:
        name: what is done.
        interventions: how many act in it.
    """

    def __init__(self, name: str, interventions: int = 0) -> None:
        """Nothing is done yet."""
        self._plan, self._given = _plan.get(), dict[Hashable, object]()
        self._planned = StagePlan(name, interventions)

    @property
    def rehearsed(self) -> bool:
        """Whether only samples are run."""
        return self._plan is not None

    def __call__(
        self,
        kind: Hashable,
        runs: int,
        positions: int,
        run: Callable[[], Given],
        *,
        share: float = 1.0,
    ) -> tuple[Given, bool]:
        """What `run` gives, and whether it is this batch's own, not that of another of its kind.

        Args:
            kind: batches of one kind cost alike for each of their positions.
            runs: how many runs are in the batch.
            positions: what they feed to the model, at least in proportion.
            run: does it.
            share: how much of the batch that is.
        """
        if self._plan is None:
            return run(), True
        if not self._planned.batches:
            self._plan.stages.append(self._planned)
        self._planned.runs += runs
        self._planned.batches += 1
        found = self._planned.kinds.setdefault(kind, _Kind())
        found.positions += positions
        if own := not found.seconds:
            self._given[kind] = self._sampled(found, share * positions, run)
        given: Given = self._given[kind]  # type: ignore[assignment]
        return given, own

    def _sampled(self, kind: _Kind, positions: float, run: Callable[[], Given]) -> Given:
        """Do it: once to warm up, and then so that its time counts, unless it is slow."""
        assert self._plan is not None
        given, seconds, kind.tokens = _timed(self._plan, run)
        kind.sampled, kind.seconds = positions, [seconds]
        for repeat in range(2):
            if seconds < (_SLOW if repeat == 0 else _QUICK):
                _, seconds, _ = _timed(self._plan, run)
                kind.seconds = [*kind.seconds[repeat == 0 :], seconds]
        return given


def _timed(plan: Plan, run: Callable[[], Given]) -> tuple[Given, float, int]:
    """What it gives, its seconds and its tokens, without those of stages within it."""
    before, begin = plan.sampled, time.perf_counter()
    with counting() as fed:
        given = run()
    seconds = time.perf_counter() - begin - (plan.sampled - before)
    plan.sampled += seconds
    return given, seconds, fed.tokens


def check_may_write(folder: Path) -> None:
    """Refuse to write into a folder what is made up.

    Raises:
        OutputError: a rehearsal is going on, and the folder is not its own.
    """
    plan = _plan.get()
    if plan is not None and plan.folder not in folder.resolve().parents:
        raise OutputError(
            f"A rehearsal writes nothing, so {folder} is not given to it; leave it out."
        )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


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
