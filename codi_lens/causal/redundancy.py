"""Do heads cover for each other? Pairs ablated together against the sum of each alone."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Unpack

import pandas as pd

from codi_lens.causal.arms import Arm
from codi_lens.causal.controls import donors_for
from codi_lens.causal.effects import contrasts, mean_effects
from codi_lens.causal.measure import CLEAN, Running, measure
from codi_lens.errors import InterventionError
from codi_lens.head_names import Head, head_name
from codi_lens.interventions.donors import Donors
from codi_lens.interventions.heads import ablate_heads
from codi_lens.interventions.replacements import Mode
from codi_lens.model import CodiModel
from codi_lens.positions import Scope
from codi_lens.problems.arguments import check_seed
from codi_lens.problems.problem import Problems
from codi_lens.thinking.given import problems_for


def redundancy(
    model: CodiModel,
    problems: Problems,
    heads: Sequence[Head],
    out: str | Path | None = None,
    *,
    mode: Mode = "resample",
    at: Scope = "thinking",
    donors: Donors | None = None,
    seed: int = 0,
    **running: Unpack[Running],
) -> pd.DataFrame:
    """Ablate every pair of heads, and each of them alone.

    The interaction is the joint effect minus the sum of the two single ones. Below 0, the pair
    costs more than its parts: each head covers for the other (redundancy, or self-repair). Above
    0, they damage the same thing. A log-probability shows interactions of its own, though: near
    certainty two harmless losses look like more than their sum, and where little is left to
    lose, two large ones like less. So it is taken of the logit difference too.

    Args:
        model: the model.
        problems: what to think about.
        heads: at least two.
        out: a folder for the outcomes, resumable.
        mode: "resample", "mean" or "zero".
        at: where, by name.
        donors: whose values replace the heads'; by default those of the problems themselves.
        seed: of donors.
        running: `problems_at_once`, `rows_at_once`, `max_new_tokens`, `progress`, `workers`,
            `ray_address`.

    Returns:
        One row per pair: its heads `a` and `b`, their effects alone `effect_a` and `effect_b`, the
        joint `effect` (all as in `codi_lens.causal.effects.summarise`), and `interaction` in nats
        with its paired interval `_low`, `_high`, its `p` and, over the pairs, `q`. The
        same on the logit difference, which does not saturate as the log-probability of a nearly
        certain answer does: `logit_a`, `logit_b`, `logit_interaction`, `logit_p`, `logit_q`.
        `redundant` is whether both interactions lie below 0 with q < 0.05.

    Raises:
        InterventionError: fewer than two heads, or one twice.
        CodiLensError: see `measure`.

    >>> from codi_lens.problems import word_problems
    >>> model, some = CodiModel.from_pretrained("checkpoints/tiny-gpt2"), word_problems(6)
    >>> table = redundancy(model, some, [(1, 7), (1, 0)], progress=False)
    >>> table[["a", "b"]].values.tolist()
    [['L1H7', 'L1H0']]
    """
    check_seed(seed)
    problems = problems_for(model, problems)
    if len(set(heads)) < max(2, len(heads)):
        raise InterventionError(
            f"Redundancy is asked of pairs; give at least two different heads, not "
            f"{[head_name(head) for head in heads]}."
        )
    prepared = donors_for(model, problems, mode=mode, donors=donors, seed=seed)
    pairs = list(combinations(heads, 2))
    sets = [[head] for head in heads] + [list(pair) for pair in pairs]
    arms: dict[str, Arm] = {
        _name(each): ablate_heads(each, mode, at, prepared, seed) for each in sets
    }
    outcomes = measure(model, problems, arms, out, **running)
    effects = mean_effects(outcomes).set_index("arm")
    weights = {
        _name(pair): {_name(pair): 1.0, _name(pair[:1]): -1.0, _name(pair[1:]): -1.0, CLEAN: 1.0}
        for pair in pairs
    }
    interactions = contrasts(outcomes, weights).rename(
        columns=lambda name: name.replace("contrast", "interaction")
    )
    on_logits = contrasts(outcomes, weights, column="logit_difference").rename(
        columns=lambda name: "logit_" + name.replace("contrast", "interaction")
    )
    joint = effects.loc[list(weights), ["n", "effect", "effect_low", "effect_high"]]
    labels = {
        "a": [head_name(a) for a, _ in pairs],
        "b": [head_name(b) for _, b in pairs],
        "effect_a": effects["effect"][[_name([a]) for a, _ in pairs]].to_numpy(),
        "effect_b": effects["effect"][[_name([b]) for _, b in pairs]].to_numpy(),
        "logit_a": effects["logit_effect"][[_name([a]) for a, _ in pairs]].to_numpy(),
        "logit_b": effects["logit_effect"][[_name([b]) for _, b in pairs]].to_numpy(),
    }
    table = pd.concat(
        [
            pd.DataFrame(labels),
            joint.reset_index(drop=True),
            interactions.drop(columns="name"),
            on_logits.drop(columns=["logit_name", "logit_n_known"]),
        ],
        axis=1,
    )
    below = [
        (table[f"{prefix}interaction"] < 0) & (table[f"{prefix}q"] < 0.05)
        for prefix in ("", "logit_")
    ]
    return table.assign(redundant=below[0] & below[1])


def _name(heads: Sequence[Head]) -> str:
    return "+".join(map(head_name, heads))
