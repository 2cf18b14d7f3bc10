"""The parts of the answer's logit sum to it, and each is what its definition says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from codi_lens import CodiModel
from codi_lens.errors import ProblemError
from codi_lens.plots.readout.attribution import answer_attribution as figure_of
from codi_lens.problems import Problem, word_problems
from codi_lens.readout.attribution import answer_attribution, answer_parts

PROBLEMS = word_problems(9, seed=3)
QUIET: dict[str, Any] = {"progress": False}


@pytest.mark.parametrize("against", ["runner-up", "nothing"])
def test_the_parts_sum_to_the_logit(tiny: CodiModel, against: Any) -> None:
    table = answer_attribution(tiny, PROBLEMS, against=against, batch_size=4, **QUIET)
    heads = table["by_source"].sum("source")
    np.testing.assert_allclose(heads, table["by_head"], atol=2e-5)
    assert np.abs(table["remainder"]).max() < 1e-4
    whole = heads.sum(["layer", "head"]) + table["mlp"].sum("layer")
    whole += table["attention_bias"].sum("layer") + table["embedding"] + table["position"]
    np.testing.assert_allclose(whole + table["norm_bias"], table["total"], atol=1e-4)
    last = table["accumulated"].isel(depth=-1)
    np.testing.assert_allclose(last + table["norm_bias"], table["total"], atol=1e-4)
    parts = answer_parts(table)
    np.testing.assert_allclose(parts["mean"].sum(), table["total"].mean(), atol=1e-4)
    for i, problem in enumerate(PROBLEMS):  # the model's own logits, from another pass
        run = tiny.think([problem.question])
        anchor = int(run.index("anchor")[0])
        last_layer = tiny.lens.cfg.n_layers - 1
        state = run.cache()[f"blocks.{last_layer}.hook_resid_post"][:, anchor : anchor + 1]
        with torch.no_grad():
            logits = tiny.lens.unembed(tiny.lens.ln_final(state))[0, 0]
        best = logits.topk(2)
        minus = best.values[1] if against == "runner-up" else 0
        assert table["total"][i].item() == pytest.approx(float(best.values[0] - minus), abs=1e-4)
        named = [tiny.tokenizer.decode([int(token)]) for token in best.indices]
        assert [table["token"][i].item(), table["runner_up"][i].item()] == named


def test_a_head_takes_nothing_from_where_it_does_not_look(tiny_gpt2: CodiModel) -> None:
    table = answer_attribution(tiny_gpt2, PROBLEMS[:2], against="nothing", **QUIET)
    run = tiny_gpt2.think([problem.question for problem in PROBLEMS[:2]])
    seen = run.attention.sel(query="anchor")
    # The largest share of a row and a tiny one: what is written scales with the attention.
    tiny_shares = seen.rename(key="source").transpose("problem", "layer", "head", "source") < 1e-6
    assert np.abs(table["by_source"].values[tiny_shares.values]).max(initial=0) < 1e-4
    thoughts = [name for name in table["source"].values if name.startswith("ct")]
    assert len(thoughts) == tiny_gpt2.config.n_thoughts


def test_a_batch_equals_single_runs_and_keeps_its_order(tiny: CodiModel) -> None:
    whole = answer_attribution(tiny, PROBLEMS, **QUIET)
    assert whole["problem"].values.tolist() == [problem.id for problem in PROBLEMS]
    for problem in PROBLEMS[:3]:
        alone = answer_attribution(tiny, [problem], **QUIET)
        for name in ("by_source", "mlp", "total"):
            np.testing.assert_allclose(
                whole[name].sel(problem=[problem.id]), alone[name], atol=1e-3
            )


def test_an_answer_without_a_number_is_not_attributed(tiny_gpt2: CodiModel) -> None:
    none = answer_attribution(tiny_gpt2, PROBLEMS[:1], max_new_tokens=1, **QUIET)
    assert none["token"].item() == "" and np.isnan(none["total"].item())
    assert np.isnan(none["by_source"]).all()
    assert answer_parts(none)["mean"].isna().all()


def test_what_is_refused(tiny_gpt2: CodiModel) -> None:
    with pytest.raises(ProblemError, match="no problems to attribute"):
        answer_attribution(tiny_gpt2, list[Problem](), **QUIET)
    table = answer_attribution(tiny_gpt2, PROBLEMS[:1], **QUIET)
    with pytest.raises(ProblemError, match="give what answer_attribution returns"):
        answer_parts(table.drop_vars("by_source"))


def test_the_figure_shows_every_part_and_every_head(tiny_gpt2: CodiModel) -> None:
    table = answer_attribution(tiny_gpt2, PROBLEMS, **QUIET)
    traces: Any = figure_of(table).data
    np.testing.assert_allclose(traces[0].z, table["by_head"].mean("problem"))
    bars = np.concatenate([trace.x for trace in traces if trace.type == "bar"])
    np.testing.assert_allclose(bars.sum(), table["total"].mean(), atol=1e-4)
