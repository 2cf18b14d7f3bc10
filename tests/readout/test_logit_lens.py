"""The lens against plain transformers in float64, and against what training put into thoughts."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest
import torch

from codi_lens import CodiModel
from codi_lens.errors import CodiLensError, PositionError, ProblemError
from codi_lens.loading.checkpoint import read_checkpoint
from codi_lens.problems import word_problems
from codi_lens.readout.reading import logit_lens, top
from codi_lens.readout.targets import chosen_targets, ways_to_write
from codi_lens.verification.reference_model import build_language_model

PROBLEMS = word_problems(5, seed=31)
QUIET: dict[str, Any] = {"progress": False}


@pytest.mark.parametrize("name", ["tiny-gpt2", "tiny-llama"])
def test_every_cell_is_that_of_plain_transformers(name: str) -> None:
    model = CodiModel.from_pretrained(name, dtype=torch.float64)
    targets = {"forty": [40] * 5}
    table = logit_lens(model, PROBLEMS, targets=targets, k=3, **QUIET)
    reference: Any = build_language_model(read_checkpoint(name), torch.float64).eval()
    norm = reference.base_model.ln_f if name == "tiny-gpt2" else reference.base_model.norm
    (forty,) = ways_to_write(model, 40)
    for i, problem in enumerate(PROBLEMS):
        run = model.think([problem.question])
        tokens = run.cache()["hook_embed"].shape[1]
        ids = model.tokenizer(problem.question)["input_ids"]
        embed = reference.get_input_embeddings()
        after = [*model.config.closing, *run.answer_tokens[0]]
        vectors = torch.cat(
            [
                embed(torch.tensor([*ids, *model.config.opening])),
                run.thoughts[0],
                embed(torch.tensor(after)),
            ]
        )[None, :tokens]
        with torch.no_grad():
            out = reference.base_model(inputs_embeds=vectors, output_hidden_states=True)
            # The last of these is after the final norm, the others before it.
            hidden = [norm(each) for each in out.hidden_states[1:-1]] + [out.last_hidden_state]
            log_probs = reference.get_output_embeddings()(torch.cat(hidden)).log_softmax(-1)
        own = table.sel(problem=problem.id)
        places = {"question 0": 0, "bot": len(ids), "ct2": len(ids) + 3, "eot": len(ids) + 7}
        places["anchor"] = int(run.index("anchor")[0])
        places["answer 0"] = len(ids) + 8
        for position, column in places.items():
            expected = log_probs[:, column]
            cell = own.sel(position=position)
            best = expected.topk(3)
            np.testing.assert_array_equal(cell["token_id"], best.indices)
            np.testing.assert_allclose(cell["probability"], best.values.exp(), atol=1e-5)
            entropy = -(expected.exp() * expected).sum(-1)
            np.testing.assert_allclose(cell["entropy"], entropy, atol=1e-5)
            found = cell.sel(target="forty")
            np.testing.assert_allclose(found["log_prob"], expected[:, forty], atol=1e-4)
            rank = 1 + (expected > expected[:, [forty]]).sum(-1)
            np.testing.assert_array_equal(found["target_rank"], rank)
        assert own["text"].sel(position="question 0").item() == model.tokenizer.decode(ids[:1])
        assert i == list(table["problem"].values).index(problem.id)


def test_the_state_before_the_projection_is_not_the_thought_after_it(tiny: CodiModel) -> None:
    table = logit_lens(tiny, PROBLEMS, **QUIET)
    run = tiny.think([problem.question for problem in PROBLEMS])
    with torch.no_grad():
        thought = tiny.lens.unembed(tiny.lens.ln_final(run.thoughts))[..., : tiny.lens.cfg.d_vocab]
    np.testing.assert_array_equal(table["thought_token_id"].sel(rank=1), thought.argmax(-1).numpy())
    state = table["probability"].sel(layer=2, position="bot")
    assert np.abs(state.values - table["thought_probability"].sel(thought="ct0").values).max() > 0.1


def test_known_totals_are_where_training_put_them_and_not_those_of_another_problem(
    tiny: CodiModel,
) -> None:
    problems = word_problems(40, seed=5, n_operations=4)
    totals = np.array([problem.totals for problem in problems])
    named: dict[str, Any] = {f"total {i + 1}": totals[:, i].tolist() for i in range(4)}
    others = {f"other {i + 1}": np.roll(totals[:, i], 1).tolist() for i in range(4)}
    table = logit_lens(tiny, problems, targets=named | others, at=["bot", "anchor"], **QUIET)
    first = (table["thought_target_rank"] == 1).mean("problem")
    for i in range(4):
        assert first.sel(thought=f"ct{i}", target=f"total {i + 1}") > 0.95
        assert first.sel(thought=f"ct{i}", target=f"other {i + 1}") < 0.2
    own = logit_lens(tiny, problems, targets="totals", at="anchor", **QUIET)
    same = table["target_rank"].sel(position="anchor", target=list(named))
    np.testing.assert_array_equal(own["target_rank"].sel(position="anchor"), same)
    read = own["target_rank"].sel(position="anchor", layer=2, target="total 4")
    assert (read == 1).mean() > 0.9, "at the anchor the answer is read"


def test_a_batch_equals_single_runs(tiny_gpt2: CodiModel) -> None:
    whole = logit_lens(tiny_gpt2, PROBLEMS, targets="answer", batch_size=5, **QUIET)
    for problem in PROBLEMS:
        alone = logit_lens(tiny_gpt2, [problem], targets="answer", **QUIET)
        own = whole.sel(problem=[problem.id], position=alone["position"])
        np.testing.assert_array_equal(own["token"].isel(rank=0), alone["token"].isel(rank=0))
        np.testing.assert_allclose(own["entropy"], alone["entropy"], atol=1e-4)
        np.testing.assert_allclose(own["log_prob"], alone["log_prob"], atol=1e-3)
    lengths = {len(tiny_gpt2.tokenizer(problem.question)["input_ids"]) for problem in PROBLEMS}
    assert len(lengths) > 1
    short = whole["token_id"].sel(position=f"question {max(lengths) - 1}", layer=0, rank=1)
    assert (short == -1).any(), "positions that a problem lacks are empty"


def test_a_translator_is_applied_to_every_layer(tiny_gpt2: CodiModel) -> None:
    class Doubled:
        def translate(self, layer: int, states: torch.Tensor) -> torch.Tensor:
            return states * (-1 if layer == 1 else 1)

    plain = logit_lens(tiny_gpt2, PROBLEMS[:2], at="bot", **QUIET)
    turned = logit_lens(tiny_gpt2, PROBLEMS[:2], at="bot", translator=Doubled(), **QUIET)
    same = (plain["token_id"] == turned["token_id"]).all(["problem", "position", "rank"])
    assert same.values.tolist() == [True, False, True]


def test_top_is_a_table_of_one_cell_per_problem(tiny_gpt2: CodiModel) -> None:
    table = logit_lens(tiny_gpt2, PROBLEMS[:2], k=2, at=["ct1", "anchor"], **QUIET)
    rows = top(table, "ct1", 2)
    assert rows["rank"].tolist() == [1, 2, 1, 2]
    assert (
        rows["token"].tolist()
        == table["token"].sel(position="ct1", layer=2).values.ravel().tolist()
    )
    with pytest.raises(PositionError, match="no position 'ct5'; it holds ct1, anchor"):
        top(table, "ct5", 2)


def test_mistakes_are_named(tiny_gpt2: CodiModel) -> None:
    def fails(match: str, error: type[CodiLensError] = ProblemError, **settings: Any) -> None:
        with pytest.raises(error, match=match):
            logit_lens(tiny_gpt2, PROBLEMS, **settings, **QUIET)

    fails("k must be at least 1", k=0)
    fails("layer must be at most 2, not 3", PositionError, layers=[3])
    fails("no position 'ct9'", PositionError, at="ct9")
    fails("has 1 values for 5 problems", targets={"x": [1]})
    fails("No single token of this model writes 1000", targets={"x": [1000] * 5})
    with pytest.raises(ProblemError, match='Targets are "answer"'):
        inspect.unwrap(chosen_targets)(PROBLEMS, "steps")  # type: ignore[arg-type]
    with pytest.raises(ProblemError, match="no problems"):
        logit_lens(tiny_gpt2, [], **QUIET)
