"""Time a sweep of all heads against rerunning one head at a time: `make bench-sweeps`.

A model of GPT-2's size with random weights thinks about random tokens in questions as long as those
of the study's GSM8K sample. Both ways give the same outcomes, which is checked; rerunning is timed
on some of the heads, the sweep on all. What is measured is CPU time of the one thread.
"""

from __future__ import annotations

import argparse
import platform
import time
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from gpu import random_model as llama
from saving import save
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

from codi_lens.causal.measure import CLEAN, measure
from codi_lens.interventions import Donors, ablate_heads
from codi_lens.loading.config import CodiConfig
from codi_lens.loading.hooked import to_hooked_transformer
from codi_lens.model import CodiModel
from codi_lens.problems import Problem, parse_answer
from codi_lens.work import rehearse

HERE = Path(__file__).parent
TOKENIZER = HERE.parent / "tests" / "fixtures" / "oracle" / "gpt2" / "base"
NEW_TOKENS = 6  # "The answer is: N" and EOS
LENGTHS = (27, 33, 36, 38, 41, 47, 48, 50, 54, 58, 63, 67, 74, 80, 90, 106)
"""Tokens of 16 questions: quantiles of the study's sample (100 of GSM8K, seed 42), mean 57.0."""


def random_model(quick: bool) -> CodiModel:
    """GPT-2's shape with its own initialisation, and a projection."""
    torch.manual_seed(0)
    shape: dict[str, Any] = {"vocab_size": 50260}
    if quick:
        shape = {"vocab_size": 403, "n_layer": 3, "n_head": 4, "n_embd": 128}
    backbone = GPT2Config(**shape)
    tokenizer = AutoTokenizer.from_pretrained(TOKENIZER)
    weights = GPT2LMHeadModel(backbone).state_dict()
    lens = to_hooked_transformer(backbone, weights, tokenizer, device="cpu", dtype=torch.float32)
    width, vocabulary = backbone.n_embd, backbone.vocab_size
    projection = torch.nn.Sequential(
        torch.nn.Linear(width, width), torch.nn.GELU(), torch.nn.Linear(width, width)
    )
    projection.append(torch.nn.LayerNorm(width)).requires_grad_(False)
    config = CodiConfig(
        source="random weights",
        n_thoughts=6,
        remove_eos=True,
        lora_alpha=None,
        lora_rank=None,
        pad=vocabulary - 3,
        bot=vocabulary - 2,
        eot=vocabulary - 1,
        eos=vocabulary - 4,
    )
    return CodiModel(lens, projection, tokenizer, config, backbone)


def questions(model: CodiModel, n: int) -> list[Problem]:
    """Random words, as many as the study's questions have tokens."""
    generator = torch.Generator().manual_seed(0)
    pieces = [str(model.tokenizer.decode([i])) for i in range(len(model.tokenizer))]
    words = [piece for piece in pieces if piece[:1] == " " and piece[1:].isalpha()]
    lengths = [LENGTHS[i % len(LENGTHS)] for i in range(n)]
    drawn = [torch.randint(len(words), (k,), generator=generator).tolist() for k in lengths]
    texts = ["".join(words[i] for i in row) for row in drawn]
    return [Problem(text, None, f"p{i}") for i, text in enumerate(texts)]


def plan(model: CodiModel, n: int) -> str:
    """What a sweep of all heads over n problems comes to, from a sample of it."""
    problems, cfg = questions(model, n), model.lens.cfg
    donors = Donors(model, problems)
    donors.prepare([f"blocks.{i}.attn.hook_z" for i in range(cfg.n_layers)], later=True)
    pairs = product(range(cfg.n_layers), range(cfg.n_heads))
    arms = {f"L{i}H{j}": ablate_heads([(i, j)], donors=donors) for i, j in pairs}
    with rehearse() as planned:
        measure(model, problems, arms, max_new_tokens=NEW_TOKENS, progress=False)
    return str(planned)


def compare(quick: bool, every: int) -> list[str]:
    """Time both ways, check that they agree, and say so."""
    model = random_model(quick)
    cfg = model.lens.cfg
    problems = questions(model, len(LENGTHS))
    texts = [problem.question for problem in problems]
    donors = Donors(model, problems)
    donors.prepare([f"blocks.{layer}.attn.hook_z" for layer in range(cfg.n_layers)])
    heads = [(layer, head) for layer in range(cfg.n_layers) for head in range(cfg.n_heads)]
    arms = {
        f"L{layer}H{head}": ablate_heads([(layer, head)], donors=donors) for layer, head in heads
    }
    ids = [problem.id for problem in problems]

    begin = time.thread_time()
    outcomes = measure(model, problems, arms, max_new_tokens=NEW_TOKENS, progress=False)
    sweep = (time.thread_time() - begin) / len(arms)

    clean = model.think(texts, ids=ids, max_new_tokens=NEW_TOKENS)
    by_arm = dict(list(outcomes.groupby("arm")))
    assert by_arm[CLEAN]["answer"].tolist() == clean.answers
    decoding = scoring = worst = 0.0
    differing = 0
    chosen = list(arms)[every // 2 :: every]
    for name in chosen:
        begin = time.thread_time()
        run = model.think(texts, ids=ids, interventions=[arms[name]], max_new_tokens=NEW_TOKENS)
        decoding += time.thread_time() - begin
        begin = time.thread_time()
        model.think(texts, ids=ids, interventions=[arms[name]], answers=clean.answer_tokens)
        scoring += time.thread_time() - begin
        distance = (run.thoughts - clean.thoughts).norm(dim=-1) / clean.thoughts.norm(dim=-1)
        ours = by_arm[name].filter(like="change_ct").to_numpy()
        worst = max(worst, float(np.abs(ours - distance.numpy()).max()))
        differing += sum(
            parse_answer(a) != parse_answer(b)
            for a, b in zip(run.answers, by_arm[name]["answer"], strict=True)
        )
    decoding, scoring = decoding / len(chosen), scoring / len(chosen)
    naive = decoding + scoring
    shape = f"{cfg.n_layers} layers x {cfg.n_heads} heads, width {cfg.d_model}"
    machine = platform.processor() or platform.machine()
    share = f"{differing} of {len(chosen) * len(texts)}"
    return [
        f"torch {torch.__version__}, transformers {transformers.__version__}, {machine}.",
        "",
        f"{shape}; {len(texts)} problems of {min(LENGTHS)} to {max(LENGTHS)} tokens, six",
        f"thoughts, answers of {NEW_TOKENS} tokens; every head resampled at `thinking`. Rerunning",
        f"is timed on {len(chosen)} of the {len(arms)} heads.",
        "",
        "| way | CPU seconds per head | times the sweep |",
        "|---|---|---|",
        f"| rerun one head at a time: decoded | {decoding:.2f} | {decoding / sweep:.1f} |",
        f"| rerun one head at a time: decoded, and the clean answer scored | {naive:.2f} | "
        f"{naive / sweep:.1f} |",
        f"| `measure`: the same outcomes of all {len(arms)} heads | {sweep:.2f} | 1 |",
        "",
        f"Answers that differ between the ways: {share}. Largest difference in the relative",
        f"change of a thought: {worst:.1e}.",
        "",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="a small model; writes nothing")
    parser.add_argument("--every", type=int, default=12, help="which heads to rerun")
    parser.add_argument("--plan", type=int, metavar="N", help="only plan a sweep of N problems")
    parser.add_argument("--llama", action="store_true", help="of Llama-3.2-1B's shape, with --plan")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.plan:
        one = llama("cpu", torch.float32) if options.llama else random_model(options.quick)
        print(plan(one, options.plan))
        return
    lines = [
        "# Sweeps of heads against rerunning one head at a time",
        "",
        "`make bench-sweeps`. Random weights (GPT-2's own initialisation) and random tokens.",
        "",
        *compare(options.quick, options.every),
    ]
    text = "\n".join(lines).rstrip() + "\n"
    print(text)
    if not options.quick:
        save("sweeps", text)


if __name__ == "__main__":
    main()
