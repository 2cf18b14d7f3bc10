"""Time the thought loop: `make bench` prints the table and writes benchmarks/results/thinking.md.

All ways run interleaved in one process on one thread, and medians per problem are compared with
the floor: one plain forward pass over the same tokens, with no thoughts and nothing captured.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

from codi_lens import CodiModel
from codi_lens.problems import word_problems

HERE = Path(__file__).parent
N_PROBLEMS = 64
ROUNDS = 7


def main() -> None:
    torch.set_num_threads(1)
    model = CodiModel.from_pretrained(HERE.parent / "checkpoints" / "tiny-gpt2")
    questions = [problem.question for problem in word_problems(N_PROBLEMS, seed=1)]
    length = max(len(model.tokenizer.encode(question)) for question in questions)
    ids = torch.randint(0, 50, (N_PROBLEMS, length + 1 + model.config.n_thoughts + 1 + 6))

    def think(batch: int) -> None:
        for start in range(0, N_PROBLEMS, batch):
            model.think(questions[start : start + batch], max_new_tokens=7)

    ways: dict[str, Callable[[], object]] = {
        "think, one at a time": lambda: think(1),
        "think, batches of 16": lambda: think(16),
        "think, one batch of 64": lambda: think(64),
        "floor: one plain forward of 64": lambda: model.lens(ids),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, way in ways.items():
            begin = time.perf_counter()
            way()
            seconds[name].append(time.perf_counter() - begin)
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    floor = medians["floor: one plain forward of 64"]
    lines = [
        "# The thought loop on tiny-gpt2",
        "",
        f"`make bench`: {N_PROBLEMS} built-in problems, six thoughts, greedy answers of 7 tokens,",
        f"attention of every head captured; one thread, medians of {ROUNDS} interleaved rounds.",
        "",
        "| way | ms per problem | times the floor |",
        "|---|---|---|",
        *(
            f"| {name} | {1000 * value / N_PROBLEMS:.2f} | {value / floor:.1f} |"
            for name, value in medians.items()
        ),
    ]
    text = "\n".join(lines) + "\n"
    results = HERE / "results"
    results.mkdir(exist_ok=True)
    (results / "thinking.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
