"""Whether corpora agree: a correlation that is right about the truth, on quantities that are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr

from codi_lens import CodiLensError, CodiModel, ProblemError, generalise, sweep_heads
from codi_lens.attention.extract import extract
from codi_lens.attention.ranking import rank_heads
from codi_lens.causal.sweeps import sweep_thoughts
from codi_lens.problems import Problem, word_problems
from codi_lens.readout.across import Across, rank_agreement, results_of
from codi_lens.readout.decode import decode_thoughts
from codi_lens.readout.steps import step_matches
from codi_lens.reports.generalise import generalise_model

CORPORA = {
    "three steps": word_problems(12, seed=3, n_operations=3),
    "four steps": word_problems(10, seed=4, n_operations=4),
}


@pytest.fixture(scope="module")
def found(tiny_gpt2: CodiModel) -> Across:
    return generalise(tiny_gpt2, CORPORA, seed=5, progress=False)


@pytest.mark.parametrize(
    ("units", "n", "noise", "apart"),
    [(24, 30, 1.0, 0.0), (24, 30, 3.0, 0.5), (6, 30, 1.0, 0.5), (144, 50, 3.0, 1.0)],
)
def test_the_corrected_correlation_is_that_of_the_truth(
    units: int, n: int, noise: float, apart: float
) -> None:
    """Means over few problems correlate less than what they are means of."""
    rng = np.random.default_rng(0)
    errors, raw, covered = [], [], []
    for seed in range(100):
        truth = rng.standard_normal(units)
        other = truth + apart * rng.standard_normal(units)
        a, b = (each + noise * rng.standard_normal((n, units)) for each in (truth, other))
        row = rank_agreement(a, b, n_resamples=200, seed=seed)
        rho = float(spearmanr(truth, other)[0])  # type: ignore[arg-type]
        errors.append(row["corrected"] - rho)
        raw.append(row["rho"] - rho)
        covered.append(row["corrected_low"] - 1e-9 <= rho <= row["corrected_high"] + 1e-9)
    known = np.isfinite(errors)
    assert known.mean() >= 0.9
    assert abs(np.mean(np.array(errors)[known])) < 0.06
    assert np.mean(np.array(covered)[known]) >= 0.8
    assert np.mean(raw) < np.mean(np.array(errors)[known])


def test_noise_alone_is_not_corrected_into_agreement() -> None:
    rng = np.random.default_rng(1)
    rows = [rank_agreement(*rng.standard_normal((2, 20, 24)), n_resamples=50) for _ in range(30)]
    assert sum(np.isnan(row["corrected"]) for row in rows) >= 20
    same = rank_agreement(np.zeros((5, 4)), rng.standard_normal((5, 4)))
    assert np.isnan(same["rho"]) and np.isnan(same["corrected"])
    for units in ((2, 2), (4, 5)):
        with pytest.raises(CodiLensError, match="at least 3 units, the same in both, not on"):
            rank_agreement(*(np.zeros((5, n)) for n in units))


def test_each_corpus_is_measured_as_by_itself(tiny_gpt2: CodiModel, found: Across) -> None:
    for name, problems in CORPORA.items():
        heads = found.heads[found.heads["corpus"] == name].set_index("name")
        alone = sweep_heads(tiny_gpt2, problems, seed=5, progress=False).set_index("name")
        for column in ("effect", "effect_low", "q", "matters"):
            pd.testing.assert_series_equal(heads[column], alone[column], rtol=1e-4, atol=1e-4)
        scores = rank_heads(extract(tiny_gpt2, problems, progress=False)).set_index("name")
        for score in ("flow", "hub", "skip", "sequential"):
            expected = scores.loc[heads.index, score]
            pd.testing.assert_series_equal(heads[score], expected, rtol=1e-6)
        thoughts = found.thoughts[found.thoughts["corpus"] == name].set_index("name")["effect"]
        swept = sweep_thoughts(tiny_gpt2, problems, ["resample"], seed=5, progress=False)
        np.testing.assert_allclose(thoughts, swept["effect"], rtol=1e-4, atol=1e-4)


def test_results_are_read_as_step_matches_reads_them(tiny_gpt2: CodiModel, found: Across) -> None:
    for name, problems in CORPORA.items():
        rows = decode_thoughts(tiny_gpt2, problems, progress=False)
        tokens = [rows[rows["problem"] == p.id]["tokens"].tolist() for p in problems]
        table = step_matches(tokens, [p.totals for p in problems]).set_index("rows")
        lens = found.lens[found.lens["corpus"] == name]
        for column in ("found", "n", "control_found", "control_n"):
            expected = table.loc[[str(row) for row in lens["row"]], column]
            assert lens[column].tolist() == expected.tolist()


def test_agreement_names_pairs_units_and_problems(found: Across) -> None:
    table = found.agreement
    assert len(table) == 7
    assert table["n_units"].tolist() == [24] * 5 + [6, 7]
    assert (table["n_a"] <= 12).all() and (table["n_b"] <= 10).all()
    known = table.dropna(subset="corrected")
    assert len(known) >= 5
    assert (known["corrected_low"] <= known["corrected"]).all()
    assert (known["corrected"] <= known["corrected_high"]).all()


def test_problems_without_chains_have_nothing_to_read(tiny_gpt2: CodiModel, tmp_path: Path) -> None:
    bare = [Problem(p.question, p.answer, p.id) for p in CORPORA["three steps"][:4]]
    both = {"bare": bare, "plain": CORPORA["four steps"][:4]}
    found = generalise(tiny_gpt2, both, tmp_path / "out", progress=False)
    assert set(found.lens["corpus"]) == {"plain"}
    assert "results read" not in set(found.agreement["quantity"])
    again = generalise(tiny_gpt2, both, tmp_path / "out", progress=False)
    pd.testing.assert_frame_equal(again.heads, found.heads)


def test_what_cannot_be_compared_is_refused(tiny_gpt2: CodiModel) -> None:
    with pytest.raises(ProblemError, match="at least two corpora by name"):
        generalise(tiny_gpt2, {"one": CORPORA["three steps"]})
    twins = {"one": CORPORA["three steps"], "two": CORPORA["three steps"][::-1]}
    with pytest.raises(ProblemError, match="corpora one and two ask the same"):
        generalise(tiny_gpt2, twins)
    for name in ("../two", "", "a/b", ".."):
        with pytest.raises(ProblemError, match="name of a corpus is also that of a folder"):
            generalise(tiny_gpt2, {"one": CORPORA["three steps"], name: CORPORA["four steps"]})
    with pytest.raises(ProblemError, match="k must be at least 1"):
        generalise(tiny_gpt2, dict(CORPORA), k=0)
    with pytest.raises(ProblemError, match="corpus two has fewer than two problems"):
        generalise(tiny_gpt2, {"one": CORPORA["three steps"], "two": CORPORA["four steps"][:1]})


def test_what_was_not_measured_is_said_and_not_drawn(tiny_gpt2: CodiModel, tmp_path: Path) -> None:
    """No clean answer is yes or no, and two thoughts cannot be ranked."""
    words = {
        name: [Problem(p.question, "yes", p.id, kind="boolean") for p in problems[:4]]
        for name, problems in CORPORA.items()
    }
    report = generalise_model(tiny_gpt2, words, tmp_path / "words", progress=False)
    said = " ".join(report.findings)
    assert "On three steps and four steps no clean run gives an answer" in said
    assert "needed on" not in said
    assert "1 of 1 pair of corpora cannot be compared by effect of heads" in said
    assert set(report.tables) == {"corpora", "agreement", "heads", "thoughts", "lens"}
    two = CodiModel.from_pretrained("tiny-gpt2", n_thoughts=2)
    few = {name: problems[:3] for name, problems in CORPORA.items()}
    report = generalise_model(two, few, tmp_path / "two", progress=False)
    said = " ".join(report.findings)
    assert "cannot be compared by effect of thoughts: there are too few thoughts" in said
    assert "too few for an interval" in said


def test_results_of_a_chain_are_its_numbers() -> None:
    problem = word_problems(1, seed=2, n_operations=3)[0]
    assert results_of(problem) == list(problem.totals)
    assert results_of(Problem("1 + 1?", 2, "a")) == []
    steps = ("<<48/2=24>>", "<<48+24=72>>")
    assert results_of(Problem("How many?", 72, "b", steps=steps)) == ["24", "72"]
    words = Problem("Is Tom a wumpus?", "Tom is a wumpus", "c", kind="text", steps=("Tom is big.",))
    assert results_of(words) == []
