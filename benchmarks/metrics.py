"""Time all scores of 7,473 problems × 512 heads: `python benchmarks/metrics.py`.

The size is the whole GSM8K training set on a model of 16 layers × 32 heads. The vectorised pass is
compared with two loops in plain numpy that compute the same scores: one matrix at a time, measured
on some problems and scaled, and one head at a time, all problems of it at once. The results are
compared before anything is timed.
"""

from __future__ import annotations

import argparse
import resource
import time

import numpy as np
import xarray as xr
from saving import save

from codi_lens.attention.scores import POSITION_SCORES, HeadScores
from codi_lens.attention.views import thought_view
from codi_lens.positions import key_names, possible_cells, query_names

N_THOUGHTS = 6
EARLIER = np.tril(np.ones((N_THOUGHTS, N_THOUGHTS)), -1)
EVEN = EARLIER / np.maximum(np.arange(N_THOUGHTS), 1)[:, None]


def main() -> None:
    parser = argparse.ArgumentParser(description="Time all scores of all heads.")
    parser.add_argument("--problems", type=int, default=7473)
    parser.add_argument("--layers", type=int, default=16)
    parser.add_argument("--heads", type=int, default=32)
    parser.add_argument("--loop-problems", type=int, default=50, help="measured in the loop")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    attention = random_attention(arguments.problems, arguments.layers, arguments.heads)
    some = attention[: arguments.loop_problems]
    check(some)

    vectorised, matrix_loop, head_loop = [], [], []
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(arguments.rounds):
        vectorised.append(seconds(lambda: HeadScores.of(attention)))
    extra = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    for _ in range(arguments.rounds):
        matrix_loop.append(seconds(lambda: loop_over_matrices(some)) / len(some))
    head_loop.append(seconds(lambda: loop_over_heads(attention)))
    vector, heads = float(np.median(vectorised)), head_loop[0]
    loop = float(np.median(matrix_loop)) * arguments.problems
    n_heads = arguments.layers * arguments.heads
    lines = [
        f"# All scores of {arguments.problems:,} problems × {n_heads} heads",
        "",
        "`python benchmarks/metrics.py`: the six position-view scores of every problem and head, "
        "and the mean",
        f"matrices, on attention in memory ({attention.nbytes / 2**30:.2f} GiB); one thread, "
        f"medians of {arguments.rounds} rounds",
        "(the loop over heads once).",
        "",
        "| way | seconds | times the vectorised pass |",
        "|---|---|---|",
        f"| vectorised (`HeadScores.of`) | {vector:.2f} | 1 |",
        f"| Python loop over matrices, plain numpy ({len(some)} problems measured, scaled) | "
        f"{loop:.0f} | {loop / vector:.0f} |",
        f"| Python loop over heads, all problems at once | {heads:.1f} | {heads / vector:.1f} |",
        "",
        f"Memory beyond the attention itself: {extra:.0f} MiB, of which the scores it returns are "
        f"{len(POSITION_SCORES) * arguments.problems * n_heads * 8 / 2**20:.0f} MiB.",
    ]
    text = "\n".join(lines) + "\n"
    save("metrics", text)
    print(text)


def random_attention(n_problems: int, n_layers: int, n_heads: int) -> xr.DataArray:
    """Random rows over the cells that causality allows; they sum to 1."""
    draw = np.random.default_rng(0)
    cells = possible_cells(N_THOUGHTS)
    values = np.empty((n_problems, n_layers, n_heads, *cells.shape), dtype=np.float32)
    for problem in values:
        problem[:] = draw.random(problem.shape, dtype=np.float32) ** 4 * cells
        problem /= problem.sum(axis=-1, keepdims=True)
    return xr.DataArray(
        values,
        dims=("problem", "layer", "head", "query", "key"),
        coords={
            "problem": [str(i) for i in range(n_problems)],
            "layer": range(n_layers),
            "head": range(n_heads),
            "query": list(query_names(N_THOUGHTS)),
            "key": list(key_names(N_THOUGHTS)),
        },
    )


def loop_over_matrices(attention: xr.DataArray) -> dict[str, np.ndarray]:
    """Every score of every matrix, one after the other, as one would write it for a single head."""
    blocks = thought_view(attention).values.astype(np.float64)
    scores = {name: np.empty(blocks.shape[:3]) for name in POSITION_SCORES}
    for place in np.ndindex(*blocks.shape[:3]):
        matrix = blocks[place]
        earlier = matrix * EARLIER
        given = earlier.sum(axis=1)
        even = given[:, None] * EVEN
        own = np.trace(matrix)
        visible = earlier.sum() + own
        scores["flow"][place] = earlier.sum() / visible if visible else 0.0
        scores["hub"][place] = (earlier.sum(axis=0) - even.sum(axis=0)).var()
        scores["skip"][place] = (earlier - even)[-1, : N_THOUGHTS // 2].mean()
        previous = np.trace(matrix, -1) / (N_THOUGHTS - 1)
        scores["sequential"][place] = previous
        scores["sequential_excess"][place] = previous - np.trace(even, -1) / (N_THOUGHTS - 1)
        scores["self"][place] = own / N_THOUGHTS
    return scores


def loop_over_heads(attention: xr.DataArray) -> dict[str, np.ndarray]:
    """The same scores, one head at a time, in numpy over all its problems."""
    blocks = thought_view(attention).values
    scores = {name: np.empty(blocks.shape[:3]) for name in POSITION_SCORES}
    for layer, head in np.ndindex(*blocks.shape[1:3]):
        matrices = blocks[:, layer, head].astype(np.float64)
        for name, function in POSITION_SCORES.items():
            scores[name][:, layer, head] = function(matrices)
    return scores


def check(attention: xr.DataArray) -> None:
    """Raise unless all three ways give the same scores."""
    vectorised = HeadScores.of(attention).values
    for loop in (loop_over_matrices, loop_over_heads):
        for name, values in loop(attention).items():
            np.testing.assert_allclose(
                values.mean(axis=0).ravel(), vectorised[name], rtol=1e-9, atol=1e-12
            )


def seconds(function) -> float:
    begin = time.perf_counter()
    function()
    return time.perf_counter() - begin


if __name__ == "__main__":
    main()
