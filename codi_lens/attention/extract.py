"""Many problems → labelled attention, streamed to disk and resumable.

Each problem is marked done only after it is written, so a stopped extraction continues where it was
and never holds half a problem.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from tqdm import tqdm
from zarr.storage import MemoryStore

from codi_lens.attention.store import open_store, read_store
from codi_lens.attention.values import question_tokens, value_weighted_attention
from codi_lens.errors import OutputError, as_path, check_flags
from codi_lens.interventions.donors import Donors
from codi_lens.interventions.giving import with_donors
from codi_lens.model import CodiModel
from codi_lens.problems.parsing import parse_answer
from codi_lens.problems.problem import Problem, Problems, check_problems
from codi_lens.stats import wilson_interval
from codi_lens.thinking.given import problems_for
from codi_lens.thinking.hook_names import hooked_names
from codi_lens.thinking.hooks import Intervention
from codi_lens.thinking.plan import Planned, as_interventions
from codi_lens.thinking.prompts import prepare_problems
from codi_lens.thinking.run import ThoughtRun


def extract(
    model: CodiModel,
    problems: Problems,
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
            extraction, only the missing problems are run; whether the answers are correct is always
            judged by the problems that are given now.
        value_weighted: also keep how much each key writes (`attention.values`), the attention
            sink, which is the share of the question's first token, and the share of its strongest
            token, for about a third more time.
        batch_size: problems per forward pass; longer questions come first, beside questions of
            similar length.
        max_new_tokens: see `CodiModel.think`.
        interventions: see `CodiModel.think`. Those that name no donors draw them among all the
            problems. A stored extraction knows its interventions by their names.
        progress: show a progress bar.

    Returns:
        Attention [problem, layer, head, query, key] as in `ThoughtRun.attention`, with the ids as
        problem labels and, along the problems, `question`, `answer` (text), `predicted` and
        `expected` (numbers, NaN where there is none) and `correct` (1, 0, or NaN); where answers
        are of other kinds, `right_answer` (texts). With `value_weighted`, the coordinates
        `value_weighted` (all five axes), `sink`, `strongest` and both `…_value_weighted` (without
        the keys) go with it, so that `rank_heads(attention.value_weighted)` ranks by what is
        written. The folder labels itself: plain `xr.open_zarr(out)` selects by the same names and
        ids.

    Raises:
        ProblemError: no problems, ids that are not unique, or a question that does not fit.
        OutputError: `out` holds something else, is damaged, or another process writes it.

    >>> from codi_lens.problems import word_problems
    >>> model = CodiModel.from_pretrained("checkpoints/tiny-gpt2")
    >>> attention = extract(model, word_problems(4), progress=False)
    >>> dict(attention.sizes)
    {'problem': 4, 'layer': 3, 'head': 8, 'query': 9, 'key': 10}
    """
    problems = problems_for(model, problems, "extract")
    ids = check_problems(problems, "extract", batch_size=batch_size, max_new_tokens=max_new_tokens)
    batch_size, max_new_tokens = int(batch_size), int(max_new_tokens)
    check_flags(progress=progress, value_weighted=value_weighted)
    interventions = _with_donors(model, problems, interventions, batch_size)
    prompts = prepare_problems(model, problems)
    store = MemoryStore() if out is None else as_path("out", out)
    settings = {
        "model": model.config.source,
        "fingerprint": model.fingerprint(),
        "max_new_tokens": max_new_tokens,
        "value_weighted": value_weighted,
        "hooks": hooked_names(model.lens),
        "interventions": [intervention.name for intervention in interventions],
        "questions": [[p.id, p.question, p.answer, *p.form.told] for p in problems],
    }
    cfg = model.lens.cfg
    # Batches are those of the whole extraction, so that a resumed one gives the same bits.
    order = np.argsort([-len(prompt) for prompt in prompts], kind="stable")
    batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    opening = len(model.config.opening)
    sizes = (cfg.n_layers, cfg.n_heads, model.config.n_thoughts)
    with (
        open_store(store, settings, *sizes) as arrays,
        tqdm(total=len(ids), desc="thinking", unit="problem", disable=not progress) as bar,
    ):
        missing = ~arrays["done"][:]
        bar.update(len(ids) - int(missing.sum()))
        for batch in batches:
            if not missing[batch].any():
                continue
            run = model.think(
                [prompts[i][:-opening] for i in batch],
                max_new_tokens=max_new_tokens,
                names_filter=_is_pattern_or_value if value_weighted else None,
                interventions=interventions,
                ids=[ids[i] for i in batch],
                kind=[problems[i].form for i in batch],
            )
            kept = _kept(model, run, value_weighted=value_weighted)
            for row, i in enumerate(batch):
                if not missing[i]:
                    continue
                number = parse_answer(run.answers[row], *problems[i].form.told)
                for name, values in kept.items():
                    arrays[name][i] = values[row]
                arrays["predicted"][i] = np.nan if isinstance(number, str | None) else number
                arrays["done"][i] = True
                bar.update()
    return read_store(store)


def open_attention(path: str | Path) -> xr.DataArray:
    """Attention that `extract` wrote, read from disk as it is used.

    Raises:
        OutputError: not such a folder, or an extraction that is not finished.

    >>> import tempfile
    >>> from codi_lens.problems import word_problems
    >>> model = CodiModel.from_pretrained("checkpoints/tiny-gpt2")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     kept = extract(model, word_problems(2), f"{folder}/attention.zarr", progress=False)
    ...     bool((open_attention(f"{folder}/attention.zarr") == kept).sel(query="ct2").all())
    True
    """
    path = as_path("path", path)
    if not (path / "zarr.json").is_file():
        raise OutputError(f"{path} holds no extracted attention.")
    return read_store(path)


def _with_donors(
    model: CodiModel, problems: Sequence[Problem], interventions: Any, batch_size: int
) -> list[Intervention | Planned]:
    """Interventions that draw their donors among all the problems, where they name none."""
    given = as_interventions(interventions)
    donors = Donors(model, problems, batch_size=batch_size) if given else None
    return [] if donors is None else [with_donors(each, donors) for each in given]


def _is_pattern_or_value(name: str) -> bool:
    return name.endswith(("hook_pattern", "hook_v"))


def _kept(model: CodiModel, run: ThoughtRun, *, value_weighted: bool) -> dict[str, Any]:
    """What the store keeps of each problem of a run, under the names of its arrays."""
    kept: dict[str, Any] = {"attention": run.attention.values, "answer": run.answers}
    if value_weighted:
        kept["value_weighted"] = value_weighted_attention(model.lens, run).values
        for end, weighted in (("", False), ("_value_weighted", True)):
            sink, strongest = question_tokens(model.lens, run, weighted=weighted)
            kept |= {f"sink{end}": sink.values, f"strongest{end}": strongest.values}
    return kept


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
