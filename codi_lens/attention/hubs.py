"""Which thoughts are hubs: attention received from later thoughts, against the causal null.

With m_i the attention that thought i gives to earlier thoughts, thought j would receive m_i / i
from each later thought i if that attention were spread evenly. Its **hub ratio** is what it
receives over what it would receive. Both are averaged over problems (and heads) before they are
divided: the ratio of one head on one problem is undefined where the head looks elsewhere, and very
noisy where it almost does.

The thought with the highest ratio is picked from several, and the highest of several noisy ratios
is high by chance: its own 95 % interval covers the true ratio in 87 to 88 % of simulated models
without a hub. Intervals are therefore simultaneous over the thoughts
(`attention.intervals`): picked or not, that of the highest ratio covers in 95 to 97 %, in
98 % with a hub. Picking on half of the problems and estimating on the other half is no narrower and
covers in 89 to 94 %. All intervals together cover in 89 to 95 % with 50 or 100 problems, in 86 to
91 % with 20.

`hub_test` says whether a thought is a hub. Problems of one chain are drawn together
(`codi_lens.attention.repeats`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from einops import rearrange, reduce
from jaxtyping import Float, Int

from codi_lens import metrics
from codi_lens.attention.hub_test import ALPHA, hub_test
from codi_lens.attention.intervals import grouped_weights, simultaneous_interval
from codi_lens.attention.labels import heads_in, labelled
from codi_lens.attention.repeats import chains_in
from codi_lens.attention.scores import problem_blocks
from codi_lens.attention.views import n_thoughts_of, thought_view
from codi_lens.errors import AttentionError
from codi_lens.head_names import head_name
from codi_lens.stats import (
    benjamini_hochberg,
    percentile_interval,
)
from codi_lens.wording import count, fixed, p_text


def hub_ratios(
    attention: xr.DataArray, *, n_resamples: int = 1000, level: float = 0.95, seed: int = 0
) -> pd.DataFrame:
    """The hub ratio of every thought, all heads averaged, with interval and permutation test.

    Args:
        attention: labelled attention [problem, layer, head, query, key].
        n_resamples: bootstrap resamples of the problems.
        level: of the intervals, for all thoughts at once.
        seed: of the bootstrap, and of the permutations where they are drawn.

    Returns:
        One row per thought: `thought`; `ratio`, `low`, `high` (NaN for the last thought, which no
        thought sees; simultaneous over the thoughts, so that one may be picked by its ratio);
        `received` and `expected`, the two sums it is made of; `given`, the m_i of this thought;
        `p`, `p_even`, `p_smallest` and `ratio_smooth` of `hub_test`: `p` is against an even spread
        and smooth primacy, corrected for the number of thoughts, and where `p_smallest` exceeds
        0.05, too few thoughts come later for any pattern to be called a hub; `hub`, the verdict:
        the interval lies above 1 and `p` below 0.05. `attrs` hold `n_problems` and `n_distinct`,
        how many of them are different chains.

    Raises:
        AttentionError: not labelled attention, no problems, or NaN in it.

    >>> from codi_lens import CodiModel, extract, problems
    >>> model = CodiModel.from_pretrained("checkpoints/tiny-gpt2")
    >>> attention = extract(model, problems.word_problems(8), max_new_tokens=8, progress=False)
    >>> table = hub_ratios(attention)
    >>> table.columns.tolist()
    ['thought', 'ratio', 'low', 'high', 'received', 'expected', 'given', 'ratio_smooth', 'p', \
'p_even', 'p_smallest', 'hub']
    >>> table["thought"].tolist(), table["ratio"].notna().sum()
    (['ct0', 'ct1', 'ct2', 'ct3', 'ct4', 'ct5'], np.int64(5))
    """
    names = [str(name) for name in thought_view(attention)["key"].values]
    received, given, mean = _per_problem(attention, average_heads=True)
    chains = chains_in(attention)
    table = _ratios(received, given, chains, n_resamples, level, seed) | hub_test(mean, seed=seed)
    columns = {name: values[0] for name, values in table.items()}
    return _with_verdict(pd.DataFrame({"thought": names} | columns), chains)


def head_hub_ratios(
    attention: xr.DataArray, *, n_resamples: int = 1000, level: float = 0.95, seed: int = 0
) -> pd.DataFrame:
    """The hub ratio of every thought in every head, as `hub_ratios` gives it for all heads.

    Returns:
        One row per head and thought: layer, head, name, and the columns of `hub_ratios`, whose
        intervals are simultaneous over the thoughts of a head, not over heads. `q` is `p` after
        control of the false discovery rate over heads and thoughts (Benjamini & Hochberg).

    Raises:
        AttentionError: not labelled attention, no problems, or NaN in it.
    """
    names = [str(name) for name in thought_view(attention)["key"].values]
    received, given, mean = _per_problem(attention, average_heads=False)
    chains = chains_in(attention)
    table = _ratios(received, given, chains, n_resamples, level, seed) | hub_test(mean, seed=seed)
    heads = heads_in(labelled(attention))
    places = [head for head in heads for _ in names]
    columns = {name: values.ravel() for name, values in table.items()}
    found = pd.DataFrame(
        {
            "layer": [layer for layer, _ in places],
            "head": [head for _, head in places],
            "name": [head_name(head) for head in places],
            "thought": names * len(heads),
            **columns,
        }
    )
    found = _with_verdict(found, chains)
    return found.assign(q=benjamini_hochberg(found["p"].to_numpy()))


def hub_verdict(hubs: pd.DataFrame) -> str:
    """A sentence on which thought gets most for its place, and whether any is a hub.

    Args:
        hubs: from `hub_ratios`.

    >>> from codi_lens.attention.example import two_heads
    >>> hub_verdict(hub_ratios(two_heads()))[:34]
    'No thought is a hub: ct0 gets most'
    """
    known = hubs.dropna(subset="ratio")
    if not len(known):
        return "No thought is a hub: none gets attention from a later one."
    over = f"averaged over all heads and {count(hubs.attrs['n_distinct'], 'distinct problem')}"
    found = known[known["hub"]]
    some = found if len(found) else known
    best: Any = some.iloc[int(some["ratio"].argmax())]
    ratio = fixed(best["ratio"])
    if np.isfinite(best["low"]):
        ratio += f" [{fixed(best['low'])}, {fixed(best['high'])}]"
    times = f"{ratio} times an even spread, {over}"
    if len(found):
        return (
            f"{_are_hubs(found['thought'].tolist())} by the permutation test: {best['thought']} "
            f"gets {times}, and {fixed(best['ratio_smooth'])} times what a smooth preference for "
            f"early or late thoughts would give it ({p_text(best['p'])})."
        )
    if not best["p_smallest"] < ALPHA:
        why = "too few thoughts come after it for the permutation test to call it one"
    else:
        why = f"not told apart from an even spread or a smooth preference ({p_text(best['p'])})"
        if best["p"] < ALPHA:
            why = f"its interval does not lie above 1 ({p_text(best['p'])})"
    return f"No thought is a hub: {best['thought']} gets most for its place, {times}; {why}."


def hub_ratio_by_n_problems(
    attention: xr.DataArray,
    sizes: list[int] | None = None,
    *,
    n_resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> pd.DataFrame:
    """The hub ratio of every thought, had fewer problems been analysed: does it strengthen?

    Args:
        attention: labelled attention [problem, layer, head, query, key].
        sizes: numbers of distinct problems; by default 5, 10, 20, 50, … and all.
        n_resamples: how often each number of problems is drawn, with replacement.
        level: of the band, of each thought alone.
        seed: of the draws.

    Returns:
        One row per size and thought: n_problems, thought, the median `ratio` of the draws, and the
        band `low` to `high`.

    Raises:
        AttentionError: not labelled attention, or a size outside 1 … all distinct problems.
    """
    received, given, _ = _per_problem(attention, average_heads=True)
    chains = chains_in(attention)
    n_problems = int(chains.max()) + 1
    if sizes is None:
        steps = (digit * 10**power for power in range(7) for digit in (1, 2, 5))
        sizes = [*(size for size in steps if 5 <= size < n_problems), n_problems]
    outside = [size for size in sizes if not 1 <= size <= n_problems]
    if outside:
        raise AttentionError(
            f"The number of problems must lie in 1..{n_problems}, all distinct ones, not "
            f"{outside[0]}."
        )
    names = [str(name) for name in thought_view(attention)["key"].values]
    tables = []
    for size in sizes:
        weights = grouped_weights(chains, n_resamples=n_resamples, size=size, seed=seed)
        samples = _quotient(*_sums(weights, received, given))[:, 0]
        low, high = percentile_interval(samples, level=level)
        columns = {"ratio": np.median(samples, axis=0), "low": low, "high": high}
        tables.append(pd.DataFrame({"n_problems": size, "thought": names, **columns}))
    return pd.concat(tables, ignore_index=True)


def _per_problem(
    attention: xr.DataArray, *, average_heads: bool
) -> tuple[
    Float[np.ndarray, "problem head key"],
    Float[np.ndarray, "problem head query"],
    Float[np.ndarray, "head query key"],
]:
    """What each thought receives from later ones, what it gives to earlier ones; the mean block."""
    n = n_thoughts_of(attention)
    received, given, total = [], [], np.zeros((1, n, n))
    for _, blocks in problem_blocks(attention, "position"):
        if average_heads:
            blocks = reduce(blocks, "problem head q k -> problem 1 q k", "mean")
        received.append(metrics.attention_from_later(blocks))
        given.append(metrics.attention_to_earlier(blocks))
        total = total + blocks.sum(axis=0)
    return np.concatenate(received), np.concatenate(given), total / attention.sizes["problem"]


def _are_hubs(names: list[str]) -> str:
    return f"{' and '.join(names)} {'is a hub' if len(names) == 1 else 'are hubs'}"


def _with_verdict(table: pd.DataFrame, chains: Int[np.ndarray, " problem"]) -> pd.DataFrame:
    table["hub"] = (table["low"] > 1) & (table["p"] < ALPHA)
    table.attrs |= {"n_problems": len(chains), "n_distinct": int(chains.max()) + 1}
    return table


def _ratios(
    received: np.ndarray,
    given: np.ndarray,
    chains: Int[np.ndarray, " problem"],
    n_resamples: int,
    level: float,
    seed: int,
) -> dict[str, np.ndarray]:
    n_problems = len(received)
    everything = np.full((1, n_problems), 1 / n_problems)
    mean_received, mean_expected = _sums(everything, received, given)
    ratio = _quotient(mean_received, mean_expected)[0]
    low = high = np.full(ratio.shape, np.nan)
    if chains.max() > 0:
        weights = grouped_weights(chains, n_resamples=n_resamples, seed=seed)
        low, high = simultaneous_interval(_quotient(*_sums(weights, received, given)), level=level)
    return {
        "ratio": ratio,
        "low": low,
        "high": high,
        "received": mean_received[0],
        "expected": mean_expected[0],
        "given": given.mean(axis=0),
    }


def _sums(
    weights: np.ndarray, received: np.ndarray, given: np.ndarray
) -> tuple[Float[np.ndarray, "resample head key"], Float[np.ndarray, "resample head key"]]:
    """Received and expected attention under each weighting of the problems."""
    n = received.shape[-1]
    means = [
        rearrange(
            weights @ rearrange(values, "problem head name -> problem (head name)"),
            "resample (head name) -> resample head name",
            name=n,
        )
        for values in (received, given)
    ]
    # The causal null: query i spreads its m_i over the i keys before it.
    shares = np.tril(np.ones((n, n)), -1) / np.maximum(np.arange(n), 1)[:, None]
    return means[0], means[1] @ shares


def _quotient(received: np.ndarray, expected: np.ndarray) -> np.ndarray:
    nothing = expected <= 0
    return np.where(nothing, np.nan, received / np.where(nothing, 1, expected))
