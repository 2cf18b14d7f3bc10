"""What is known beside a checkpoint's own files: base model, known table, evaluation."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path

import pytest
from support.oracle import ROOT

from codi_lens import CodiModel, problems
from codi_lens.loading.checkpoint import read_checkpoint
from codi_lens.loading.config import known_bases, known_checkpoints
from codi_lens.problems import Problem
from codi_lens.verification.expected import Expected, expected_accuracy
from codi_lens.verification.hearsay import base_config, contradictions, zeroed

TINY = ROOT / "checkpoints" / "tiny-llama"


def test_a_config_that_contradicts_its_base_is_named() -> None:
    checkpoint = read_checkpoint(TINY)
    backbone = checkpoint.backbone
    base = copy.deepcopy(backbone)
    base.rope_parameters = {"rope_type": "default", "rope_theta": 5e5}
    base.vocab_size = 7  # grows in training, and is no contradiction
    config = replace(checkpoint.config, base="its-base")
    assert list(contradictions(config, backbone, copy.deepcopy(backbone))) == []
    assert list(contradictions(config, backbone, base)) == [
        "CHECK THIS SETTING: the config gives rotary_base = 10000.0, and the base model its-base "
        "has 500000.0."
    ]


def test_settings_that_contradict_the_known_table_are_named(tiny_gpt2: CodiModel) -> None:
    config = replace(tiny_gpt2.config, source="zen-E/CODI-gpt2", lora_alpha=16)
    sentences = list(contradictions(config, tiny_gpt2.backbone, None))
    assert sentences == [
        "CHECK THIS SETTING: lora_alpha is 16, and 32 in the table of known checkpoints."
    ]


def test_known_bases_are_read_without_a_network() -> None:
    bases = {settings["base"] for settings in known_checkpoints().values()}
    assert bases == set(known_bases())
    checkpoint = read_checkpoint(TINY)
    for name in bases:
        config = base_config(replace(checkpoint, config=replace(checkpoint.config, base=name)))
        assert config is not None
        assert config.model_type == known_bases()[name]["model_type"]
        assert config.num_attention_heads in (12, 24, 32)
    assert base_config(checkpoint) is None


def test_a_base_folder_is_compared(tmp_path: Path) -> None:
    values = json.loads((TINY / "config.json").read_text()) | {"rms_norm_eps": 1e-5}
    (tmp_path / "config.json").write_text(json.dumps(values))
    checkpoint = read_checkpoint(TINY)
    config = replace(checkpoint.config, base=str(tmp_path))
    base = base_config(replace(checkpoint, config=config))
    assert any("eps = 1e-06" in text for text in contradictions(config, checkpoint.backbone, base))


def test_zeroed_weights_are_named() -> None:
    checkpoint = read_checkpoint(ROOT / "checkpoints" / "tiny-gpt2")
    assert list(zeroed(checkpoint)) == []
    damaged = {k: v * 0 if "c_fc.bias" in k else v for k, v in checkpoint.tensors.items()}
    damaged |= {k: v * 0 if "mlp.c_fc" in k and "bias" in k else v for k, v in damaged.items()}
    (sentence,) = zeroed(replace(checkpoint, tensors=damaged))
    assert "h.*.mlp.c_fc" in sentence


def test_what_to_expect_comes_from_the_nearest_source(tmp_path: Path) -> None:
    config = read_checkpoint(TINY).config
    built_in, others = problems.word_problems(2), [Problem("1 + 1?", 2, "a")]
    evaluated = json.loads((TINY / "evaluation.json").read_text())["conditions"]["six thoughts"]
    expected, notes = expected_accuracy(config, built_in)
    assert (expected.n, notes) == (evaluated["all"]["n"], [])
    assert expected.share == evaluated["all"]["correct"] / evaluated["all"]["n"]
    assert expected_accuracy(config, others)[0].share == 0.5
    assert expected_accuracy(config, built_in, 0.25)[0].share == 0.25
    known = replace(config, source="zen-E/CODI-gpt2")
    assert expected_accuracy(known, [Problem("1 + 1?", 2, "train_7")])[0].share == 0.419

    folder = replace(config, source=str(tmp_path))
    for text, share, odd in (
        ('{"accuracy": 0.75, "n": 40}', 0.75, 0),
        ('{"accuracy": 7}', 0.5, 1),
        ("[]", 0.5, 1),
        ("{", 0.5, 1),
    ):
        (tmp_path / "evaluation.json").write_text(text)
        expected, notes = expected_accuracy(folder, built_in)
        assert (expected.share, len(notes)) == (share, odd)


@pytest.mark.parametrize(("correct", "too_few"), [(200, False), (197, False), (180, True)])
def test_fewer_than_were_measured(correct: int, too_few: bool) -> None:
    assert (Expected(0.995, "file", 2600).p_fewer(correct, 200) <= 0.01) == too_few
