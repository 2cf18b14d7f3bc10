"""Checkpoints load exactly or not at all, and the error says what is wrong."""

from __future__ import annotations

import json
import pickle
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from support.oracle import FIXTURES, ORACLE_SETTINGS, ROOT, Oracle
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM

from codi_lens import CheckpointError, CodiModel
from codi_lens.errors import CheckpointWarning
from codi_lens.loading.checkpoint import read_checkpoint
from codi_lens.loading.hub import resolve_folder

State = dict[str, Tensor]
WTE = "codi.base_model.model.transformer.wte.weight"


def read(folder: Path) -> State:
    return torch.load(folder / "pytorch_model.bin", weights_only=True)


def write(folder: Path, state: dict[str, Any]) -> None:
    torch.save(state, folder / "pytorch_model.bin")


def test_safetensors_without_the_tied_embedding_load_the_same(
    oracle: Oracle, tmp_path: Path
) -> None:
    state = torch.load(oracle.checkpoint / "pytorch_model.bin", weights_only=True)
    tied = next(key for key in state if key.endswith(("wte.weight", "embed_tokens.weight")))
    del state[tied]
    save_file(
        {name: value.clone() for name, value in state.items()}, tmp_path / "model.safetensors"
    )
    model = CodiModel.from_pretrained(tmp_path, oracle.base, **ORACLE_SETTINGS)
    assert model.fingerprint() == oracle.model.fingerprint()


def test_sharded_checkpoint_loads_the_same(gpt2_folder: Path) -> None:
    whole = CodiModel.from_pretrained(gpt2_folder).fingerprint()
    state = read(gpt2_folder)
    (gpt2_folder / "pytorch_model.bin").unlink()
    names = list(state)
    shards = {"one.bin": names[:20], "two.bin": names[20:]}
    for shard, keys in shards.items():
        torch.save({key: state[key] for key in keys}, gpt2_folder / shard)
    index = {"weight_map": {key: shard for shard, keys in shards.items() for key in keys}}
    (gpt2_folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    assert CodiModel.from_pretrained(gpt2_folder).fingerprint() == whole
    (gpt2_folder / "two.bin").unlink()
    with pytest.raises(CheckpointError, match=r"names two\.bin, which is not in the folder"):
        CodiModel.from_pretrained(gpt2_folder)


def test_merged_lora_equals_a_dense_checkpoint(gpt2_folder: Path) -> None:
    checkpoint = read_checkpoint(gpt2_folder)
    merged = checkpoint.merged()
    dense = {f"codi.{name}": value for name, value in merged.items()}
    dense |= {f"prj.{name}": value for name, value in checkpoint.projection.items()}
    write(gpt2_folder, dense)
    (gpt2_folder / "codi_config.json").write_text(json.dumps({"n_thoughts": 6, "remove_eos": True}))
    again = read_checkpoint(gpt2_folder, lora_alpha=16)  # accepted, unused
    assert again.config.lora_rank is None
    assert all(torch.equal(value, merged[name]) for name, value in again.merged().items())


def test_lora_alpha_is_used_and_never_guessed(gpt2_folder: Path) -> None:
    half, full = (read_checkpoint(gpt2_folder, lora_alpha=alpha).merged() for alpha in (16, 32))
    base = read(gpt2_folder)
    name = "transformer.h.0.mlp.c_fc.weight"
    raw = base[f"codi.base_model.model.{name.replace('.weight', '.base_layer.weight')}"].float()
    torch.testing.assert_close((full[name] - raw), 2 * (half[name] - raw), rtol=1e-4, atol=1e-6)
    (gpt2_folder / "codi_config.json").write_text(json.dumps({"n_thoughts": 6, "remove_eos": True}))
    with pytest.raises(CheckpointError, match="does not say lora_alpha; pass it"):
        read_checkpoint(gpt2_folder)
    (gpt2_folder / "adapter_config.json").write_text(json.dumps({"lora_alpha": 32, "r": 8}))
    assert read_checkpoint(gpt2_folder).config.lora_alpha == 32


def test_shipped_gpt2_is_in_the_published_layout() -> None:
    state = torch.load(ROOT / "checkpoints/tiny-gpt2/pytorch_model.bin", weights_only=True)
    oracle = torch.load(FIXTURES / "oracle/gpt2/ckpt/pytorch_model.bin", weights_only=True)

    def shape_free(keys: Any) -> set[str]:
        return {key for key in keys if ".h.3." not in key}  # the oracle has a layer more

    assert shape_free(state) == shape_free(oracle)
    assert {key: value.dtype for key, value in state.items()} == {
        key: oracle[key].dtype for key in state
    }


@pytest.mark.parametrize("grouped", [True, False])
def test_converted_llama_equals_hugging_face(grouped: bool) -> None:
    config = AutoConfig.for_model(
        "llama", vocab_size=50, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2 if grouped else 4, head_dim=16,
        tie_word_embeddings=False, max_position_embeddings=64,
    )  # fmt: skip
    check_conversion(config)


@pytest.mark.parametrize("inverse", [True, False])
def test_converted_gpt2_equals_hugging_face(inverse: bool) -> None:
    config = AutoConfig.for_model(
        "gpt2", vocab_size=50, n_embd=32, n_layer=3, n_head=4, n_positions=64, n_inner=40,
        scale_attn_by_inverse_layer_idx=inverse,
    )  # fmt: skip
    check_conversion(config)


def to_hooked_transformer(*given: Any) -> Any:
    """The conversion, where TransformerLens has a HookedTransformer."""
    hooked = pytest.importorskip("codi_lens.loading.hooked", exc_type=ImportError)
    return hooked.to_hooked_transformer(*given)


def check_conversion(config: Any) -> None:
    torch.manual_seed(0)
    hf = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    for parameter in hf.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    lens = to_hooked_transformer(config, hf.state_dict())
    tokens = torch.randint(0, 50, (3, 20))
    with torch.no_grad():
        torch.testing.assert_close(lens(tokens), hf(tokens).logits, rtol=1e-5, atol=2e-5)


def test_unsupported_architecture_and_rope_are_named() -> None:
    with pytest.raises(CheckpointError, match=r"'opt' .* is not supported, .*; supported are gpt2"):
        to_hooked_transformer(AutoConfig.for_model("opt"), {})
    config = AutoConfig.for_model(
        "llama", hidden_size=32, num_attention_heads=4, num_hidden_layers=1, intermediate_size=8,
        vocab_size=8, rope_parameters={"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4},
    )  # fmt: skip
    weights = AutoModelForCausalLM.from_config(config).state_dict()
    with pytest.raises(CheckpointError, match="Rope scaling 'linear' is not supported"):
        to_hooked_transformer(config, weights)


def drop(*keys: str) -> Callable[[State], State]:
    return lambda state: {name: v for name, v in state.items() if name not in keys}


def change(key: str, function: Callable[[Tensor], Tensor]) -> Callable[[State], State]:
    return lambda state: {n: function(v) if n == key else v for n, v in state.items()}


def add(**tensors: Tensor) -> Callable[[State], State]:
    return lambda state: state | {name.replace("__", "."): v for name, v in tensors.items()}


LORA = "codi.base_model.model.transformer.h.0.attn.c_attn.lora_{}.default.weight"
LN = "codi.base_model.model.transformer.ln_f.weight"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (drop(LN), r"GPT2LMHeadModel: it lacks transformer\.ln_f\.weight"),
        (add(codi__extra=torch.zeros(1)), "holds unknown extra"),
        (add(strange=torch.zeros(1)), "keys that CODI does not know: strange"),
        (add(prj__7__weight=torch.zeros(1)), r"does not know: prj\.7\.weight"),
        (drop("prj.3.bias"), r"lacks prj\.3\.bias"),
        (change("prj.3.weight", lambda w: w[:5]), r"prj\.3\.weight .* shape \(5, 64\)"),
        (change("prj.1.weight", lambda w: w[0]), r"prj\.1\.weight .* shape \(64,\)"),
        (change(LORA.format("B"), lambda w: w[:, :3]), r"expected \[rank, in\] and \[out, rank\]"),
        (change(LORA.format("A"), lambda w: w[0]), r"expected \[rank, in\]"),
        (
            add(codi__base_model__model__transformer__h__0__attn__c_attn__weight=torch.zeros(1)),
            r"c_attn\.weight both with and without",
        ),
        (drop("prj.ln.bias"), r"lacks prj\.ln\.bias"),
        (drop(LORA.format("B")), "lora_A.default.weight without its other half"),
        (change(LN, lambda w: w * float("nan")), r"NaN or infinite values in transformer\.ln_f"),
        (change("prj.1.bias", lambda w: w / 0), r"NaN or infinite values in prj\.1\.bias"),
        (change(LN, lambda w: w[:3]), r"ln_f\.weight .* has shape \(3,\); .* makes \(64,\)"),
        (change(LORA.format("B"), lambda w: w[:-1]), "make a delta of shape"),
        (change(WTE, lambda w: w[:-1]), r"wte\.weight .* shape \(402, 64\); .* makes \(403, 64\)"),
        (lambda state: {"model.weight": torch.zeros(2)}, "no embedding and no unembedding"),
    ],
)
def test_damaged_state_dicts_are_named(
    gpt2_folder: Path, damage: Callable[[State], State], message: str
) -> None:
    write(gpt2_folder, damage(read(gpt2_folder)))
    with pytest.raises(CheckpointError, match=message):
        CodiModel.from_pretrained(gpt2_folder)


class Bomb:
    """Pickles to a call that would leave a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


def test_code_in_a_pickle_is_never_run(gpt2_folder: Path, tmp_path: Path) -> None:
    mark = tmp_path / "executed"
    write(gpt2_folder, {"codi.x": Bomb(mark)})
    with pytest.raises(CheckpointError, match="never runs code"):
        CodiModel.from_pretrained(gpt2_folder)
    (gpt2_folder / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb(mark)))
    with pytest.raises(CheckpointError, match="never runs code"):
        CodiModel.from_pretrained(gpt2_folder)
    assert not mark.exists()


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.safetensors"])
@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_truncated_files_are_named(gpt2_folder: Path, name: str, share: float) -> None:
    state = read(gpt2_folder)
    (gpt2_folder / "pytorch_model.bin").unlink()
    path = gpt2_folder / name
    if name.endswith(".bin"):
        torch.save(state, path)
    else:
        save_file({k: v.clone() for k, v in state.items()}, path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(CheckpointError, match=rf"{name} .*(truncated|never runs code)"):
        CodiModel.from_pretrained(gpt2_folder)


def test_missing_settings_are_named(gpt2_folder: Path) -> None:
    config = gpt2_folder / "codi_config.json"
    for argument in ("n_thoughts", "remove_eos", "lora_alpha"):
        settings = {k: v for k, v in ORACLE_SETTINGS.items() if k != argument}
        config.write_text(json.dumps(settings))
        with pytest.raises(CheckpointError, match=f"does not say {argument}"):
            CodiModel.from_pretrained(gpt2_folder)
        given = {argument: ORACLE_SETTINGS[argument]}
        assert CodiModel.from_pretrained(gpt2_folder, **given).config.n_thoughts == 6
    config.write_text("{oops")
    with pytest.raises(CheckpointError, match="not valid JSON"):
        CodiModel.from_pretrained(gpt2_folder)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"remove_eos": "false"}, "remove_eos = 'false'; it must be true or false"),
        ({"n_thoughts": 6.7}, r"n_thoughts = 6\.7; it must be a whole number"),
        ({"n_thoughts": True}, "n_thoughts = True; it must be a whole number"),
        ({"lora_alpha": "32"}, "lora_alpha = '32'; it must be a number"),
        ({"base": 3}, "base = 3; it must be a folder or hub name"),
        ({"n_thoughts": 0}, "n_thoughts = 0; it must be at least 1"),
    ],
)
def test_settings_of_the_wrong_kind_are_named(
    gpt2_folder: Path, settings: dict[str, Any], message: str
) -> None:
    (gpt2_folder / "codi_config.json").write_text(json.dumps(ORACLE_SETTINGS | settings))
    with pytest.raises(CheckpointError, match=message):
        CodiModel.from_pretrained(gpt2_folder)


def test_adapters_that_merge_otherwise_are_refused(gpt2_folder: Path) -> None:
    adapter = {"lora_alpha": 32, "use_rslora": True}
    (gpt2_folder / "adapter_config.json").write_text(json.dumps(adapter))
    with pytest.raises(CheckpointError, match="sets use_rslora, which codi_lens does not merge"):
        CodiModel.from_pretrained(gpt2_folder)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "bert"}, "architecture 'bert' .* supported are gpt2, gpt_neox"),
        ({"n_head": 7}, "config does not describe a model|could not be read"),
        ({"activation_function": "tanh"}, "activation 'tanh' is not supported"),
        ({"n_layer": "three"}, "could not be read from|does not describe"),
        (
            {"n_layer": 10**30},
            "n_layer = 10{30}, but its checkpoint holds [0-9]+ tensors, fewer than",
        ),
    ],
)
def test_odd_base_configs_are_named(
    gpt2_folder: Path, config: dict[str, Any], message: str
) -> None:
    path = gpt2_folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | config))
    with pytest.raises(CheckpointError, match=message):
        CodiModel.from_pretrained(gpt2_folder)


def test_text_that_transformers_splits_otherwise_than_the_file_says_is_told(
    tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    folder = shutil.copytree(ROOT / "checkpoints" / "tiny-gpt2", tmp_path / "copy")
    CodiModel.from_pretrained(folder)
    assert not recwarn
    path = folder / "tokenizer_config.json"
    told = json.loads(path.read_text())
    path.write_text(json.dumps({key: told[key] for key in told if key != "tokenizer_class"}))
    with pytest.warns(CheckpointWarning, match="as a GPT2Tokenizer, which splits text otherwise"):
        model = CodiModel.from_pretrained(folder)
    assert any("tokenizer.json" in note for note in model.config.notes)


def test_tokens_that_no_vocabulary_holds_are_named(gpt2_folder: Path) -> None:
    path = gpt2_folder / "tokenizer_config.json"
    told = path.read_text()
    path.write_text(json.dumps(json.loads(told) | {"unk_token": ""}))
    with pytest.raises(CheckpointError, match="gives unk_token = '', which is none of its tokens"):
        CodiModel.from_pretrained(gpt2_folder)
    path.write_text(told)
    held = json.loads((gpt2_folder / "tokenizer.json").read_text())
    token = next(token for token, id in held["model"]["vocab"].items() if id == 20)
    held["model"]["vocab"][token] = 10**9
    (gpt2_folder / "tokenizer.json").write_text(json.dumps(held))
    with pytest.raises(CheckpointError, match="the id 1000000000; ids are at most 16777216"):
        CodiModel.from_pretrained(gpt2_folder)


@pytest.mark.parametrize("content", [b"", b"{}", b"null", b'{"model_type": '])
@pytest.mark.parametrize("own_tokenizer", [True, False])
def test_a_config_that_says_nothing_gives_way_to_the_base(
    tiny_gpt2: CodiModel, tmp_path: Path, content: bytes, own_tokenizer: bool
) -> None:
    """Published repositories hold a config.json of no bytes, with or without a tokenizer."""
    source, folder = ROOT / "checkpoints" / "tiny-gpt2", tmp_path / "published"
    shutil.copytree(source, folder)
    shutil.copytree(source, tmp_path / "base")
    (folder / "config.json").write_bytes(content)
    if not own_tokenizer:
        for path in folder.glob("tokenizer*"):
            path.unlink()
    told = json.loads((folder / "codi_config.json").read_text())
    (folder / "codi_config.json").write_text(json.dumps(told | {"base": "../base"}))
    damaged = bool(content) and content not in (b"",)
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        model = CodiModel.from_pretrained(folder)
    assert model.fingerprint() == tiny_gpt2.fingerprint()
    assert [str(each.message) for each in heard if "is damaged" in str(each.message)] == (
        [
            f"{folder / 'config.json'} is damaged; the config of its base {folder / '../base'} was "
            "read instead."
        ]
        if damaged
        else []
    )
    assert CodiModel.from_pretrained(folder, base=source).fingerprint() == tiny_gpt2.fingerprint()
    (folder / "codi_config.json").write_text(json.dumps(told))
    with pytest.raises(CheckpointError, match="pass base= a folder that holds them"):
        CodiModel.from_pretrained(folder)


def test_a_base_in_codi_config_is_meant_from_its_place(
    tiny_gpt2: CodiModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "models" / "mine"
    shutil.copytree(ROOT / "checkpoints" / "tiny-gpt2", folder)
    base = tmp_path / "models" / "base"
    base.mkdir()
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (folder / name).rename(base / name)
    told = json.loads((folder / "codi_config.json").read_text())
    (folder / "codi_config.json").write_text(json.dumps(told | {"base": "../base"}))
    monkeypatch.chdir(tmp_path)
    for source in (folder, Path("models/mine")):
        assert CodiModel.from_pretrained(source).fingerprint() == tiny_gpt2.fingerprint()


def test_a_shipped_model_is_a_base(tiny_gpt2: CodiModel, tmp_path: Path) -> None:
    folder = shutil.copytree(ROOT / "checkpoints" / "tiny-gpt2", tmp_path / "copy")
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    model = CodiModel.from_pretrained(folder, base="tiny-gpt2")
    assert model.fingerprint() == tiny_gpt2.fingerprint() and model.config.base == "tiny-gpt2"
    assert model.verify(n=1, settings=False).passed


def test_device_that_does_not_exist_is_named(gpt2_folder: Path) -> None:
    with pytest.raises(CheckpointError, match="The device warp cannot be used; usable here: cpu"):
        CodiModel.from_pretrained(gpt2_folder, device="warp")


def test_missing_sources_are_named(gpt2_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no folder .*nowhere, and it is not the name"):
        CodiModel.from_pretrained(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match="is a file; give the folder"):
        CodiModel.from_pretrained(gpt2_folder / "config.json")
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(CheckpointError, match=r"neither model\.safetensors nor pytorch_model"):
        CodiModel.from_pretrained(empty)
    with pytest.raises(CheckpointError, match="no base model folder"):
        CodiModel.from_pretrained(gpt2_folder, base=tmp_path / "nobase")
    (gpt2_folder / "config.json").unlink()
    with pytest.raises(CheckpointError, match="does not say its base model; pass base="):
        CodiModel.from_pretrained(gpt2_folder)
    shutil.rmtree(empty)


def test_local_folder_wins_over_a_shipped_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert resolve_folder("tiny-gpt2") == ROOT / "checkpoints" / "tiny-gpt2"
    Path("tiny-gpt2").mkdir()
    assert resolve_folder("tiny-gpt2") == Path("tiny-gpt2")


def test_hub_name_that_cannot_be_fetched_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(CheckpointError, match="no folder nobody/nothing, and the hub repository"):
        CodiModel.from_pretrained("nobody/nothing")


def test_nothing_is_folded(tiny: CodiModel) -> None:
    weights = read_checkpoint(tiny.config.source).merged()
    (final,) = (
        value
        for key, value in weights.items()
        if key in ("transformer.ln_f.weight", "model.norm.weight")
    )
    assert torch.equal(tiny.lens.state_dict()["ln_final.w"], final.float())
    assert tiny.lens.W_U.mean(-1).abs().max() > 1e-4, "the unembedding is not centred"
