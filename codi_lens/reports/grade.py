"""`codi-lens grade`: which scores and heads find the edges that problems are known to need."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Unpack

import pandas as pd

from codi_lens.attention.extract import extract
from codi_lens.attention.opening import AMONG_OUTCOMES
from codi_lens.attention.streaming import Source
from codi_lens.causal.edge_costs import known_against_others
from codi_lens.causal.grade import Grade, grade
from codi_lens.causal.measure import Running, decoding
from codi_lens.causal.references import references_in
from codi_lens.model import CodiModel
from codi_lens.outputs import open_report
from codi_lens.plots.causal.grades import edge_costs_figure, grades_figure
from codi_lens.problems.operations import Reference
from codi_lens.problems.problem import Problem
from codi_lens.reports.pages.facts import model_facts, name_of
from codi_lens.reports.pages.folder import CausalReport, write_report
from codi_lens.reports.pages.section import Section
from codi_lens.thinking.ways import check_thoughts
from codi_lens.wording import fixed, with_interval

HEADING = "Which pictures can be believed?"
_LEAD = (
    "Every problem here has a step that refers back to an earlier total, which stands nowhere in "
    "its text and in no other total before it, so that one thought has to be read by one known "
    "position. Costs are nats of the log-probability of the number that the clean run gives; "
    "intervals are 95 % intervals over problems."
)


_AGAINST = ("known", "others", "difference")


def grade_model(
    model: CodiModel,
    problems: Sequence[Problem],
    out: str | Path,
    *,
    control: CodiModel | None = None,
    used: Iterable[Reference] | None = None,
    source: Source | None = None,
    seed: int = 0,
    **running: Unpack[Running],
) -> CausalReport:
    """Grade every score by the known edges, and write tables and a page.

    Args:
        model: the model.
        problems: of `word_problems` of a family that refers back.
        out: the report's folder: `index.html`, `findings.md`, `grades.csv` (every score),
            `edge_costs.csv` (what cutting each edge costs, by kind of reference), `known.csv` (the
            known edges against as many others), `served.csv` (the heads that scores rank first).
        control: a model that learnt the same task with constant thoughts.
        used: the kinds of reference whose edge the model was shown to use; measured by default.
        source: see `extract`; with value-weighted attention.
        seed: of other edges, donors, shuffles and the bootstrap.
        running: `problems_at_once`, `rows_at_once`, `max_new_tokens`, `progress`, `workers`,
            `ray_address`.

    Raises:
        ProblemError: problems that need no edge.
        OutputError: `out` holds something else.
    """
    check_thoughts(model, "grade")
    problems = list(problems)
    with open_report(out, "grade") as folder:
        outcomes = folder / "outcomes"
        asked: dict[str, Any] = {"seed": seed, **running}
        extract(model, problems, folder / AMONG_OUTCOMES, source=source, **decoding(running))
        against = known_against_others(model, problems, outcomes / "known", **asked)
        asked |= {"control": control, "source": source}
        found = grade(model, problems, outcomes, used=used, **asked)
        sections = [_edges(found, against), _scores(found, control), _heads(found)]
        facts = model_facts(model) | {
            "Graded problems": f"{found.n}, {found.n_wrong} left out as answered wrong",
            "Graded references": f"{len(found.used)} kinds",
            "Control": "none" if control is None else name_of(control),
        }
        name = name_of(model)
        return write_report(sections, folder, name, facts, heading=HEADING, lead=_LEAD)


def _edges(found: Grade, against: pd.DataFrame) -> Section:
    whole = against.iloc[0]
    sentences = [
        f"Cutting the known edges costs {with_interval(whole, 'known')} nats, cutting as many "
        f"other edges {with_interval(whole, 'others')} (n = {whole['n']}): "
        + ("more" if whole["five_low"] > 0 else "not shown to be more")
        + " than five times as much."
    ]
    if not found.shown:
        sentences.append(
            "No kind of reference was shown to use its edge, so all are graded: what is found here "
            "is no evidence of reading."
        )
    known = found.costs[found.costs["known"]]
    unused = [each.name for each in references_in(known) if each not in found.used]
    if unused:
        sentences.append(f"Not shown to use its edge, and not graded: {'; '.join(unused)}.")
    rows = [
        (row["by"], row["group"], str(row["n"]), *(with_interval(row, each) for each in _AGAINST))
        for row in against.to_dict("records")
    ]
    return Section(
        "edges",
        "Which edges does the model use?",
        "Each edge between thoughts, and from the answer to a thought, is cut in every head at "
        "once, before the softmax.",
        sentences,
        {"edge_costs": edge_costs_figure(found.costs)},
        {"edge_costs": found.costs, "known": against},
        {
            "Known edges against as many others (nats)": (
                ("by", "group", "n", *_AGAINST),
                rows,
            )
        },
    )


def _scores(found: Grade, control: CodiModel | None) -> Section:
    scores = found.scores
    beyond = scores["beyond_shuffled_low"] > 0
    if control is not None:
        beyond &= scores["beyond_control_low"] > 0
    against = "another problem's edges" + ("" if control is None else " and the control")
    ranked = scores.sort_values("auroc", ascending=False)
    best = ranked.iloc[0]
    sentences = [
        f"The best of {len(scores)} scores (chosen on the same problems) is {best['score']}, with "
        f"an AUROC of {with_interval(best, 'auroc')} over {best['n']} problems, and of "
        f"{with_interval(best, 'shuffled_auroc')} for the edges of another problem.",
        f"{int(beyond.sum())} of {len(scores)} scores find the edges of a problem better than "
        f"{against}, each by its own 95 % interval"
        + (f": {', '.join(scores.loc[beyond, 'score'])}." if beyond.any() else "."),
    ]
    columns = ["auroc", "shuffled_auroc", "beyond_shuffled"]
    columns += [] if control is None else ["control_auroc", "beyond_control"]
    columns += ["average_precision", "pooled_auroc"]
    rows = [
        (row["score"], *(with_interval(row, name) for name in columns))
        for row in ranked.to_dict("records")
    ]
    return Section(
        "scores",
        "Which scores find the known edges?",
        "Among all edges between thoughts and from the answer, does a score put those first that "
        "the problem needs? A score that always points at the same place is as good for another "
        "problem's edges"
        + ("." if control is None else "; one that needs no thoughts is as good in the control."),
        sentences,
        {"grades": grades_figure(scores)},
        {"grades": scores},
        {
            f"Every score (chance: AUROC 0.5, average precision "
            f"{fixed(float(best['chance_average_precision']))})": (
                ("score", *(name.replace("_", " ") for name in columns)),
                rows,
            )
        },
    )


def _heads(found: Grade) -> Section:
    heads = found.heads
    sentences = []
    for name, part in heads.groupby("score", sort=False):
        right = part[part["serves"].astype(bool)]
        sentences.append(
            f"The head that {name} ranks first serves its query at {len(right)} of {len(part)} "
            "queries."
        )
    rows = [
        (
            *(row[name] for name in ("query", "score", "head")),
            *(fixed(row[name]) for name in ("cost_needing", "cost_others")),
            "yes" if row["serves"] else "no",
            row["most"],
            f"{row['n_needing']}, {row['n_others']}",
        )
        for row in heads.to_dict("records")
    ]
    columns = ("query", "score", "first head", "cost where needed", "elsewhere", "serves")
    return Section(
        "heads",
        "Which heads serve them?",
        "A head is replaced at one query by another problem's. It serves the query if that costs "
        "the problems that need an edge from it more than the others, by more than 0.1 nats "
        "(q < 0.05 over all heads and queries).",
        sentences or ["No query is needed by five problems and not needed by five others."],
        {},
        {"served": heads},
        {"The head that each score ranks first": ((*columns, "most served by", "n, others"), rows)}
        if rows
        else {},
    )
