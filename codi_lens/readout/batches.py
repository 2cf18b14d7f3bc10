"""Runs of many problems, a batch at a time, with the activations that a reading needs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tqdm import tqdm

from codi_lens.model import CodiModel
from codi_lens.problems.problem import Problem
from codi_lens.thinking.hook_names import NamesFilter
from codi_lens.thinking.plan import Planned
from codi_lens.thinking.prompts import batches_by_tokens, prepare_problems
from codi_lens.thinking.run import ThoughtRun


def batched_runs(
    model: CodiModel,
    problems: Sequence[Problem],
    names_filter: NamesFilter,
    desc: str,
    *,
    batch_size: int,
    max_new_tokens: int,
    progress: bool,
    interventions: Sequence[Planned] = (),
) -> Iterator[tuple[list[int], ThoughtRun]]:
    """Each batch's problems, by their place in the list, and their run; long questions first.

    Args:
        model: the model.
        problems: checked, with ids of their own.
        names_filter: which activations the runs keep.
        desc: what the progress bar says.
        batch_size: problems of median length per forward pass; see `batches_by_tokens`.
        max_new_tokens: longest answer.
        progress: show a progress bar.
        interventions: alive in every run.
    """
    prompts, opening = prepare_problems(model, problems), len(model.config.opening)
    batches = batches_by_tokens(prompts, batch_size)
    for batch in tqdm([e.tolist() for e in batches], desc=desc, unit="batch", disable=not progress):
        yield (
            batch,
            model.think(
                [prompts[i][: len(prompts[i]) - opening] for i in batch],
                max_new_tokens=max_new_tokens,
                names_filter=names_filter,
                interventions=interventions,
                ids=[problems[i].id for i in batch],
                kind=[problems[i].form for i in batch],
            ),
        )
