"""What the explorer of an analysis shows of single problems, and what it opens on."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pandas as pd
import xarray as xr

from codi_lens.attention.streaming import Source
from codi_lens.attention.strips import strips_in, strips_of
from codi_lens.errors import OutputError, as_path
from codi_lens.explorer.details import (
    N_PROBLEMS,
    Detail,
    GivenStrips,
    details_of,
    first_strips,
    read_details,
    write_details,
)
from codi_lens.explorer.folder import DETAILS, LENS, read_lens
from codi_lens.explorer.lens import lens_rows
from codi_lens.head_names import head_name
from codi_lens.model import CodiModel
from codi_lens.outputs import write_text
from codi_lens.positions import row_of
from codi_lens.problems.problem import Problem
from codi_lens.readout.batches import Reader, read_all
from codi_lens.readout.reading import logit_lens
from codi_lens.reports.questions.reading_back import ReadingBack
from codi_lens.thinking.prompts import prepare_problems, questions_of

_AT_ONCE = 8
"""Runs that keep every pattern are large."""


def details_kept(
    attention: xr.DataArray,
    model: CodiModel,
    problems: Sequence[Problem],
    folder: Path,
    max_new_tokens: int,
    progress: bool,
    source: Source | None = None,
) -> dict[str, Detail]:
    """Tokens and strips of the problems that the page shows one by one; read where they are kept.

    Args:
        attention: of all the problems.
        model: the model.
        problems: what it thought about.
        folder: of the analysis.
        max_new_tokens: as in its extraction.
        progress: show a progress bar.
        source: of the attention, whose strips are taken if it keeps any.
    """
    shown = problems[:N_PROBLEMS]
    ids = [each.id for each in shown]
    path = folder / DETAILS
    with suppress(OutputError):
        kept = read_details(path)
        if list(kept) == ids:
            return kept
    strips: GivenStrips = {}
    if source is not None and (there := strips_in(as_path("source", source))):
        strips = first_strips(attention, there)
    if not strips:
        strips = _thought(model, shown, max_new_tokens, progress)
    found = details_of(attention.sel(problem=ids), strips, shown)
    details = {id: found[id] for id in ids}
    write_details(path, details)
    return details


def _thought(
    model: CodiModel, problems: Sequence[Problem], max_new_tokens: int, progress: bool
) -> GivenStrips:
    names = [f"blocks.{layer}.attn.hook_pattern" for layer in range(model.lens.cfg.n_layers)]
    (strips,) = read_all(
        [Reader(names, lambda _, run: strips_of(run), list)],
        model,
        problems,
        "strips",
        batch_size=_AT_ONCE,
        max_new_tokens=max_new_tokens,
        progress=progress,
    )
    asked = questions_of(model, prepare_problems(model, problems))
    return {  # a rehearsal has those of the longest questions for all, which would take more room
        problem.id: strip.isel(token=slice(len(question)))
        for problem, strip, question in zip(problems, strips, asked, strict=True)
    }


def lens_kept(
    model: CodiModel,
    problems: Sequence[Problem],
    folder: Path,
    max_new_tokens: int,
    progress: bool,
) -> pd.DataFrame:
    """What the lens reads in the same problems; read where it is kept.

    Args:
        model: see `details_kept`.
        problems: see `details_kept`.
        folder: see `details_kept`.
        max_new_tokens: see `details_kept`.
        progress: see `details_kept`.
    """
    shown = problems[:N_PROBLEMS]
    path = folder / LENS
    if path.is_file():
        kept = read_lens(path)
        if set(kept["problem"]) == {each.id for each in shown}:
            return kept
    at = ["bot", "thoughts", "eot", "anchor"]
    table = logit_lens(model, shown, at=at, max_new_tokens=max_new_tokens, progress=progress)
    rows = lens_rows(table)
    write_text(path, rows.to_csv(index=False))
    return rows


def opening_of(found: ReadingBack) -> dict[str, Any]:
    """What the page says and shows first: the head in two problems with different needs."""
    name = head_name(found.head)
    ids = [problem.id for problem in found.examples]
    edges = [problem.edges[0] for problem in found.examples]
    states = [
        {
            "head": name,
            "problem": id,
            "cell": f"{row_of(query)},{key}",
            "quantity": "cell",
        }
        for id, (query, key) in zip(ids, edges, strict=True)
    ]
    examples = [
        {"label": f"A problem that needs {key}", "state": urlencode(state)}
        for (_, key), state in zip(edges, states, strict=True)
    ]
    if len(states) == 2:
        both = states[1] | {"pin": f"{name}@{ids[0]}"}
        examples.insert(0, {"label": "Both, side by side", "state": urlencode(both)})
    mean = urlencode({"head": name, "problem": ""})
    examples.append({"label": "The mean over all problems", "state": mean})
    return {"title": found.title, "sentences": found.sentences, "examples": examples}
