"""The analysis folder: attention, head tables, summary, findings and one HTML page."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from codi_lens.attention.extract import accuracy, extract
from codi_lens.attention.hubs import hub_ratios, hub_verdict
from codi_lens.attention.opening import ATTENTION
from codi_lens.attention.profiles import average_heads, destinations
from codi_lens.attention.ranking import ranked_heads
from codi_lens.attention.streaming import Source
from codi_lens.attention.views import VIEWS, View, n_thoughts_of, thought_view
from codi_lens.causal.measure import Decoding
from codi_lens.explorer.explore import explorer_of
from codi_lens.explorer.payload import Told
from codi_lens.model import CodiModel
from codi_lens.outputs import open_report, to_json, write_text
from codi_lens.positions import thought_names
from codi_lens.problems.problem import Problem
from codi_lens.reports.pages.facts import attention_facts
from codi_lens.reports.questions.closely import details_kept, lens_kept, opening_of
from codi_lens.reports.questions.reading_back import reading_back
from codi_lens.study.heads import mean_and_std
from codi_lens.study.summary import attention_stats, attention_summary
from codi_lens.thinking.ways import check_thoughts
from codi_lens.wording import count, percent
from codi_lens.workers.spread import Workers


@dataclass(frozen=True, eq=False)
class Analysis:
    """What `analyze` found.

    Attributes:
        attention: labelled attention of every problem.
        heads: the ranked heads in each view ("position", "generation").
        summary: the numbers of `summary.json`.
        findings: plain sentences, each true of these numbers.
        folder: where everything was written.
    """

    attention: xr.DataArray
    heads: dict[View, pd.DataFrame]
    summary: dict[str, Any]
    findings: list[str]
    folder: Path


def analyze(
    model: CodiModel,
    problems: Sequence[Problem],
    out: str | Path,
    *,
    view: View = "position",
    corpus: str = "problems",
    source: Source | None = None,
    batch_size: int = 32,
    max_new_tokens: int = 64,
    progress: bool = True,
    workers: Workers | None = None,
    ray_address: str | None = None,
) -> Analysis:
    """Extract attention, rank the heads in both views and write the analysis folder.

    The folder gets `attention.zarr`, `heads.csv` (in `view`) and `heads_<other view>.csv`,
    `summary.json`, `findings.md`, what the explorer shows of single problems (`details.npz`,
    `lens.csv`) and the explorer itself, `index.html`. A stopped analysis resumes there.

    Args:
        model: the model.
        problems: what it thinks about.
        out: the folder; new, empty, or that of an earlier run of the same analysis.
        view: the view of `heads.csv` and of the table in the terminal.
        corpus: what to call the problems in summary and page.
        source: see `extract`.
        batch_size: see `extract`.
        max_new_tokens: see `CodiModel.think`.
        progress: show a progress bar.
        workers, ray_address: who thinks; see `codi_lens.workers.spread`.

    Raises:
        OutputError: the folder holds other content or another analysis.
        ProblemError: see `extract`.
    """
    check_thoughts(model, "analyze")
    running: Decoding = {"max_new_tokens": max_new_tokens, "progress": progress}
    running |= {"workers": workers, "ray_address": ray_address}
    with open_report(out, "analyze") as folder:
        attention = extract(
            model,
            problems,
            folder / ATTENTION,
            source=source,
            batch_size=batch_size,
            **running,
        )
        found = reading_back(
            model,
            attention,
            problems,
            folder / "outcomes" / "reading_back",
            **running,
        )
        heads: dict[View, pd.DataFrame] = {each: ranked_heads(attention, each) for each in VIEWS}
        summary = summarize(attention, heads, corpus=corpus)
        findings = write_findings(summary)
        for each, table in heads.items():
            name = "heads.csv" if each == view else f"heads_{each}.csv"
            write_text(folder / name, table.to_csv(index=False))
        write_text(folder / "summary.json", to_json(summary))
        sentences = [] if found is None else found.sentences
        everything = [*sentences, *findings]
        write_text(folder / "findings.md", _findings_page(model.config.source, everything))
        close = (model, problems, folder, max_new_tokens, progress)
        explorer = explorer_of(
            attention,
            Told(
                f"{Path(model.config.source).name}: which heads matter in its thoughts",
                attention_facts(model.config.source, attention, corpus),
                findings,
                None if found is None else opening_of(found),
            ),
            heads={str(each): table for each, table in heads.items()},
            details=details_kept(attention, *close, source),
            readout=lens_kept(*close),
        )
        explorer.save(folder / "index.html")
        return Analysis(attention, heads, summary, everything, folder)


def summarize(
    attention: xr.DataArray, heads: dict[View, pd.DataFrame], *, corpus: str = "problems"
) -> dict[str, Any]:
    """All numbers of `summary.json`, as plain Python values.

    Args:
        attention: labelled attention [problem, layer, head, query, key].
        heads: the result of `rank_heads` in each view.
        corpus: what to call the problems.
    """
    by_problem, _ = average_heads(attention)
    return {
        "model": attention.attrs["model"],
        "fingerprint": attention.attrs.get("fingerprint"),
        "n_layers": attention.sizes["layer"],
        "n_heads": attention.sizes["head"],
        "n_thoughts": n_thoughts_of(attention),
        "corpus": corpus,
        "n_problems": attention.sizes["problem"],
        "accuracy": accuracy(attention),
        "attention_goes_to": _where_attention_goes(by_problem),
        "position_view": _position_summary(by_problem) | _table_summary(heads["position"]),
        "generation_view": _generation_summary(attention) | _table_summary(heads["generation"]),
    }


def write_findings(summary: dict[str, Any]) -> list[str]:
    """Plain sentences about the numbers of a summary; none claims more than they show."""
    return [sentence for about in _FINDINGS for sentence in about(summary)]


def _about_answers(summary: dict[str, Any]) -> list[str]:
    score = summary["accuracy"]
    if not score:
        return []
    return [
        f"The model answers {score['correct']} of {count(score['n'], 'problem')} correctly "
        f"({percent(score['accuracy'])}, 95 % interval {percent(score['low'])} to "
        f"{percent(score['high'])})."
    ]


def _about_destinations(summary: dict[str, Any]) -> list[str]:
    goes = summary["attention_goes_to"]["thoughts"]
    return [
        "Averaged over heads and problems, a thought gives "
        f"{percent(goes['question'])} of its attention to the question, {percent(goes['bot'])} "
        f"to bot, {percent(goes['earlier_thoughts'])} to earlier thoughts and "
        f"{percent(goes['self'])} to itself."
    ]


def _about_hub(summary: dict[str, Any]) -> list[str]:
    position = summary["position_view"]
    hub = position["hub"]
    if hub is None:
        return []
    return [
        f"{position['hub_verdict']} (Attention from later thoughts, position view, self-attention "
        "set apart.)",
        "Attention from a thought to the one before it averages "
        f"{position['sequential_mean']:.3f}, to itself {position['self_mean']:.3f}.",
    ]


def _about_best_head(summary: dict[str, Any]) -> list[str]:
    best = summary["position_view"]["top_heads"][0]
    return [
        f"The head with the highest composite score is {best['name']} ({best['band']} band, "
        f"{best['type']}); the largest entry of its mean matrix is {best['max_query']} to "
        f"{'itself' if best['max_key'] == best['max_query'] else best['max_key']}, "
        f"{best['max_attention']:.2f}."
    ]


def _about_study(summary: dict[str, Any]) -> list[str]:
    study = summary["generation_view"]
    if not study["sequential"]:
        return []
    strength = "strong" if study["strong_hub"] else "weak"
    return [
        f"In the generation view of the published study, column sums make {study['hub']} the "
        f"hub ({study['hub_ratio']:.2f} times 1/{summary['n_thoughts']}, which the study calls "
        f"{strength}); its entries [i, i-1] average {study['sequential_mean']:.3f}, which is a "
        "thought's attention to itself, not to the thought before."
    ]


def _about_constants(summary: dict[str, Any]) -> list[str]:
    kept = {
        "position": "the composite leaves such a score out",
        "generation": "the study's composite keeps such a score",
    }
    return [
        f"In the {view} view every head has the same {' and '.join(constant)} score, which "
        f"therefore cannot rank them; {what}."
        for view, what in kept.items()
        if (constant := summary[f"{view}_view"]["constant"])
    ]


def _about_causes(summary: dict[str, Any]) -> list[str]:
    return [
        "These are attention weights: they show where heads look, not what is causal. "
        "Intervene before you conclude."
    ]


_FINDINGS = (
    _about_answers,
    _about_destinations,
    _about_hub,
    _about_best_head,
    _about_study,
    _about_constants,
    _about_causes,
)


def _where_attention_goes(by_problem: xr.DataArray) -> dict[str, dict[str, float]]:
    """Each query's attention by kind of key (the kinds sum to 1), and the mean of the thoughts."""
    goes = destinations(by_problem.mean("problem", skipna=True)).mean(["layer", "head"])
    goes = goes.assign_coords(kind=[str(kind).replace(" ", "_") for kind in goes["kind"].values])
    of_thoughts = goes.sel(query=list(thought_names(n_thoughts_of(by_problem)))).mean("query")
    rows = {str(row["query"].values): row for row in goes.transpose("query", "kind")}
    return {
        name: dict(zip(row["kind"].values.tolist(), map(float, row), strict=True))
        for name, row in (rows | {"thoughts": of_thoughts}).items()
    }


def _position_summary(by_problem: xr.DataArray) -> dict[str, Any]:
    names = list(thought_names(n_thoughts_of(by_problem)))
    mean = thought_view(by_problem).mean(["problem", "layer", "head"]).values
    hubs = hub_ratios(by_problem)
    ratios = hubs["ratio"].to_numpy()[:-1]
    by_name = hubs.set_index("thought")[:-1]
    sequential = np.diagonal(mean, -1)
    return {
        "hub": names[int(np.nanargmax(ratios))] if np.isfinite(ratios).any() else None,
        "hub_ratio": dict(zip(names, map(float, ratios), strict=False)),
        "hub_ratio_low": {name: _number(value) for name, value in by_name["low"].items()},
        "hub_ratio_high": {name: _number(value) for name, value in by_name["high"].items()},
        "hub_p": {name: _number(value) for name, value in by_name["p"].items()},
        "hubs": by_name.index[by_name["hub"]].tolist(),
        "hub_verdict": hub_verdict(hubs),
        "n_distinct_problems": hubs.attrs["n_distinct"],
        "sequential": {
            f"{names[i + 1]}→{names[i]}": float(value) for i, value in enumerate(sequential)
        },
        "sequential_mean": float(sequential.mean()) if len(sequential) else None,
        "self": dict(zip(names, map(float, np.diagonal(mean)), strict=True)),
        "self_mean": float(np.diagonal(mean).mean()),
        "by_thoughts_back": {
            str(back): float(np.diagonal(mean, -back).mean()) for back in range(1, len(names))
        },
    }


def _number(value: Any) -> float | None:
    """JSON has no NaN."""
    return float(value) if np.isfinite(value) else None


def _generation_summary(attention: xr.DataArray) -> dict[str, Any]:
    """The study's summary of the same attention, with positions by name."""
    names = list(thought_names(n_thoughts_of(attention)))
    model = attention.attrs["model"]
    mean, std = mean_and_std(attention)
    summary = attention_summary(mean, model)
    hub, flow = summary["hub_analysis"], summary["sequential_flow"]
    skip = summary["skip_connections"]
    steps, skips = flow["sequential_scores"], skip["skip_scores"]
    return {
        "incoming": dict(zip(names, hub["all_hub_scores"], strict=True)),
        "hub": names[hub["hub_position"]],
        "hub_ratio": hub["hub_ratio"],
        "strong_hub": hub["is_strong_hub"],
        "sequential": {f"{i + 1}→{i}": value for i, value in enumerate(steps)},
        "sequential_mean": flow["avg_sequential_attention"],
        "sequential_flow": flow["has_sequential_flow"],
        "skip": {f"{len(names) - 1}→{j}": value for j, value in enumerate(skips)},
        "skip_mean": skip["avg_skip_attention"],
        "skip_connections": skip["has_skip_connections"],
        **attention_stats(mean, std, model, attention.sizes["problem"])["consistency"],
    }


def _table_summary(heads: pd.DataFrame, n_top: int = 20) -> dict[str, Any]:
    top = heads.head(n_top)
    columns = ["name", "layer", "head", "band", "type", "composite", "flow", "hub", "skip"]
    columns += ["max_attention", "max_query", "max_key"]
    return {
        "constant": list(heads.attrs["constant"]),
        "top_heads": json.loads(top[columns].to_json(orient="records")),
        "top_types": {str(k): int(v) for k, v in top["type"].value_counts().items()},
        "top_bands": {str(k): int(v) for k, v in top["band"].value_counts().items()},
    }


def _findings_page(source: str, findings: Sequence[str]) -> str:
    return f"# Findings: {source}\n\n" + "".join(f"- {sentence}\n" for sentence in findings)
