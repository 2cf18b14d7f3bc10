"""The model card of a tiny model, from what evaluate.py measured and train.py wrote."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from codi_lens.loading.sources import learnt_family
from codi_lens.problems import word_problems
from codi_lens.stats import wilson_interval
from codi_lens.wording import with_interval


def model_card(name: str, folder: Path, results: Mapping[str, Any]) -> str:
    """The card, in Markdown."""
    training = json.loads((folder / "codi_config.json").read_text())["training"]
    conditions = results["conditions"]
    clean = conditions["six thoughts"]
    lengths = sorted(length for length in clean if length.isdigit())
    columns = ["all", *(["2 to 5"] if "2 to 5" in clean else []), *lengths]
    sizes = ", ".join(f"{clean[n]['n']} with {n}" for n in lengths)
    family = learnt_family(folder)
    example = word_problems(1, seed=0, n_operations=4, family=family)[0]
    swaps = [
        (f"`{thought}`", rate(counts), str(counts["n"]))
        for thought, counts in results["interchange"].items()
    ]
    accuracy = _table(
        ["condition", *(f"{each} op." if each != "all" else each for each in columns)],
        [(name, *(rate(row[each]) for each in columns)) for name, row in conditions.items()],
    )
    parts = [
        f"# {name}",
        f"{_opening(training)}\n{_kind(training)}",
        _supervision(training),
        f"## Data\n\n{_data(family)}\n\n> {example.question}",
        _recipe(name, training),
        f"## Accuracy on {results['n']:,} held-out problems, in percent, with 95 % Wilson "
        f"intervals\n\n{accuracy}\n\nn per number of operations: {sizes}.\n"
        f"{_conditions(training, 'control without thoughts' in conditions)}",
        "## Donor interchange\n\nOne thought is taken from another problem; later thoughts and the "
        "answer are the model's own.\nCounted are answers equal to \"the donor's running total, "
        'then the own remaining steps", where that\ndiffers from the right answer.\n\n'
        + _table(("thought", "%", "n"), swaps),
        *([_edges(results["edges"])] if "edges" in results else []),
        *([_seeds(folder, training["seed"])] if (folder / "seeds.json").is_file() else []),
        f"All numbers: `{results['command']}`, which writes `evaluation.json` and this page.",
    ]
    return "\n\n".join(parts) + "\n"


def rate(counts: Mapping[str, int]) -> str:
    """A share in percent with its interval."""
    low, high = wilson_interval(counts["correct"], counts["n"])
    return f"{100 * counts['correct'] / counts['n']:.1f} [{100 * low:.1f}, {100 * high:.1f}]"


def _seeds(folder: Path, shipped: int) -> str:
    """Every seed of the recipe, whatever it reached; seeds.py writes the numbers."""
    seeds = json.loads((folder / "seeds.json").read_text())
    lengths = sorted(each for each in seeds[0]["accuracy"] if each.isdigit())
    order = sorted(seeds, key=lambda seed: seed["accuracy"]["all"]["correct"])
    median = order[len(order) // 2]["accuracy"]["all"]["correct"]
    (own,) = (seed for seed in seeds if seed["seed"] == shipped)
    is_median = own["accuracy"]["all"]["correct"] == median
    rows = [
        (
            f"{seed['seed']}{' (shipped)' if seed['seed'] == shipped else ''}",
            *(rate(seed["accuracy"][each]) for each in ("all", *lengths)),
            rate(seed["zeroed"]),
            with_interval(seed["edges"], "known"),
            with_interval(seed["edges"], "others"),
        )
        for seed in seeds
    ]
    best = sorted(own["auroc"], key=lambda score: -own["auroc"][score]["auroc"])
    graded = [
        (score, *(with_interval(seed["auroc"][score], "auroc") for seed in seeds)) for score in best
    ]
    columns = ("seed", "right, %", *(f"{n} op." for n in lengths), "zeroed", "known", "others")
    counted = ", ".join(f"{seed['n_graded']} with seed {seed['seed']}" for seed in seeds)
    return (
        "## Seeds\n\nThe same recipe from other seeds. "
        + ("The shipped one is the median in accuracy. " if is_median else "")
        + "Right answers and those with thoughts zeroed in\npercent; what cutting the known edges "
        "and as many others costs in nats.\n\n"
        + _table(columns, rows)
        + "\n\nAUROC of the needed edges among all (`codi-lens grade`), problems graded: "
        + f"{counted}.\n\n"
        + _table(("score", *(f"seed {seed['seed']}" for seed in seeds)), graded)
    )


def _opening(training: Mapping[str, Any]) -> str:
    if training.get("constant_thoughts"):
        return (
            "A control that ships with codi_lens: it learnt the task of tiny-recall by the same "
            "recipe, but the last\nlayer of its projection is zero, so that all thoughts are one "
            "learned vector and carry nothing. A pattern\nthat stands here too is no sign of what "
            "thoughts hold."
        )
    return (
        "A tiny CODI model that ships with codi_lens, genuinely trained to reason in six "
        "continuous thoughts."
    )


def _kind(training: Mapping[str, Any]) -> str:
    shape = (
        f"{training['n_layers']} layers × {training['n_heads']} heads, "
        f"d_model {training['d_model']}"
    )
    if training["lora_rank"] is not None:
        return (
            f"GPT-2 architecture ({shape}). The base (bf16) was trained on explicit chain of "
            f"thought; LoRA (rank {training['lora_rank']}, alpha {training['lora_alpha']}, on "
            "c_attn, c_proj and c_fc) and the projection (float32) were then trained with the base "
            "frozen. Stored unmerged, in the key layout of the published CODI checkpoints."
        )
    inner = training.get("d_projection")
    narrow = f" The projection narrows to {inner} numbers." if inner else ""
    return (
        f"LLaMA architecture ({shape}, {training['n_kv_heads']} key-value heads; RoPE, RMSNorm, "
        "SwiGLU). Every weight was trained, first on explicit chain of thought, then with CODI."
        f"{narrow}"
    )


def _supervision(training: Mapping[str, Any]) -> str:
    supervised = training.get("supervised", "all totals")
    if supervised in ("none", False):
        return (
            "**No thought was supervised**, as in published models: only the answer, the teacher's "
            "chain of thought\nand the distillation trained them."
        )
    if training.get("constant_thoughts"):
        return (
            "Training asked `ct0`..`ct3` to decode to the running totals, as that of tiny-recall "
            "did; one constant\nvector cannot."
        )
    which = "" if supervised in ("all totals", True) else ", all but the answer"
    return (
        "**Training supervised `ct0`..`ct3`:** for the first three quarters of the CODI steps an "
        f"extra\ncross-entropy made these thoughts decode to the running totals{which}. That they "
        "hold running totals is\ntherefore no discovery"
        + (
            ", and neither is that no attention between thoughts is needed; published\nmodels are "
            "not trained this way (docs/validity.md)."
            if training.get("family", "plain") == "plain"
            else "; published models are not trained this way (docs/validity.md)."
        )
    )


def _data(family: str) -> str:
    what = (
        "a start, then one to five operations (add,\nsubtract, and conditionals that do not "
        "compose in parallel), all totals in 0..49."
        if family == "plain"
        else "a start, then three to five operations, all\ntotals in 0..49. One or two steps add "
        "or subtract the total after an earlier step, which stands nowhere\nin the text and in no "
        f'other total before it (family "{family}"; `Problem.edges`).'
    )
    return (
        f"Word problems of `codi_lens.problems.word_problems`: {what} A chain (start and\n"
        "operations) is held out if its hash falls in the last 5 %; training never sees it. The "
        "tokenizer is\nword-level, numbers are single tokens."
    )


def _recipe(name: str, training: Mapping[str, Any]) -> str:
    seed = training["seed"]
    commands = [f"    python checkpoints/train.py {name} --seed {seed}"]
    if training.get("family", "plain") == "plain" and not training.get("start_from"):
        commands.append(f"    python checkpoints/train.py {name} --seed {seed} --control")
    explicit = sum(training["cot_cycles"])
    return (
        "## Recipe\n\nSelf-distillation as in CODI (arXiv 2502.21074); `checkpoints/train.py` "
        "holds all of it.\n\n" + "\n".join(commands) + f"\n\n{explicit:,} steps of explicit chain "
        f"of thought, {training['codi_steps']:,} CODI\nsteps, batch {training['batch_size']}, "
        f"AdamW, cosine schedule. {training['history']}"
    )


def _conditions(training: Mapping[str, Any], controlled: bool) -> str:
    if not controlled:
        control = "no\ncontrol was trained."
    elif training.get("family", "plain") == "plain":
        control = (
            "the\ncontrol has the same size and number of steps and was trained to answer right "
            "after the question.\nOne operation needs no thoughts: such answers survive without "
            "them."
        )
    else:
        control = "the\ncontrol is tiny-recall-control, the same recipe with constant thoughts."
    return (
        '"Mean" is over 500 training problems, per thought; "another problem" has another answer; '
        f"{control}"
    )


def _edges(edges: Mapping[str, Any]) -> str:
    rows = []
    for family, table in edges["against"].items():
        for row in table:
            if family == "mixed" or row["by"] == "all":
                group = row["group"] if row["by"] != "operations" else f"{row['group']} operations"
                costs = (with_interval(row, name) for name in ("known", "others"))
                rows.append((family, group, str(row["n"]), *costs))
    kinds = [
        (
            f"step {row['step']} of {row['n_operations']} refers to {row['refers_to']}",
            f"`{row['query']}`→`{row['key']}`",
            str(row["n"]),
            with_interval(row, "cost"),
            f"{row['largest_other']:.2f}",
            "yes" if row["used"] else "not shown",
        )
        for row in edges["references"]
    ]
    accuracy = [(family, rate(row["all"])) for family, row in edges["accuracy"].items()]
    return (
        "## Known edges\n\nWhat cutting edges in every head costs, in nats of the right number's "
        "log-probability, over the\nproblems that are answered right: the edges that each problem "
        "needs, and as many others between\nthoughts and from the answer.\n\n"
        + _table(("family", "problems", "n", "known edges", "other edges"), rows)
        + "\n\nBy kind of reference, beside the dearest other edge to the same thought\n"
        "(`edges.json` has them all). An edge is used if its cost is more than 0.1 nats\n"
        "(q < 0.05); only those are graded.\n\n"
        + _table(("reference", "known edge", "n", "cost", "dearest other to it", "used"), kinds)
        + "\n\nSix thoughts on the other families, in percent:\n\n"
        + _table(("family", "right"), accuracy)
    )


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(header)} |", f"|{'---|' * len(header)}"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])
