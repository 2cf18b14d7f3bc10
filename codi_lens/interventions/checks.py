"""What interventions promise, checked while they run and against the clean run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from codi_lens.errors import InterventionError, shown
from codi_lens.positions import rank, thought_names
from codi_lens.thinking.run import ThoughtRun


def check_untouched(clean: ThoughtRun, run: ThoughtRun, first: str) -> None:
    """Whether everything before the first touched position is the clean run's, bit for bit.

    Thoughts that are fed and attention patterns of every earlier position are compared.

    Args:
        clean: a run of the same batch without the intervention.
        run: the run with it.
        first: the intervention's first position.

    Raises:
        InterventionError: the earliest position that differs.
    """
    if clean.layout.question_lengths != run.layout.question_lengths:
        raise InterventionError("The clean and the intervened run are of different problems.")
    if clean.layout.written:  # no named row comes before what is written, but its first logits do
        if first == "answer" and not torch.equal(clean.logits, run.logits):
            raise InterventionError("The run differs from the clean one before 'answer'.")
        return
    thoughts = thought_names(clean.layout.n_thoughts)
    for name in ("bot", *thoughts, "eot"):
        if rank(name) >= rank(first):
            return
        rows = [torch.tensor(r.attention.sel(query=name).values) for r in (clean, run)]
        same = torch.equal(rows[0].nan_to_num(-1), rows[1].nan_to_num(-1))
        if name in thoughts:
            i = thoughts.index(name)
            same = same and torch.equal(clean.thoughts[:, i], run.thoughts[:, i])
        if not same:
            raise InterventionError(
                f"The run differs from the clean one at {name!r}, before {first!r}, which the "
                "intervention touches first."
            )


def check_mapping(what: str, given: Any) -> None:
    """Refuse what is no mapping of problem ids.

    Raises:
        InterventionError: something else.

    >>> check_mapping("Donors.paired", {"a": "b"})
    """
    if not isinstance(given, Mapping):
        raise InterventionError(f"{what} takes a mapping of problem ids, not {shown(given)}.")
