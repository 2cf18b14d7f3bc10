"""Where known values show up over layers and thoughts, and the answer if thinking stops there.

A value that the lens reads early need not be used, and one that it does not read may be: what the
model answers when thinking ends after a thought stands beside what the lens reads in that thought.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from codi_lens.causal.effects import share_of
from codi_lens.errors import PositionError, ProblemError
from codi_lens.interventions.thoughts import truncate_thoughts
from codi_lens.model import CodiModel
from codi_lens.positions import thought_names
from codi_lens.problems.parsing import is_correct
from codi_lens.problems.problem import Problems, check_problems
from codi_lens.readout.batches import itself, read_batches
from codi_lens.readout.reading import Translator, logit_lens
from codi_lens.readout.targets import Targets, Value, chosen_targets
from codi_lens.thinking.given import problems_for
from codi_lens.thinking.ways import check_thoughts


def rank_trajectories(table: xr.Dataset, *, level: float = 0.95) -> pd.DataFrame:
    """How high each target ranks at every layer and position, over problems.

    Args:
        table: of `logit_lens`, with targets.
        level: of the Wilson intervals.

    Returns:
        One row per `target`, `layer` and `position`: `first`, the share of problems in which no
        token is likelier, with `first_low`, `first_high`; `median_rank`; `log_prob`, the mean in
        nats; `n` problems that have target and position. Rows of the thoughts as fed have the
        thought for a position and no layer.

    Raises:
        ProblemError: a table without targets.
        PositionError: one without positions and thoughts.

    >>> from codi_lens.problems import word_problems
    >>> model = CodiModel.from_pretrained("checkpoints/tiny-gpt2")
    >>> some = word_problems(4, n_operations=2)
    >>> table = logit_lens(model, some, targets="totals", at="thinking", progress=False)
    >>> found = rank_trajectories(table)
    >>> fed = found[found["layer"].isna()].set_index(["target", "position"])
    >>> float(fed.loc[("total 1", "ct0"), "first"])
    1.0
    """
    if "target_rank" not in table:
        raise ProblemError("The table holds no targets; give logit_lens targets, such as 'totals'.")
    if not table["position"].size and not table["thought"].size:
        raise PositionError(
            "The table holds no position by name and no thought; read at='all', or let answers be "
            "longer."
        )
    rows: list[dict[str, Any]] = []
    for target in table["target"].values:
        own = table.sel(target=target)
        for layer in own["layer"].values:
            for position in own["position"].values:
                cell = own.sel(layer=layer, position=position)
                row = {"target": str(target), "layer": int(layer), "position": str(position)}
                rows.append(row | _ranked(cell["target_rank"], cell["log_prob"], level))
        for thought in own["thought"].values:
            cell = own.sel(thought=thought)
            row = {"target": str(target), "layer": None, "position": str(thought)}
            rows.append(row | _ranked(cell["thought_target_rank"], cell["thought_log_prob"], level))
    return pd.DataFrame(rows).astype({"layer": "Int64"})


def _ranked(ranks: xr.DataArray, log_probs: xr.DataArray, level: float) -> dict[str, Any]:
    known = ranks.values > 0
    own = ranks.values[known]
    row = share_of("first", own == 1, level)
    row["median_rank"] = float(np.median(own)) if len(own) else np.nan
    row["log_prob"] = float(log_probs.values[known].mean()) if len(own) else np.nan
    return row | {"n": len(own)}


def stopped_answers(
    model: CodiModel,
    problems: Problems,
    *,
    targets: Targets = "totals",
    translator: Translator | None = None,
    level: float = 0.95,
    batch_size: int = 16,
    max_new_tokens: int = 64,
    progress: bool = True,
) -> pd.DataFrame:
    """What is answered if thinking stops after each thought, beside what the lens reads there.

    Args:
        model: the model.
        problems: what to think about; built-in word problems for "totals".
        targets: the values that an answer may be, as of `logit_lens`; "answer" is always one.
        translator: a tuned lens.
        level: of the Wilson intervals.
        batch_size: problems of median length per forward pass.
        max_new_tokens: longest answer.
        progress: show progress bars.

    Returns:
        One row per number of thoughts `kept` (0 to all) and `target`: `last`, the position after
        which `eot` follows ("bot", "ct0", …); `answered`, the share of problems whose answer is the
        target; `state`, the share in which the lens reads it first in the state at `last` after the
        last layer, and `thought`, in the thought as fed (NaN at `bot`); each with `_low` and
        `_high`; `n` problems that have the target.

    Raises:
        ProblemError: no problems, or targets that fit neither problems nor tokenizer.

    >>> from codi_lens.problems import word_problems
    >>> model = CodiModel.from_pretrained("checkpoints/tiny-gpt2")
    >>> table = stopped_answers(model, word_problems(6, n_operations=4), progress=False)
    >>> first, *_, last = table.query("target == 'answer'")["answered"]
    >>> first < 0.5 < last
    True
    """
    check_thoughts(model, "stopped_answers")
    problems = problems_for(model, problems, "stop")
    ids = check_problems(problems, "stop", batch_size=batch_size)
    wanted: dict[str, Sequence[Value]] = {**chosen_targets(problems, targets)}
    wanted |= chosen_targets(problems, "answer")
    n = model.config.n_thoughts
    places = ["bot", *thought_names(n)]
    running: dict[str, Any] = {"batch_size": batch_size, "max_new_tokens": max_new_tokens}
    running |= {"progress": progress}
    last = model.lens.cfg.n_layers - 1
    lens = logit_lens(
        model,
        problems,
        targets=wanted,
        k=1,
        at=places,
        layers=[last],
        translator=translator,
        **running,
    ).sel(layer=last, problem=ids)
    rows: list[dict[str, Any]] = []
    for kept, place in enumerate(places):
        answers = [""] * len(problems)
        stop = [truncate_thoughts(kept)] if kept < n else []
        for batch, run in read_batches(
            itself, model, problems, None, f"{kept} thoughts", interventions=stop, **running
        ):
            for i, answer in zip(batch, run.answers, strict=True):
                answers[i] = answer
        for target, values in wanted.items():
            golds: Sequence[Any] = problems if target == "answer" else values
            known = [
                None if value is None else gold for value, gold in zip(values, golds, strict=True)
            ]
            own = {"kept": kept, "last": place, "target": target}
            ranks = {"state": lens["target_rank"].sel(position=place, target=target).values}
            if kept:
                ranks["thought"] = (
                    lens["thought_target_rank"].sel(thought=place, target=target).values
                )
            rows.append(own | _stopped(answers, known, ranks, level))
    return pd.DataFrame(rows)


def _stopped(
    answers: Sequence[str],
    golds: Sequence[Any],
    ranks: dict[str, np.ndarray],
    level: float,
) -> dict[str, Any]:
    """The shares of one target after one number of thoughts."""
    known = np.array([gold is not None for gold in golds])
    pairs = zip(answers, golds, strict=True)
    given = np.array([gold is not None and is_correct(answer, gold) for answer, gold in pairs])
    row: dict[str, Any] = share_of("answered", given[known], level)
    for name in ("state", "thought"):
        read = ranks[name][known] == 1 if name in ranks else np.zeros(0, dtype=bool)
        row |= share_of(name, read, level)
    return row | {"n": int(known.sum())}
