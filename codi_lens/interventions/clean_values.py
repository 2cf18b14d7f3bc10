"""What clean runs of a corpus have at chosen hooks and positions, batch by batch."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import product
from typing import Any

import torch
from torch import Tensor

from codi_lens.loading.loaded import Loaded
from codi_lens.thinking.prompts import questions_of
from codi_lens.thinking.think import think
from codi_lens.work import Stage

Kept = dict[tuple[str, str], list[Tensor]]
"""By hook and position, what each run has there, token by token."""


def clean_values(
    model: Loaded,
    prompts: Sequence[Sequence[int]],
    batch_size: int,
    hook_names: Sequence[str],
    positions: Sequence[str],
    **decode: Any,
) -> tuple[list[str], Kept]:
    """The answer of each run, and what it has at each hook and position: [token, ...].

    Args:
        model: the model.
        prompts: as `prepare` makes them.
        batch_size: problems per forward pass.
        hook_names: of the activations.
        positions: by name.
        decode: `max_new_tokens` of `think`.
    """
    answers: list[str] = []
    found: Kept = {}
    stage = Stage("donors")
    for start in range(0, len(prompts), batch_size):
        some = prompts[start : start + batch_size]
        work = partial(_of_batch, model, some, hook_names, positions, decode)
        (written, kept), _ = stage("", len(some), len(some) * max(map(len, some)), work)
        answers += written[: len(some)]
        for key, values in kept.items():
            found.setdefault(key, []).extend(values[: len(some)])
    return answers, found


@torch.no_grad()
def _of_batch(
    model: Loaded,
    prompts: Sequence[Sequence[int]],
    hook_names: Sequence[str],
    positions: Sequence[str],
    decode: dict[str, Any],
) -> tuple[list[str], Kept]:
    questions = questions_of(model, prompts)
    run = think(model, questions, names_filter=[*hook_names] or None, **decode)
    cache = run.cache() if hook_names else {}
    return run.answers, {
        (name, place): [cache[name][i, at].clone() for i, at in enumerate(run.span(place))]
        for name, place in product(hook_names, positions)
    }
