"""`verify` passes models that loaded right, and catches loaders that are broken on purpose."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from support.oracle import FIXTURES, ORACLE_SETTINGS, ROOT, Oracle
from support.reading import number
from support.wrong_checkpoints import WRONG

import codi_lens.loading.building
import codi_lens.loading.checkpoint
import codi_lens.loading.keys
import codi_lens.verification.settings
from codi_lens import CodiModel, ProblemError, problems
from codi_lens.cli.main import main
from codi_lens.errors import ActivationError
from codi_lens.loading.backends import backend_of
from codi_lens.problems import Problem
from codi_lens.verification.expected import expected_accuracy
from codi_lens.verification.verdict import Verification
from codi_lens.verification.verify import verify

TINY = str(ROOT / "checkpoints" / "tiny-gpt2")


def oracle_problems(n: int = 3) -> list[Problem]:
    """Of unequal lengths, so that the model's batch is padded."""
    meta = json.loads((FIXTURES / "oracle/gpt2/meta.json").read_text())
    return [Problem(q["text"], None, str(i)) for i, q in enumerate(meta["questions"][:n])]


def load(kind: str) -> CodiModel:
    folder = FIXTURES / "oracle" / kind
    return CodiModel.from_pretrained(folder / "ckpt", folder / "base", **ORACLE_SETTINGS)


def check(model: CodiModel) -> Verification:
    return verify(model, oracle_problems(), settings=False, max_new_tokens=3)


def failed(verification: Verification) -> set[str]:
    return set(verification.table.loc[~verification.table["passed"], "quantity"])


def test_shipped_models_pass(tiny: CodiModel) -> None:
    verification = tiny.verify(n=4, settings=False)
    assert verification.passed
    assert verification.accuracy is None
    assert verification.verdict.startswith("Verified: ")
    quantities = ["tokens", "thoughts", "attention, layer 0", "attention, layer 1"]
    quantities += ["attention, layer 2", "logits after eot", "answers"]
    assert verification.table["quantity"].tolist() == quantities


def test_random_checkpoints_pass(oracle: Oracle) -> None:
    verification = check(oracle.model)
    assert verification.passed
    measured = verification.table.dropna(subset="size")
    assert (measured["forced_error"] <= measured["forced_allowed"]).all()
    assert (measured["forced_noise"] > 0).all(), "a noise floor of zero is not measured"


def break_model(monkeypatch: pytest.MonkeyPatch, damage: Callable[[Any], None]) -> None:
    """Let the loader damage the HookedTransformer that it has built."""
    build = codi_lens.loading.building.build_lens

    def broken(*args: Any, **kwargs: Any) -> Any:
        lens = build(*args, **kwargs)
        damage(lens)
        return lens

    monkeypatch.setattr(codi_lens.loading.building, "build_lens", broken)


def test_flipped_sign_of_lora_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    merge = codi_lens.loading.checkpoint.merge
    monkeypatch.setattr(
        codi_lens.loading.checkpoint, "merge", lambda t, alpha, *a, **k: merge(t, -alpha, *a, **k)
    )
    verification = check(load("gpt2"))
    assert not verification.passed
    assert {"thoughts", "logits after eot"} <= failed(verification)
    assert verification.verdict.startswith("FAILED: ")


def test_dropped_rope_scaling_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    hooked = pytest.importorskip("codi_lens.loading.hooked", exc_type=ImportError)
    make = hooked.lens_config

    def unscaled(*args: Any, **kwargs: Any) -> Any:
        config = make(*args, **kwargs)
        assert config.use_NTK_by_parts_rope
        config.use_NTK_by_parts_rope = False
        return config

    monkeypatch.setattr(hooked, "lens_config", unscaled)
    assert "thoughts" in failed(check(load("llama")))


def test_transposed_conv1d_delta_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    transposed = codi_lens.loading.keys.conv1d_weights
    square = "transformer.h.0.attn.c_proj.weight"

    def without_one(model: Any) -> set[str]:
        assert square in transposed(model)
        return transposed(model) - {square}

    monkeypatch.setattr(codi_lens.loading.keys, "conv1d_weights", without_one)
    assert "thoughts" in failed(check(load("gpt2")))


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_folded_final_norm_is_caught(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    def fold(lens: Any) -> None:
        scale = lens.ln_final.w.data
        lens.unembed.W_U.data = scale[:, None] * lens.unembed.W_U.data
        lens.ln_final.w.data = torch.ones_like(scale)

    break_model(monkeypatch, fold)
    assert "thoughts" in failed(check(load(kind)))


def test_positions_shifted_by_one_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def shift(lens: Any) -> None:
        lens.pos_embed.W_pos.data = lens.pos_embed.W_pos.data.roll(1, dims=0)

    break_model(monkeypatch, shift)
    assert "thoughts" in failed(check(load("gpt2")))


def test_one_damaged_head_shows_in_the_attention_of_its_layer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def damage(lens: Any) -> None:
        lens.blocks[3].attn.W_Q.data = lens.blocks[3].attn.W_Q.data.clone()
        lens.blocks[3].attn.W_Q.data[0] *= 1.01

    break_model(monkeypatch, damage)
    verification = check(load("gpt2"))
    rows = verification.table.set_index("quantity")
    assert not rows.loc["attention, layer 3", "passed"]
    early = [f"attention, layer {layer}" for layer in range(3)]
    assert (rows.loc[early, "forced_error"] <= rows.loc[early, "forced_allowed"]).all()


def test_swapped_bot_and_eot_are_caught_and_named(oracle: Oracle) -> None:
    config = oracle.model.config
    swapped = replace(oracle.model, config=replace(config, bot=config.eot, eot=config.bot))
    verification = check(swapped)
    assert {"tokens", "thoughts"} <= failed(verification)
    assert "The model's bot is the token 402; its files make it 401." in verification.warnings


def test_nan_does_not_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    def damage(lens: Any) -> None:
        lens.blocks[0].mlp.b_out.data = lens.blocks[0].mlp.b_out.data * torch.nan

    break_model(monkeypatch, damage)
    with pytest.raises(ActivationError, match="NaN or infinite in layer 0"):
        check(load("gpt2"))


def test_coarse_dtypes_say_that_they_prove_little() -> None:
    folder = FIXTURES / "oracle" / "llama"
    model = CodiModel.from_pretrained(
        folder / "ckpt", folder / "base", dtype=torch.bfloat16, **ORACLE_SETTINGS
    )
    sentence = next(s for s in check(model).warnings if "noise" in s)
    assert "The noise of bfloat16 allows errors of" in sentence
    assert "more precise dtype" in sentence


def only(patch: pytest.MonkeyPatch, *names: str) -> None:
    """Try these settings alone (by how they begin): all of them are for `make verify-wrong`."""
    every = codi_lens.verification.settings.variants
    patch.setattr(
        codi_lens.verification.settings,
        "variants",
        lambda *arguments: (v for v in every(*arguments) if v.name.startswith(names)),
    )


@pytest.fixture(scope="module")
def trained(tiny_gpt2: CodiModel) -> Verification:
    return tiny_gpt2.verify(n=16, official_batch=True, max_new_tokens=8)


def test_given_settings_of_a_trained_model_win_or_are_not_told_apart(
    trained: Verification,
) -> None:
    rows = trained.settings.set_index("setting")
    wins = ["lora_alpha 64 → 32", "lora_alpha 64 → 128", "remove_eos True → False"]
    assert (rows.loc[wins, "verdict"] == "given better").all()
    assert (rows.loc[wins, "lost"] >= 10).all()
    assert rows.loc[wins, "log_prob"].isna().all(), "answers have decided"
    # Its bot and eot were hardly told apart in training, and a GELU is nearly a GELU.
    alike = ["bot and eot swapped", "n_thoughts 6 → 7", "activation_function gelu_new → gelu"]
    assert (rows.loc[alike, "verdict"] == "not shown").all()
    assert rows.loc[alike, "log_prob"].notna().all()
    assert not (rows["verdict"] == "variant better").any()
    assert trained.exit_code == 0
    assert trained.verdict.startswith("Verified: ")
    for name in alike:
        assert name in trained.verdict
    accuracy = trained.accuracy
    assert accuracy is not None
    assert (accuracy.correct, accuracy.n) == (number(rows, "given", "correct"), 16)
    assert accuracy.expected.n == 2600, "as its evaluation.json says"


@pytest.mark.parametrize("name", ["tiny-gpt2", "tiny-llama"])
def test_shipped_models_are_verified_on_four_problems_too(name: str) -> None:
    model = CodiModel.from_pretrained(name)
    verification = model.verify(n=4, max_new_tokens=8)
    assert verification.exit_code == 0
    always_scaled = backend_of(model.lens) == "bridge" and name == "tiny-gpt2"
    expected = ["scale_attn_weights True → False is not compared"] * always_scaled
    assert [each.partition(": ")[0] for each in verification.warnings] == expected


def test_more_problems_are_asked_until_a_setting_is_told_apart(
    tiny_gpt2: CodiModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    only(monkeypatch, "remove_eos", "8 heads → 16", "bot and eot")
    verification = tiny_gpt2.verify(max_new_tokens=8)
    rows = verification.settings.set_index("setting")
    assert number(rows, "remove_eos True → False", "n") == 20
    assert number(rows, "bot and eot swapped", "n") == 50, "nothing differs, so no more are asked"
    assert 20 < number(rows, "8 heads → 16", "n") <= 100
    assert number(rows, "given", "n") == 100
    assert verification.n == 8


@pytest.mark.parametrize(
    ("mistake", "exit_code", "says"),
    [
        ("n_head 4", 1, "better with another setting, 4 heads → 8"),
        ("alpha 96", 1, "lora_alpha 96 → 64"),
        ("remove_eos false", 1, "remove_eos False → True"),
        ("rope theta 2e4", 1, "rope_theta 20000 → 10000"),
        ("RMS eps 1e-5", 0, "rms_norm_eps 1e-05 → 1e-06"),
        ("qkv biases zeroed", 0, "All of transformer.h.*.attn.c_attn"),
    ],
)
def test_wrong_files_pass_parity_and_are_caught_or_named(
    mistake: str, exit_code: int, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    only(monkeypatch, "bot and eot" if says.startswith("All") else says.split(", ")[-1])
    wrong = next(each for each in WRONG if each.mistake == mistake)
    model = CodiModel.from_pretrained(wrong.make(tmp_path / "wrong"))
    verification = model.verify(max_new_tokens=8)
    assert verification.parity, "both sides share the mistake"
    assert verification.exit_code == exit_code
    assert verification.passed == (exit_code == 0)
    assert verification.verdict.startswith("Verified: ") == (exit_code == 0)
    assert any(says in text for text in (verification.verdict, *verification.warnings))


def test_fewer_right_answers_than_expected_are_exit_code_3(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    only(monkeypatch, "bot and eot")
    wrong = next(each for each in WRONG if "exchanged" in each.mistake)
    model = CodiModel.from_pretrained(wrong.make(tmp_path / "wrong"))
    verification = model.verify(max_new_tokens=8)
    assert verification.exit_code == 3
    assert verification.verdict.startswith("NOT VERIFIED: ")
    assert "evaluation.json of the checkpoint" in verification.verdict


def test_the_expected_accuracy_can_be_given(
    tiny_gpt2: CodiModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    only(monkeypatch, "bot and eot")
    untrained = [replace(problem, answer=0) for problem in problems.word_problems(12)]
    assert tiny_gpt2.verify(untrained, max_new_tokens=8).exit_code == 3
    assert tiny_gpt2.verify(untrained, expect_accuracy=0, max_new_tokens=8).exit_code == 0
    for odd in (1.5, -0.1, float("nan")):
        with pytest.raises(ProblemError, match="expect_accuracy"):
            expected_accuracy(tiny_gpt2.config, untrained, odd)  # type: ignore[arg-type]


def test_padding_leak_of_the_original_changes_answers(trained: Verification) -> None:
    official = trained.official
    assert official is not None
    assert official.n == official.n_known == 16
    assert official.single_correct > official.batched_correct
    assert official.n_changed >= official.single_correct - official.batched_correct
    assert f"changes {official.n_changed} of 16 answers" in str(official)


def test_a_model_that_answers_nothing_is_not_verified(oracle_gpt2: CodiModel) -> None:
    known = [replace(problem, answer=7) for problem in oracle_problems()]
    verification = verify(oracle_gpt2, known, max_new_tokens=3, expect_accuracy=0.9)
    assert verification.parity
    assert verification.exit_code == 3
    assert (verification.settings["correct"] == 0).all()


def test_settings_without_known_answers_are_skipped_with_a_sentence(
    oracle_gpt2: CodiModel,
) -> None:
    verification = verify(oracle_gpt2, oracle_problems(1), max_new_tokens=2)
    assert verification.settings.empty
    assert any("No problem has a known answer" in s for s in verification.warnings)


def test_wrong_numbers_of_problems_are_named(oracle_gpt2: CodiModel) -> None:
    with pytest.raises(ProblemError, match="n must be at most 3, not 4"):
        verify(oracle_gpt2, oracle_problems(), n=4)
    with pytest.raises(ProblemError, match="at least one"):
        verify(oracle_gpt2, [])


def run_cli(*arguments: str) -> int | str | None:
    try:
        main(["verify", *arguments, "--threads", "1"])
    except SystemExit as stopped:
        return stopped.code
    return 0


def test_command_prints_tables_and_verdict(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(TINY, "--n", "3", "--official-batch", "--max-new-tokens", "6") == 0
    printed = capsys.readouterr().out
    for text in ("thoughts", "Settings that no file proves", "batched loop", "Verified: "):
        assert text in printed
    assert "FAILED" not in printed


def test_command_fails_with_exit_code_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    break_model(monkeypatch, lambda lens: lens.embed.W_E.data.mul_(1.01))
    assert run_cli(TINY, "--n", "2", "--no-settings", "--max-new-tokens", "2") == 1
    printed = capsys.readouterr().out
    assert "FAILED: " in printed
    assert "Settings" not in printed


def test_mistakes_are_one_sentence_and_exit_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = tmp_path / "one.jsonl"
    one.write_text(json.dumps({"question": problems.word_problems(1)[0].question}))
    cases = {
        ("nowhere",): "no folder nowhere",
        (TINY, "--problems", str(one), "--n", "5"): "1..1, the size of the corpus, not 5",
        (TINY, "--problems", "math"): "builtin, gsm8k, plain",
        (TINY, "--device", "warp"): "device warp",
        (TINY, "--n", "1", "--max-new-tokens", "0"): "max_new_tokens must be at least 1",
    }
    for arguments, message in cases.items():
        assert run_cli(*arguments) == 2
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert error.startswith("codi-lens: ")
        assert message in error
