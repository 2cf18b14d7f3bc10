"""The logit lens at every layer and named position of a run, and on the thoughts themselves.

Two things are read, and never mixed. The *state* at a position is the residual stream there: after
the last block, passed through the final norm, it is what the projection turns into the next thought
(row `bot` makes `ct0`), and what CODI's authors decode. The *thought* is the vector that is fed,
after the projection. Of both the final norm is taken before the unembedding.

Source: nostalgebraist 2020, "interpreting GPT: the logit lens".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pandas as pd
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from codi_lens.errors import PositionError, ProblemError, shown, whole_number
from codi_lens.model import CodiModel
from codi_lens.positions import Scope, thought_names
from codi_lens.problems.problem import Problem, Problems, check_problems
from codi_lens.readout.batches import Reader, read_all
from codi_lens.readout.states import Reading, label_rank, position_labels, read
from codi_lens.readout.targets import Targets, chosen_targets, ways_to_write
from codi_lens.thinking.given import problems_for
from codi_lens.thinking.run import ThoughtRun
from codi_lens.thinking.ways import Way, in_way
from codi_lens.workers.spread import Workers


@runtime_checkable
class Translator(Protocol):
    """What maps a layer's states into the basis of the last layer's, such as a tuned lens."""

    def translate(
        self, layer: int, states: Float[Tensor, "row d_model"]
    ) -> Float[Tensor, "row d_model"]:
        """States as if after the last block."""
        ...


def logit_lens(
    model: CodiModel,
    problems: Problems,
    *,
    targets: Targets = None,
    k: int = 5,
    at: Scope = "all",
    layers: Sequence[int] | None = None,
    translator: Translator | None = None,
    way: Way | None = None,
    batch_size: int = 8,
    max_new_tokens: int = 64,
    progress: bool = True,
    workers: Workers | None = None,
    ray_address: str | None = None,
) -> xr.Dataset:
    """What the residual stream at every layer and named position says, in tokens.

    Logits are never held for more than 2²⁴ cells at once: at the shape of LLaMA-3.2-1B (16 layers,
    width 2,048, 128,256 tokens) 130 positions, some 200 MB with their softmax, beside 16 MB of
    states for each problem of 128 tokens in a batch. Measured at that shape, 8 problems of up to
    129 positions take 0.63 GB at the peak (`benchmarks/gpu.py`).

    Args:
        model: the model.
        problems: what to think about.
        targets: known values to look for: "answer", "totals" (running totals of built-in problems),
            or names with one number or text per problem (None where a problem has none).
        k: how many of the likeliest tokens to keep.
        at: positions by name, "anchor" too; "all" are all tokens of question, thoughts and answer.
        layers: after which blocks; all by default.
        translator: a tuned lens.
        way: "think", "skip" or "explain": which runs are read, by default those of the model (see
            `CodiModel.in_way`). Those of "explain" have the positions `step0` … too, together
            "steps", and no positions of thoughts.
        batch_size: problems of median length per forward pass.
        max_new_tokens: longest answer.
        progress: show a progress bar.
        workers, ray_address: who runs and reads; see `codi_lens.workers.spread`.

    Returns:
        Over [problem, layer, position, rank]: `token` (text), `token_id` and `probability` of the
        likeliest tokens; over [problem, layer, position]: `entropy` (nats); with targets, over
        [problem, layer, position, target]: `log_prob` (nats, all single tokens that write the value
        summed: "9" and " 9") and `target_rank` (1 is the likeliest token; 0 where the problem has
        no such target). Of the thoughts as fed, over [problem, thought, …], the same names with
        `thought_` in front. `text` [problem, position] is the token at a position, and `question`
        goes with the problems. Tokens of question and answer are positions of their own
        ("question 0"); where a problem has no such position, texts are "" and numbers NaN, ids -1.

    Raises:
        ProblemError: no problems, or targets that fit neither problems nor tokenizer.
        PositionError: a position or layer that does not exist.

    >>> from codi_lens.problems import word_problems
    >>> model = CodiModel.from_pretrained("checkpoints/tiny-gpt2")
    >>> table = logit_lens(model, word_problems(2), at="thinking", k=2, progress=False)
    >>> dict(table["token"].sizes)
    {'problem': 2, 'layer': 3, 'position': 6, 'rank': 2}
    """
    problems = problems_for(model, problems, "read")
    model = in_way(model, way)
    check_problems(problems, "read", batch_size=batch_size, k=k)
    reader = lens_reader(model, problems, targets, k, at, layers, translator)
    running: dict[str, Any] = {"batch_size": batch_size, "max_new_tokens": max_new_tokens}
    running |= {"progress": progress, "workers": workers, "ray_address": ray_address}
    return read_all([reader], model, problems, "reading", **running)[0]


def lens_reader(
    model: CodiModel,
    problems: Sequence[Problem],
    targets: Targets,
    k: int,
    at: Scope,
    layers: Sequence[int] | None = None,
    translator: Translator | None = None,
) -> Reader:
    """What `logit_lens` reads in runs of the model; same arguments and errors."""
    cfg = model.lens.cfg
    k = whole_number("k", k, 1, cfg.d_vocab_out, error=ProblemError)
    kept = _layers(layers, cfg.n_layers)
    wanted = chosen_targets(problems, targets)
    ways = {
        name: [ways_to_write(model, value) for value in values] for name, values in wanted.items()
    }

    def read_in(batch: Sequence[int], run: ThoughtRun) -> list[xr.Dataset]:
        chosen = {name: [each[i] for i in batch] for name, each in ways.items()}
        return _read_run(model, run, chosen, kept, k, at, translator)

    def table(parts: Sequence[xr.Dataset]) -> xr.Dataset:
        whole = _together(parts).assign_coords(
            problem=[problem.id for problem in problems],
            question=("problem", [problem.question for problem in problems]),
        )
        whole.attrs = {"model": model.config.source, "translated": int(translator is not None)}
        return whole

    return Reader([f"blocks.{layer}.hook_resid_post" for layer in kept], read_in, table)


def _together(parts: Sequence[xr.Dataset]) -> xr.Dataset:
    """Problems side by side, over all positions that any of them has."""
    labels = sorted({str(p) for part in parts for p in part["position"].values}, key=label_rank)
    filled = {"token": "", "text": "", "token_id": -1, "target_rank": 0}
    whole = [part.reindex(position=labels, fill_value=filled | _NAN) for part in parts]
    return xr.concat(whole, dim="problem")


_NAN = {"probability": np.nan, "entropy": np.nan, "log_prob": np.nan}


def _layers(layers: Sequence[int] | None, n_layers: int) -> list[int]:
    if layers is None:
        return list(range(n_layers))
    kept = [
        whole_number("layer", layer, high=n_layers - 1, error=PositionError) for layer in layers
    ]
    if not kept or len(set(kept)) < len(kept):
        raise PositionError(f"Give at least one layer, each once; not {shown(list(layers))}.")
    return kept


def _read_run(
    model: CodiModel,
    run: ThoughtRun,
    ways: Mapping[str, Sequence[Sequence[int]]],
    layers: Sequence[int],
    k: int,
    at: Scope,
    translator: Translator | None,
) -> list[xr.Dataset]:
    """One dataset per problem of a batch, over its own positions."""
    cache = run.cache()
    states = torch.stack([cache[f"blocks.{layer}.hook_resid_post"] for layer in layers], dim=1)
    found: list[xr.Dataset] = []
    for row in range(len(states)):
        columns = position_labels(run, at, row, states.shape[2])
        own = [ways[name][row] for name in ways]
        vectors = states[row][:, list(columns.values())]
        if translator is not None:
            vectors = torch.stack(
                [
                    translator.translate(layer, each)
                    for layer, each in zip(layers, vectors, strict=True)
                ]
            )
        n_rows = len(layers) * len(columns)
        reading = read(model, vectors.flatten(0, 1), k, [own] * n_rows)
        thoughts = read(model, run.thoughts[row], k, [own] * len(run.thoughts[row]))
        axes = {"layer": list(layers), "position": list(columns)}
        names = {"thought": list(thought_names(len(run.thoughts[row])))}
        data = _variables(model, reading, axes, list(ways), "")
        data |= _variables(model, thoughts, names, list(ways), "thought_")
        data["text"] = xr.DataArray(
            np.array([run.tokens[row][column] for column in columns.values()], dtype=object),
            dims="position",
        )
        coords: dict[str, Any] = {**axes, **names, "rank": range(1, k + 1), "target": list(ways)}
        found.append(xr.Dataset(data, coords).expand_dims("problem"))
    return found


def _variables(
    model: CodiModel,
    reading: Reading,
    axes: Mapping[str, Sequence[Any]],
    targets: Sequence[str],
    prefix: str,
) -> dict[str, xr.DataArray]:
    shape, dims = tuple(map(len, axes.values())), tuple(axes)
    ids = reading.tokens.numpy().reshape(*shape, reading.tokens.shape[-1])
    names = {token: str(model.tokenizer.decode([int(token)])) for token in np.unique(ids)}
    text = np.array([names[token] for token in ids.ravel()], dtype=object).reshape(ids.shape)
    rank, target = (*dims, "rank"), (*dims, "target")
    values: dict[str, tuple[tuple[str, ...], Any]] = {
        "token": (rank, text),
        "token_id": (rank, ids),
        "probability": (rank, reading.probabilities.numpy().reshape(ids.shape)),
        "entropy": (dims, reading.entropy.numpy().reshape(shape)),
    }
    if targets:
        each = (*shape, len(targets))
        values["log_prob"] = (target, reading.log_probs.numpy().reshape(each))
        values["target_rank"] = (target, reading.ranks.numpy().reshape(each))
    return {f"{prefix}{name}": xr.DataArray(data, dims=at) for name, (at, data) in values.items()}


def top(table: xr.Dataset, position: str, layer: int) -> pd.DataFrame:
    """The likeliest tokens of one layer and position: a row per problem and rank.

    Args:
        table: of `logit_lens`.
        position: its name, "ct2".
        layer: after which block.

    Returns:
        Columns `problem`, `rank`, `token`, `probability`.

    Raises:
        PositionError: the table has no such position or layer.

    >>> from codi_lens.problems import word_problems
    >>> model = CodiModel.from_pretrained("checkpoints/tiny-gpt2")
    >>> table = logit_lens(model, word_problems(1), at="ct0", k=1, progress=False)
    >>> list(top(table, "ct0", 2).columns)
    ['problem', 'rank', 'token', 'probability']
    """
    for axis, name in (("position", position), ("layer", layer)):
        if name not in table[axis].values:
            known = ", ".join(map(str, table[axis].values))
            raise PositionError(f"The table holds no {axis} {shown(name)}; it holds {known}.")
    chosen = table[["token", "probability"]].sel(position=position, layer=layer)
    return chosen.to_dataframe().reset_index()[["problem", "rank", "token", "probability"]]
