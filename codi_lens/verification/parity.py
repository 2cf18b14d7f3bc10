"""Largest differences between a model's runs and the reference's, beside the noise floor.

The noise floor is the reference against itself in a more precise dtype: what no implementation in
the model's dtype can be expected to better. Together with a least tolerance it is the rule by
which `codi_lens.verify` judges.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from einops import reduce
from jaxtyping import Float
from torch import Tensor

from codi_lens.thinking.run import ThoughtRun
from codi_lens.verification.reference import ReferenceRun

WAYS = ("forced", "free")
"""The same thoughts fed to both sides, or each its own."""
FORCED_TOLERANCE = 5e-5
"""Float32 noise of a pass whose thoughts are given (measured on the original code: 2.4e-5)."""
FREE_TOLERANCE, FREE_ATTENTION_TOLERANCE = 1e-3, 3e-4
"""A free run feeds its own noise back six times."""
NOISE_FACTOR = 10
"""How many times the measured noise floor an error may be: order and kernels differ."""
COARSE = 0.1
"""A tolerance of more than this share of a quantity's size proves little."""


def parity_table(
    reference: Sequence[ReferenceRun],
    models: Mapping[str, ThoughtRun],
    precise: Mapping[str, Sequence[ReferenceRun]],
    tokens_differ: int,
) -> pd.DataFrame:
    """One row per quantity: errors, noise floors, what is allowed, and whether it passes.

    Args:
        reference: free runs in the model's dtype; as their own thoughts were fed, they are also
            what runs with these thoughts forced must equal.
        models: the model's runs, with the reference's thoughts forced and free.
        precise: the same from a more precise reference.
        tokens_differ: problems whose question or special tokens differ, found beforehand.
    """
    n_thoughts = len(reference[0].thoughts)
    ways = {
        way: (_quantities(models[way]), _quantities_of_reference(precise[way], n_thoughts))
        for way in WAYS
    }
    rows = [_counts("tokens", tokens_differ, tokens_differ)]
    for name, value in _quantities_of_reference(reference, n_thoughts).items():
        rows.append(_row(name, value, ways))
    rows.append(_answer_row(rows[-1], models, reference))
    return pd.DataFrame(rows)


def coarse_noise(table: pd.DataFrame, dtype: str) -> list[str]:
    """That the dtype's noise is too large for parity to prove much, where it is."""
    allowed = table[["forced_allowed", "free_allowed"]].max(axis=1)
    shares = (allowed / table["size"]).to_numpy()  # NaN for what is counted
    share = np.nanmax(shares)
    if share <= COARSE:
        return []
    name = table["quantity"].iloc[int(np.nanargmax(shares))]
    return [
        f"The noise of {dtype} allows errors of {100 * share:.0f} % of the "
        f"size of {name}, so parity proves little here; verify in a more precise dtype."
    ]


def _quantities(run: ThoughtRun) -> dict[str, Tensor]:
    attention = run.attention.drop_sel(query="anchor").transpose("layer", "problem", ...)
    return {
        "thoughts": run.predicted_thoughts,
        **{
            f"attention, layer {layer}": torch.from_numpy(values.copy())
            for layer, values in enumerate(attention.values)
        },
        "logits after eot": run.logits,
    }


def _quantities_of_reference(runs: Sequence[ReferenceRun], n_thoughts: int) -> dict[str, Tensor]:
    attention = torch.stack([_named_keys(run, n_thoughts) for run in runs], dim=1)
    return {
        "thoughts": torch.stack([run.thoughts for run in runs]),
        **{f"attention, layer {layer}": values for layer, values in enumerate(attention)},
        "logits after eot": torch.stack([run.logits for run in runs]),
    }


def _named_keys(run: ReferenceRun, n_thoughts: int) -> Float[Tensor, "layer head query key"]:
    """Attention by the names of its keys: question and eot summed, as in `run.attention`."""
    bot = len(run.prompt) - 1
    eot = bot + 1 + n_thoughts
    question, middle, closing = run.attention.tensor_split((bot, eot), dim=-1)
    question, closing = (
        reduce(part, "layer head query key -> layer head query 1", "sum")
        for part in (question, closing)
    )
    answer = torch.zeros_like(closing)  # no row up to eot can see it
    return torch.cat([question, middle, closing, answer], dim=-1)


def _largest(a: Tensor, b: Tensor) -> float:
    return float((a.cpu().double() - b.cpu().double()).abs().max())


def _row(
    name: str,
    expected: Tensor,
    ways: Mapping[str, tuple[dict[str, Tensor], dict[str, Tensor]]],
) -> dict[str, Any]:
    """One quantity: its errors beside the noise floors and what is allowed."""
    row: dict[str, Any] = {"quantity": name, "size": float(expected.square().mean().sqrt())}
    least = {"forced": FORCED_TOLERANCE, "free": FREE_TOLERANCE}
    if name.startswith("attention"):
        least["free"] = FREE_ATTENTION_TOLERANCE
    for way, (model, precise) in ways.items():
        noise = _largest(precise[name], expected)
        row[f"{way}_error"] = _largest(model[name], expected)
        row[f"{way}_noise"] = noise
        row[f"{way}_allowed"] = max(least[way], NOISE_FACTOR * noise)
    # Not "no error above": an error that is NaN must not pass.
    row["passed"] = all(row[f"{way}_error"] <= row[f"{way}_allowed"] for way in ways)
    return row


def _answer_row(
    logits: Mapping[str, Any], given: Mapping[str, ThoughtRun], runs: Sequence[ReferenceRun]
) -> dict[str, Any]:
    """How many answers differ beyond noise; `noise` counts those that differ within it."""
    row = _counts("answers", 0, 0)
    for way, run in given.items():
        close = 2 * logits[f"{way}_allowed"]
        differ = [
            _first_margin(ours, reference)
            for ours, reference in zip(run.answer_tokens, runs, strict=True)
            if ours != reference.tokens
        ]
        row[f"{way}_error"] = sum(margin > close for margin in differ)
        row[f"{way}_noise"] = sum(margin <= close for margin in differ)
    row["passed"] = row["forced_error"] == row["free_error"] == 0
    return row


def _first_margin(ours: Sequence[int], reference: ReferenceRun) -> float:
    """The reference's margin at the first token that differs."""
    theirs = reference.tokens
    same = (i for i, pair in enumerate(zip(ours, theirs, strict=False)) if pair[0] != pair[1])
    at = next(same, min(len(ours), len(theirs)))
    return reference.margins[at] if at < len(reference.margins) else float("inf")


def _counts(quantity: str, forced: int, free: int) -> dict[str, Any]:
    row: dict[str, Any] = {"quantity": quantity, "size": float("nan")}
    for way, count in (("forced", forced), ("free", free)):
        row |= {f"{way}_error": count, f"{way}_noise": 0, f"{way}_allowed": 0}
    return row | {"passed": forced == free == 0}
