"""How often a lens reads known values where they are looked for, beside another problem's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from codi_lens.errors import ProblemError
from codi_lens.readout.steps import share_row
from codi_lens.readout.targets import Value

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
        One row per `place` (a position, or "thought ct0" as it is fed), `layer` (None for a
        thought) and `target`: `n` problems that have it, the `share` in which it is the likeliest
        token with its interval `low`, `high`, the mean `log_prob`, and the same of another
        problem's value: `control_n`, `control_share`, `control_low`, `control_high`.

    Raises:
        ProblemError: the table has no targets.

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
    if "target_rank" not in table:
        raise ProblemError("The table was read without targets; give logit_lens targets=.")
    names = [str(name) for name in table["target"].values]
    rows: list[dict[str, object]] = []
    states = table["target_rank"].transpose("layer", "position", "target", "problem")
    thoughts = table["thought_target_rank"].transpose("thought", "target", "problem")
    places = [
        (str(position), int(layer), {"layer": layer, "position": position})
        for layer in table["layer"].values
        for position in table["position"].values
        if " " not in str(position)
    ]
    places += [
        (f"thought {thought}", None, {"thought": thought}) for thought in table["thought"].values
    ]
    for place, layer, where in places:
        ranks, prefix = (thoughts, "thought_") if layer is None else (states, "")
        log_probs = table[f"{prefix}log_prob"].sel(where)
        for name in names:
            if name.startswith(CONTROL):
                continue
            row = {"place": place, "layer": layer, "target": name}
            row |= _share(ranks.sel(where).sel(target=name).values, level)
            row["log_prob"] = float(log_probs.sel(target=name).mean())
            if f"{CONTROL}{name}" in names:
                control = ranks.sel(where).sel(target=f"{CONTROL}{name}").values
                row |= {f"control_{k}": v for k, v in _share(control, level).items()}
            rows.append(row)
    return pd.DataFrame(rows)


def _share(ranks: np.ndarray, level: float) -> dict[str, Any]:
    known = ranks[ranks > 0]
    row = share_row(int((known == 1).sum()), len(known), level)
    return {name: row[name] for name in ("n", "share", "low", "high")}
