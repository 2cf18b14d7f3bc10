"""The figures of tokens: what the lens reads, and a head over the tokens of a run."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support.reading import layout_of, traces_of

from codi_lens import CodiModel, logit_lens
from codi_lens.errors import CodiLensError, PositionError
from codi_lens.plots.readout.tokens import run_attention, top_tokens, visible
from codi_lens.problems import Problem, word_problems

PROBLEMS = word_problems(2, seed=5, n_operations=4)


def test_the_lens_is_drawn_cell_by_cell(tiny_gpt2: CodiModel) -> None:
    table = logit_lens(tiny_gpt2, PROBLEMS, progress=False)
    figure = top_tokens(table, PROBLEMS[1].id)
    heat, labels = traces_of(figure)
    assert heat.y == ("layer 0", "layer 1", "layer 2", "thought")
    assert heat.x == ("bot", "ct0", "ct1", "ct2", "ct3", "ct4", "ct5", "eot", "anchor")
    own = table.sel(problem=PROBLEMS[1].id)
    states = own["probability"].sel(rank=1, position=list(heat.x))
    np.testing.assert_allclose(heat.z[:3], states)
    np.testing.assert_allclose(heat.z[3][1:7], own["thought_probability"].sel(rank=1))
    assert np.isnan([heat.z[3][0], *heat.z[3][7:]]).all(), "only thoughts are fed"
    drawn = dict(zip(zip(labels.y, labels.x, strict=True), labels.text, strict=True))
    ct1 = str(own["thought_token"].sel(thought="ct1", rank=1).item())
    assert drawn["thought", "ct1"] == visible(ct1)
    assert PROBLEMS[1].question[:60] in layout_of(figure).title.subtitle.text
    with pytest.raises(PositionError, match="no problem 'other'"):
        top_tokens(table, "other")
    with pytest.raises(PositionError, match="no position of thinking"):
        top_tokens(logit_lens(tiny_gpt2, PROBLEMS, at="question", progress=False))


def test_questions_and_tokens_are_text_not_markup(tiny_gpt2: CodiModel) -> None:
    table = logit_lens(tiny_gpt2, [Problem(PROBLEMS[0].question, None, "<b>")], progress=False)
    figure = top_tokens(table.assign_coords(question=("problem", ["<script>x</script>"])))
    assert "<script>" not in layout_of(figure).title.subtitle.text
    hover = "".join(str(cell) for row in traces_of(figure)[0].customdata for cell in row)
    assert "<<" not in hover


def test_a_head_is_drawn_over_the_tokens_of_its_own_problem(tiny_gpt2: CodiModel) -> None:
    run = tiny_gpt2.think([problem.question for problem in PROBLEMS])
    figure: Any = run_attention(run, "L1H7", 1)
    (heat,) = traces_of(figure)
    pattern = run.cache()["blocks.1.attn.hook_pattern"][1, 7]
    start, bot = run.span("question")[1].start, run.layout.bot
    row = list(heat.y).index("ct2")
    expected = pattern[bot + 3, start : bot + 4].numpy()
    np.testing.assert_allclose(heat.z[row][: len(expected)], expected, atol=1e-6)
    assert np.isnan(heat.z[row][len(expected) :]).all(), "later keys are impossible"
    names = [label.replace("\u200b", "") for label in heat.x]
    assert names[: bot - start] == [visible(text) for text in run.tokens[1][start:bot]]
    assert len(set(heat.x)) == len(heat.x), "equal tokens are columns of their own"
    pair: Any = run_attention(run, (1, 7), 1)
    assert pair.layout.title.text == figure.layout.title.text
    with pytest.raises(PositionError, match=r"problems 0\.\.1, not 2"):
        run_attention(run, "L1H7", 2)
    with pytest.raises(CodiLensError, match="L9H0"):
        run_attention(run, "L9H0")
