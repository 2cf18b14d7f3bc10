"""The shipped models are small, genuinely trained, and need their thoughts; the recipe runs."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType

import pytest
import torch
from support.oracle import ROOT

from codi_lens import CodiModel, Intervention, known_against_others
from codi_lens.loading.sources import learnt_family, shipped_models
from codi_lens.problems import is_correct, word_problems

PROBLEMS = word_problems(200, seed=123)
SHIPPED = sorted(shipped_models())


@pytest.fixture(scope="module")
def train() -> Iterator[ModuleType]:
    """The recipe, which reads 20,000 problems for the words of each tokenizer once."""
    import train

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "build_tokenizer", functools.cache(train.build_tokenizer))
        yield train


def share_correct(answers: Sequence[str]) -> float:
    right = [is_correct(text, p.answer or 0) for text, p in zip(answers, PROBLEMS, strict=True)]
    return sum(right) / len(right)


def test_tiny_models_solve_held_out_problems_and_need_their_thoughts(tiny: CodiModel) -> None:
    questions = [problem.question for problem in PROBLEMS]
    clean = tiny.think(questions, max_new_tokens=8)
    assert share_correct(clean.answers) >= 0.97  # 99 % on 2,000 is in the model cards
    zeroed = tiny.think(questions, max_new_tokens=8, thoughts=torch.zeros_like(clean.thoughts))
    assert share_correct(zeroed.answers) <= 0.35
    swapped = tiny.think(questions, max_new_tokens=8, thoughts=clean.thoughts.roll(1, dims=0))
    assert share_correct(swapped.answers) <= 0.3


def test_a_donors_thought_brings_the_donors_total(tiny: CodiModel) -> None:
    """ct1 holds the second running total: the answer follows from it by the own later steps."""
    problems = word_problems(60, seed=5, n_operations=4)
    clean = tiny.think([problem.question for problem in problems], max_new_tokens=8)
    donor = clean.thoughts.roll(1, dims=0)[:, 1:2]
    swap = Intervention([("hook_embed", lambda embed, hook: donor)], at="ct1")
    run = tiny.think([p.question for p in problems], max_new_tokens=8, interventions=[swap])
    hits = tested = 0
    for i, (problem, answer) in enumerate(zip(problems, run.answers, strict=True)):
        total = problems[i - 1].totals[1]
        for operation in problem.operations[2:]:
            total = operation.apply(total)
        if 0 <= total < 50 and total != problem.answer:
            tested += 1
            hits += is_correct(answer, total)
    assert tested >= 30
    assert hits / tested >= 0.8


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_models_reach_the_numbers_of_their_cards(name: str) -> None:
    """On 200 other held-out problems, within four standard errors of both samples."""
    model, family = CodiModel.from_pretrained(name), learnt_family(name)
    problems = word_problems(200, seed=123, family=family)
    run = model.think([problem.question for problem in problems], max_new_tokens=16)
    right = sum(is_correct(a, p.answer) for a, p in zip(run.answers, problems, strict=True))
    results = json.loads((ROOT / "checkpoints" / name / "evaluation.json").read_text())
    counts = results["conditions"]["six thoughts"]["all"]
    share = counts["correct"] / counts["n"]
    error = max(0.005, (share * (1 - share) * (1 / 200 + 1 / counts["n"])) ** 0.5)
    assert abs(right / 200 - share) <= 4 * error


def test_cutting_the_known_edges_costs_tiny_recall_its_answers() -> None:
    """At least 0.5 nats, and more than five times as much as cutting as many others."""
    problems = word_problems(200, seed=123, family="mixed")
    table = known_against_others(CodiModel.from_pretrained("tiny-recall"), problems, progress=False)
    row = table.to_dict("records")[0]
    assert row["known_low"] > 0.5
    assert row["five_low"] > 0
    control = CodiModel.from_pretrained("tiny-recall-control")
    row = known_against_others(control, problems, progress=False).to_dict("records")[0]
    assert abs(row["known"]) < 0.1


@pytest.mark.parametrize("name", SHIPPED)
def test_model_folders_are_small_and_documented(name: str) -> None:
    folder = ROOT / "checkpoints" / name
    assert sum(path.stat().st_size for path in folder.iterdir()) < 3_000_000
    card = (folder / "README.md").read_text()
    results = json.loads((folder / "evaluation.json").read_text())
    six = results["conditions"]["six thoughts"]["all"]
    assert six["n"] >= 2000
    assert f"{100 * six['correct'] / six['n']:.1f} [" in card
    assert results["command"] in card
    supervised = "Training supervised `ct0`..`ct3`" in card
    assert supervised == (name not in ("tiny-gpt2-plain", "tiny-recall-control"))
    assert ("constant" in card) == (name in ("tiny-recall", "tiny-recall-control"))


@pytest.mark.parametrize(
    ("name", "control"),
    [(name, False) for name in SHIPPED] + [("tiny-gpt2", True), ("tiny-llama", True)],
)
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_recipe_trains_and_its_checkpoint_loads(
    train: ModuleType, tmp_path: Path, name: str, control: bool
) -> None:
    recipe = dataclasses.replace(
        train.RECIPES[name], cot_cycles=(2, 1), codi_steps=3, batch_size=8, warmup_steps=1
    )
    train.train(recipe, out=tmp_path / "out", work=tmp_path / "work", control=control)
    model = CodiModel.from_pretrained(tmp_path / "out")
    problems = word_problems(3, family=learnt_family(tmp_path / "out"))
    run = model.think([problem.question for problem in problems], max_new_tokens=2)
    assert torch.isfinite(run.logits).all()
    assert model.config.n_thoughts == 6
    if recipe.lora_rank is not None and not control:
        assert model.config.lora_rank == recipe.lora_rank
    same = torch.equal(run.thoughts[0, 0], run.thoughts[1, 3])
    assert same == recipe.constant_thoughts
    if recipe.start_from is not None:
        base = CodiModel.from_pretrained(recipe.start_from)
        torch.testing.assert_close(model.lens.embed.W_E, base.lens.embed.W_E)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_stopped_training_resumes_to_the_same_weights(
    train: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = dataclasses.replace(
        train.RECIPES["tiny-gpt2"], cot_cycles=(2,), codi_steps=2, batch_size=4, n_parts=1
    )
    train.train(recipe, out=tmp_path / "straight", work=tmp_path / "a")
    with monkeypatch.context() as patch:
        patch.setattr(train, "codi_loss", lambda recipe: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            train.train(recipe, out=tmp_path / "resumed", work=tmp_path / "b")
    assert not (tmp_path / "resumed").exists()
    train.train(recipe, out=tmp_path / "resumed", work=tmp_path / "b")
    straight, resumed = (
        torch.load(tmp_path / name / "pytorch_model.bin", weights_only=True)
        for name in ("straight", "resumed")
    )
    assert all(torch.equal(straight[key], resumed[key]) for key in straight)


def test_training_model_equals_the_loaded_one(train: ModuleType, tmp_path: Path) -> None:
    """The thought loop that training differentiates is the one that codi_lens runs."""
    recipe = dataclasses.replace(train.RECIPES["tiny-gpt2"], batch_size=4, n_parts=1)
    tokenizer = train.build_tokenizer("gpt2")
    torch.manual_seed(0)
    model = train.Codi(train.build_base(recipe, tokenizer).to(torch.bfloat16).float(), recipe)
    for parameter in model.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.1)
    train.save(model, recipe, tokenizer, tmp_path, seed=0)
    (part,) = train.Data(tokenizer, recipe, 0).batch(0)
    run = train.Run(model.codi)
    with torch.no_grad():
        run.extend(part["mask"], input_ids=part["questions"])
        thoughts, _ = train.think(model, run, part)
    loaded = CodiModel.from_pretrained(tmp_path)
    questions = [
        row[mask.bool()].tolist() for row, mask in zip(part["questions"], part["mask"], strict=True)
    ]
    ours = loaded.think(questions, max_new_tokens=1).thoughts
    torch.testing.assert_close(ours, thoughts, rtol=1e-3, atol=1e-3)
