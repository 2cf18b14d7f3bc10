"""Wrappers are stripped, containers opened, and what is not CODI is told what it is."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from codi_lens import CheckpointError, CodiModel
from codi_lens.loading.wrappers import opened, unwrapped

State = dict[str, Tensor]
Change = Callable[[State], Any]


def renamed(rename: Callable[[str], str]) -> Change:
    return lambda state: {rename(key): value for key, value in state.items()}


def inside(step: str) -> Change:
    return renamed(lambda key: key.replace(".h.0.", f".h.0.{step}."))


SAME: dict[str, Change] = {
    "module, _orig_mod": renamed(lambda key: f"module._orig_mod.{key}"),
    "_orig_mod, module, module": renamed(lambda key: f"_orig_mod.module.module.{key}"),
    "_forward_module": renamed(lambda key: f"_forward_module.{key}"),
    "_fsdp_wrapped_module": renamed(lambda key: f"_fsdp_wrapped_module.{key}"),
    "model": renamed(lambda key: f"model.{key}"),
    "net.model": renamed(lambda key: f"net.module.model.{key}"),
    "codi alone": renamed(lambda key: key.replace("codi.", "codi._orig_mod.", 1)),
    "a block compiled": inside("_orig_mod"),
    "a block checkpointed in FSDP": inside("_fsdp_wrapped_module._checkpoint_wrapped_module"),
    "container": lambda state: {"state_dict": state, "epoch": 3},
    "container among others": lambda state: {
        "model": state,
        "optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": [{"lr": 0.1}]},
    },
    "containers": lambda state: {"state_dict": {"module": {f"model.{k}": state[k] for k in state}}},
    "container of another name": lambda state: {"codi_model": state, "step": 1},
}


@pytest.mark.parametrize("change", SAME.values(), ids=SAME)
def test_wrapped_state_dicts_are_the_same(change: Change, gpt2_folder: Path) -> None:
    path = gpt2_folder / "pytorch_model.bin"
    state = torch.load(path, weights_only=True)
    torch.save(change(state), path)
    read = unwrapped(opened(torch.load(path, weights_only=True), "it"), "it")
    assert read.keys() == state.keys()
    assert all(torch.equal(read[key], state[key]) for key in state)


def test_a_plain_language_model_keeps_its_own_prefix() -> None:
    llama: State = dict.fromkeys(("model.embed_tokens.weight", "model.norm.weight"), torch.ones(1))
    assert unwrapped(llama, "it") == llama
    assert unwrapped({f"model.{key}": v for key, v in llama.items()}, "it") == llama
    coconut = {f"base_causallm.{key}": value for key, value in llama.items()}
    assert unwrapped(coconut, "it") == coconut


def split(keys: str, function: Callable[[str, Tensor], State]) -> Change:
    def change(state: State) -> State:
        changed: State = {}
        for key, value in state.items():
            changed |= function(key, value) if key.endswith(keys) else {key: value}
        return changed

    return change


def nf4(key: str, value: Tensor) -> State:
    packed = torch.zeros((value.numel() + 1) // 2, 1, dtype=torch.uint8)
    return {
        key: packed,
        f"{key}.absmax": torch.ones(2),
        f"{key}.quant_state.bitsandbytes__nf4": packed[:4],
    }


BASE = "base_layer.weight"
INT8 = split(BASE, lambda k, v: {k: v.to(torch.int8), k.replace("weight", "SCB"): torch.ones(1)})
GPTQ = split(
    BASE,
    lambda k, _: {k.replace("weight", part): torch.ones(1).int() for part in ("qweight", "g_idx")},
)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (split(BASE, nf4), r"quantised by bitsandbytes' 4 bits \(NF4\) .*; dequantise them"),
        (INT8, r"quantised by bitsandbytes' 8 bits \(LLM\.int8\)"),
        (
            split(BASE, lambda k, v: {k: v, f"{k}_scale_inv": torch.ones(1)}),
            "quantised by float8 with scales by block",
        ),
        (GPTQ, "quantised by GPTQ"),
        (split(BASE, lambda k, _: {k.replace("weight", "qzeros"): torch.ones(1)}), "AWQ or GPTQ"),
        (split(BASE, lambda k, v: {k: v.to(torch.int8)}), "in torch.int8 without scales"),
        (split("wte.weight", lambda k, v: {k: v.to(torch.float8_e4m3fn)}), "float8_e4m3fn without"),
        (split("ln_f.weight", lambda k, v: {k: v.to_sparse()}), r"sparse_coo\); save it dense"),
        (split("ln_f.weight", lambda k, v: {k: v.to("meta")}), r"\(meta\); save it dense"),
        (
            split(
                "prj.1.weight",
                lambda k, v: {k: torch.quantize_per_tensor(v, 0.1, 0, torch.qint8)},
            ),
            r"\(quantised\); save it dense",
        ),
        (lambda state: {"model": state, "ema": state}, r"several state dicts \(model, ema\)"),
        (lambda state: state | {"epoch": 3}, "its 'epoch' is of type int"),
        (
            lambda state: state | {"module.prj.1.weight": state["prj.1.weight"]},
            r"prj\.1\.weight twice, in different wrappers",
        ),
        (lambda _: {}, r"must hold a state dict: .*, not \{\}"),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_other_state_dicts_are_named(change: Change, message: str, gpt2_folder: Path) -> None:
    path = gpt2_folder / "pytorch_model.bin"
    torch.save(change(torch.load(path, weights_only=True)), path)
    with pytest.raises(CheckpointError, match=message):
        CodiModel.from_pretrained(gpt2_folder)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (
            "checkpoint-500/pytorch_model.bin",
            r"in checkpoint-500 and 1 more.*give the folder /.*500",
        ),
        ("model.gguf", r"llama\.cpp"),
        ("zero_to_fp32.py", "DeepSpeed's shards"),
        ("pytorch_model_fsdp_0/__0_0.distcp", "FSDP's shards"),
        ("tf_model.h5", "TensorFlow weights"),
    ],
)
def test_other_folders_are_told_what_they_hold(
    target: str, message: str, gpt2_folder: Path
) -> None:
    (gpt2_folder / target).parent.mkdir(exist_ok=True)
    (gpt2_folder / "pytorch_model.bin").rename(gpt2_folder / target)
    if "/" in target:
        (gpt2_folder / "checkpoint-90").mkdir()
        (gpt2_folder / "checkpoint-90" / "model.safetensors").touch()
    with pytest.raises(CheckpointError, match=message):
        CodiModel.from_pretrained(gpt2_folder)


@pytest.mark.parametrize("name", ["checkpoint_28", "model.pt", "consolidated.00.pth", "last.ckpt"])
def test_the_only_file_of_weights_is_the_checkpoint(name: str, gpt2_folder: Path) -> None:
    whole = CodiModel.from_pretrained(gpt2_folder)
    (gpt2_folder / "pytorch_model.bin").rename(gpt2_folder / name)
    torch.save({"step": torch.ones(1)}, gpt2_folder / "optimizer.pt")
    assert CodiModel.from_pretrained(gpt2_folder).fingerprint() == whole.fingerprint()
    torch.save({"x": torch.ones(1)}, gpt2_folder / "checkpoint_9")
    with pytest.raises(CheckpointError, match=r"give the file that is meant, such as /.*checkpo"):
        CodiModel.from_pretrained(gpt2_folder)
    model = CodiModel.from_pretrained(gpt2_folder / name)
    assert model.fingerprint() == whole.fingerprint()
    assert model.verify(n=1, settings=False).passed


def test_git_lfs_pointer_is_named(gpt2_folder: Path) -> None:
    (gpt2_folder / "pytorch_model.bin").write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(CheckpointError, match="pointer of Git LFS; fetch the file"):
        CodiModel.from_pretrained(gpt2_folder)


@pytest.mark.parametrize(
    "shard", ["../other.safetensors", "/etc/passwd", "a\0b", "..", "", "..\\x"]
)
def test_shards_stay_in_their_folder(shard: str, gpt2_folder: Path) -> None:
    save_file({"x": torch.ones(1)}, gpt2_folder.parent / "other.safetensors")
    (gpt2_folder / "pytorch_model.bin").unlink()
    index = gpt2_folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"x": shard}}))
    with pytest.raises(CheckpointError, match="a shard must be a file of the folder itself"):
        CodiModel.from_pretrained(gpt2_folder)
