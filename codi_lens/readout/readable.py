"""What can be read from a thought beside what the answer uses of it, total by total.

The lens reads a total where it ranks first among all tokens; a probe where a linear classifier,
fitted on other problems, finds it; a swap moves it where the answer follows the total that another
problem's thought brings. The first two say what is there; only the last says what is used.
Neighbouring totals are often equal (a condition that does not hold changes nothing), which both
readings count for either; swaps leave such pairs out.
"""

from __future__ import annotations

from typing import Any, Unpack

import numpy as np
import pandas as pd

from codi_lens.attention.probes import probe_totals
from codi_lens.causal.effects import share_of
from codi_lens.causal.measure import Running, decoding
from codi_lens.causal.running_totals import total_swaps
from codi_lens.errors import ProblemError, whole_number
from codi_lens.model import CodiModel
from codi_lens.problems.arguments import check_seed
from codi_lens.problems.problem import Problems, check_problems
from codi_lens.problems.words import built_in
from codi_lens.readout.batches import itself, read_batches
from codi_lens.readout.reading import logit_lens
from codi_lens.thinking.given import problems_for
from codi_lens.thinking.ways import check_thoughts
from codi_lens.wording import percent

WAYS = ("lens", "probe", "swap")
"""How a total is looked for, in the order of the figure."""
_HALF, _BATCH = 0.5, 16


def readable_and_used(
    model: CodiModel,
    problems: Problems,
    *,
    n_swapped: int | None = None,
    level: float = 0.95,
    seed: int = 0,
    **running: Unpack[Running],
) -> pd.DataFrame:
    """For each thought and running total: what the lens reads, a probe reads and a swap moves.

    Args:
        model: the model.
        problems: built-in word problems, all of as many operations. A probe needs 50 or more with
            totals that occur 5 times: some 150 in all.
        n_swapped: how many of them to swap thoughts between, the first ones; by default all.
        level: of the Wilson intervals.
        seed: of the probe's folds and of the swaps' donors.
        running: of the swaps; `max_new_tokens` and `progress` of all.

    Returns:
        One row per `thought` and `operation` after which the total holds: `lens`, the share of
        problems in which it is the likeliest token of the thought as fed; `probe`, the held-out
        accuracy of a linear probe; `swap`, the share of answers that follow the donor's total (NaN
        after the last operation, where that is the donor's answer); each with `_low`, `_high` and
        `_n`, and what comes of nothing: `lens_chance` (totals of the problem before),
        `probe_chance` (shuffled totals), `swap_chance` (predictions of other pairs); `sentence`.

    Raises:
        ProblemError: other problems, or of several numbers of operations.
        CodiLensError: see `total_swaps`.

    >>> from codi_lens.problems import word_problems
    >>> model = CodiModel.from_pretrained("checkpoints/tiny-gpt2")
    >>> table = readable_and_used(model, word_problems(16, n_operations=2), progress=False)
    >>> table.query("thought == 'ct0' and operation == 1")[["lens", "swap"]].values.tolist()
    [[1.0, 1.0]]
    """
    check_thoughts(model, "readable_and_used")
    problems = problems_for(model, problems, "read")
    check_problems(problems, "read")
    chosen = built_in(problems, "read")
    lengths = {len(problem.operations) for problem in chosen}
    if len(lengths) > 1:
        raise ProblemError(
            f"The problems have {', '.join(map(str, sorted(lengths)))} operations; give problems "
            "of one number of operations, so that each total means the same."
        )
    check_seed(seed)
    if n_swapped is not None:
        whole_number("n_swapped", n_swapped, 1, len(chosen), ProblemError)
    shown: dict[str, Any] = {"max_new_tokens": 64, "progress": True, **decoding(running)}
    lens = logit_lens(model, chosen, targets="totals", k=1, at="bot", layers=[0], **shown)
    others = chosen[-1:] + chosen[:-1]
    shifted = {
        f"total {i + 1}": [problem.totals[i] for problem in others] for i in range(max(lengths))
    }
    chance = logit_lens(model, chosen, targets=shifted, k=1, at="bot", layers=[0], **shown)
    thoughts = np.zeros((len(chosen), model.config.n_thoughts, model.lens.cfg.d_model))
    runs = read_batches(itself, model, chosen, None, "thinking", batch_size=_BATCH, **shown)
    for batch, run in runs:
        thoughts[batch] = run.thoughts.detach().double().cpu().numpy()
    probes = probe_totals(thoughts, chosen, level=level, seed=seed).set_index(["thought", "step"])
    swaps = total_swaps(model, chosen[:n_swapped], level=level, seed=seed, **running)
    swaps = swaps.set_index(["thought", "operation"])
    rows: list[dict[str, Any]] = []
    for thought in lens["thought"].values:
        for operation in range(1, max(lengths) + 1):
            at = {"thought": thought, "target": f"total {operation}"}
            row: dict[str, Any] = {"thought": str(thought), "operation": operation}
            row |= share_of("lens", lens["thought_target_rank"].sel(at).values == 1, level)
            by_chance = (chance["thought_target_rank"].sel(at).values == 1).mean()
            row |= {"lens_n": len(chosen), "lens_chance": float(by_chance)}
            names = ("accuracy", "low", "high", "n", "control")
            row |= _taken("probe", probes, (thought, operation), names)
            names = (
                "predicted_share",
                "predicted_share_low",
                "predicted_share_high",
                "n",
                "chance",
            )
            row |= _taken("swap", swaps, (thought, operation), names)
            rows.append(row | {"sentence": readable_sentence(row)})
    return pd.DataFrame(rows)


def _taken(
    way: str, table: pd.DataFrame, at: tuple[str, int], columns: tuple[str, ...]
) -> dict[str, float]:
    """A cell's share, interval, count and chance, under the names of this table."""
    names = (way, f"{way}_low", f"{way}_high", f"{way}_n", f"{way}_chance")
    if at not in table.index:
        return dict.fromkeys(names, np.nan)
    cell: Any = table.loc[at]
    return {name: float(cell[column]) for name, column in zip(names, columns, strict=True)}


def readable_sentence(row: Any) -> str:
    """What the numbers of a thought and a total say: in most problems, in few, or unclear.

    Args:
        row: of `readable_and_used`, a mapping.

    >>> bounds = {"lens": 0.9, "lens_low": 0.8, "lens_high": 0.95, "probe": np.nan,
    ...     "probe_low": np.nan, "probe_high": np.nan, "swap": 0.1, "swap_low": 0.0}
    >>> readable_sentence(bounds | {"thought": "ct1", "operation": 2, "swap_high": 0.2})
    'ct1, total 2: readable (lens 90 %, probe unknown), but the answer does not follow (swap 10 %)'
    """
    tested = [way for way in ("lens", "probe") if not np.isnan(row[way])]
    found = [_verdict(row, way) for way in tested]
    said = "not readable" if found and not any(v is not False for v in found) else "unclear"
    said = "readable" if True in found else said if tested else "not looked for"
    texts = {w: "unknown" if np.isnan(row[w]) else percent(row[w], 0) for w in WAYS}
    end = f"whether the answer follows is unclear (swap {texts['swap']})"
    used = _verdict(row, "swap")
    if np.isnan(row["swap"]):
        end = "no swap tests whether the answer follows"
    elif used is not None:
        end = f"the answer {'follows' if used else 'does not follow'} (swap {texts['swap']})"
    against = (said, used) in (("readable", False), ("not readable", True))
    named = f"{row['thought']}, total {row['operation']}"
    ways = f"lens {texts['lens']}, probe {texts['probe']}"
    return f"{named}: {said} ({ways}), {'but' if against else 'and'} {end}"


def _verdict(row: Any, way: str) -> bool | None:
    """In most problems, in few, or not clear, by the interval."""
    if row[f"{way}_low"] > _HALF:
        return True
    return False if row[f"{way}_high"] < _HALF else None
