"""Many problems → labelled attention, streamed to disk and resumable.

Each problem is one chunk of a zarr store and is marked done only after it is written, so a stopped
extraction continues where it was and never holds half a problem.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr
from tqdm import tqdm
from zarr.storage import MemoryStore

from codi_lens.attention.values import first_token_attention, value_weighted_attention
from codi_lens.errors import OutputError, ProblemError
from codi_lens.interventions.donors import Donors, with_donors
from codi_lens.loading.loaded import Lens
from codi_lens.model import CodiModel
from codi_lens.outputs import Kind, resumes
from codi_lens.positions import key_names, query_names
from codi_lens.problems.problem import Problem, is_correct, parse_answer
from codi_lens.stats import wilson_interval
from codi_lens.thinking.hooks import Intervention
from codi_lens.thinking.loop import hooked_names
from codi_lens.thinking.plan import Planned
from codi_lens.thinking.prompts import prepare_problems
from codi_lens.thinking.run import ThoughtRun

_STORE = Kind(
    marker="zarr.json",
    foreign="exists and is not extracted attention; choose another.",
    other="holds another extraction (its {differing} differ); choose another folder.",
    takes_empty=False,  # a store is made beside its place and renamed, so it never stands empty
)


def extract(
    model: CodiModel,
    problems: Sequence[Problem],
    out: str | Path | None = None,
    *,
    value_weighted: bool = False,
    batch_size: int = 32,
    max_new_tokens: int = 64,
    interventions: Sequence[Intervention | Planned] = (),
    progress: bool = True,
) -> xr.DataArray:
    """Run all problems and keep the attention of every named position, and the answers.

    Args:
        model: the model.
        problems: what to think about; ids must be unique.
        out: a zarr folder; None keeps everything in memory. If it holds part of the same
            extraction, only the missing problems are run.
        value_weighted: also keep how much each key writes (`attention.values`) and the attention
            sink, the share of the first token, for about a third more time.
        batch_size: problems per forward pass; longer questions come first, beside questions of
            similar length.
        max_new_tokens: see `CodiModel.think`.
        interventions: see `CodiModel.think`. Those that name no donors draw them among all the
            problems. A stored extraction knows its interventions by their names.
        progress: show a progress bar.

    Returns:
        Attention [problem, layer, head, query, key] as in `ThoughtRun.attention`, with the ids as
        problem labels and, along the problems, `question`, `answer` (text), `predicted` and
        `expected` (numbers, NaN where there is none) and `correct` (1, 0, or NaN). With
        `value_weighted`, the coordinates `value_weighted` (all five axes), `sink` and
        `sink_value_weighted` (without the keys) go with it, so that
        `rank_heads(attention.value_weighted)` ranks by what is written.

    Raises:
        ProblemError: no problems, ids that are not unique, or a question that does not fit.
        OutputError: `out` holds something else, or is damaged.

    >>> from codi_lens.problems import word_problems
    >>> model = CodiModel.from_pretrained("checkpoints/tiny-gpt2")
    >>> attention = extract(model, word_problems(4), progress=False)
    >>> dict(attention.sizes)
    {'problem': 4, 'layer': 3, 'head': 8, 'query': 9, 'key': 10}
    """
    ids = [problem.id for problem in problems]
    if not ids:
        raise ProblemError("There are no problems to extract; give at least one.")
    if len(set(ids)) < len(ids):
        twice = next(id for id in ids if ids.count(id) > 1)
        raise ProblemError(f"The problem id {twice!r} occurs twice; ids must be unique.")
    for name, value in (("batch_size", batch_size), ("max_new_tokens", max_new_tokens)):
        if value < 1:
            raise ProblemError(f"{name} must be at least 1, not {value}.")
    prompts = prepare_problems(model, problems)

    store: Any = MemoryStore() if out is None else Path(out)
    group = _open(store, model, problems, max_new_tokens, value_weighted, interventions)
    weighted = tuple(_WEIGHTED) if value_weighted else ()
    names = ("attention", "answer", "predicted", *weighted)
    arrays: dict[str, Any] = {name: group[name] for name in names}
    done: Any = group["done"]
    missing = ~done[:]
    # Batches are those of the whole extraction, so that a resumed one gives the same bits.
    order = np.argsort([-len(prompt) for prompt in prompts], kind="stable")
    batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    opening = len(model.config.opening)
    if interventions:
        donors = Donors(model, problems, batch_size=batch_size)
        interventions = [with_donors(intervention, donors) for intervention in interventions]
    with tqdm(
        total=len(ids),
        initial=len(ids) - int(missing.sum()),
        desc="thinking",
        unit="problem",
        disable=not progress,
    ) as bar:
        for batch in batches:
            if not missing[batch].any():
                continue
            run = model.think(
                [prompts[i][:-opening] for i in batch],
                max_new_tokens=max_new_tokens,
                names_filter=_is_pattern_or_value if value_weighted else None,
                interventions=interventions,
                ids=[ids[i] for i in batch],
            )
            extra = {name: _WEIGHTED[name](model.lens, run).values for name in weighted}
            for row, i in enumerate(batch):
                if not missing[i]:
                    continue
                value = parse_answer(run.answers[row])
                arrays["attention"][i] = run.attention.values[row]
                for name, values in extra.items():
                    arrays[name][i] = values[row]
                arrays["answer"][i] = run.answers[row]
                arrays["predicted"][i] = np.nan if value is None else value
                done[i] = True
                bar.update()
    return _read(store)


def open_attention(path: str | Path) -> xr.DataArray:
    """Attention that `extract` wrote, read from disk as it is used.

    Raises:
        OutputError: not such a folder, or an extraction that is not finished.
    """
    path = Path(path)
    if not (path / "zarr.json").is_file():
        raise OutputError(f"{path} holds no extracted attention.")
    with _damage_named(path):
        return _read(path)


def _is_pattern_or_value(name: str) -> bool:
    return name.endswith(("hook_pattern", "hook_v"))


_WEIGHTED: dict[str, Callable[[Lens, ThoughtRun], xr.DataArray]] = {
    "value_weighted": value_weighted_attention,
    "sink": first_token_attention,
    "sink_value_weighted": partial(first_token_attention, weighted=True),
}


def _open(
    store: Any,
    model: CodiModel,
    problems: Sequence[Problem],
    max_new_tokens: int,
    value_weighted: bool,
    interventions: Sequence[Intervention | Planned],
) -> Any:
    """The zarr group of this very extraction: created, or found with the same settings."""
    settings = {
        "model": model.config.source,
        "fingerprint": model.fingerprint(),
        "max_new_tokens": max_new_tokens,
        "value_weighted": value_weighted,
        "hooks": hooked_names(model.lens),
        "interventions": [intervention.name for intervention in interventions],
        "questions": [[problem.id, problem.question, problem.answer] for problem in problems],
    }
    if isinstance(store, Path) and "" in settings["interventions"]:
        raise OutputError(
            "An extraction on disk knows its interventions by name, and one has none; give it "
            "Intervention(..., name=...)."
        )
    wanted = {name: value for name, value in settings.items() if name != "model"}
    if isinstance(store, Path) and resumes(store, _STORE, wanted, partial(_settings, names=wanted)):
        return zarr.open_group(store, mode="r+")
    n_problems, n = len(problems), model.config.n_thoughts
    cfg = model.lens.cfg
    shape = (cfg.n_layers, cfg.n_heads, len(query_names(n)), len(key_names(n)))
    # Made beside its place and renamed, so that a half-made store is never taken for one.
    unfinished = store.with_name(f".{store.name}.partial") if isinstance(store, Path) else store
    if isinstance(unfinished, Path):
        shutil.rmtree(unfinished, ignore_errors=True)
    group = zarr.open_group(unfinished, mode="w-")
    along: dict[str, Any] = {"shape": (n_problems,), "dimension_names": ("problem",)}
    dims = ("problem", "layer", "head", "query", "key")
    sizes = {"attention": 5, "value_weighted": 5, "sink": 4, "sink_value_weighted": 4}
    for name in ("attention", *_WEIGHTED) if value_weighted else ("attention",):
        axes = sizes[name]
        group.create_array(
            name,
            shape=(n_problems, *shape[: axes - 1]),
            chunks=(1, *shape[: axes - 1]),
            dtype="float32",
            fill_value=np.nan,
            dimension_names=dims[:axes],
        )
    group.create_array("answer", chunks=(1,), dtype=str, **along)
    group.create_array("predicted", dtype="float64", fill_value=np.nan, **along)
    group.create_array("done", dtype="bool", fill_value=False, **along)
    group.attrs.update({**settings, "n_thoughts": n})
    if isinstance(unfinished, Path):
        unfinished.rename(store)
        return zarr.open_group(store, mode="r+")
    return group


def _settings(store: Path, names: Iterable[str]) -> dict[str, Any]:
    """The named settings of a stored extraction; one that is older than a setting has none."""
    with _damage_named(store):
        group = zarr.open_group(store, mode="r")
        group["done"]  # the last array to be made
        return {name: group.attrs.get(name, []) for name in names}


@contextmanager
def _damage_named(path: Path) -> Iterator[None]:
    """Whatever zarr raises on a damaged store becomes one sentence."""
    try:
        yield
    except OutputError:
        raise
    except Exception as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise OutputError(f"{path} is damaged ({reason}); delete it and extract again.") from error


def _read(store: Any) -> xr.DataArray:
    dataset = xr.open_zarr(store, chunks=None, consolidated=False)
    done = dataset["done"].values
    if not done.all():
        raise OutputError(
            f"{store} holds {done.sum()} of {done.size} problems; run the extraction again to "
            "finish it."
        )
    ids, questions, known = zip(*dataset.attrs["questions"], strict=True)
    expected = np.array([np.nan if answer is None else answer for answer in known], dtype=float)
    texts = [str(text) for text in dataset["answer"].values]
    correct = [
        np.nan if answer is None else float(is_correct(text, answer))
        for text, answer in zip(texts, known, strict=True)
    ]
    n = dataset.attrs["n_thoughts"]
    attention = dataset["attention"]
    attention.attrs = {key: dataset.attrs[key] for key in ("model", "fingerprint")}
    weighted = {name: dataset[name] for name in _WEIGHTED if name in dataset}
    coordinates: dict[str, Any] = {
        **weighted,
        "problem": list(ids),
        "layer": np.arange(attention.sizes["layer"]),
        "head": np.arange(attention.sizes["head"]),
        "query": list(query_names(n)),
        "key": list(key_names(n)),
        "question": ("problem", list(questions)),
        "answer": ("problem", np.array(texts, dtype=object)),
        "predicted": ("problem", dataset["predicted"].values),
        "expected": ("problem", expected),
        "correct": ("problem", correct),
    }
    return attention.assign_coords(coordinates)


def accuracy(attention: xr.DataArray) -> dict[str, Any] | None:
    """Share of correct answers with its Wilson interval; None if no problem has an answer.

    Returns:
        `n` (problems with a known answer), `correct`, `accuracy`, `low`, `high`.
    """
    correct = attention["correct"].values
    correct = correct[~np.isnan(correct)]
    if correct.size == 0:
        return None
    low, high = wilson_interval(int(correct.sum()), correct.size)
    return {
        "n": int(correct.size),
        "correct": int(correct.sum()),
        "accuracy": float(correct.mean()),
        "low": low,
        "high": high,
    }
