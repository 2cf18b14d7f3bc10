"""Think about as many problems as GSM8K has, on a GPU: `python benchmarks/gpu.py`.

Random weights of Llama-3.2-1B's shape think about random tokens, in questions as long as GSM8K's;
what is kept of each run is its attention, on the CPU. Without a GPU it says so and ends. That a GPU
computes what a CPU does is checked first, on the shipped models.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import transformers
import ways
from saving import save
from shapes import SHORT_LLAMA_1B
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from codi_lens import CodiModel, logit_lens, sweep_heads
from codi_lens.loading.config import CodiConfig
from codi_lens.loading.hooked import to_hooked_transformer
from codi_lens.loading.projection import to_projection
from codi_lens.problems import word_problems

PROBLEMS, NEW_TOKENS, BUDGET = 7473, 8, 32_768


@dataclass(frozen=True)
class Way:
    """How the model runs."""

    title: str
    dtype: torch.dtype = torch.float32
    fused: bool = True
    tf32: bool = False


WAYS = (
    Way("float32"),
    Way("float32, every pattern computed", fused=False),
    Way("float32, products in TF32", tf32=True),
    Way("bfloat16", torch.bfloat16),
)


def random_model(device: str, dtype: torch.dtype) -> CodiModel:
    """Random weights of the shape; the same for every dtype."""
    backbone = AutoConfig.for_model("llama", **SHORT_LLAMA_1B)
    torch.manual_seed(0)
    with torch.device(device):
        weights = AutoModelForCausalLM.from_config(backbone).state_dict()
    n = backbone.vocab_size
    config = CodiConfig("random", 6, True, None, None, n - 3, n - 2, n - 1, n - 4)
    return CodiModel(
        to_hooked_transformer(backbone, weights, device=device, dtype=dtype),
        to_projection(ways.random_projection(backbone.hidden_size), device=device, dtype=dtype),
        AutoTokenizer.from_pretrained(str(ways.TOKENIZERS / "llama" / "base")),
        config,
        backbone,
    )


def batches(n: int, budget: int) -> Iterator[list[list[int]]]:
    """Random questions as long as GSM8K's, longest first, as many as hold `budget` tokens."""
    generator = torch.Generator().manual_seed(0)
    lengths = sorted((ways.LENGTHS[i * len(ways.LENGTHS) // n] for i in range(n)), reverse=True)
    batch: list[list[int]] = []
    for length in lengths:
        batch.append(
            torch.randint(SHORT_LLAMA_1B["vocab_size"] - 4, (length,), generator=generator).tolist()
        )
        if (len(batch) + 1) * (len(batch[0]) + 7) > budget:
            yield batch
            batch = []
    if batch:
        yield batch


def measure(way: Way, device: str, n: int, exact: dict[str, np.ndarray]) -> tuple[str, float]:
    """One row of the table, and the seconds that it took."""
    torch.backends.cuda.matmul.allow_tf32 = way.tf32
    model = random_model(device, way.dtype)
    every = list(batches(n, BUDGET))
    first = model.think(every[-1], max_new_tokens=NEW_TOKENS, fused=way.fused)  # warms up
    found = first.attention.sel(query=["bot", "ct4"]).values
    error = abs(found - exact.setdefault("attention", found)).max()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    begin, kept = time.perf_counter(), 0
    for batch in every:
        run = model.think(batch, max_new_tokens=NEW_TOKENS, fused=way.fused)
        kept += run.attention.nbytes
    torch.cuda.synchronize()
    seconds = time.perf_counter() - begin
    peak = torch.cuda.max_memory_allocated() / 1e9
    row = (
        f"| {way.title} | {seconds:.1f} s | {n / seconds:.0f} | {peak:.1f} GB | "
        f"{kept / 1e9:.2f} GB | {error:.1e} |"
    )
    del model
    torch.cuda.empty_cache()
    return row, seconds


def same_as_cpu(device: str) -> list[str]:
    """The shipped models there and on the CPU: thoughts, attention, answers and effects."""
    problems = word_problems(64, seed=1)
    lines = ["| model | thoughts | attention | effects of heads | answers that differ |"]
    lines.append("|---|---|---|---|---|")
    torch.backends.cuda.matmul.allow_tf32 = False
    for name in ("tiny-gpt2", "tiny-llama"):
        runs, effects = [], []
        for where in ("cpu", device):
            model = CodiModel.from_pretrained(name).to(where)
            runs.append(model.think([p.question for p in problems], fused=where != "cpu"))
            effects.append(sweep_heads(model, problems[:8], progress=False)["effect"])
        a, b = runs
        thoughts = float((a.thoughts - b.thoughts.cpu()).abs().max() / a.thoughts.abs().max())
        attention = float(np.nanmax(abs(a.attention.values - b.attention.values)))
        other = sum(x != y for x, y in zip(a.answers, b.answers, strict=True))
        nats = float(abs(effects[0] - effects[1]).max())
        lines.append(
            f"| {name} | {thoughts:.1e} of the largest | {attention:.1e} | {nats:.1e} nats | "
            f"{other} of {len(problems)} |"
        )
    return lines


def lens_peak(device: str) -> str:
    """What the logit lens takes beside the model, over all positions and layers."""
    model = random_model(device, torch.float32)
    problems = word_problems(8, n_operations=5)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    table = logit_lens(model, problems, max_new_tokens=NEW_TOKENS, progress=False)
    peak = (torch.cuda.max_memory_allocated() - before) / 1e9
    sizes = table["token"].sizes
    return (
        f"The logit lens of {len(problems)} problems in one batch ({sizes['layer']} layers, up to "
        f"{sizes['position']} positions, a vocabulary of {model.lens.cfg.d_vocab:,}) takes "
        f"{peak:.2f} GB at its peak, beside the model."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Time extraction at Llama-3.2-1B's shape.")
    parser.add_argument("--problems", type=int, default=PROBLEMS)
    n = parser.parse_args().problems
    if not torch.cuda.is_available():
        sys.exit("There is no GPU here; nothing was measured.")
    device, exact = "cuda", dict[str, np.ndarray]()
    lines = [
        "# Extraction on a GPU",
        "",
        "`python benchmarks/gpu.py`. Random weights of Llama-3.2-1B's shape (16 layers, 32 heads) "
        f"think about {n:,} questions of random tokens, as long as GSM8K's ({ways.LENGTHS[0]} to "
        f"{ways.LENGTHS[-1]}, mean {np.mean(ways.LENGTHS):.1f}), in batches of up to {BUDGET:,} "
        f"tokens; up to {NEW_TOKENS} answer tokens; attention of all heads is kept.",
        f"{torch.cuda.get_device_name()}, torch {torch.__version__}, transformers "
        f"{transformers.__version__}. The error is the largest of the attention of `bot` and "
        "`ct4`, against float32, over the last batch.",
        "",
        "| way | time | problems per second | peak memory | attention kept | error |",
        "|---|---|---|---|---|---|",
    ]
    print("\n".join(lines), flush=True)
    for way in WAYS:
        row, _ = measure(way, device, n, exact)
        lines.append(row)
        print(row, flush=True)
    rest = ["", "Against the CPU, in float32:", "", *same_as_cpu(device), "", lens_peak(device)]
    print("\n".join(rest), flush=True)
    save("gpu", "\n".join([*lines, *rest]) + "\n")


if __name__ == "__main__":
    main()
