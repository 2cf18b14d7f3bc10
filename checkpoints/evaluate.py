"""Measure a tiny model through codi_lens and write its model card.

    python checkpoints/evaluate.py tiny-gpt2 --control .training/tiny-gpt2-control-seed0-final
    python checkpoints/evaluate.py tiny-recall --control checkpoints/tiny-recall-control

Everything is measured on held-out problems, by number of operations: answers after explicit chain
of thought, after six thoughts, with thoughts zeroed, replaced by their mean or taken from another
problem, the control trained without thoughts, and donor interchange: one thought taken from a
donor, where the answer ought to be "the donor's total, then the own remaining steps". Of a model
whose problems refer back also what cutting the known edges costs, which `edges.json` keeps.
"""

from __future__ import annotations

import argparse
import json
import os
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from card import model_card
from torch import Tensor
from tqdm import tqdm

from codi_lens import CodiModel, Intervention
from codi_lens.causal.edge_costs import costs_by_reference, edge_costs, known_against_others
from codi_lens.causal.references import write_used
from codi_lens.loading.sources import learnt_family
from codi_lens.problems import Family, WordProblem, is_correct, totals_of, word_problems

HERE = Path(__file__).parent
BATCH = 200
Counts = dict[str, dict[str, int]]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Measure a tiny model and write its model card.")
    parser.add_argument("name", help="a folder beside this file, such as tiny-gpt2")
    parser.add_argument("--folder", type=Path, help="where the checkpoint is, if not there")
    parser.add_argument("--control", type=Path, help="checkpoint trained without thoughts")
    parser.add_argument("--n", type=int, default=2600, help="held-out problems")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    folder = options.folder or HERE / options.name
    family = learnt_family(folder)
    model = CodiModel.from_pretrained(folder)
    control = CodiModel.from_pretrained(options.control) if options.control else None
    problems = word_problems(options.n, seed=options.seed, family=family)
    reference = word_problems(500, seed=options.seed, split="train", family=family)
    results = evaluate(model, control, problems, reference)
    if family != "plain":
        results |= {"family": family, "edges": evaluate_edges(model, problems, folder, options.n)}
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
        conditions["control without thoughts"] = lambda: answers_of_control(control, problems)
    results: dict[str, Any] = {"n": len(problems), "conditions": {}, "interchange": {}}
    for name, answer in conditions.items():
        texts = answer()
        results["conditions"][name] = count(
            problems, [is_correct(t, p.answer or 0) for t, p in zip(texts, problems, strict=True)]
        )
    for thought in range(max(len(problem.operations) for problem in problems) - 1):
        results["interchange"][f"ct{thought}"] = interchange(model, problems, thoughts, thought)
    return results


def evaluate_edges(
    model: CodiModel, problems: Sequence[WordProblem], folder: Path, n: int
) -> dict[str, Any]:
    """What cutting edges costs, on these problems and on as many of every family."""
    costs = costs_by_reference(edge_costs(model, problems), problems)
    write_used(costs, folder)
    tables = {"mixed": known_against_others(model, problems).to_dict("records")}
    accuracy: dict[str, Counts] = {}
    for family in (each for each in get_args(Family) if each not in ("plain", "mixed")):
        some = word_problems(n // 4, seed=8, family=family)
        tables[family] = known_against_others(model, some).to_dict("records")
        texts, _ = run_thoughts(model, some)
        right = [is_correct(t, p.answer or 0) for t, p in zip(texts, some, strict=True)]
        accuracy[family] = count(some, right)
    known = costs[costs["known"]]
    kind = ["n_operations", "step", "refers_to", "key"]  # other edges to the same thought
    others = costs[~costs["known"]].groupby(kind)["cost"].max()
    largest = [float(others.get(tuple(row), np.nan)) for row in known[kind].to_numpy()]
    return {
        "against": tables,
        "accuracy": accuracy,
        "references": known.assign(largest_other=largest).to_dict("records"),
    }


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


def answers_of_control(control: CodiModel, problems: Sequence[WordProblem]) -> list[str]:
    """Answers after constant thoughts; right after eot if the control learnt without any."""
    settings = json.loads((Path(control.config.source) / "codi_config.json").read_text())
    if settings["training"].get("constant_thoughts"):
        return run_thoughts(control, problems)[0]
    return continue_greedily(control, problems, [control.config.bot, control.config.eot])


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
        own = problems[i]
        draw = random.Random(f"ct{thought} of {own.id}")
        for donor in draw.sample(usable, min(20, len(usable))):
            given = {thought + 1: problems[donor].totals[thought]}
            total = totals_of(own.start, own.operations, given)[-1]
            if 0 <= total < 50 and total != own.answer:
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


def count(problems: Sequence[WordProblem], correct: Sequence[bool]) -> Counts:
    """Correct answers and n: of all, of each number of operations, and of all above one."""
    table = {"all": {"n": len(problems), "correct": sum(correct)}}
    lengths = [len(problem.operations) for problem in problems]
    for length in sorted(set(lengths)):
        rows = [c for n, c in zip(lengths, correct, strict=True) if n == length]
        table[str(length)] = {"n": len(rows), "correct": sum(rows)}
    if 1 in lengths:
        several = [row for name, row in table.items() if name not in ("all", "1")]
        table["2 to 5"] = {key: sum(row[key] for row in several) for key in ("n", "correct")}
    return table


if __name__ == "__main__":
    main()
