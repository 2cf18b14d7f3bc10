"""Measure a tiny model through codi_lens and write its model card.

    python checkpoints/evaluate.py tiny-gpt2 --control .training/tiny-gpt2-control-seed0-final

Everything is measured on held-out problems, by number of operations: answers after explicit chain
of thought, after six thoughts, with thoughts zeroed, replaced by their mean or taken from another
problem, the control trained without thoughts, and donor interchange: one thought taken from a
donor, where the answer ought to be "the donor's total, then the own remaining steps".
"""

from __future__ import annotations

import argparse
import json
import os
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from codi_lens import CodiModel, Intervention
from codi_lens.problems import MAX_OPERATIONS, WordProblem, is_correct, word_problems
from codi_lens.stats import wilson_interval

HERE = Path(__file__).parent
BATCH = 200


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Measure a tiny model and write its model card.")
    parser.add_argument("name", help="a folder beside this file, such as tiny-gpt2")
    parser.add_argument("--control", type=Path, help="checkpoint trained without thoughts")
    parser.add_argument("--n", type=int, default=2600, help="held-out problems")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    folder = HERE / options.name
    model = CodiModel.from_pretrained(folder)
    control = CodiModel.from_pretrained(options.control) if options.control else None
    problems = word_problems(options.n, seed=options.seed)
    reference = word_problems(500, seed=options.seed, split="train")
    results = evaluate(model, control, problems, reference)
    results["command"] = (
        f"python checkpoints/evaluate.py {options.name} --n {options.n} --seed {options.seed}"
        + (f" --control {options.control}" if options.control else "")
    )
    (folder / "evaluation.json").write_text(json.dumps(results, indent=2) + "\n")
    (folder / "README.md").write_text(model_card(options.name, folder, results))
    print((folder / "README.md").read_text())


def evaluate(
    model: CodiModel,
    control: CodiModel | None,
    problems: Sequence[WordProblem],
    reference: Sequence[WordProblem],
) -> dict[str, Any]:
    """Correct answers and n, per condition and number of operations."""
    clean_texts, thoughts = run_thoughts(model, problems)
    _, reference_thoughts = run_thoughts(model, reference)
    mean = reference_thoughts.mean(dim=0, keepdim=True)
    donors = donor_of_each(problems)
    conditions: dict[str, Callable[[], list[str]]] = {
        "explicit chain of thought": lambda: continue_greedily(model, problems, []),
        "six thoughts": lambda: clean_texts,
        "thoughts zeroed": lambda: run_thoughts(model, problems, torch.zeros_like(thoughts))[0],
        "thoughts at their mean": lambda: run_thoughts(
            model, problems, mean.expand_as(thoughts).clone()
        )[0],
        "thoughts of another problem": lambda: run_thoughts(model, problems, thoughts[donors])[0],
    }
    if control is not None:
        tokens = [control.config.bot, control.config.eot]
        conditions["control without thoughts"] = lambda: continue_greedily(
            control, problems, tokens
        )
    results: dict[str, Any] = {"n": len(problems), "conditions": {}, "interchange": {}}
    for name, answer in conditions.items():
        texts = answer()
        results["conditions"][name] = count(
            problems, [is_correct(t, p.answer or 0) for t, p in zip(texts, problems, strict=True)]
        )
    for thought in range(MAX_OPERATIONS - 1):
        results["interchange"][f"ct{thought}"] = interchange(model, problems, thoughts, thought)
    return results


def run_thoughts(
    model: CodiModel, problems: Sequence[WordProblem], thoughts: Tensor | None = None
) -> tuple[list[str], Tensor]:
    texts, fed = [], []
    for start in tqdm(range(0, len(problems), BATCH), desc="thinking", leave=False):
        part = slice(start, start + BATCH)
        run = model.think(
            [problem.question for problem in problems[part]],
            thoughts=None if thoughts is None else thoughts[part],
            max_new_tokens=50,  # without its thoughts a model may fall back on words
        )
        texts += run.answers
        fed.append(run.thoughts)
    return texts, torch.cat(fed)


def continue_greedily(
    model: CodiModel, problems: Sequence[WordProblem], after: list[int]
) -> list[str]:
    """Plain greedy text after question and `after`; problems of one length share a batch."""
    prompts = [[*model.tokenizer.encode(problem.question), *after] for problem in problems]
    by_length: dict[int, list[int]] = {}
    for i, prompt in enumerate(prompts):
        by_length.setdefault(len(prompt), []).append(i)
    texts = [""] * len(problems)
    for length, rows in tqdm(by_length.items(), desc="writing", leave=False):
        output = model.lens.generate(
            torch.tensor([prompts[i] for i in rows]),
            max_new_tokens=10 if after else 45,
            do_sample=False,
            prepend_bos=False,
            eos_token_id=model.config.eos,
            verbose=False,
        )
        assert isinstance(output, Tensor)
        for i, tokens in zip(rows, output[:, length:].tolist(), strict=True):
            end = tokens.index(model.config.eos) if model.config.eos in tokens else len(tokens)
            texts[i] = str(model.tokenizer.decode(tokens[:end]))
    return texts


def donor_of_each(problems: Sequence[WordProblem]) -> list[int]:
    """For each problem another one, with another answer."""
    donors = []
    for problem in problems:
        order = random.Random(f"donor of {problem.id}").sample(range(len(problems)), len(problems))
        donors.append(next(i for i in order if problems[i].answer != problem.answer))
    return donors


def interchange(
    model: CodiModel, problems: Sequence[WordProblem], thoughts: Tensor, thought: int
) -> dict[str, Any]:
    """Put a donor's thought in; count answers equal to donor's total, then own remaining steps."""
    usable = [i for i, p in enumerate(problems) if len(p.operations) > thought + 1]
    pairs: list[tuple[int, int, int]] = []
    for i in usable:
        draw = random.Random(f"ct{thought} of {problems[i].id}")
        for donor in draw.sample(usable, min(20, len(usable))):
            total = problems[donor].totals[thought]
            for operation in problems[i].operations[thought + 1 :]:
                total = operation.apply(total)
            if 0 <= total < 50 and total != problems[i].answer:
                pairs.append((i, donor, total))
                break
    hits = 0
    for start in range(0, len(pairs), BATCH):
        part = pairs[start : start + BATCH]
        vectors = thoughts[[donor for _, donor, _ in part], thought][:, None]
        swap = Intervention(
            [("hook_embed", lambda embed, hook, vectors=vectors: vectors)], at=f"ct{thought}"
        )
        run = model.think(
            [problems[i].question for i, _, _ in part], max_new_tokens=10, interventions=[swap]
        )
        hits += sum(
            is_correct(text, total) for text, (_, _, total) in zip(run.answers, part, strict=True)
        )
    return {"n": len(pairs), "correct": hits}


def count(problems: Sequence[WordProblem], correct: Sequence[bool]) -> dict[str, dict[str, int]]:
    table = {"all": {"n": len(problems), "correct": sum(correct)}}
    for length in range(1, MAX_OPERATIONS + 1):
        rows = [c for p, c in zip(problems, correct, strict=True) if len(p.operations) == length]
        table[str(length)] = {"n": len(rows), "correct": sum(rows)}
    several = [table[str(length)] for length in range(2, MAX_OPERATIONS + 1)]
    table["2 to 5"] = {key: sum(row[key] for row in several) for key in ("n", "correct")}
    return table


def model_card(name: str, folder: Path, results: dict[str, Any]) -> str:
    settings = json.loads((folder / "codi_config.json").read_text())
    training = settings["training"]
    lora = training["lora_rank"] is not None
    shape = (
        f"{training['n_layers']} layers × {training['n_heads']} heads, "
        f"d_model {training['d_model']}"
    )
    kind = (
        f"GPT-2 architecture ({shape}). The base (bf16) was trained on explicit chain of thought; "
        f"LoRA (rank {training['lora_rank']}, alpha {training['lora_alpha']}, on c_attn, c_proj "
        "and c_fc) and the projection (float32) were then trained with the base frozen. Stored "
        "unmerged, in the key layout of the published CODI checkpoints."
        if lora
        else f"LLaMA architecture ({shape}, {training['n_kv_heads']} key-value heads; RoPE, "
        "RMSNorm, SwiGLU). Every weight was trained, first on explicit chain of thought, then "
        "with CODI."
    )
    lengths = [str(n) for n in range(1, MAX_OPERATIONS + 1)]
    header = "| condition | all | 2 to 5 op. | " + " | ".join(f"{n} op." for n in lengths) + " |"
    rows = [
        f"| {condition} | "
        + " | ".join(rate(table[key]) for key in ("all", "2 to 5", *lengths))
        + " |"
        for condition, table in results["conditions"].items()
    ]
    clean = results["conditions"]["six thoughts"]
    sizes = ", ".join(f"{clean[n]['n']} with {n}" for n in lengths)
    swaps = [
        f"| `{thought}` | {rate(counts)} | {counts['n']} |"
        for thought, counts in results["interchange"].items()
    ]
    return f"""# {name}

A tiny CODI model that ships with codi_lens, genuinely trained to reason in six continuous thoughts.
{kind}

**Training supervised `ct0`..`ct3`:** for the first three quarters of the CODI steps an extra
cross-entropy made these thoughts decode to the running totals. That they hold running totals is
therefore no discovery, and neither is that no attention between thoughts is needed; published
models are not trained this way (docs/validity.md).

## Data

Word problems of `codi_lens.problems.word_problems`: a start, then one to five operations (add,
subtract, and conditionals that do not compose in parallel), all totals in 0..49. A chain (start and
operations) is held out if its hash falls in the last 5 %; training never sees it. The tokenizer is
word-level, numbers are single tokens.

> {word_problems(1, seed=0, n_operations=4)[0].question}

## Recipe

Self-distillation as in CODI (arXiv 2502.21074); `checkpoints/train.py` holds all of it.

    python checkpoints/train.py {name} --seed {training["seed"]}
    python checkpoints/train.py {name} --seed {training["seed"]} --control

{sum(training["cot_cycles"]):,} steps of explicit chain of thought, {training["codi_steps"]:,} CODI
steps, batch {training["batch_size"]}, AdamW, cosine schedule. {training["history"]}

## Accuracy on {results["n"]:,} held-out problems, in percent, with 95 % Wilson intervals

{header}
|---|{"---|" * (2 + len(lengths))}
{chr(10).join(rows)}

n per number of operations: {sizes}.
"Mean" is over 500 training problems, per thought; "another problem" has another answer; the
control has the same size and number of steps and was trained to answer right after the question.
One operation needs no thoughts: such answers survive without them.

## Donor interchange

One thought is taken from another problem; later thoughts and the answer are the model's own.
Counted are answers equal to "the donor's running total, then the own remaining steps", where that
differs from the right answer.

| thought | % | n |
|---|---|---|
{chr(10).join(swaps)}

All numbers: `{results["command"]}`, which writes `evaluation.json` and this page.
"""


def rate(counts: dict[str, int]) -> str:
    low, high = wilson_interval(counts["correct"], counts["n"])
    return f"{100 * counts['correct'] / counts['n']:.1f} [{100 * low:.1f}, {100 * high:.1f}]"


if __name__ == "__main__":
    main()
