"""How often a lens reads known values where they are looked for, beside another problem's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
import xarray as xr

from codi_lens.readout.targets import Value
from codi_lens.readout.trajectories import rank_trajectories

CONTROL = "another problem's "
"""What the name of a control target begins with."""


def with_controls(targets: Mapping[str, Sequence[Value]]) -> dict[str, list[Value]]:
    """Targets, and for each the value of the next problem that has one and another.

    A problem without such a neighbour has no control.

    >>> with_controls({"total 1": [3, 3, 5]})["another problem's total 1"]
    [5, 5, 3]
    """
    controls: dict[str, list[Value]] = {}
    for name, values in targets.items():
        n = len(values)
        controls[f"{CONTROL}{name}"] = [
            None
            if own is None
            else next(
                (
                    other
                    for step in range(1, n)
                    if (other := values[(i + step) % n]) is not None and other != own
                ),
                None,
            )
            for i, own in enumerate(values)
        ]
    return {name: list(values) for name, values in targets.items()} | controls


def known_values(table: xr.Dataset, *, level: float = 0.95) -> pd.DataFrame:
    """How often each target is the likeliest token, at every place where the lens has read.

    Args:
        table: of `logit_lens`, with targets of `with_controls`.
        level: of the Wilson intervals.

    Returns:
        One row per `place` (a position, or "thought ct0" as it is fed), `layer` (missing of a
        thought) and `target`: `n` problems that have it, the `share` in which it is the likeliest
        token with its interval `low`, `high`, the mean `log_prob`, and the same of another
        problem's value: `control_n`, `control_share`, `control_low`, `control_high`.

    Raises:
        ProblemError: the table has no targets.
        PositionError: it has neither positions by name nor thoughts.

    >>> from codi_lens import CodiModel
    >>> from codi_lens.problems import word_problems
    >>> from codi_lens.readout.reading import logit_lens
    >>> from codi_lens.readout.targets import chosen_targets
    >>> model, some = CodiModel.from_pretrained("checkpoints/tiny-gpt2"), word_problems(4)
    >>> targets = with_controls(chosen_targets(some, "answer"))
    >>> table = logit_lens(model, some, targets=targets, at="anchor", progress=False)
    >>> known_values(table).query("place == 'anchor' and layer == 2")["share"].item()
    1.0
    """
    named = [place for place in table["position"].values if " " not in str(place)]
    ranked = rank_trajectories(table.sel(position=named), level=level)
    ranked = ranked.rename(columns={"first": "share", "first_low": "low", "first_high": "high"})
    place = ranked["position"].where(ranked["layer"].notna(), "thought " + ranked["position"])
    ranked.insert(0, "place", place)
    keys, counted = ["place", "layer", "target"], ["n", "share", "low", "high"]
    control = ranked["target"].str.startswith(CONTROL)
    found = ranked.loc[~control, [*keys, *counted, "log_prob"]]
    by_place = found.groupby("target").cumcount().argsort(kind="stable")
    found = found.iloc[by_place].reset_index(drop=True)
    if not control.any():
        return found
    others = ranked.loc[control, [*keys, *counted]]
    others["target"] = others["target"].str.removeprefix(CONTROL)
    others = others.rename(columns={name: f"control_{name}" for name in counted})
    return found.merge(others, on=keys, how="left")
