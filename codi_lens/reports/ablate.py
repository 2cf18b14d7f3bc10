"""`codi-lens ablate`: are these heads causal? One report for a set, for the top k, or for all."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Unpack

import pandas as pd
import xarray as xr

from codi_lens.attention.extract import extract
from codi_lens.attention.opening import AMONG_OUTCOMES
from codi_lens.attention.ranking import ranked_heads
from codi_lens.attention.reading import reading_scores
from codi_lens.attention.streaming import Source
from codi_lens.causal.controls import donors_for, halves
from codi_lens.causal.effects import check_known, needed
from codi_lens.causal.means import MIN_EFFECT
from codi_lens.causal.measure import Running, decoding
from codi_lens.causal.sweeps import sweep_heads
from codi_lens.causal.transplants import mean_block
from codi_lens.errors import InterventionError, ProblemError
from codi_lens.head_names import Head, head_name, heads_of
from codi_lens.interventions.replacements import Mode
from codi_lens.model import CodiModel
from codi_lens.outputs import open_report
from codi_lens.positions import Scope, each_position, scope_name
from codi_lens.problems.problem import Problem
from codi_lens.reports.pages.facts import model_facts, name_of
from codi_lens.reports.pages.folder import CausalReport, Question, ask, write_report
from codi_lens.reports.pages.section import Section
from codi_lens.reports.questions.heads import (
    attribution_section,
    positions_section,
    sweep_section,
)
from codi_lens.reports.questions.scores import scores_section
from codi_lens.reports.questions.sets import (
    MOST_PAIRED,
    controls_section,
    dose_section,
    redundancy_section,
)
from codi_lens.reports.questions.transplants import nothing_to_transplant, transplant_section
from codi_lens.thinking.prompts import positions_in
from codi_lens.thinking.ways import check_thoughts

_BY_NAME = ", or ablate heads by name (--heads, in Python sweep_heads)"


def ablate_set(
    model: CodiModel,
    problems: Sequence[Problem],
    heads: Sequence[Head],
    out: str | Path,
    *,
    mode: Mode = "resample",
    at: Scope = "thinking",
    candidates: Sequence[Problem] = (),
    min_effect: float | int = MIN_EFFECT,
    source: Source | None = None,
    seed: int = 0,
    **running: Unpack[Running],
) -> CausalReport:
    """Ablate a set of heads in every mode, beside its controls, and its heads in pairs.

    Args:
        model: the model.
        problems: what to think about.
        heads: the set.
        out: the report's folder; the same call resumes.
        mode: "resample", "mean" or "zero".
        at: where, by name.
        candidates: problems among which donors with the same answer are looked for.
        min_effect: the least effect of interest, in nats.
        source: see `extract`; of runs with thoughts, whose attention the explorer shows.
        seed: of everything drawn.
        running: `problems_at_once`, `rows_at_once`, `max_new_tokens`, `progress`, `workers`,
            `ray_address`.

    Raises:
        CodiLensError: see `compare_interventions`; `out` holds something else.
    """
    positions_in(model, at)
    if source is not None:
        check_thoughts(model, "Attention of an earlier extraction", ", or leave it out")
    with open_report(out, f"ablate --heads {','.join(map(head_name, heads))}") as folder:
        settings: dict[str, Any] = {"mode": mode, "at": at, "seed": seed, **running}
        given = (model, problems, heads)
        asked: dict[str, Any] = {"candidates": candidates, "min_effect": min_effect, **settings}
        questions = {"set": partial(controls_section, *given, **asked)}
        questions |= _in_pairs(*given, **settings)
        kept: dict[str, Any] = {"source": source, **decoding(running)}
        if model.config.n_thoughts:
            extract(model, problems, folder / AMONG_OUTCOMES, **kept)
        facts = _facts(model, len(problems), mode, at)
        return write_report(ask(questions, folder), folder, name_of(model), facts)


def ablate_top(
    model: CodiModel,
    problems: Sequence[Problem],
    top: int,
    out: str | Path,
    *,
    mode: Mode = "resample",
    at: Scope = "thinking",
    candidates: Sequence[Problem] = (),
    other: CodiModel | None = None,
    n_random: int = 39,
    min_effect: float | int = MIN_EFFECT,
    source: Source | None = None,
    seed: int = 0,
    **running: Unpack[Running],
) -> CausalReport:
    """Rank the heads on one half of the problems, and ablate the top ones on the other half.

    As a set beside its controls; in growing numbers against random orders, ablated and kept alone;
    in pairs. The one of them that matters most on the first half gets, and gives, thought blocks.

    Args:
        model: the model.
        problems: what to think about, both halves.
        top: how many heads, by composite score in the position view.
        out: the report's folder; the same call resumes.
        mode: "resample", "mean" or "zero".
        at: where, by name.
        candidates: problems among which donors with the same answer are looked for.
        min_effect: the least effect of interest, in nats.
        other: a model whose highest-ranked heads give their thought blocks too.
        n_random: random orders of heads.
        source: see `extract`; with value-weighted attention.
        seed: of halves and everything drawn.
        running: `problems_at_once`, `rows_at_once`, `max_new_tokens`, `progress`, `workers`,
            `ray_address`.

    Raises:
        InterventionError: `top` outside 1 … all heads but one, or another number of thoughts in the
            other model.
        CodiLensError: see `dose_response`; `out` holds something else.
    """
    check_thoughts(model, "The ranking of ablate --top", _BY_NAME)
    _check_top(model, top, other)
    for_ranking, rest = _halves(problems, seed)
    with open_report(out, f"ablate --top {top}") as folder:
        settings: dict[str, Any] = {"mode": mode, "at": at, "seed": seed, **running}
        asked: dict[str, Any] = {"candidates": candidates, "min_effect": min_effect, **settings}
        attention = _attention(model, for_ranking, folder / AMONG_OUTCOMES, source, running)
        ranking = _ranking(attention)
        best = ranking[:top]
        ks = sorted({k for k in (1, 2, 4, 8, 16, 32, 64) if k < top} | {top})
        questions: dict[str, Question] = {
            "set": partial(controls_section, model, rest, best, **asked),
            "dose": partial(dose_section, model, rest, ranking, ks, n_random=n_random, **settings),
            **_in_pairs(model, rest, best, **settings),
            "blocks": partial(
                _transplants,
                model,
                for_ranking,
                rest,
                attention,
                ranking,
                top=top,
                other=other,
                min_effect=min_effect,
                **settings,
            ),
        }
        facts = _facts(model, len(rest), mode, at) | {"Ranked on": f"{len(for_ranking)} others"}
        return write_report(ask(questions, folder), folder, name_of(model), facts)


def ablate_all(
    model: CodiModel,
    problems: Sequence[Problem],
    out: str | Path,
    *,
    mode: Mode = "resample",
    at: Scope = "thinking",
    by_position: bool = True,
    min_effect: float | int = MIN_EFFECT,
    source: Source | None = None,
    seed: int = 0,
    **running: Unpack[Running],
) -> CausalReport:
    """Ablate every head alone on one half; hold the scores of the other half against the effects.

    So are attribution patching and integrated gradients, which estimate the same effects. Scores
    and attribution are held against the effects at `at`; a map shows every position by itself.

    Args:
        model: the model.
        problems: what to think about, both halves.
        out: the report's folder; the same call resumes.
        mode: "resample", "mean" or "zero".
        at: where, by name.
        by_position: whether to ablate every head at every single position too.
        min_effect: the least effect of interest, in nats.
        source: see `extract`; with value-weighted attention.
        seed: of halves and everything drawn.
        running: `problems_at_once`, `rows_at_once`, `max_new_tokens`, `progress`, `workers`,
            `ray_address`.

    Raises:
        CodiLensError: see `sweep_heads`; `out` holds something else.
    """
    check_thoughts(model, "The ranking of ablate --all", _BY_NAME)
    for_ranking, rest = _halves(problems, seed)
    with open_report(out, "ablate --all") as folder:
        outcomes = folder / "outcomes"
        attention = _attention(model, for_ranking, folder / AMONG_OUTCOMES, source, running)
        settings: dict[str, Any] = {"mode": mode, "at": at, "seed": seed, **running}
        settings["donors"] = donors_for(model, rest, mode=mode, seed=seed)
        pooled, scopes = scope_name(at), {scope_name(at): at}
        scopes |= each_position(model.config.n_thoughts) if by_position else {}
        kept = outcomes / f"heads-{mode}"
        asked: dict[str, Any] = settings | {"at": scopes, "min_effect": min_effect}
        swept = sweep_heads(model, rest, out=kept, **asked)
        check_known(swept)
        effects = swept[swept["scope"] == pooled].reset_index(drop=True)
        sections = [
            sweep_section(effects, mode),
            *([positions_section(swept, pooled, mode)] if by_position else []),
            scores_section(model, rest, _views(attention), effects, outcomes, **settings),
            attribution_section(model, rest, effects, outcomes / f"thoughts-{mode}", **settings),
        ]
        facts = _facts(model, len(rest), mode, at) | {"Scored on": f"{len(for_ranking)} others"}
        return write_report(sections, folder, name_of(model), facts)


def _check_top(model: CodiModel, top: int, other: CodiModel | None) -> None:
    most = model.lens.cfg.n_layers * model.lens.cfg.n_heads - 1
    if not 1 <= top <= most:
        raise InterventionError(f"top is {top}; give a number of heads from 1 to {most}.")
    if other is not None and other.config.n_thoughts != model.config.n_thoughts:
        raise InterventionError(
            f"The other model thinks {other.config.n_thoughts} thoughts, this one "
            f"{model.config.n_thoughts}; a block fits only the same number."
        )


def _in_pairs(
    model: CodiModel, problems: Sequence[Problem], heads: Sequence[Head], **settings: Any
) -> dict[str, Question]:
    """The question about pairs, where there are two heads."""
    if len(heads) < 2:
        return {}
    paired = heads[:MOST_PAIRED]
    return {"pairs": partial(redundancy_section, model, problems, paired, **settings)}


def _transplants(
    model: CodiModel,
    for_ranking: Sequence[Problem],
    rest: Sequence[Problem],
    attention: xr.DataArray,
    ranking: Sequence[Head],
    out: Path,
    *,
    top: int,
    other: CodiModel | None,
    min_effect: float | int,
    seed: int,
    mode: Mode,
    at: Scope,
    **running: Unpack[Running],
) -> Section:
    """The question about patterns, of the head that matters most on the first half."""
    settings: dict[str, Any] = {"mode": mode, "at": at, "seed": seed, **running}
    best = ranking[:top]
    alone = sweep_heads(
        model, for_ranking, best, out.parent / "alone", min_effect=min_effect, **settings
    )
    check_known(alone)
    foreign = {}
    if other is not None:
        theirs = _attention(other, for_ranking, out.parent / "other_attention.zarr", None, running)
        foreign = {
            f"{name_of(other)} {head_name(head)}": mean_block(theirs, head)
            for head in _ranking(theirs)[:2]
        }
    found = needed(alone)
    if not len(found):
        return nothing_to_transplant(len(best), min_effect)
    target = heads_of(found.sort_values("effect"))[0]
    return transplant_section(
        model, rest, attention, target, ranking, out, foreign=foreign, **settings
    )


def _halves(problems: Sequence[Problem], seed: int) -> tuple[list[Problem], list[Problem]]:
    if len(problems) < 4:
        raise ProblemError(
            f"Heads are ranked on one half of the problems and ablated on the other, where each "
            f"needs another one as its donor; give at least 4 problems, not {len(problems)}."
        )
    return halves(problems, seed=seed)


def _attention(
    model: CodiModel,
    problems: Sequence[Problem],
    out: Path,
    source: Source | None,
    running: Running,
) -> xr.DataArray:
    kept: dict[str, Any] = {"value_weighted": True, "source": source, **decoding(running)}
    return extract(model, problems, out, **kept).load()


def _ranking(attention: xr.DataArray) -> list[Head]:
    return heads_of(ranked_heads(attention))


def _views(attention: xr.DataArray) -> dict[str, pd.DataFrame]:
    return {
        "position view": ranked_heads(attention),
        "position view, value-weighted": ranked_heads(attention.value_weighted),
        "generation view": ranked_heads(attention, "generation"),
        "reading": reading_scores(attention, attention.strongest),
        "reading, value-weighted": reading_scores(
            attention.value_weighted, attention.strongest_value_weighted
        ),
    }


def _facts(model: CodiModel, n_problems: int, mode: str, at: Scope) -> dict[str, str]:
    where = at if isinstance(at, str) else ", ".join(at)
    return {
        **model_facts(model),
        "Problems": str(n_problems),
        "Ablated": f"{mode} at {where}",
    }
