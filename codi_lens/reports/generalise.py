"""`codi-lens generalise`: does what was found on one corpus hold on another?"""

from __future__ import annotations

from collections.abc import Mapping
from math import comb
from pathlib import Path
from typing import Any, Unpack

from codi_lens.causal.measure import Running
from codi_lens.model import CodiModel
from codi_lens.outputs import open_report
from codi_lens.plots.readout.corpora import (
    corpora_agreement,
    effects_by_corpus,
    results_by_corpus,
)
from codi_lens.problems.problem import Problems
from codi_lens.readout.across import EFFECT, LENS, SCORES, THOUGHT, Across, generalise
from codi_lens.reports.pages.facts import model_facts, name_of
from codi_lens.reports.pages.folder import CausalReport, write_report
from codi_lens.reports.pages.section import Section
from codi_lens.reports.questions.wording import rule
from codi_lens.thinking.ways import check_thoughts
from codi_lens.wording import count, fixed, percent, with_interval

HEADING = "Does it hold on other problems?"
_LEAD = (
    "Each quantity is a mean over the problems of a corpus, for every head, thought or decoded "
    "row. Two corpora agree as far as they rank these alike: by Spearman's ρ, corrected for the "
    "noise of few problems (divided by what halves of each corpus let expect if the truth is the "
    "same in both), with a 95 % interval over problems. Effects are changes of the log-probability "
    "of the answer that the clean run gives."
)
_UNITS = {THOUGHT: "thoughts", LENS: "rows"}


def generalise_model(
    model: CodiModel,
    corpora: Mapping[str, Problems],
    out: str | Path,
    *,
    k: int = 5,
    seed: int = 0,
    **running: Unpack[Running],
) -> CausalReport:
    """Measure a model on several corpora, and write tables and a page.

    Args:
        model: the model.
        corpora: at least two, by name.
        out: the report's folder: `index.html`, `findings.md`, `corpora.csv`, `agreement.csv`,
            `heads.csv`, `thoughts.csv`, `lens.csv`; see `Across`.
        k: how many tokens of each row count as read.
        seed: of donors and the bootstrap.
        running: `problems_at_once`, `rows_at_once`, `max_new_tokens`, `progress`, `workers`,
            `ray_address`.

    Raises:
        ProblemError: fewer than two corpora.
        OutputError: `out` holds something else.
    """
    check_thoughts(model, "generalise")
    with open_report(out, "generalise") as folder:
        found = generalise(model, corpora, folder / "outcomes", k=k, seed=seed, **running)
        sections = [_corpora(found), _attention(found), _heads(found), _thoughts(found)]
        sections.append(_lens(found, k))
        facts = model_facts(model) | {"Corpora": ", ".join(map(str, corpora))}
        name = name_of(model)
        return write_report(sections, folder, name, facts, heading=HEADING, lead=_LEAD)


def _corpora(found: Across) -> Section:
    rows = [
        (
            row["corpus"],
            str(row["n"]),
            with_interval(row, "accuracy_clean") if row["accuracy_clean"] >= 0 else "not known",
            str(row["n_needed"]),
            row["needed"],
        )
        for row in found.corpora.to_dict("records")
    ]
    columns = ("corpus", "n", "right, share [95 %]", "heads needed", "which")
    return Section(
        "corpora",
        "What does the model do on each?",
        "Where few answers are right, effects are those on answers that it makes up.",
        _needed_everywhere(found),
        {},
        {"corpora": found.corpora},
        {"The corpora": (columns, rows)},
    )


def _needed_everywhere(found: Across) -> list[str]:
    known = found.corpora[found.corpora["n_known"] > 0]
    unknown = found.corpora.loc[found.corpora["n_known"] == 0, "corpus"].tolist()
    sentences = [
        f"On {' and '.join(unknown)} no clean run gives an answer, so no effect is known there."
    ] * bool(unknown)
    sets = [set(filter(None, each.split(", "))) for each in known["needed"]]
    if not sets:
        return sentences
    anywhere, everywhere = set.union(*sets), set.intersection(*sets)
    if not anywhere:
        return [*sentences, f"No head is needed on any of {len(sets)} corpora. {rule(found.heads)}"]
    named = f": {', '.join(sorted(everywhere))}" if everywhere else ""
    return [
        *sentences,
        f"{count(len(anywhere), 'head')} of {found.heads['name'].nunique()} are needed on at least "
        f"one of {len(sets)} corpora, {len(everywhere)} on every one{named}. {rule(found.heads)}",
    ]


def _agreement(found: Across, *quantities: str) -> list[str]:
    """For each quantity the pairs that agree least and most, and why others are not compared."""
    n_pairs = comb(len(found.corpora), 2)
    sentences = []
    for quantity in quantities:
        rows = found.agreement[found.agreement["quantity"] == quantity]
        units = _UNITS.get(quantity, "heads")
        noisy = rows["rho"].notna() & rows["corrected"].isna()
        for n, reason in (
            (n_pairs - len(rows), f"there are too few {units}, or problems where it is known"),
            (int(rows["rho"].isna().sum()), f"it is the same for all {units} of one"),
            (int(noisy.sum()), f"which {units} come first is noise, as halves of a corpus show"),
        ):
            if n:
                sentences.append(
                    f"{n} of {count(n_pairs, 'pair')} of corpora cannot be compared by {quantity}: "
                    f"{reason}."
                )
        known = rows.dropna(subset="corrected").sort_values("corrected").to_dict("records")
        told = [_told(known[place]) for place in dict.fromkeys((0, len(known) - 1)) if known]
        if told:
            sentences.append(
                f"By {quantity}, {known[0]['n_units']} {units} are ranked with a ρ of "
                f"{' to '.join(told)}."
            )
    return sentences


def _told(row: Mapping[Any, Any]) -> str:
    few = row["corrected_low"] != row["corrected_low"]  # NaN
    rho = f"{fixed(row['corrected'])}" if few else with_interval(row, "corrected")
    end = ", too few for an interval" if few else ""
    return f"{rho} ({row['a']} and {row['b']}, n = {row['n_a']} and {row['n_b']}{end})"


def _attention(found: Across) -> Section:
    sentences = _agreement(found, *SCORES)
    return Section(
        "attention",
        "Do heads look at the same?",
        "Scores of the attention between thoughts, in the position view: hub is how unevenly the "
        "thoughts are looked at, over what causality alone gives.",
        sentences,
        {"agreement": corpora_agreement(found.agreement)},
        {"agreement": found.agreement},
    )


def _heads(found: Across) -> Section:
    sentences = _agreement(found, EFFECT)
    return Section(
        "heads",
        "Are the same heads needed?",
        "Each head's output at the thinking positions is replaced by that on another problem of "
        "the same corpus.",
        sentences,
        {"heads": effects_by_corpus(found.heads)} if found.heads["effect"].notna().any() else {},
        {"heads": found.heads},
    )


def _thoughts(found: Across) -> Section:
    sentences = _agreement(found, THOUGHT)
    return Section(
        "thoughts",
        "Are the same thoughts needed?",
        "Each thought is replaced by that of another problem of the same corpus.",
        sentences,
        {"thoughts": effects_by_corpus(found.thoughts)}
        if found.thoughts["effect"].notna().any()
        else {},
        {"thoughts": found.thoughts},
    )


def _lens(found: Across, k: int) -> Section:
    sentences = _agreement(found, LENS)
    best = found.lens.sort_values("share", ascending=False).drop_duplicates("corpus")
    for row in best.sort_values("corpus").to_dict("records"):
        share = f"{percent(row['share'], 0)} [{percent(row['low'], 0)}, {percent(row['high'], 0)}]"
        where = f"most often at {row['position']} (chosen on the same problems)"
        sentences.append(
            f"On {row['corpus']} intermediate results are read "
            + (f"{where}: {share} of {row['n']}" if row["found"] else f"nowhere, of {row['n']}")
            + f"; of another problem's {percent(row['control_share'], 0)}."
        )
    unread = [name for name in found.corpora["corpus"] if name not in set(found.lens["corpus"])]
    if unread:
        sentences.append(
            f"Nothing can be looked for in {', '.join(unread)}: no two problems there have a known "
            "chain of as many numbers."
        )
    figures = {"lens": results_by_corpus(found.lens)} if len(found.lens) else {}
    return Section(
        "lens",
        "Are intermediate results read at the same places?",
        f"Whether they are among the {k} likeliest tokens of the state at each position, before "
        "the projection.",
        sentences,
        figures,
        {"lens": found.lens},
    )
