"""What is read, answered and moved: known by training, by hand, and said as the numbers have it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from codi_lens import CodiModel
from codi_lens.errors import PositionError, ProblemError
from codi_lens.interventions.thoughts import truncate_thoughts
from codi_lens.plots.readout import shares as figures
from codi_lens.problems import is_correct, word_problems
from codi_lens.readout.known import known_values
from codi_lens.readout.readable import readable_and_used, readable_sentence
from codi_lens.readout.reading import logit_lens
from codi_lens.readout.trajectories import rank_trajectories, stopped_answers

PROBLEMS = word_problems(60, seed=3, n_operations=2)
QUIET: dict[str, Any] = {"progress": False, "max_new_tokens": 12}


def test_ranks_over_layers_and_thoughts_are_those_of_the_lens(tiny: CodiModel) -> None:
    table = logit_lens(tiny, PROBLEMS[:12], targets="totals", at=["bot", "ct0"], **QUIET)
    found: Any = rank_trajectories(table).set_index(["target", "layer", "position"])
    ranks = table["target_rank"].sel(target="total 1", layer=2, position="bot").values
    cell = found.loc[("total 1", 2, "bot")]
    assert cell["first"] == (ranks == 1).mean() and cell["median_rank"] == np.median(ranks)
    assert cell["first_low"] <= cell["first"] <= cell["first_high"] and cell["n"] == 12
    assert len(found) == 2 * (3 * 2 + tiny.config.n_thoughts)
    fed: Any = rank_trajectories(table).query("layer.isna()").set_index(["target", "position"])
    assert fed.loc[("total 1", "ct0"), "first"] == fed.loc[("total 2", "ct1"), "first"] == 1
    traces: Any = figures.rank_trajectories(rank_trajectories(table)).data
    assert [trace.name for trace in traces[::2]] == ["total 1", "total 2"]
    with pytest.raises(ProblemError, match="holds no targets"):
        rank_trajectories(logit_lens(tiny, PROBLEMS[:1], at="bot", **QUIET))
    without: Any = {"targets": "answer", "at": "question", "way": "skip"}
    with pytest.raises(PositionError, match="no position by name and no thought"):
        known_values(logit_lens(tiny, PROBLEMS[:1], **without, **QUIET))


def test_answers_after_each_thought_are_those_of_truncated_runs(tiny: CodiModel) -> None:
    some = word_problems(12, seed=3, n_operations=3)
    table: Any = stopped_answers(tiny, some, **QUIET).set_index(["kept", "target"])
    n = tiny.config.n_thoughts
    for kept in (0, 2, n):
        run = tiny.think(
            [problem.question for problem in some],
            interventions=[truncate_thoughts(kept)] if kept < n else [],
            max_new_tokens=12,
        )
        for target, values in (
            ("answer", [problem.answer for problem in some]),
            ("total 1", [problem.totals[0] for problem in some]),
        ):
            hits = [is_correct(a, value) for a, value in zip(run.answers, values, strict=True)]
            assert table.loc[(kept, target), "answered"] == np.mean(hits)
    assert table.loc[(n, "answer"), "answered"] > 0.9 > table.loc[(0, "answer"), "answered"]
    assert np.isnan(table.loc[(0, "answer"), "thought"])
    assert table.loc[(1, "total 1"), "thought"] == 1
    lens = logit_lens(tiny, some, targets="answer", at="ct1", layers=[2], **QUIET)
    read = (lens["target_rank"].values == 1).mean()
    assert table.loc[(2, "answer"), "state"] == read
    traces: Any = figures.stopped_answers(table.reset_index()).data
    np.testing.assert_array_equal(
        traces[0].z[:, -1], table["answered"].xs("answer", level="target")
    )


@pytest.fixture(scope="session")
def readable(tiny_gpt2: CodiModel) -> Any:
    problems = word_problems(160, seed=3, n_operations=2)
    return readable_and_used(tiny_gpt2, problems, n_swapped=30, **QUIET)


@pytest.mark.slow
def test_a_total_is_read_where_training_put_it_and_moved_where_it_is_used(readable: Any) -> None:
    cells = readable.set_index(["thought", "operation"])
    own = cells.loc[("ct0", 1)]
    assert own["lens"] > 0.95 and own["probe"] > 0.9 and own["swap"] > 0.9
    assert max(own["lens_chance"], own["probe_chance"], own["swap_chance"]) < 0.2
    assert (
        own["sentence"].startswith("ct0, total 1: readable") and "answer follows" in own["sentence"]
    )
    late = cells.loc[("ct5", 1)]
    assert late["swap"] < 0.1 and "the answer does not follow" in late["sentence"]
    assert np.isnan(cells.loc[("ct0", 2), "swap"])
    assert "no swap tests" in cells.loc[("ct0", 2), "sentence"]
    for way in ("lens", "probe"):
        assert (readable[f"{way}_low"] <= readable[way]).all()
    traces: Any = figures.readable_and_used(readable).data
    np.testing.assert_array_equal(traces[0].z[:, 0], readable.query("operation == 1")["lens"])
    assert traces[5].text[1] == "–"


@pytest.mark.parametrize(
    ("lens", "probe", "swap", "said"),
    [
        (0.9, 0.9, 0.9, "readable (lens 90 %, probe 90 %), and the answer follows"),
        (0.1, 0.9, 0.1, "readable (lens 10 %, probe 90 %), but the answer does not follow"),
        (0.1, 0.1, 0.9, "not readable (lens 10 %, probe 10 %), but the answer follows"),
        (0.1, np.nan, 0.1, "not readable (lens 10 %, probe unknown), and the answer does not"),
        (0.5, 0.1, 0.5, "unclear (lens 50 %, probe 10 %), and whether the answer follows is"),
        (np.nan, np.nan, np.nan, "not looked for (lens unknown, probe unknown), and no swap"),
    ],
)
def test_sentences_say_what_the_numbers_say(
    lens: float, probe: float, swap: float, said: str
) -> None:
    row: dict[str, Any] = {"thought": "ct1", "operation": 2}
    for way, value in (("lens", lens), ("probe", probe), ("swap", swap)):
        row |= {way: value, f"{way}_low": value - 0.05, f"{way}_high": value + 0.05}
    assert said in readable_sentence(row)


def test_what_is_refused(tiny_gpt2: CodiModel) -> None:
    with pytest.raises(ProblemError, match="have 2, 3 operations"):
        mixed = PROBLEMS[:2] + word_problems(2, n_operations=3)
        readable_and_used(tiny_gpt2, mixed, **QUIET)
    table = stopped_answers(tiny_gpt2, PROBLEMS[:2], **QUIET)
    with pytest.raises(ProblemError, match="give what readable_and_used returns"):
        figures.readable_and_used(table)
