"""Norms, cosines and components of thoughts, against their definitions written out."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pytest

from codi_lens import CodiModel
from codi_lens.errors import ProblemError
from codi_lens.plots.readout.geometry import thought_geometry as geometry_figure
from codi_lens.plots.readout.geometry import thought_trajectories
from codi_lens.problems import Problem, word_problems
from codi_lens.readout.geometry import TOKENS, ThoughtGeometry, thought_geometry

PROBLEMS = word_problems(30, seed=13, n_operations=3)


@pytest.fixture(scope="session")
def found(tiny: CodiModel) -> ThoughtGeometry:
    return thought_geometry(tiny, PROBLEMS, progress=False)


def test_every_number_is_that_of_its_definition(tiny: CodiModel, found: ThoughtGeometry) -> None:
    thoughts = np.stack(
        [tiny.think([p.question], max_new_tokens=1).thoughts[0].double().numpy() for p in PROBLEMS]
    )

    def cosine(a: Any, b: Any) -> float:
        return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))

    norms: Any
    cosines: Any
    norms, cosines = (t.set_index("of") for t in (found.norms, found.cosines))
    between = cosines[cosines["kind"] == "between problems"]
    for i in range(thoughts.shape[1]):
        own = thoughts[:, i]
        assert norms.loc[f"ct{i}", "mean"] == pytest.approx(
            np.linalg.norm(own, axis=1).mean(), rel=1e-4
        )
        pairs = [cosine(a, b) for a, b in combinations(own, 2)]
        assert between.loc[f"ct{i}", "mean"] == pytest.approx(np.mean(pairs), abs=1e-4)
        spread = np.linalg.eigvalsh(np.cov(own.T))
        expected = spread.sum() ** 2 / (spread**2).sum()
        assert between.loc[f"ct{i}", "dimensions"] == pytest.approx(expected, rel=1e-3)
        if i:
            each = [cosine(a, b) for a, b in zip(thoughts[:, i - 1], own, strict=True)]
            row = cosines.loc[f"ct{i - 1} to ct{i}"]
            assert row["mean"] == pytest.approx(np.mean(each), abs=1e-4)
            assert row["low"] <= row["mean"] <= row["high"]
    n = tiny.config.n_tokens or tiny.lens.cfg.d_vocab
    embeddings = tiny.lens.W_E[:n].detach().double().numpy()
    assert norms.loc[TOKENS, "n"] == n
    assert norms.loc[TOKENS, "median"] == pytest.approx(
        np.median(np.linalg.norm(embeddings, axis=1))
    )
    pairs = [cosine(a, b) for a, b in combinations(embeddings, 2)]
    assert between.loc[TOKENS, "mean"] == pytest.approx(np.mean(pairs), abs=1e-6)


def test_components_keep_what_varies_most_and_carry_the_totals(found: ThoughtGeometry) -> None:
    paths: Any = found.trajectories
    first, second = found.explained
    assert 1 > first >= second > 0
    assert paths["pc1"].var() / paths["pc2"].var() == pytest.approx(first / second)
    assert abs(paths[["pc1", "pc2"]].corr().iloc[0, 1]) < 1e-6
    own: Any = paths.set_index(["problem", "thought"])
    for problem in PROBLEMS[:3]:
        totals = own.loc[problem.id, "total"].tolist()
        assert totals[:3] == list(problem.totals) and np.isnan(totals[3:]).all()
        assert (own.loc[problem.id, "answer"] == problem.answer).all()


def test_it_is_the_same_every_time(tiny_gpt2: CodiModel) -> None:
    once, again = (thought_geometry(tiny_gpt2, PROBLEMS[:6], progress=False) for _ in range(2))
    for name in ("norms", "cosines", "trajectories"):
        assert getattr(once, name).equals(getattr(again, name))


def test_the_figures_show_the_tables(found: ThoughtGeometry) -> None:
    traces: Any = geometry_figure(found).data
    assert [trace.name for trace in traces] == ["norm", "successive", "between problems"]
    np.testing.assert_array_equal(traces[0].x, found.norms["mean"])
    assert traces[2].y[-1] == "tokens"
    points: Any = thought_trajectories(found, n_lines=2).data
    assert [trace.name for trace in points] == ["path of a problem", "no total", "total"]
    assert points[0].x.count(None) == 2
    assert len(points[2].x) == found.trajectories["total"].notna().sum()
    whole: Any = thought_trajectories(found, by="answer").data
    assert [trace.name for trace in whole] == ["path of a problem", "answer"]


def test_what_is_refused(tiny_gpt2: CodiModel) -> None:
    with pytest.raises(ProblemError, match="two problems or more"):
        thought_geometry(tiny_gpt2, PROBLEMS[:1], progress=False)
    unknown = [Problem(problem.question, None, problem.id) for problem in PROBLEMS[:3]]
    bare = thought_geometry(tiny_gpt2, unknown, progress=False)
    with pytest.raises(ProblemError, match="No problem has a known total"):
        thought_trajectories(bare)
