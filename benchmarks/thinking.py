"""Time the thought loop: `make bench` prints the tables.

Random weights of two sizes think about random tokens, in questions as long as those of the study's
GSM8K sample. All ways run interleaved in one process. What is measured is the CPU time of its one
thread, which neighbours on a shared machine disturb less than the time of the wall clock.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
import ways
from saving import save
from shapes import SHORT_LLAMA_1B
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig

from codi_lens.thinking.prompts import batch_room, batches_by_tokens

HERE = Path(__file__).parent
SMALLER, BATCH, LARGER = 8, 16, 32


@dataclass(frozen=True)
class Size:
    """A model to time; `problems` for batches, every `every`-th of them one at a time."""

    title: str
    backbone: PretrainedConfig
    problems: int
    every: int
    rounds: int


def sizes(quick: bool) -> list[Size]:
    gpt2: dict[str, Any] = {"vocab_size": 50260}
    llama = SHORT_LLAMA_1B | {"num_hidden_layers": 2}
    titles = "GPT-2 size: 12 layers", "Llama-3.2-1B width: 2 of its 16 layers"
    problems, every, rounds = 96, 16, 3
    if quick:
        titles = "GPT-2, small", "LLaMA, small"
        problems, every, rounds = 8, 4, 3
        gpt2 |= {"vocab_size": 403, "n_layer": 3, "n_head": 4, "n_embd": 128}
        llama |= {"vocab_size": 403, "hidden_size": 128, "intermediate_size": 256}
        llama |= {"num_attention_heads": 8, "num_key_value_heads": 2, "head_dim": 16}
    return [
        Size(titles[0], AutoConfig.for_model("gpt2", **gpt2), problems, every, rounds),
        Size(titles[1], AutoConfig.for_model("llama", **llama), problems, every, rounds),
    ]


def questions(n: int, vocabulary: int) -> list[list[int]]:
    """Random tokens, as long as n evenly spaced quantiles of the study's sample of GSM8K."""
    generator = torch.Generator().manual_seed(0)
    lengths = [ways.LENGTHS[(2 * i + 1) * len(ways.LENGTHS) // (2 * n)] for i in range(n)]
    return [torch.randint(vocabulary - 4, (k,), generator=generator).tolist() for k in lengths]


def measure(size: Size) -> list[str]:
    """The lines of one table."""
    unmerged = ways.random_lora(size.backbone)
    weights = ways.merged(unmerged)
    tokenizer = str(ways.TOKENIZERS / size.backbone.model_type / "base")
    model = ways.codi_model(size.backbone, weights, tokenizer, torch.float32)
    bridge = ways.codi_model(size.backbone, weights, tokenizer, torch.float32, "bridge")
    half = ways.codi_model(size.backbone, weights, tokenizer, torch.bfloat16)
    plain = ways.plain_lens(model.lens)
    sdpa = AutoModelForCausalLM.from_config(size.backbone, attn_implementation="sdpa").eval()
    sdpa.load_state_dict(weights, assign=True)
    sdpa.requires_grad_(False)

    problems = questions(size.problems, size.backbone.vocab_size)
    smaller, batches, larger = (
        [problems[i : i + n] for i in range(0, len(problems), n)] for n in (SMALLER, BATCH, LARGER)
    )
    beyond = model.config.n_thoughts + len(model.config.closing)
    prompts = [[*each, model.config.bot] for each in problems]
    cut = batches_by_tokens(prompts, batch_room(prompts, LARGER, beyond), beyond)
    by_tokens = [[problems[i] for i in batch] for batch in cut]
    some = problems[size.every // 2 :: size.every]
    settings = (model.projection, model.config)

    def think(model: Any, batches: Sequence[ways.Batch], fused: bool) -> None:
        for batch in batches:
            model.think(batch, max_new_tokens=1, fused=fused)

    timed: dict[str, tuple[Callable[[], object], int]] = {
        "(a) the study's way: Hugging Face eager, all attention, LoRA unmerged, one at a time": (
            lambda: [ways.study(unmerged, *settings, question) for question in some],
            len(some),
        ),
        "(b) HookedTransformer by hand, default layout, patterns captured, one at a time": (
            lambda: [ways.by_hand(plain, *settings, question) for question in some],
            len(some),
        ),
        f"(c) `model.think`, bit for bit, batches of {BATCH}": (
            lambda: think(model, batches, False),
            len(problems),
        ),
        f"(d) `model.think(…, fused=True)`, batches of {BATCH}": (
            lambda: think(model, batches, True),
            len(problems),
        ),
        f"(e) the floor: one SDPA pass over the same tokens, batches of {BATCH}": (
            lambda: [ways.floor(sdpa, model.config, batch) for batch in batches],
            len(problems),
        ),
        f"(f) as (d), batches of {LARGER}": (lambda: think(model, larger, True), len(problems)),
        f"(g) the floor, batches of {LARGER}": (
            lambda: [ways.floor(sdpa, model.config, batch) for batch in larger],
            len(problems),
        ),
        f"(h) as (d), batches of as many tokens as {LARGER} questions of median length, as "
        "`extract` makes them": (lambda: think(model, by_tokens, True), len(problems)),
        f"(i) as (c), on a `TransformerBridge`, batches of {BATCH}": (
            lambda: think(bridge, batches, False),
            len(problems),
        ),
        f"(j) the floor, batches of {SMALLER}, like the portions in which (d) takes questions": (
            lambda: [ways.floor(sdpa, model.config, batch) for batch in smaller],
            len(problems),
        ),
    }
    agree(unmerged, plain, bridge, model, some[0])
    times: dict[str, list[float]] = {name: [] for name in timed}
    for _ in range(size.rounds):
        for name, (way, n) in timed.items():
            begin = time.thread_time()
            way()
            times[name].append(1000 * (time.thread_time() - begin) / n)
    medians = [statistics.median(found) for found in times.values()]
    first, _, exact, ours, floor, larger_ones, _, cut_by_tokens, bridged, least = medians
    lines = [
        f"## {size.title}",
        "",
        f"{len(problems)} problems of {len(problems[0])} to {len(problems[-1])} tokens (mean "
        f"{statistics.mean(map(len, problems)):.1f}); one at a time, {len(some)} of them (mean "
        f"{statistics.mean(map(len, some)):.1f}). Medians of {size.rounds} rounds.",
        "",
        "| way | ms per problem | lowest to highest | times the floor |",
        "|---|---|---|---|",
    ]
    for (name, found), median in zip(times.items(), medians, strict=True):
        spread = f"{min(found):.1f} to {max(found):.1f}"
        lines.append(f"| {name} | {median:.1f} | {spread} | {median / floor:.2f} |")
    return [
        *lines,
        "",
        f"Fused, `model.think` takes {ours / floor:.2f} times the floor, {ours / least:.2f} times "
        f"that in batches of {SMALLER}, and is {first / ours:.1f} times as fast as the study's "
        f"way; bit for bit {exact / floor:.2f}, {exact / least:.2f} and {first / exact:.1f}. "
        f"Batches of as many tokens take {cut_by_tokens / larger_ones:.2f} times what batches of "
        f"{LARGER} take, and {cut_by_tokens / ours:.2f} times what those of {BATCH} take; the "
        f"largest holds {padded(by_tokens):,} tokens, of {LARGER} problems {padded(larger):,}. On "
        f"a `TransformerBridge` it takes {bridged / exact:.2f} times as long as on a "
        "`HookedTransformer`, bit for bit.",
        bfloat16(model, half, some[:2]),
        "",
    ]


def padded(batches: Sequence[ways.Batch]) -> int:
    """Tokens of the questions of the largest batch, padding included."""
    return max(len(batch) * max(map(len, batch)) for batch in batches)


def agree(unmerged: Any, plain: Any, bridge: Any, model: Any, question: Sequence[int]) -> None:
    """The ways compared compute the same logits, or the comparison means nothing."""
    logits = model.think([question], max_new_tokens=1).logits
    for other in (
        ways.study(unmerged, model.projection, model.config, question),
        ways.by_hand(plain, model.projection, model.config, question),
        bridge.think([question], max_new_tokens=1).logits,
    ):
        torch.testing.assert_close(other, logits, atol=1e-2, rtol=0)


def bfloat16(model: Any, half: Any, batch: ways.Batch) -> str:
    """Time and error in bfloat16: two problems, once, for CPUs without support are very slow."""
    full = model.think(batch, max_new_tokens=1)
    begin = time.thread_time()
    low = half.think(batch, max_new_tokens=1)
    took = 1000 * (time.thread_time() - begin) / len(batch)
    attention = float(abs(full.attention - low.attention).max())
    thoughts = (full.thoughts - low.thoughts.float()).norm() / full.thoughts.norm()
    return (
        f"In bfloat16 (two problems, once) `model.think` takes {took:.1f} ms per problem; against "
        f"float32 its attention differs by at most {attention:.3f}, its thoughts by "
        f"{100 * float(thoughts):.1f} % of their norm."
    )


def cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if "model name" in line)
    except (OSError, StopIteration):
        return platform.processor() or "unknown CPU"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="small models; writes nothing")
    quick = parser.parse_args().quick
    torch.set_num_threads(1)
    lines = [
        "# The thought loop against other ways of running it",
        "",
        "`make bench`. CPU time of one thread, all ways interleaved; random weights (each "
        "model's own initialisation) and random tokens, six thoughts, no answer beyond the "
        "logits after `eot`.",
        f"torch {torch.__version__}, transformers {transformers.__version__}, {cpu()}.",
        "",
    ]
    print("\n".join(lines))
    for size in sizes(quick):
        lines += (table := measure(size))
        print("\n".join(table), flush=True)
    text = "\n".join(lines).rstrip() + "\n"
    if not quick:
        save("thinking", text)


if __name__ == "__main__":
    main()
