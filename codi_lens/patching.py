"""`codi-lens patch`: which positions carry the answer? One report on thoughts and attention."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from codi_lens.causal_report import CausalReport, write_report
from codi_lens.errors import InterventionError
from codi_lens.experiments import halves
from codi_lens.extract import extract
from codi_lens.interventions.residual import Component
from codi_lens.model import CodiModel
from codi_lens.outputs import check_output, model_names
from codi_lens.pairs import operand_pairs, random_pairs
from codi_lens.patching_sections import WHOLE_RUN, restoration_section, running_totals_section
from codi_lens.plots.causal_page import Section
from codi_lens.position_sections import edges_section, hub_section, thoughts_section
from codi_lens.positions import Scope
from codi_lens.problems import Problem, WordProblem

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
        problems: what to think about. Built-in word problems are given counterparts that differ in
            one operand, for `totals` and `restoration`; other problems are paired at random.
        out: the report's folder; the same call resumes.
        questions: which of "thoughts", "totals", "restoration", "edges" and "hub" to ask; by
            default all, without "totals" where the problems are not built-in.
        at: of restoration, each position by itself.
        components: of restoration: "resid_pre", "resid_post", "mlp_out", "attn_out".
        n_pairs: pairs for restoration, and for each number of operations that totals are asked
            of; by default as many as there are problems.
        seed: of everything drawn.
        running: `problems_at_once`, `rows_at_once`, `max_new_tokens`, `progress`.

    Raises:
        InterventionError: an unknown question, none, or totals of problems that are not built-in.
        CodiLensError: see the experiments; `out` holds something else.
    """
    built_in = all(isinstance(problem, WordProblem) for problem in problems)
    asked = _asked(questions, built_in)
    folder = check_output(out, "outcomes")
    outcomes = folder / "outcomes"
    n = len(problems) if n_pairs is None else n_pairs
    settings: dict[str, Any] = {"seed": seed, **running}
    sections: list[Section] = []
    if "thoughts" in asked:
        sections.append(thoughts_section(model, problems, outcomes / "thoughts", **settings))
    if "totals" in asked:
        pairs = [pair for k in TOTALS_OF for pair in operand_pairs(n, seed=seed, n_operations=k)]
        sections.append(running_totals_section(model, pairs, outcomes / "totals", **settings))
    if "restoration" in asked:
        pairs = operand_pairs(n, seed=seed) if built_in else random_pairs(problems, seed=seed)[:n]
        section = restoration_section(
            model, pairs, outcomes / "restoration", at=at, components=components, **settings
        )
        sections.append(section)
    if "edges" in asked:
        sections.append(edges_section(model, problems, outcomes / "edges", **settings))
    if "hub" in asked:
        first, rest = halves(problems, seed=seed)
        kept = {k: v for k, v in running.items() if k in ("max_new_tokens", "progress")}
        attention = extract(model, first, outcomes / "attention.zarr", **kept).load()
        sections.append(hub_section(model, rest, attention, outcomes / "hub", **settings))
    name = model_names([model.config.source])[0]
    cfg = model.lens.cfg
    facts = {
        "Model": name,
        "Heads": f"{cfg.n_layers} layers × {cfg.n_heads}",
        "Thoughts": str(model.config.n_thoughts),
        "Problems": str(len(problems)),
    }
    return write_report(sections, folder, name, facts)


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
