"""`codi-lens patch`: which positions carry the answer? One report on thoughts and attention."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Unpack, get_args

from codi_lens.attention.extract import extract
from codi_lens.attention.opening import ATTENTION
from codi_lens.attention.streaming import Source
from codi_lens.causal.controls import halves
from codi_lens.causal.hub_moves import check_hub_question
from codi_lens.causal.means import MIN_EFFECT, check_min_effect
from codi_lens.causal.measure import Running, decoding
from codi_lens.causal.restoration import check_lengths, check_places, unequal_pairs
from codi_lens.errors import InterventionError, ProblemError
from codi_lens.interventions.residual import Component
from codi_lens.loading.sources import learnt_family
from codi_lens.model import CodiModel
from codi_lens.outputs import open_report
from codi_lens.positions import Scope
from codi_lens.problems.pairs import counterparts, operand_pairs, random_pairs
from codi_lens.problems.problem import Problem
from codi_lens.problems.words import WordProblem
from codi_lens.reports.pages.facts import model_facts, name_of
from codi_lens.reports.pages.folder import CausalReport, Question, ask, write_report
from codi_lens.reports.pages.section import Section
from codi_lens.reports.questions.pairs import (
    RESTORATION_TITLE,
    restoration_section,
    running_totals_section,
)
from codi_lens.reports.questions.positions import (
    HUB_TITLE,
    edges_section,
    hub_section,
    thoughts_section,
)
from codi_lens.thinking.prompts import positions_in
from codi_lens.thinking.ways import check_thoughts

TOTALS_OF = (3, 4, 5)
"""Numbers of operations of the problems that are asked for running totals."""


@dataclass(frozen=True)
class _Given:
    """What questions are put to."""

    model: CodiModel
    problems: list[Problem]
    at: Scope
    components: Sequence[Component]
    n_pairs: int
    min_effect: float | int
    seed: int
    source: Source | None
    running: Running

    @property
    def settings(self) -> dict[str, Any]:
        return {"seed": self.seed, **self.running}

    @property
    def comparing(self) -> dict[str, Any]:
        return {"min_effect": self.min_effect, **self.settings}


@dataclass(frozen=True)
class _Ready:
    """A question with all that it takes, drawn and checked; and the pairs that it is asked of."""

    question: Question
    pairs: str = ""


def patch_positions(
    model: CodiModel,
    problems: Sequence[Problem],
    out: str | Path,
    *,
    questions: Sequence[str] | None = None,
    at: Scope | None = None,
    components: Sequence[Component] = ("resid_pre", "mlp_out"),
    n_pairs: int | None = None,
    min_effect: float | int = MIN_EFFECT,
    source: Source | None = None,
    seed: int = 0,
    **running: Unpack[Running],
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
            default all that can be asked (without thoughts "restoration" and "edges"). "totals" is
            asked of pairs with 3, 4 and 5 operations that are drawn for it and not of `problems`,
            since it needs enough of each.
        at: of restoration, each position by itself; by default all but the answer.
        components: of restoration: "resid_pre", "resid_post", "mlp_out", "attn_out".
        n_pairs: pairs for restoration at most, and for each number of operations that totals are
            asked of; by default as many as there are problems.
        min_effect: the least effect of interest of thoughts and edges, in nats.
        source: see `extract`; serves the question "hub", whose attention it holds.
        seed: of everything drawn.
        running: `problems_at_once`, `rows_at_once`, `max_new_tokens`, `progress`, `workers`,
            `ray_address`.

    Raises:
        InterventionError: an unknown question or component, none, a question that these problems
            or this model do not allow, or (while it runs) no clean answer with a number.
        CodiLensError: see the experiments; `out` holds something else.
    """
    asked = _asked(model, questions, built_in=_built_in(problems))
    _check_components(components)
    n = len(problems) if n_pairs is None else n_pairs
    if n < 1:
        raise ProblemError(f"The number of pairs must be at least 1, not {n}.")
    at = positions_in(model, "all")[:-1] if at is None else at
    check_places(model, at)
    least = check_min_effect(min_effect)
    given = _Given(model, list(problems), at, components, n, least, seed, source, running)
    ready: dict[str, _Ready] = {}
    left_out: list[Section] = []
    for name in asked:
        try:
            ready[name] = QUESTIONS[name](given)
        except (InterventionError, ProblemError) as error:
            if questions is not None or name not in _LEFT_OUT:
                raise
            left_out.append(Section(name, _LEFT_OUT[name], "This was not asked.", [str(error)]))
    if source is not None and "hub" not in ready:
        raise InterventionError(
            "Attention of an earlier extraction serves the question hub, which is not asked here."
        )
    with open_report(out, f"patch --questions {','.join(asked)}") as folder:
        sections = ask({name: each.question for name, each in ready.items()}, folder)
        facts = {
            **model_facts(model),
            "Thoughts": str(model.config.n_thoughts),
            "Problems": str(len(problems)),
        }
        # Restoration first: it is of the problems' own pairs.
        pairs = [ready[name].pairs for name in ("restoration", "totals") if name in ready]
        if pairs:
            facts["Pairs"] = "; ".join(pairs)
        return write_report([*sections, *left_out], folder, name_of(model), facts)


def _thoughts(given: _Given) -> _Ready:
    return _Ready(partial(thoughts_section, given.model, given.problems, **given.comparing))


def _totals(given: _Given) -> _Ready:
    family = learnt_family(given.model.config.source)
    drawn = [
        pair
        for k in TOTALS_OF
        for pair in operand_pairs(given.n_pairs, seed=given.seed, n_operations=k, family=family)
    ]
    note = f"The {len(drawn)} pairs were drawn for this question; they are not the problems."
    question = partial(running_totals_section, given.model, drawn, note=note, **given.settings)
    return _Ready(question, f"{len(drawn)} drawn for totals")


def _restoration(given: _Given) -> _Ready:
    model, problems, n = given.model, given.problems, given.n_pairs
    own = [problem for problem in problems if isinstance(problem, WordProblem)]
    if _built_in(problems):
        found = counterparts(own, seed=given.seed)
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
        found = random_pairs(problems, seed=given.seed)
        note = (
            "The pairs were formed at random, so that they differ in everything; pairs whose clean "
            "runs give numbers that begin alike have no logit difference and are not counted."
        )
        count = f"{len(found[:n])} at random"
    pairs, places = found[:n], positions_in(model, given.at)
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
    settings: dict[str, Any] = {"components": given.components, "note": note, **given.settings}
    return _Ready(partial(restoration_section, model, pairs, at=places, **settings), count)


def _edges(given: _Given) -> _Ready:
    return _Ready(partial(edges_section, given.model, given.problems, **given.comparing))


def _hub(given: _Given) -> _Ready:
    check_hub_question(given.model)
    first, rest = halves(given.problems, seed=given.seed)
    return _Ready(partial(_ask_hub, given, first, rest))


def _ask_hub(
    given: _Given, first: Sequence[Problem], rest: Sequence[Problem], out: Path
) -> Section:
    """The hub is found on one half of the problems, and moved on the other."""
    kept = decoding(given.running)
    place = out.parent / ATTENTION
    attention = extract(given.model, first, place, source=given.source, **kept).load()
    return hub_section(given.model, rest, attention, out, **given.settings)


QUESTIONS: dict[str, Callable[[_Given], _Ready]] = {
    "thoughts": _thoughts,
    "totals": _totals,
    "restoration": _restoration,
    "edges": _edges,
    "hub": _hub,
}
"""Every question, in the order of the report: each draws and checks what it needs, or raises."""
_OF_THOUGHTS = ("thoughts", "totals", "hub")
_LEFT_OUT = {"restoration": RESTORATION_TITLE, "hub": HUB_TITLE}
"""Those that say why where they cannot be asked and nobody named them."""


def _built_in(problems: Sequence[Problem]) -> bool:
    return all(isinstance(problem, WordProblem) for problem in problems)


def _check_components(components: Sequence[str]) -> None:
    known = get_args(Component)
    unknown = [each for each in components if each not in known]
    if unknown or not components or len(set(components)) < len(components):
        wrong = f"There is no component {unknown[0]!r}" if unknown else "Give components once each"
        raise InterventionError(f"{wrong}; there are {', '.join(known)}.")


def _asked(model: CodiModel, questions: Sequence[str] | None, *, built_in: bool) -> list[str]:
    if questions is None:
        without = () if model.config.n_thoughts else _OF_THOUGHTS
        every = [each for each in QUESTIONS if each not in without]
        return [each for each in every if built_in or each != "totals"]
    unknown = [each for each in questions if each not in QUESTIONS]
    if unknown or not questions:
        wrong = f"There is no question {unknown[0]!r}" if unknown else "No question was asked"
        raise InterventionError(f"{wrong}; there are {', '.join(QUESTIONS)}.")
    for each in set(questions) & set(_OF_THOUGHTS):
        check_thoughts(model, f"The question {each!r}")
    if "totals" in questions and not built_in:
        raise InterventionError(
            "Running totals are known of built-in word problems only; leave out 'totals', or give "
            "those."
        )
    return [each for each in QUESTIONS if each in questions]
