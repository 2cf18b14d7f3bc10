"""Long work, batch by batch: done, or rehearsed, which counts all of it and does a sample.

Whatever runs a model on batch after batch hands each batch to a `Stage`. Within `rehearse` a stage
counts all batches, and runs the first of each kind; what the others would give is made up from
these. So a plan comes from the code that does the work, whatever that is.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import accumulate
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory
from typing import TypeVar

from tqdm import tqdm

from codi_lens.errors import OutputError, as_path
from codi_lens.memory import tidy
from codi_lens.plans import Kind, Plan, StagePlan, counting

Given = TypeVar("Given")
_SLOW, _QUICK = 10.0, 1.0
"""Seconds from which on a batch is not repeated after its warm-up, and not twice."""
_plan: ContextVar[Plan | None] = ContextVar("plan", default=None)
_course: ContextVar[_Course | None] = ContextVar("course", default=None)


def rehearsing() -> bool:
    """Whether work is planned, not done."""
    return _plan.get() is not None


@contextmanager
def rehearse(repeats: int = 2) -> Iterator[Plan]:
    """Plan whatever runs a model within: extractions, sweeps, and the reports made of them.

    Everything is counted by the code that would do it. Of each kind of batch one is run, timed; the
    results of the others are made up from it, so that what follows has something to work on. None
    of these results mean anything, nor do files written of them.

    Args:
        repeats: how often a batch of the sample is run again, up to twice, so that its time counts;
            with 0 a plan comes sooner and its times are rougher.

    >>> from codi_lens import CodiModel, rehearse, sweep_heads
    >>> from codi_lens.problems import word_problems
    >>> model = CodiModel.from_pretrained("tiny-gpt2")
    >>> with rehearse() as plan:
    ...     table = sweep_heads(model, word_problems(200), progress=False)
    >>> plan.interventions, plan.runs  # 24 heads, and clean runs of problems and donors
    (24, 5200)
    """
    with TemporaryDirectory() as folder:
        plan = Plan(Path(folder).resolve(), repeats)
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
        out: the folder of its results, which then gives it its name.
    """

    def __init__(self, name: str, interventions: int = 0, out: str | Path | None = None) -> None:
        """Nothing is done yet."""
        self._plan, self._given = _plan.get(), dict[Hashable, object]()
        name = name if out is None else as_path("out", out).name
        self._planned = StagePlan(name, interventions)

    @property
    def rehearsed(self) -> bool:
        """Whether only samples are run."""
        return self._plan is not None

    @contextmanager
    def bar(
        self, total: int, unit: str, *, shown: bool, done: int = 0
    ) -> Iterator[Callable[[int], None]]:
        """A progress bar; within `follow`, the line of the whole command goes on with it.

        Args:
            total: how many there are to do,
            unit: and of what.
            shown: False for no bar.
            done: how many are there already.

        Yields:
            What is told of each batch how many were done in it.
        """
        self._planned.within = False
        course, so_far = _course.get(), done
        name, alone = self._planned.name, course is None
        with tqdm(
            initial=done,
            total=total,
            desc=name,
            unit=unit,
            leave=alone,  # below the line of the whole, one bar gives way to the next
            disable=not shown,
        ) as bar:

            def tell(n: int) -> None:
                nonlocal so_far
                so_far += n
                bar.update(n)
                if course is not None:
                    course.reach(so_far / total)

            if course is not None:
                course.begin(name, so_far / total)
            yield tell

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
            tidy("batch")
            return run(), True
        if not self._planned.batches:
            self._plan.stages.append(self._planned)
        self._planned.runs += runs
        self._planned.batches += 1
        found = self._planned.kinds.setdefault(kind, Kind())
        found.positions += positions
        if own := not found.seconds:
            self._given[kind] = self._sampled(found, share * positions, run)
        given: Given = self._given[kind]  # type: ignore[assignment]
        return given, own

    def _sampled(self, kind: Kind, positions: float, run: Callable[[], Given]) -> Given:
        """Do it: once to warm up, and then so that its time counts, unless it is slow."""
        assert self._plan is not None
        given, seconds, kind.tokens = _timed(self._plan, run)
        kind.sampled, kind.seconds = positions, [seconds]
        for repeat in range(self._plan.repeats):
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


class _Course:
    """Where a command is in its plan: one line, in a terminal."""

    def __init__(self, plan: Plan, shown: bool) -> None:
        """Nothing is done yet."""
        own = [i for i, stage in enumerate(plan.stages) if not stage.within]
        self._names = [plan.stages[i].name for i in own]
        ends = [*own[1:], len(plan.stages)]
        seconds = [0.0, *accumulate(stage.seconds(fmean) for stage in plan.stages)]
        runs = [0, *accumulate(stage.runs for stage in plan.stages)]
        self._seconds = [0.0, *(seconds[end] for end in ends)]
        self._runs = [0, *(runs[end] for end in ends)]
        self._at, self._known, self._found = 0, False, 0
        self.line = tqdm(
            total=plan.seconds[0],
            desc="in all",
            bar_format="{desc}: {percentage:.0f} %, {elapsed} so far, {remaining} left{postfix}",
            smoothing=0,
            leave=False,
            disable=None if shown else True,  # None: unless stderr is a terminal
        )

    def begin(self, name: str, share: float) -> None:
        """A stage begins, of which a share is there already; those before it are over."""
        self._known = name in self._names[self._at :]
        if self._known:
            self._at = self._names.index(name, self._at) + 1
            self._found += self._runs_at(share) - self._runs[self._at - 1]
            self.reach(share, found=share)

    def reach(self, share: float, found: float = 0.0) -> None:
        """So much of the stage is done; and what of it was found so."""
        if self.line.disable or not self._known:
            return
        begin, end = self._seconds[self._at - 1 : self._at + 1]
        self.line.initial += found * (end - begin)
        runs = self._runs_at(share)
        elapsed = self.line.format_dict["elapsed"]
        if elapsed > 0:
            rate = (runs - self._found) / elapsed
            self.line.set_postfix_str(
                f"{runs:,} of {self._runs[-1]:,} runs, {rate:,.1f} a second", refresh=False
            )
        self.line.update(begin + share * (end - begin) - self.line.n)
        if share == 1:
            self.line.refresh()  # however soon after the last time

    def _runs_at(self, share: float) -> int:
        begin, end = self._runs[self._at - 1 : self._at + 1]
        return round(begin + share * (end - begin))


@contextmanager
def follow(plan: Plan, *, shown: bool = True) -> Iterator[None]:
    """Show, in a terminal, where work is that was planned: its share, its rate, and the time left.

    Args:
        plan: of the same work, by `rehearse`.
        shown: False for no line.

    >>> from codi_lens import CodiModel, follow, rehearse, sweep_heads
    >>> from codi_lens.problems import word_problems
    >>> model, some = CodiModel.from_pretrained("tiny-gpt2"), word_problems(8)
    >>> with rehearse() as plan:
    ...     table = sweep_heads(model, some, [(1, 7)], progress=False)
    >>> with follow(plan):
    ...     table = sweep_heads(model, some, [(1, 7)], progress=False)
    """
    course = _Course(plan, shown)
    before = _course.set(course)
    try:
        yield
    finally:
        _course.reset(before)
        course.line.close()


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
