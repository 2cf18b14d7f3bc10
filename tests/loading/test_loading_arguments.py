"""Arguments and settings of a slightly wrong kind are taken where they are clear, else named."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.checkpoint_maker import Recipe, make
from support.oracle import ROOT

from codi_lens import CheckpointError, CodiModel
from codi_lens.causal.references import used_edges_of
from codi_lens.errors import CheckpointWarning
from codi_lens.loading.checkpoint import read_checkpoint
from codi_lens.loading.config import read_settings
from codi_lens.loading.hub import Hub
from codi_lens.loading.placement import usable_device, usable_dtype
from codi_lens.loading.sources import files_of, learnt_family

TINY = ROOT / "checkpoints" / "tiny-gpt2"


@pytest.fixture
def tiny_copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(TINY, tmp_path / "copy"))


def change(path: Path, *without: str, **values: Any) -> None:
    changed = json.loads(path.read_text()) | values
    path.write_text(json.dumps({k: v for k, v in changed.items() if k not in without}))


def test_dtypes_by_any_name() -> None:
    assert CodiModel.from_pretrained(TINY, dtype="bfloat16").lens.W_E.dtype == torch.bfloat16
    for dtype in ("float64", "torch.float64", "double", np.float64, np.dtype("float64")):
        assert usable_dtype(dtype) == torch.float64
    for dtype in (torch.int8, "int8", "nonsense", None, torch.float8_e4m3fn, 16, ""):
        with pytest.raises(CheckpointError, match="must be one of float32, float64, bfloat16"):
            usable_dtype(dtype)


@pytest.mark.parametrize("device", ["mps", "meta", "warp", "cuda:99", "", None, 3.5, "xla", "lazy"])
def test_unusable_devices_are_one_sentence(device: Any) -> None:
    with pytest.raises(CheckpointError, match=r"^The device .* usable here: cpu[^\n]*\.$"):
        usable_device(device)


def test_auto_takes_cuda_where_it_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = "cuda" if torch.cuda.is_available() else "cpu"
    assert usable_device("auto").type == expected
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert usable_device("auto").type == expected, "Apple's GPUs have to be asked for"
    assert CodiModel.from_pretrained(TINY, device="auto").device.type == expected


@pytest.mark.parametrize("token", ["", " ", "hf_secret\n", "hf secret"])
def test_an_odd_token_is_refused_and_not_repeated(token: str) -> None:
    with pytest.raises(CheckpointError, match="token must be a token of the hub") as caught:
        CodiModel.from_pretrained("owner/name", token=token)
    assert "secret" not in str(caught.value)


def test_token_and_cache_reach_every_read_of_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, Any]] = []

    def fetch(*_: object, **given: Any) -> str:
        asked.append(given)
        return str(made)

    made = make(tmp_path / "m", Recipe())
    for path in (*made.glob("config.json"), *made.glob("tokenizer*")):
        path.unlink()
    monkeypatch.setattr("codi_lens.loading.hub.snapshot_download", fetch)
    monkeypatch.setattr(
        "transformers.PretrainedConfig.get_config_dict",
        lambda where, **given: asked.append(given) or ({}, {}),
    )
    hub: dict[str, Any] = {"token": "hf_mine", "cache_dir": tmp_path / "hub"}
    with pytest.raises(CheckpointError, match="could not be read from owner/base"):
        CodiModel.from_pretrained("owner/name", "owner/base", revision="v1", **hub)
    assert len(asked) >= 3
    assert all(given["token"] == "hf_mine" and given["cache_dir"] for given in asked)
    assert asked[0]["revision"] == "v1" and "allow_patterns" in asked[0]
    assert "hf_mine" not in repr(Hub(token="hf_mine"))
    others = [given for given in asked if "allow_patterns" not in given]
    assert others and all(given.get("revision") is None for given in others), "not the base's"
    with pytest.raises(CheckpointError, match="cache_dir names no folder"):
        CodiModel.from_pretrained("owner/name", cache_dir="a\0b")


def test_numbers_of_numpy_and_torch_are_taken() -> None:
    for six, alpha in ((np.int64(6), np.float32(64)), (torch.tensor(6), torch.tensor(64.0))):
        settings = read_settings(TINY, "it", {"n_thoughts": six, "lora_alpha": alpha})
        assert (type(settings["n_thoughts"]), type(settings["lora_alpha"])) == (int, float)
        assert (settings["n_thoughts"], settings["lora_alpha"]) == (6, 64.0)


@pytest.mark.parametrize("alpha", [0, -3, float("nan"), float("inf"), np.float32(0)])
def test_absurd_lora_alpha_is_refused(alpha: Any) -> None:
    with pytest.raises(CheckpointError, match=r"lora_alpha = .*; it must be a positive number"):
        read_settings(TINY, "it", {"lora_alpha": alpha})


def test_more_thoughts_than_the_context_holds_are_refused() -> None:
    with pytest.raises(CheckpointError, match=r"128 thoughts do not fit .* has 128 positions"):
        read_checkpoint(TINY, n_thoughts=128)


@pytest.mark.parametrize("source", ["a\0b", "", " ", "x" * 300, "x" * 5000, "o/\ud800", "a\nb"])
def test_names_that_no_system_takes(source: str) -> None:
    for arguments in ({"source": source}, {"source": TINY, "base": source}):
        with pytest.raises(CheckpointError) as caught:
            read_checkpoint(**arguments)  # type: ignore[arg-type]
        assert str(caught.value).isprintable()


@pytest.mark.parametrize("drop", ["n_head", "activation_function", "layer_norm_epsilon"])
def test_no_default_of_the_library_stands_in(drop: str, tiny_copy: Path) -> None:
    change(tiny_copy / "config.json", drop)
    with pytest.raises(CheckpointError, match=f"does not say {drop}, which the weights cannot"):
        read_checkpoint(tiny_copy)


def test_usual_defaults_are_said(tmp_path: Path) -> None:
    folder = make(tmp_path / "m", Recipe("llama"))
    change(folder / "config.json", "rope_parameters")
    with pytest.warns(CheckpointWarning, match=r"not say rope_theta; .* llama, 10000\.0, is used"):
        read_checkpoint(folder)


@pytest.mark.parametrize(
    ("backbone", "values", "message"),
    [
        ("llama", {"rope_parameters": {"rope_theta": -1.0, "rope_type": "default"}}, "rope_theta"),
        ("llama", {"rms_norm_eps": float("nan")}, "epsilon of its norms = nan"),
        ("gpt2", {"layer_norm_epsilon": -1e-5}, "epsilon of its norms"),
        ("gpt2", {"n_head": -6}, "must be a positive number"),
        ("llama", {"rms_norm_eps": 10**30}, "norms = 10{30}; it must be a positive number, of a"),
        ("mistral", {"sliding_window": 0}, "sliding_window = 0"),
    ],
)
def test_absurd_configs_are_refused(
    backbone: str, values: dict[str, Any], message: str, tmp_path: Path
) -> None:
    folder = make(tmp_path / "m", Recipe(backbone))
    change(folder / "config.json", **values)
    with pytest.raises(CheckpointError, match=message):
        CodiModel.from_pretrained(folder)


DEEP = "[" * 100_000 + "]" * 100_000


@pytest.mark.parametrize("name", ["config.json", "codi_config.json", "tokenizer.json"])
@pytest.mark.parametrize("text", [DEEP, '{"n_thoughts": ' + "9" * 5000 + "}", "null", "\0"])
def test_odd_json_is_one_sentence(name: str, text: str, tiny_copy: Path) -> None:
    (tiny_copy / name).write_text(text)
    with pytest.raises(CheckpointError, match=r"JSON|could not be read"):
        read_checkpoint(tiny_copy)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model_max_length": "1024"}, "gives model_max_length = '1024'; it must be a number"),
        ({"eos_token": "\ud800"}, "could not be read"),
        ({"eos_token": "<|nope|>"}, r"EOS of .* has the id 104, .* correct eos_token"),
    ],
)
def test_odd_tokenizers_are_named(values: dict[str, Any], message: str, tiny_copy: Path) -> None:
    change(tiny_copy / "tokenizer_config.json", **values)
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(tiny_copy)


def resize(folder: Path, rows: int, config: int, *, alike: bool = False) -> None:
    """Pad the vocabulary's rows, with a config that says another size of it."""
    state = torch.load(folder / "pytorch_model.bin", weights_only=True)
    for key, value in state.items():
        if key.endswith(("wte.weight", "lm_head.weight")):
            more = value.new_zeros(rows - len(value), value.shape[1])
            more += value.float().mean(0).to(value.dtype) if alike else 0
            state[key] = torch.cat([value, more])
    torch.save(state, folder / "pytorch_model.bin")
    change(folder / "config.json", vocab_size=config)


def test_padding_is_taken_for_padding(tiny_copy: Path) -> None:
    resize(tiny_copy, rows=128, config=104)
    config = read_checkpoint(tiny_copy).config
    assert (config.pad, config.bot, config.eot, config.n_tokens) == (104, 105, 106, 107)


@pytest.mark.parametrize("size", [106, 107, 110, 120])
@pytest.mark.parametrize("alike", [False, True])
def test_padding_is_not_taken_for_thought_tokens(size: int, alike: bool, tiny_copy: Path) -> None:
    resize(tiny_copy, rows=128, config=size, alike=alike)
    with pytest.raises(CheckpointError, match=r"does not say which tokens .*; give bot= and eot="):
        read_checkpoint(tiny_copy)
    config = read_checkpoint(tiny_copy, bot=105, eot=106).config
    assert (config.bot, config.eot) == (105, 106)


@pytest.mark.parametrize("n_tokens", [0, -1, 108, 10**30])
def test_absurd_n_tokens_is_refused(n_tokens: int, tiny_copy: Path) -> None:
    change(tiny_copy / "codi_config.json", n_tokens=n_tokens)
    with pytest.raises(CheckpointError, match="it must be at most the 107 rows"):
        read_checkpoint(tiny_copy)


def test_a_file_of_weights_has_the_other_files_beside_it() -> None:
    folder = ROOT / "checkpoints" / "tiny-recall"
    assert learnt_family(folder / "model.safetensors") == learnt_family(folder) == "mixed"
    assert used_edges_of(folder / "model.safetensors") == used_edges_of(folder)
    assert files_of("zen-E/CODI-gpt2") is None
