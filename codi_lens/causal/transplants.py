"""Does a transplanted pattern carry function?

A head's thought block is what each thought gives to itself and to earlier ones. Put into another
head, of this model or of another, it keeps its shape; whether it also brings what the head was
good for is asked in two ways. A head that gets a foreign block is compared with the same head
under its own mean block and under its own mass spread evenly. And a head that gets the block of
an ablated one is asked whether it makes up for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Unpack

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Float

from codi_lens.attention.labels import heads_in, labelled
from codi_lens.attention.views import thought_view
from codi_lens.causal.arms import Arm
from codi_lens.causal.controls import donors_for
from codi_lens.causal.effects import contrasts, mean_effects, summarise
from codi_lens.causal.measure import Running, measure
from codi_lens.errors import InterventionError
from codi_lens.head_names import Head, check_heads, head_name
from codi_lens.interventions.donors import Donors
from codi_lens.interventions.heads import ablate_heads
from codi_lens.interventions.patterns import transplant_pattern
from codi_lens.interventions.replacements import Mode
from codi_lens.model import CodiModel
from codi_lens.positions import Scope
from codi_lens.problems.arguments import check_seed
from codi_lens.problems.problem import Problems
from codi_lens.thinking.given import problems_for
from codi_lens.thinking.ways import check_thoughts

Block = Float[np.ndarray, "query key"]
OWN, EVEN = "own mean", "spread evenly"


def mean_block(attention: xr.DataArray, head: Head) -> Block:
    """A head's thought block, averaged over problems: position view, self-attention included.

    Args:
        attention: labelled attention.
        head: its layer and number.

    Raises:
        PositionError: a head that the attention does not hold.

    >>> from codi_lens import CodiModel, extract, problems
    >>> model = CodiModel.from_pretrained("checkpoints/tiny-gpt2")
    >>> attention = extract(model, problems.word_problems(4), max_new_tokens=8, progress=False)
    >>> mean_block(attention, (1, 7)).shape
    (6, 6)
    """
    layer, number = head
    attention = labelled(attention)
    check_heads([head], heads_in(attention))
    block = thought_view(attention).sel(layer=layer, head=number).mean("problem")
    return block.transpose("query", "key").values.astype(float)


def spread_evenly(block: Block) -> Block:
    """The block with each row's mass spread evenly over the thoughts that it sees.

    >>> spread_evenly(np.array([[0.2, 0.0], [0.0, 0.6]]))
    array([[0.2, 0. ],
           [0.3, 0.3]])
    """
    seen = np.tril(np.ones_like(block))
    return seen * (block.sum(axis=1) / seen.sum(axis=1))[:, None]


def transplants(
    model: CodiModel,
    problems: Problems,
    head: Head,
    own: Block,
    blocks: Mapping[str, Block],
    out: str | Path | None = None,
    *,
    seed: int = 0,
    **running: Unpack[Running],
) -> pd.DataFrame:
    """Give one head other heads' thought blocks, beside its own mean block and an even one.

    Args:
        model: the model.
        problems: what to think about; not those that the blocks were averaged over.
        head: that gets the blocks, in the queries of all thoughts.
        own: its own mean block (`mean_block`).
        blocks: the foreign ones, by name.
        out: a folder for the outcomes, resumable.
        seed: of nothing, since statistics are computed and not drawn; for calls that give it.
        running: `problems_at_once`, `rows_at_once`, `max_new_tokens`, `progress`, `workers`,
            `ray_address`.

    Returns:
        One row per block, `OWN` and `EVEN` first: `block`, the columns of
        `effects.summarise`, and `against_own`, `against_even`: the effect minus that
        of the own mean block, or of the even one, paired, each with `_low`, `_high`, `_p`, `_q`. A
        block carries the head's function where it costs less than the even one.

    Raises:
        InterventionError: no block, a block called as the two above, or one of another shape.
        CodiLensError: see `measure`.

    >>> from codi_lens.problems import word_problems
    >>> model, some = CodiModel.from_pretrained("checkpoints/tiny-gpt2"), word_problems(4)
    >>> own, blocks = np.eye(6) / 2, {"foreign": np.eye(6) / 3}
    >>> transplants(model, some, (1, 7), own, blocks, progress=False)["block"].tolist()
    ['own mean', 'spread evenly', 'foreign']
    """
    check_thoughts(model, "transplants")
    check_seed(seed)
    taken = {OWN, EVEN} & set(blocks)
    if not blocks or taken:
        reason = f"{min(taken)!r} is the name of a control" if taken else "no block was given"
        raise InterventionError(f"There is nothing to transplant: {reason}.")
    every = {OWN: own, EVEN: spread_evenly(own), **blocks}
    arms: dict[str, Arm] = {
        name: transplant_pattern(block, [head], name=f"block {name}")
        for name, block in every.items()
    }
    outcomes = measure(model, problems, arms, out, **running)
    table = summarise(outcomes).rename(columns={"arm": "block"})
    for column, control in (("against_own", OWN), ("against_even", EVEN)):
        weights = {name: {name: 1.0, control: -1.0} for name in blocks}
        found = contrasts(outcomes, weights).set_index("name").reindex(list(every))
        for end in ("", "_low", "_high"):
            table[column + end] = found[f"contrast{end}"].to_numpy()
        for end in ("p", "q"):
            table[f"{column}_{end}"] = found[end].to_numpy()
    return table


def stand_ins(
    model: CodiModel,
    problems: Problems,
    head: Head,
    block: Block,
    others: Sequence[Head],
    out: str | Path | None = None,
    *,
    mode: Mode = "resample",
    at: Scope = "thinking",
    donors: Donors | None = None,
    seed: int = 0,
    **running: Unpack[Running],
) -> pd.DataFrame:
    """Ablate a head, and let another one attend as it did: does that make up for it?

    Args:
        model: the model.
        problems: what to think about; not those that the block was averaged over.
        head: the ablated head.
        block: its mean block, which each of the others gets in turn.
        others: heads that stand in.
        out: a folder for the outcomes, resumable.
        mode: of the ablation: "resample", "mean" or "zero".
        at: of the ablation, by name.
        donors: whose values replace the head's; by default those of the problems themselves.
        seed: of donors.
        running: `problems_at_once`, `rows_at_once`, `max_new_tokens`, `progress`, `workers`,
            `ray_address`.

    Returns:
        One row per stand-in: `name`; `ablated`, the effect of the ablation alone; `effect` of both;
        `made_up`, their paired difference in nats (above 0: the stand-in helps) with interval
        `_low`, `_high`, `p` and `q`; `over_even`, how much more the block helps than its mass
        spread evenly over the thoughts, with `_low`, `_high`, `_p` and `_q`; `block_alone`, the
        effect of the block without the ablation. Only a stand-in whose `over_even` is above 0 too
        is helped by the shape of the block.

    Raises:
        InterventionError: no stand-in, or the head itself among them.
        CodiLensError: see `measure`.

    >>> from codi_lens.problems import word_problems
    >>> model, some = CodiModel.from_pretrained("checkpoints/tiny-gpt2"), word_problems(4)
    >>> stand_ins(model, some, (1, 7), np.eye(6) / 2, [(1, 2)], progress=False)["name"].tolist()
    ['L1H2']
    """
    check_seed(seed)
    problems = problems_for(model, problems)
    if not others or head in others:
        raise InterventionError(
            f"The stand-ins for {head_name(head)} must be other heads, at least one."
        )
    prepared = donors_for(model, problems, mode=mode, donors=donors, seed=seed)
    ablated = ablate_heads([head], mode, at, prepared, seed)
    arms: dict[str, Arm] = {"ablated": ablated}
    for other in others:
        name = head_name(other)
        transplanted = transplant_pattern(block, [other], name=f"block of {head_name(head)}")
        even = transplant_pattern(spread_evenly(block), [other], name="even block")
        arms |= {f"{name} alone": transplanted, f"{name} stands in": [ablated, transplanted]}
        arms[f"{name} evenly"] = [ablated, even]
    outcomes = measure(model, problems, arms, out, **running)
    effects = mean_effects(outcomes).set_index("arm")
    names = [head_name(other) for other in others]
    weights = {name: {f"{name} stands in": 1.0, "ablated": -1.0} for name in names}
    table = contrasts(outcomes, weights).rename(
        columns=lambda column: column.replace("contrast", "made_up")
    )
    weights = {name: {f"{name} stands in": 1.0, f"{name} evenly": -1.0} for name in names}
    over = contrasts(outcomes, weights)
    for end in ("", "_low", "_high"):
        table[f"over_even{end}"] = over[f"contrast{end}"]
    table["over_even_p"], table["over_even_q"] = over["p"], over["q"]
    table.insert(1, "ablated", float(effects.loc["ablated", "effect"]))  # type: ignore[arg-type]
    for place, (column, end) in enumerate((("effect", "stands in"), ("block_alone", "alone")), 2):
        values = effects["effect"][[f"{name} {end}" for name in names]].to_numpy()
        table.insert(place, column, values)
    return table
