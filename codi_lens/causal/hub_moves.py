"""Is the hub position necessary, and can it be moved?

A hub is a thought that later thoughts attend to more than the causal mask explains. Three
interventions on the attention of later thoughts ask what that is worth: each thought is cut off,
the hub changes places with each other thought, and each thought is forced to get the hub's share.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Unpack

import pandas as pd
import xarray as xr

from codi_lens.attention.hubs import hub_ratios
from codi_lens.attention.views import thought_view
from codi_lens.causal.arms import Arm
from codi_lens.causal.effects import contrasts, summarise
from codi_lens.causal.measure import Running, measure
from codi_lens.errors import AttentionError, InterventionError
from codi_lens.head_names import Head
from codi_lens.interventions.edges import force_hub, knock_out, swap_columns
from codi_lens.model import CodiModel
from codi_lens.positions import thought_names
from codi_lens.problems.arguments import check_seed
from codi_lens.problems.problem import Problems
from codi_lens.thinking.plan import Planned
from codi_lens.thinking.ways import check_thoughts


@dataclass(frozen=True)
class Hub:
    """The thought with the highest hub ratio (of the hubs, if there are any), and if it is one.

    Attributes:
        thought: its name.
        share: of their attention that later thoughts give it, averaged over heads and problems.
        ratio: what it receives over what the causal mask alone would give it.
        low, high: bootstrap interval of the ratio, simultaneous over the thoughts, so that it
            allows for picking the highest; NaN with a single problem.
        p: of the permutation test over positions, against an even spread and smooth primacy,
            corrected for the number of thoughts.
        p_smallest: the least p that this thought could have got.
        n: distinct problems.
    """

    thought: str
    share: float
    ratio: float
    low: float
    high: float
    p: float
    p_smallest: float
    n: int

    @property
    def significant(self) -> bool:
        """Whether the interval lies above 1 and p below 0.05."""
        return self.low > 1 and self.p < 0.05


def hub_of(attention: xr.DataArray, *, seed: int = 0) -> Hub:
    """The hub with the highest ratio; where no thought is one, the highest ratio there is.

    Args:
        attention: labelled attention, of problems other than those to intervene on.
        seed: of the bootstrap.

    Raises:
        AttentionError: no thought gets attention from a later one; see also
            `codi_lens.attention.hubs.hub_ratios`.

    >>> from codi_lens import CodiModel, extract, problems
    >>> model = CodiModel.from_pretrained("checkpoints/tiny-llama")
    >>> some = problems.word_problems(8)
    >>> hub = hub_of(extract(model, some, max_new_tokens=8, progress=False))
    >>> hub.thought, hub.significant, hub.p_smallest > 0.05
    ('ct4', False, True)
    """
    table = hub_ratios(attention, seed=seed).dropna(subset="ratio")
    if not len(table):
        raise AttentionError("No thought gets attention from a later one, so none can be a hub.")
    some = table[table["hub"]] if table["hub"].any() else table
    best: Any = some.iloc[int(some["ratio"].argmax())]
    hub = str(best["thought"])
    block = thought_view(attention).mean(["problem", "layer", "head"])
    names = [str(name) for name in block["key"].values]
    later = names[names.index(hub) + 1 :]
    share = float(block.sel(query=later, key=hub).mean())
    values = {name: float(best[name]) for name in ("ratio", "low", "high", "p", "p_smallest")}
    return Hub(hub, share, **values, n=table.attrs["n_distinct"])


def hub_moves(
    model: CodiModel,
    problems: Problems,
    hub: str,
    share: float,
    out: str | Path | None = None,
    *,
    heads: Sequence[Head] | None = None,
    seed: int = 0,
    **running: Unpack[Running],
) -> pd.DataFrame:
    """Cut off every thought, exchange the hub with every other, force every thought to be a hub.

    Args:
        model: the model.
        problems: what to think about.
        hub: the thought to compare the others with, and its `share` of the attention of later
            thoughts; `hub_of` gives both.
        share: from 0 to 1; forcing the hub itself to it is the control of forcing.
        out: a folder for the outcomes, resumable.
        heads: in these heads only; in all by default.
        seed: of nothing, since statistics are computed and not drawn; for calls that give it.
        running: `problems_at_once`, `rows_at_once`, `max_new_tokens`, `progress`, `workers`,
            `ray_address`.

    Returns:
        One row per intervention: `what` ("cut", "exchanged", "forced") is done to which
        `thought`, and the columns of `codi_lens.causal.effects.summarise`. In the rows of "cut" and
        "forced", `against_hub` is the effect minus that of doing the same to the hub, paired, with
        interval `_low`, `_high`, `against_hub_p` and `against_hub_q` (below 0: the hub matters
        less); NaN for the hub, and where no thought comes later.

    Raises:
        InterventionError: the last thought as hub, a share outside 0..1, or fewer than three
            thoughts, which leave none to compare the hub with.
        CodiLensError: see `measure`.

    >>> from codi_lens.problems import word_problems
    >>> model, some = CodiModel.from_pretrained("checkpoints/tiny-gpt2"), word_problems(4)
    >>> table = hub_moves(model, some, "ct2", 0.1, progress=False)
    >>> table["what"].value_counts(sort=False).to_dict()
    {'cut': 5, 'exchanged': 4, 'forced': 5}
    """
    check_seed(seed)
    thoughts = thought_names(model.config.n_thoughts)
    check_hub_question(model)
    if hub not in thoughts[:-1]:
        raise InterventionError(
            f"{hub!r} cannot be a hub; it has to be a thought that others follow, one of "
            f"{', '.join(thoughts[:-1])}."
        )
    rows: list[tuple[str, str, Planned]] = []
    for i, thought in enumerate(thoughts[:-1]):
        rows.append(("cut", thought, knock_out(list(thoughts[i + 1 :]), thought, heads)))
        rows.append(("forced", thought, force_hub(thought, share, heads)))
        if thought != hub:
            rows.append(("exchanged", thought, swap_columns(hub, thought, heads)))
    rows.sort(key=lambda row: row[0])
    names = [f"{what} {thought}" for what, thought, _ in rows]
    arms: dict[str, Arm] = dict(zip(names, (arm for *_, arm in rows), strict=True))
    outcomes = measure(model, problems, arms, out, **running)
    table = summarise(outcomes)
    table.insert(1, "what", [what for what, *_ in rows])
    table.insert(2, "thought", [thought for _, thought, _ in rows])
    weights = {
        f"{what} {thought}": {f"{what} {thought}": 1.0, f"{what} {hub}": -1.0}
        for what, thought, _ in rows
        if what != "exchanged" and thought != hub
    }
    against = contrasts(outcomes, weights).set_index("name")
    for column, name in {
        "contrast": "against_hub",
        "contrast_low": "against_hub_low",
        "contrast_high": "against_hub_high",
        "p": "against_hub_p",
        "q": "against_hub_q",
    }.items():
        table[name] = against[column].reindex(names).to_numpy()
    return table


def check_hub_question(model: CodiModel) -> None:
    """Refuse a model whose thoughts are too few to compare a hub with another.

    Raises:
        InterventionError: fewer than three thoughts.
    """
    check_thoughts(model, "The question of hubs")
    n = model.config.n_thoughts
    if n < 3:
        raise InterventionError(
            "A hub is compared with another thought that others follow, which takes at least three "
            f"thoughts; this model has {n}."
        )
