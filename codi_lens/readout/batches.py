"""Runs of many problems, a batch at a time, with the activations that a reading needs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from codi_lens.model import CodiModel
from codi_lens.problems.problem import Problem
from codi_lens.thinking.hook_names import NamesFilter
from codi_lens.thinking.plan import Planned
from codi_lens.thinking.prompts import batch_room, batches_by_tokens, prepare_problems, questions_of
from codi_lens.thinking.run import ThoughtRun
from codi_lens.work import Stage
from codi_lens.workers.cluster import each_done
from codi_lens.workers.spread import Workers, spread_of

Found = TypeVar("Found")


def read_batches(
    read: Callable[[Sequence[int], ThoughtRun], Found],
    model: CodiModel,
    problems: Sequence[Problem],
    names_filter: NamesFilter,
    desc: str,
    *,
    batch_size: int,
    max_new_tokens: int,
    progress: bool,
    interventions: Sequence[Planned] = (),
    workers: Workers | None = None,
    ray_address: str | None = None,
    instead: Callable[[Found, int], Found] | None = None,
) -> Iterator[tuple[list[int], Found]]:
    """Each batch's problems, by their place in the list, and what is read in their run.

    Long questions come first; batches of workers in whichever order they are done.

    Args:
        read: takes a batch's problems and their run; of workers, where the run is made.
        model: the model.
        problems: checked, with ids of their own.
        names_filter: which activations the runs keep.
        desc: what the progress bar says.
        batch_size: problems of median length per forward pass; see `batch_room`.
        max_new_tokens: longest answer.
        progress: show a progress bar.
        interventions: alive in every run.
        workers, ray_address: who runs them; see `codi_lens.workers.spread`.
        instead: makes up, in a rehearsal, what is read in so many runs from what was read in
            others; without it a rehearsal runs every batch.
    """
    prompts = prepare_problems(model, problems)
    questions = questions_of(model, prompts)
    spread, stage = spread_of(workers, ray_address), Stage(desc)

    def run(batch: list[int]) -> Found:
        if instead is None:
            return run_now(batch)
        longest = max(len(prompts[i]) for i in batch)
        found, own = stage("", len(batch), len(batch) * longest, partial(run_now, batch))
        return found if own else instead(found, len(batch))

    def run_now(batch: list[int]) -> Found:
        found = model.think(
            [questions[i] for i in batch],
            max_new_tokens=max_new_tokens,
            names_filter=names_filter,
            interventions=interventions,
            ids=[problems[i].id for i in batch],
            kind=[problems[i].form for i in batch],
        )
        return read(batch, found)

    batches = [
        each.tolist() for each in batches_by_tokens(prompts, batch_room(prompts, batch_size))
    ]
    done = each_done(run, batches, model.device, spread)
    with stage.bar(len(problems), "problem", shown=progress) as tell, closing(done):
        for each in done:
            yield each
            tell(len(each[0]))


@dataclass(frozen=True)
class Reader:
    """What is read in runs of many problems.

    Attributes:
        hook_names: of the activations that it needs.
        read: what it makes of a batch's problems, given by their place, and of their run; one for
            each, which does not name it.
        table: what comes of all of them, in the order of the problems, by name.
    """

    hook_names: Sequence[str]
    read: Callable[[Sequence[int], ThoughtRun], Sequence[Any]]
    table: Callable[[Sequence[Any]], Any]


def read_all(
    readers: Sequence[Reader],
    model: CodiModel,
    problems: Sequence[Problem],
    desc: str,
    **running: Any,
) -> list[Any]:
    """The table of each reader, all from the same runs; other arguments as of `read_batches`."""
    reads = [reader.read for reader in readers]
    names = list(dict.fromkeys(name for reader in readers for name in reader.hook_names))
    found: list[list[Any]] = [[None] * len(problems) for _ in readers]

    def read(batch: Sequence[int], run: ThoughtRun) -> list[Sequence[Any]]:
        return [each(batch, run) for each in reads]

    asked = {"instead": _made_up, **running}
    for batch, parts in read_batches(read, model, problems, names or None, desc, **asked):
        for own, part in zip(found, parts, strict=True):
            for i, each in zip(batch, part, strict=True):
                own[i] = each
    return [reader.table(own) for reader, own in zip(readers, found, strict=True)]


def _made_up(parts: list[Sequence[Any]], n: int) -> list[Sequence[Any]]:
    """What each reader reads in so many runs, over and over."""
    return [[part[i % len(part)] for i in range(n)] for part in parts]


def itself(_: Sequence[int], run: ThoughtRun) -> ThoughtRun:
    """What `read_batches` takes for the runs themselves, to be read here."""
    return run
