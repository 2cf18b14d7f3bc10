"""A tuned lens reads better than the logit lens, is saved for one model, and comes out the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from codi_lens import CodiModel
from codi_lens.errors import CheckpointError, PositionError, ProblemError
from codi_lens.plots.readout.tuned import tuned_lens_losses
from codi_lens.problems import word_problems
from codi_lens.readout.reading import Translator, logit_lens
from codi_lens.readout.tuned import TunedLens, load_tuned_lens, train_tuned_lens

PROBLEMS = word_problems(40, seed=7)
QUIET: dict[str, Any] = {"progress": False, "max_new_tokens": 12}


@pytest.fixture(scope="session")
def tuned(tiny: CodiModel) -> TunedLens:
    return train_tuned_lens(tiny, PROBLEMS, **QUIET)


def test_it_reads_better_than_the_logit_lens_at_every_layer(
    tiny: CodiModel, tuned: TunedLens
) -> None:
    table = tuned.training
    assert table["layer"].tolist() == list(range(tiny.lens.cfg.n_layers - 1))
    assert (table["tuned_lens"] < table["logit_lens"]).all()
    assert (table["n_problems"] == 8).all() and (table["epoch"] > 0).all()
    assert all(parameter.grad is None for parameter in tiny.lens.parameters())


def test_on_problems_that_it_never_saw_every_layer_is_closer_to_what_the_model_says(
    tiny: CodiModel, tuned: TunedLens
) -> None:
    seen = {problem.question for problem in PROBLEMS}
    fresh = [problem for problem in word_problems(20, seed=99) if problem.question not in seen]
    last = tiny.lens.cfg.n_layers - 1
    divergence: dict[str, list[list[float]]] = {"plain": [], "tuned": []}
    for problem in fresh:
        run = tiny.think([problem.question], max_new_tokens=12)
        cache, start = run.cache(), run.layout.bot
        states = [cache[f"blocks.{layer}.hook_resid_post"][0, start:] for layer in range(last + 1)]
        turned = [tuned.translate(layer, each) for layer, each in enumerate(states)]
        for name, read in (("plain", states), ("tuned", turned)):
            with torch.no_grad():
                log_p = [
                    tiny.lens.unembed(tiny.lens.ln_final(s[None])).log_softmax(-1) for s in read
                ]
            final = log_p[-1]
            kl = [float((final.exp() * (final - each)).sum(-1).mean()) for each in log_p[:-1]]
            divergence[name].append(kl)
    means = {name: np.mean(values, axis=0) for name, values in divergence.items()}
    assert (means["tuned"] < means["plain"]).all()


def test_logit_lens_reads_through_it(tiny: CodiModel, tuned: TunedLens) -> None:
    assert isinstance(tuned, Translator)
    places: Any = {"at": ["bot", "anchor"], "k": 1}
    plain = logit_lens(tiny, PROBLEMS[:9], **places, **QUIET)
    turned = logit_lens(tiny, PROBLEMS[:9], **places, translator=tuned, **QUIET)
    assert (plain.attrs["translated"], turned.attrs["translated"]) == (0, 1)
    same = (plain["probability"] == turned["probability"]).all(["problem", "position", "rank"])
    assert same.values.tolist() == [False] * (tiny.lens.cfg.n_layers - 1) + [True]
    np.testing.assert_array_equal(turned["thought_token_id"], plain["thought_token_id"])


def test_it_is_the_same_every_time_and_another_with_another_seed(tiny_gpt2: CodiModel) -> None:
    few: Any = {"max_epochs": 2, **QUIET}
    first, again = (train_tuned_lens(tiny_gpt2, PROBLEMS[:12], **few) for _ in range(2))
    assert torch.equal(first.weights, again.weights) and torch.equal(first.biases, again.biases)
    assert first.training.equals(again.training)
    other = train_tuned_lens(tiny_gpt2, PROBLEMS[:12], seed=1, **few)
    assert not torch.equal(first.weights, other.weights)


def test_no_step_leaves_the_identity(tiny_gpt2: CodiModel) -> None:
    """With a rate that can only do harm, the identity is kept: the last word is the stop's."""
    lens = train_tuned_lens(tiny_gpt2, PROBLEMS[:10], learning_rate=1e4, patience=1, **QUIET)
    assert torch.equal(lens.weights[0], torch.eye(tiny_gpt2.lens.cfg.d_model))
    assert (lens.training["epoch"] == 0).all()
    np.testing.assert_array_equal(lens.training["tuned_lens"], lens.training["logit_lens"])


def test_saved_and_loaded_it_reads_the_same_and_only_its_own_model(
    tiny: CodiModel, tuned: TunedLens, tmp_path: Path
) -> None:
    path = tuned.save(tmp_path / "lens.safetensors")
    again = load_tuned_lens(path, tiny)
    assert again.training.equals(tuned.training)
    states = torch.randn(3, tiny.lens.cfg.d_model)
    for layer in range(tiny.lens.cfg.n_layers):
        assert torch.equal(again.translate(layer, states), tuned.translate(layer, states))
    last = tiny.lens.cfg.n_layers - 1
    assert torch.equal(tuned.translate(last, states), states)
    half = states.to(torch.bfloat16)
    assert tuned.translate(0, half).dtype == torch.bfloat16
    other = CodiModel.from_pretrained(tiny.config.source, dtype=torch.float64)
    with pytest.raises(
        CheckpointError, match=r"is the tuned lens of the model \w{16}, not of this"
    ):
        load_tuned_lens(path, other)


def test_what_is_refused(tiny_gpt2: CodiModel, tmp_path: Path) -> None:
    with pytest.raises(ProblemError, match="needs 10 problems or more, not 9"):
        train_tuned_lens(tiny_gpt2, PROBLEMS[:9], **QUIET)
    with pytest.raises(ProblemError, match="patience"):
        train_tuned_lens(tiny_gpt2, PROBLEMS, patience=0, **QUIET)
    with pytest.raises(CheckpointError, match="cannot be read as safetensors"):
        load_tuned_lens(tmp_path / "none", tiny_gpt2)
    save_file({"x": torch.zeros(1)}, tmp_path / "other")
    with pytest.raises(CheckpointError, match="holds no tuned lens"):
        load_tuned_lens(tmp_path / "other", tiny_gpt2)
    lens = train_tuned_lens(tiny_gpt2, PROBLEMS[:10], max_epochs=1, **QUIET)
    with pytest.raises(PositionError, match="layer"):
        lens.translate(3, torch.zeros(1, 96))
    with pytest.raises(PositionError, match="states of width 96, not 8"):
        lens.translate(0, torch.zeros(1, 8))
    with pytest.raises(ProblemError, match="give the `training` of a tuned lens"):
        tuned_lens_losses(lens.training[["layer"]])
