"""`codi-lens patch`: which positions carry the answer? One report on thoughts and attention."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from codi_lens.attention.extract import extract
from codi_lens.causal.controls import halves
from codi_lens.causal.hub_moves import check_hub_question
from codi_lens.causal.restoration import check_lengths, check_places, unequal_pairs
from codi_lens.errors import InterventionError, ProblemError
from codi_lens.interventions.residual import Component
from codi_lens.model import CodiModel
from codi_lens.outputs import model_names
from codi_lens.positions import Scope, rank, resolve
from codi_lens.problems.pairs import Pair, counterparts, operand_pairs, random_pairs
from codi_lens.problems.problem import Problem
from codi_lens.problems.words import WordProblem
from codi_lens.reports.pages.folder import CausalReport, open_report, write_report
from codi_lens.reports.pages.section import Section
from codi_lens.reports.questions.pairs import (
    RESTORATION_TITLE,
    WHOLE_RUN,
    restoration_section,
    running_totals_section,
)
from codi_lens.reports.questions.positions import (
    HUB_TITLE,
    edges_section,
    hub_section,
    thoughts_section,
)

QUESTIONS = ("thoughts", "totals", "restoration", "edges", "hub")
TOTALS_OF = (3, 4, 5)
"""Numbers of operations of the problems that are asked for running totals."""


def patch_positions(
    model: CodiModel,
    problems: Sequence[Problem],
    out: str | Path,
    *,
    questions: Sequence[str] | None = None,
    at: Scope = WHOLE_RUN,
    components: Sequence[Component] = ("resid_pre", "mlp_out"),
    n_pairs: int | None = None,
    seed: int = 0,
    **running: Any,
) -> CausalReport:
    """Intervene on thoughts, on attention between positions, and on the residual stream.

    Args:
        model: the model.
        problems: what to think about. For restoration, built-in word problems are given
            counterparts that differ in one operand (see `problems.pairs.counterparts`; the page
            says how many have none), and other problems are paired at random; where the two
            questions of a pair differ in length, "question" is left out of `at`.
        out: the report's folder; the same call resumes.
        questions: which of "thoughts", "totals", "restoration", "edges" and "hub" to ask; by
            default all that can be asked. "totals" is asked of pairs with 3, 4 and 5 operations
            that are drawn for it and not of `problems`, since it needs enough of each.
        at: of restoration, each position by itself.
        components: of restoration: "resid_pre", "resid_post", "mlp_out", "attn_out".
        n_pairs: pairs for restoration at most, and for each number of operations that totals are
            asked of; by default as many as there are problems.
        seed: of everything drawn.
        running: `problems_at_once`, `rows_at_once`, `max_new_tokens`, `progress`.

    Raises:
        InterventionError: an unknown question or component, none, a question that these problems
            or this model do not allow, or (while it runs) no clean answer with a number.
        CodiLensError: see the experiments; `out` holds something else.
    """
    built_in = all(isinstance(problem, WordProblem) for problem in problems)
    asked = _asked(questions, built_in)
    _check_components(components)
    n = len(problems) if n_pairs is None else n_pairs
    if n < 1:
        raise ProblemError(f"The number of pairs must be at least 1, not {n}.")
    drawn: list[Pair] = []
    if "totals" in asked:
        drawn = [pair for k in TOTALS_OF for pair in operand_pairs(n, seed=seed, n_operations=k)]
    work = _Restoration([], at, "", "")
    left_out: dict[str, str] = {}
    first, rest = list(problems), list(problems)
    if "restoration" in asked:
        try:
            work = _restoration(model, problems, n, at, seed)
        except ProblemError as error:
            if questions is not None:
                raise
            left_out["restoration"] = str(error)
    check_places(work.at, model.config.n_thoughts)
    if "hub" in asked:
        try:
            check_hub_question(model)
            first, rest = halves(problems, seed=seed)
        except (InterventionError, ProblemError) as error:
            if questions is not None:
                raise
            left_out["hub"] = str(error)
    folder = open_report(out, f"patch --questions {','.join(asked)}")
    outcomes = folder / "outcomes"
    settings: dict[str, Any] = {"seed": seed, **running}
    sections: list[Section] = []
    if "thoughts" in asked:
        sections.append(thoughts_section(model, problems, outcomes / "thoughts", **settings))
    if "totals" in asked:
        note = f"The {len(drawn)} pairs were drawn for this question; they are not the problems."
        sections.append(
            running_totals_section(model, drawn, outcomes / "totals", note=note, **settings)
        )
    if work.pairs:
        settings_of_restoration: dict[str, Any] = {"components": components, "note": work.note}
        section = restoration_section(
            model,
            work.pairs,
            outcomes / "restoration",
            at=work.at,
            **settings_of_restoration,
            **settings,
        )
        sections.append(section)
    if "edges" in asked:
        sections.append(edges_section(model, problems, outcomes / "edges", **settings))
    if "hub" in asked and "hub" not in left_out:
        kept = {k: v for k, v in running.items() if k in ("max_new_tokens", "progress")}
        attention = extract(model, first, outcomes / "attention.zarr", **kept).load()
        sections.append(hub_section(model, rest, attention, outcomes / "hub", **settings))
    for name, reason in left_out.items():
        sections.append(Section(name, _TITLES[name], "This was not asked.", [reason]))
    name = model_names([model.config.source])[0]
    cfg = model.lens.cfg
    facts = {
        "Model": name,
        "Heads": f"{cfg.n_layers} layers × {cfg.n_heads}",
        "Thoughts": str(model.config.n_thoughts),
        "Problems": str(len(problems)),
    }
    counts = [work.count, f"{len(drawn)} drawn for totals" if drawn else ""]
    if any(counts):
        facts["Pairs"] = "; ".join(count for count in counts if count)
    return write_report(sections, folder, name, facts)


_TITLES = {"restoration": RESTORATION_TITLE, "hub": HUB_TITLE}


@dataclass(frozen=True)
class _Restoration:
    """Pairs to restore and where, with what the page says of them."""

    pairs: list[Pair]
    at: Scope
    note: str
    count: str


def _restoration(
    model: CodiModel, problems: Sequence[Problem], n: int, at: Scope, seed: int
) -> _Restoration:
    own = [problem for problem in problems if isinstance(problem, WordProblem)]
    if len(own) == len(problems):
        found = counterparts(own, seed=seed)
        if not found:
            raise ProblemError(
                "None of the problems has a counterpart that differs in one operand; give others."
            )
        missing = len(own) - len(found)
        note = (
            f"Counterparts differ in one operand; {missing} of {len(own)} problems have none in "
            "their split and are left out."
        )
        count = f"{len(found[:n])} of {len(own)} problems with a counterpart"
    else:
        found = random_pairs(problems, seed=seed)
        note = (
            "The pairs were formed at random, so that they differ in everything; pairs whose clean "
            "runs give numbers that begin alike have no logit difference and are not counted."
        )
        count = f"{len(found[:n])} at random"
    pairs, places = found[:n], sorted(resolve(at, model.config.n_thoughts), key=rank)
    if len(pairs) < len(found):
        note += f" Of {len(found)} pairs the first {n} are asked about."
    if "question" in places and (unequal := unequal_pairs(model, pairs)):
        if places == ["question"]:
            check_lengths(model, pairs)
        places.remove("question")
        note += (
            f" The position 'question' is left out: in {len(unequal)} of {len(pairs)} pairs the "
            "two questions differ in length, so that their tokens do not correspond."
        )
    return _Restoration(pairs, places, note, count)


def _check_components(components: Sequence[str]) -> None:
    known = get_args(Component)
    unknown = [each for each in components if each not in known]
    if unknown or not components or len(set(components)) < len(components):
        wrong = f"There is no component {unknown[0]!r}" if unknown else "Give components once each"
        raise InterventionError(f"{wrong}; there are {', '.join(known)}.")


def _asked(questions: Sequence[str] | None, built_in: bool) -> list[str]:
    if questions is None:
        return [each for each in QUESTIONS if built_in or each != "totals"]
    unknown = [each for each in questions if each not in QUESTIONS]
    if unknown or not questions:
        wrong = f"There is no question {unknown[0]!r}" if unknown else "No question was asked"
        raise InterventionError(f"{wrong}; there are {', '.join(QUESTIONS)}.")
    if "totals" in questions and not built_in:
        raise InterventionError(
            "Running totals are known of built-in word problems only; leave out 'totals', or give "
            "those."
        )
    return [each for each in QUESTIONS if each in questions]
