"""Fused passes: the same values, every hook that can fire, and given up where one needs more."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from support.checkpoint_maker import ARCHITECTURES, Recipe, make

from codi_lens import CodiModel, Intervention, knock_out
from codi_lens.errors import ActivationError
from codi_lens.problems import word_problems
from codi_lens.thinking import fused_pass, loop
from codi_lens.thinking.run import ThoughtRun

PROBLEMS = word_problems(5, seed=4, n_operations=[1, 3, 5])
QUESTIONS = [problem.question for problem in PROBLEMS]
EXACT = 1e-6
FREE = 5e-5  # where rounding has gone through up to six projections
TINY = ["tiny-gpt2", "tiny-llama"]


@pytest.fixture(scope="module", params=TINY)
def model(request: pytest.FixtureRequest) -> CodiModel:
    return CodiModel.from_pretrained(request.param)


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The widths of all passes that were fused, each portion by itself."""
    found: list[int] = []
    run_blocks = fused_pass._run_blocks

    def count(lens: Any, residual: torch.Tensor, *rest: Any) -> Any:
        found.append(residual.shape[1])
        return run_blocks(lens, residual, *rest)

    monkeypatch.setattr(fused_pass, "_run_blocks", count)
    return found


def apart(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).abs().max() / b.abs().max())


def same(fused: ThoughtRun, plain: ThoughtRun) -> None:
    assert apart(fused.thoughts, plain.thoughts) <= FREE
    assert apart(fused.logits, plain.logits) <= FREE
    a, b = (torch.tensor(run.attention.values).nan_to_num(-1) for run in (fused, plain))
    assert float((a - b).abs().max()) <= FREE
    assert fused.answers == plain.answers


def test_a_fused_run_is_the_run(model: CodiModel, passes: list[int]) -> None:
    for questions in (QUESTIONS, QUESTIONS[:1]):
        passes.clear()
        same(model.think(questions, fused=True), model.think(questions))
        assert passes[0] > 10 and passes[1:7] == [1] * 6


def test_questions_go_through_in_portions_of_like_length(
    model: CodiModel, passes: list[int]
) -> None:
    """Whatever their order; what follows them goes through together."""
    many = [p.question for p in word_problems(40, seed=4, n_operations=[1, 3, 5])]
    fused, plain = model.think(many, fused=True), model.think(many)
    same(fused, plain)
    portions = passes[: next(i for i, width in enumerate(passes) if width == 1)]
    assert len(portions) > 2 and portions == sorted(portions, reverse=True)
    assert max(portions) == fused.layout.bot + 1 > portions[-1] + 10
    for again in (model.run_with_cache(many[-3:])[1], fused.cache()):
        assert torch.isfinite(again["ln_final.hook_normalized"]).all()
    passes.clear()
    model.think(many, fused=True, max_new_tokens=1, names_filter="blocks.0.hook_resid_pre")
    assert passes[:2] == [fused.layout.bot + 1, 1], "who listens sees all problems at once"


@pytest.mark.filterwarnings("ignore::codi_lens.errors.CheckpointWarning")
@pytest.mark.parametrize("backbone", ARCHITECTURES)
@pytest.mark.parametrize("portion", [20, 512])
def test_every_architecture_fuses(
    backbone: str,
    portion: int,
    passes: list[int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fused_pass, "_PORTION", portion)
    model = CodiModel.from_pretrained(make(tmp_path / "made", Recipe(backbone)))
    fused, plain = (
        model.think(QUESTIONS, fused=fused, max_new_tokens=3) for fused in (True, False)
    )
    same(fused, plain)
    everywhere = all(block.attn.attn_type == "global" for block in model.lens.blocks)
    assert bool(passes) == everywhere  # Mistral's windows are TransformerLens' own


def test_one_pass_is_as_near_to_float64_as_the_other(model: CodiModel) -> None:
    """Before rounding goes through projections."""
    ids = model.tokenizer(QUESTIONS[0])["input_ids"]
    exact = CodiModel.from_pretrained(model.config.source, dtype="float64")
    hidden: list[torch.Tensor] = []
    rows: list[torch.Tensor] = []
    for each, fused in ((exact, False), (model, False), (model, True)):
        run = loop.Loop(each.lens, loop.Layout((len(ids) - 1,), 6, 1), fused=fused)
        with torch.no_grad(), run.hooks():
            hidden.append(run.feed(run.embed(torch.tensor([ids]))).double())
        rows.append(run.rows[0])
    assert apart(hidden[2], hidden[0]) <= 2 * apart(hidden[1], hidden[0])
    assert float((rows[2] - rows[1]).abs().max()) <= EXACT


def test_every_hook_fires_and_sees_the_same(model: CodiModel, passes: list[int]) -> None:
    """Each by itself: those that a fused pass leaves out end it."""
    _, plain = model.run_with_cache(QUESTIONS[:2], max_new_tokens=3)
    for name in plain:
        passes.clear()
        kept = model.think(QUESTIONS[:2], names_filter=name, fused=True, max_new_tokens=3)
        needs_more = name.endswith(("hook_attn_scores", "hook_pattern")) or ".ln1." in name
        assert bool(passes) != needs_more, name
        a, b = kept.cache()[name], plain[name]
        finite = torch.isfinite(b)
        assert torch.equal(finite, torch.isfinite(a)), name
        assert apart(a[finite], b[finite]) <= FREE, name


@pytest.mark.parametrize("hook", ["hook_z", "hook_v", "hook_q"])
def test_edits_act_as_they_do_otherwise(model: CodiModel, passes: list[int], hook: str) -> None:
    edit = Intervention([(f"blocks.1.attn.{hook}", lambda x, hook: 0 * x)], at=["question", "ct1"])
    with_edit = {
        fused: model.think(QUESTIONS, interventions=edit, fused=fused) for fused in (False, True)
    }
    same(with_edit[True], with_edit[False])
    assert passes
    assert apart(with_edit[True].thoughts, model.think(QUESTIONS).thoughts) > 1e-3


def test_who_needs_scores_or_patterns_gets_them_bit_for_bit(
    model: CodiModel, passes: list[int]
) -> None:
    cut = knock_out("ct2", "ct0")
    a, b = (model.think(QUESTIONS, interventions=cut, fused=fused) for fused in (True, False))
    assert torch.equal(a.logits, b.logits) and not passes
    shapes: list[Sequence[int]] = []

    def look(pattern: torch.Tensor, hook: Any) -> None:
        shapes.append(pattern.shape)

    with model.lens.hooks(fwd_hooks=[("blocks.0.attn.hook_pattern", look)]):
        model.think(QUESTIONS[:1], fused=True, max_new_tokens=1)
    assert shapes[0][2] > 10 and not passes


def silence(module: Any, given: Any, out: torch.Tensor) -> torch.Tensor:
    return torch.zeros_like(out)


@pytest.mark.parametrize("part", ["blocks.1.mlp", "ln_final"])
def test_changed_modules_run_as_they_are(passes: list[int], part: str) -> None:
    model = CodiModel.from_pretrained("tiny-gpt2")
    plain = model.think(QUESTIONS[:1])
    handle = model.lens.get_submodule(part).register_forward_hook(silence)
    changed = model.think(QUESTIONS[:1], fused=True)
    assert not passes and not torch.equal(changed.thoughts, plain.thoughts)
    handle.remove()
    model.lens.set_use_attn_result(True)
    same(model.think(QUESTIONS[:1], fused=True), plain)
    assert not passes
    model.lens.set_use_attn_result(False)
    same(model.think(QUESTIONS[:1], fused=True), plain)
    assert passes


def test_gradients_flow_where_they_are_asked_for(model: CodiModel, passes: list[int]) -> None:
    thoughts = model.think(QUESTIONS[:1]).thoughts.clone().requires_grad_()
    run = model.think(QUESTIONS[:1], thoughts=thoughts, fused=True, max_new_tokens=1)
    run.logits.sum().backward()
    assert thoughts.grad is not None and thoughts.grad.abs().sum() > 0


def test_where_infinity_begins_is_still_said() -> None:
    model = CodiModel.from_pretrained("tiny-gpt2")
    model.lens.blocks[1].attn.W_Q.data[0, 0, 0] = torch.inf
    with pytest.raises(ActivationError, match="layer 1") as fused:
        model.think(QUESTIONS, fused=True)
    with pytest.raises(ActivationError) as plain:
        model.think(QUESTIONS)
    assert str(fused.value) == str(plain.value)


def test_bfloat16_is_as_near_to_float32(model: CodiModel) -> None:
    low = CodiModel.from_pretrained(model.config.source, dtype="bfloat16")
    exact = model.think(QUESTIONS).thoughts
    errors = [
        float((low.think(QUESTIONS, fused=fused).thoughts.float() - exact).norm())
        for fused in (False, True)
    ]
    assert errors[1] <= 1.5 * errors[0]
