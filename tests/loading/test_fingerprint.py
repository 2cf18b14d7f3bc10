"""One model, one fingerprint: whatever decides a result changes it, and nothing else does."""

from __future__ import annotations

import copy
import json
import pickle
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from support.checkpoint_maker import Recipe, make
from support.oracle import ROOT

from codi_lens import CodiModel


@pytest.fixture
def folder(tiny_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_folder, tmp_path / "copy"))


def change(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_copies_and_merged_saves_keep_it(tiny: CodiModel, folder: Path, tmp_path: Path) -> None:
    assert CodiModel.from_pretrained(folder).fingerprint() == tiny.fingerprint()
    saved = CodiModel.from_pretrained(tiny.save_pretrained(tmp_path / "saved"))
    assert saved.config.lora_alpha is None
    assert saved.fingerprint() == tiny.fingerprint()
    assert copy.deepcopy(tiny).fingerprint() == tiny.fingerprint()
    assert pickle.loads(pickle.dumps(tiny)).fingerprint() == tiny.fingerprint()


def test_running_the_model_keeps_it(folder: Path) -> None:
    model = CodiModel.from_pretrained(folder)
    before = model.fingerprint()
    model.think(["Zoe has 14 coins.", "Zoe has 14 coins. Then she finds 7 more."])
    model.tokenizer(["Zoe", "Zoe has"], truncation=True, max_length=4)
    model.lens.set_use_attn_result(True)
    assert model.fingerprint() == before


def config_file(name: str, **values: Any) -> Callable[[Path], CodiModel]:
    def changed(folder: Path) -> CodiModel:
        change(folder / name, **values)
        return CodiModel.from_pretrained(folder)

    return changed


def tokenizer_file(edit: Callable[[dict[str, Any]], Any]) -> Callable[[Path], CodiModel]:
    def changed(folder: Path) -> CodiModel:
        values = json.loads((folder / "tokenizer.json").read_text())
        edit(values)
        (folder / "tokenizer.json").write_text(json.dumps(values))
        return CodiModel.from_pretrained(folder)

    return changed


def swap(values: dict[str, Any]) -> None:
    vocabulary = values["model"]["vocab"]
    a, b = list(vocabulary)[-2:]
    vocabulary[a], vocabulary[b] = vocabulary[b], vocabulary[a]


@pytest.mark.parametrize(
    "changed",
    [
        config_file("config.json", activation_function="gelu", hidden_act="gelu_new"),
        config_file("config.json", layer_norm_epsilon=1e-3, rms_norm_eps=1e-3),
        config_file("codi_config.json", n_thoughts=5),
        config_file("codi_config.json", remove_eos=False),
        config_file("codi_config.json", eos_after_eot=True),
        config_file("codi_config.json", n_tokens=104),
        tokenizer_file(swap),
        tokenizer_file(lambda values: values.update(normalizer={"type": "Lowercase"})),
        lambda folder: CodiModel.from_pretrained(folder, dtype="bfloat16"),
    ],
)
def test_what_decides_a_result_changes_it(
    tiny: CodiModel, folder: Path, changed: Callable[[Path], CodiModel]
) -> None:
    assert changed(folder).fingerprint() != tiny.fingerprint()


def test_rope_and_windows_change_it(tmp_path: Path) -> None:
    folder = make(tmp_path / "m", Recipe("mistral"))
    seen = {CodiModel.from_pretrained(folder).fingerprint()}
    rope = {"rope_theta": 500.0, "rope_type": "default"}
    for values in ({"sliding_window": 20}, {"rope_parameters": rope}):
        change(folder / "config.json", **values)
        seen.add(CodiModel.from_pretrained(folder).fingerprint())
    assert len(seen) == 3


def test_edits_after_loading_change_it(folder: Path) -> None:
    model = CodiModel.from_pretrained(folder)
    seen = {model.fingerprint()}
    vars(model.lens.ln_final)["eps"] = 1e-3
    seen.add(model.fingerprint())
    model.lens.blocks[0].attn.W_O.data[0, 0, 0] += 1
    seen.add(model.fingerprint())
    seen.add(replace(model, projection=torch.nn.Identity()).fingerprint())
    assert len(seen) == 4


def test_where_it_came_from_does_not_count(tiny: CodiModel) -> None:
    moved = replace(tiny.config, source="elsewhere", base="b", revision="r", notes=("n",))
    assert replace(tiny, config=moved).fingerprint() == tiny.fingerprint()


def test_loading_leaves_the_random_state_as_it_was() -> None:
    for name in ("tiny-gpt2", "tiny-llama"):
        torch.manual_seed(7)
        before = torch.get_rng_state()
        CodiModel.from_pretrained(ROOT / "checkpoints" / name)
        assert torch.equal(torch.get_rng_state(), before)
