"""`codi-lens read`: what do the thoughts say? The lens and the authors' probe on one page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import xarray as xr

from codi_lens.errors import ProblemError, whole_number
from codi_lens.explorer.folder import QUESTIONS, write_questions
from codi_lens.explorer.lens import lens_rows
from codi_lens.model import CodiModel
from codi_lens.outputs import open_report, write_text
from codi_lens.plots.readout.tokens import top_tokens, visible
from codi_lens.problems.problem import Problem, check_problems
from codi_lens.problems.words import WordProblem
from codi_lens.readout.batches import read_all
from codi_lens.readout.decode import authors_text, probe_reader
from codi_lens.readout.known import known_values, with_controls
from codi_lens.readout.reading import lens_reader
from codi_lens.readout.targets import Targets, Value, chosen_targets, ways_to_write
from codi_lens.reports.pages.facts import model_facts, name_of
from codi_lens.reports.pages.folder import CausalReport, write_report
from codi_lens.reports.pages.section import Section
from codi_lens.thinking.ways import Way, way_of
from codi_lens.wording import count, percent
from codi_lens.workers.spread import Workers

HEADING = "What do the thoughts say?"
_METHOD = "The logit lens: residual stream, final norm, unembedding."
_NO_PROOF = "That a value can be read does not say that it is used; the report of patch asks that."
_LEAD = (
    f"{_METHOD} The state at bot, before the "
    "projection, is what makes ct0, and is never the same as the thought that is fed after it. "
    f"{_NO_PROOF}"
)
_READ: dict[Way, list[str]] = {
    "think": ["bot", "thoughts", "eot", "anchor"],
    "skip": ["bot", "eot", "anchor"],
    "explain": ["steps", "anchor"],
}
_DRAWN = 4


def read_thoughts(
    model: CodiModel,
    problems: Sequence[Problem],
    out: str | Path,
    *,
    k: int = 5,
    batch_size: int = 8,
    max_new_tokens: int = 64,
    progress: bool = True,
    workers: Workers | None = None,
    ray_address: str | None = None,
) -> CausalReport:
    """Read every state and thought of the problems, and write tables, texts and a page.

    Args:
        model: the model.
        problems: what to think about. Of built-in word problems the running totals are looked for,
            of others the answers, where a single token writes them.
        out: the report's folder: `index.html`, `findings.md`, `tokens.csv` (the authors' rows),
            `decoded_latent.txt` (their text format), `lens.csv` (the likeliest tokens at every
            layer and position), `known.csv` (how often known values are the likeliest token). Of
            runs without thoughts there is nothing for the authors' files.
        k: how many tokens of each place.
        batch_size: problems of median length per forward pass.
        max_new_tokens: longest answer.
        progress: show progress bars.
        workers, ray_address: who runs and reads; see `codi_lens.workers.spread`.

    Raises:
        ProblemError: no problems, or `k` out of range.
        OutputError: `out` holds something else.
    """
    problems = list(problems)
    k = whole_number("k", k, 1, model.lens.cfg.d_vocab_out, error=ProblemError)
    check_problems(problems, "read", batch_size=batch_size)
    running: dict[str, Any] = {"batch_size": batch_size, "max_new_tokens": max_new_tokens}
    running |= {"progress": progress, "workers": workers, "ray_address": ray_address}
    way = way_of(model)
    with open_report(out, "read" if way == "think" else f"read --way {way}") as folder:
        targets = _targets(model, problems)
        wanted = with_controls(targets) if targets else None
        readers = [lens_reader(model, problems, wanted, k, _READ[way])]
        if way == "think":
            readers.append(probe_reader(model, problems, k))
        table, *probed = read_all(readers, model, problems, "reading", **running)
        sections = [_lens_section(table), *([_known_section(table)] if targets else [])]
        write_questions(folder / QUESTIONS, problems, model.fingerprint())
        for rows in probed:
            write_text(folder / "decoded_latent.txt", authors_text(rows, problems))
            sections.append(_probe_section(rows))
        facts = model_facts(model) | {
            "Thoughts": str(model.config.n_thoughts),
            "Problems": str(len(problems)),
        }
        name = name_of(model)
        page = {"heading": HEADING, "lead": _LEAD}
        if way != "think":
            page = {"heading": "What do the states say?", "lead": f"{_METHOD} {_NO_PROOF}"}
        return write_report(sections, folder, name, facts, **page)


def _targets(model: CodiModel, problems: Sequence[Problem]) -> dict[str, list[Value]]:
    """Running totals where problems have them, else the answers that single tokens write."""
    built_in = all(isinstance(problem, WordProblem) for problem in problems)
    asked: Targets = "totals" if built_in else "answer"
    kept: dict[str, list[Value]] = {}
    for name, values in chosen_targets(problems, asked).items():
        writable = [_writable(model, value) for value in values]
        if any(value is not None for value in writable):
            kept[name] = writable
    return kept


def _writable(model: CodiModel, value: Value) -> Value:
    try:
        ways_to_write(model, value)
    except ProblemError:
        return None
    return value


def _lens_section(table: xr.Dataset) -> Section:
    ids = [str(each) for each in table["problem"].values]
    figures = {f"tokens_{i}": top_tokens(table, id) for i, id in enumerate(ids[:_DRAWN])}
    cells = lens_rows(table)
    return Section(
        "lens",
        "Layer by layer",
        f"The likeliest token after each layer, of the first {len(figures)} of {len(ids)} "
        "problems; lens.csv has all of them.",
        [],
        figures,
        {"lens": cells},
    )


def _known_section(table: xr.Dataset) -> Section:
    known = known_values(table)
    fed = known["layer"].isna()
    last = known["layer"] == table["layer"].values[-1]
    thoughts, how = (
        (known[fed], "as it is fed") if fed.any() else (known[last], "at the last layer")
    )
    kind = "thought" if fed.any() else "state at the last layer"
    best = thoughts.sort_values("share", ascending=False).drop_duplicates("target")
    sentences = [
        f"{row['target'].capitalize()} is the likeliest token of {row['place']} {how} in "
        f"{percent(row['share'], 0)} [{percent(row['low'], 0)}, {percent(row['high'], 0)}] of "
        f"{count(row['n'], 'problem')}"
        + (
            f", another problem's in {percent(row['control_share'], 0)}."
            if row["control_n"]
            else "; no other problem has one to compare with."
        )
        for row in best.sort_values("target").to_dict("records")
        if row["n"]
    ]
    shown = thoughts.pivot(index="place", columns="target", values="share")
    cells = [
        (place, *("" if share != share else percent(share, 0) for share in row))
        for place, *row in shown.itertuples()
    ]
    return Section(
        "known",
        "Where known values are read",
        f"How often a known value is the likeliest token of a {kind}, beside the value of another "
        f"problem. The {kind} that is best for each value was chosen on the same problems.",
        sentences,
        {},
        {"known": known},
        {f"Likeliest token of a {kind}": (("place", *map(str, shown.columns)), cells)},
    )


def _probe_section(rows: pd.DataFrame) -> Section:
    first = rows[rows["problem"] == rows["problem"].iloc[0]]
    lines = [
        (
            row["position"],
            " ".join(map(visible, row["tokens"])),
            " ".join(map(visible, row["attended"])),
        )
        for row in first.to_dict("records")
    ]
    joined = {name: [" | ".join(map(str, each)) for each in rows[name]] for name in _LISTS}
    return Section(
        "probe",
        "As CODI's authors print it",
        "The likeliest tokens of the state at each position, before the projection, and the tokens "
        "it attends to most (mean over layers and heads). Here the first problem; tokens.csv has "
        "all, decoded_latent.txt in the authors' format.",
        [],
        {},
        {"tokens": rows.assign(**joined)},
        {f"Problem {first['problem'].iloc[0]}": (("position", "tokens", "attended"), lines)},
    )


_LISTS = ("tokens", "probabilities", "attended", "attention")
