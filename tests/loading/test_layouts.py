"""Every layout and architecture loads, and the loaded model is the checkpoint."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError
from support.checkpoint_maker import ARCHITECTURES, LAYOUTS, Recipe, load, make, recipe
from support.hand_written import weight_of
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig

from codi_lens import CheckpointError, CodiModel, OutputError
from codi_lens.errors import CheckpointWarning
from codi_lens.loading.architectures import settings_of, supported
from codi_lens.loading.checkpoint import read_checkpoint
from codi_lens.loading.config import known_checkpoints
from codi_lens.verification.verify import verify

QUESTION = "Zoe has 14 coins. Then she finds 7 more. How many coins does she have?"
# Every layout of three backbones whose weights are named and laid out unlike each other, and three
# layouts of each of the others, all of them among them; `make parity` takes the whole grid.
PAIRS = [
    (backbone, layout)
    for i, backbone in enumerate(ARCHITECTURES)
    for j, layout in enumerate(LAYOUTS)
    if backbone in ("gpt2", "llama", "pythia") or (j - i) % len(LAYOUTS) in (0, 2, 3)
]
# Made checkpoints have LLaMA's tokenizer, which transformers reads otherwise where they are Qwen's.
pytestmark = pytest.mark.filterwarnings(
    "ignore:The tokenizer in:codi_lens.errors.CheckpointWarning"
)


@pytest.mark.filterwarnings("ignore::codi_lens.errors.CheckpointWarning")
@pytest.mark.parametrize(("backbone", "layout"), PAIRS)
def test_loaded_model_equals_the_checkpoint(backbone: str, layout: str, tmp_path: Path) -> None:
    made = recipe(backbone, layout)
    model = load(make(tmp_path / "checkpoint", made), made)
    verification = verify(model, n=3, settings=False, max_new_tokens=3)
    assert verification.passed, verification.verdict
    numbers = verification.table[~verification.table["quantity"].isin(["answers", "tokens"])]
    assert len(numbers) >= 3
    assert numbers["forced_error"].max() <= 5e-5


@pytest.mark.parametrize("backbone", ARCHITECTURES)
def test_saved_model_loads_back_identically(backbone: str, tmp_path: Path) -> None:
    made = make(tmp_path / "made", Recipe(backbone, own_tokens=True, remove_eos=False, padding=2))
    model = CodiModel.from_pretrained(made)
    folder = model.save_pretrained(tmp_path / "nested" / "saved")
    again = CodiModel.from_pretrained(folder)
    assert again.fingerprint() == model.fingerprint()
    assert torch.equal(*(m.think([QUESTION], max_new_tokens=1).logits for m in (again, model)))
    assert again.config.closing == model.config.closing
    assert again.config.never_decoded(410) == model.config.never_decoded(410)
    opened = AutoModelForCausalLM.from_pretrained(folder)
    assert torch.equal(weight_of(opened.get_input_embeddings()), model.lens.W_E)
    with pytest.raises(OutputError, match="exists and is not empty"):
        model.save_pretrained(folder)


def test_saving_keeps_the_dtype(tmp_path: Path) -> None:
    made = make(tmp_path / "made", Recipe("llama3"))
    model = CodiModel.from_pretrained(made, dtype=torch.bfloat16)
    folder = model.save_pretrained(tmp_path / "saved")
    again = CodiModel.from_pretrained(folder, dtype=torch.bfloat16)
    assert again.fingerprint() == model.fingerprint()
    assert again.lens.W_E.dtype == torch.bfloat16


def test_saving_what_the_architecture_cannot_hold_is_refused(tmp_path: Path) -> None:
    model = CodiModel.from_pretrained(make(tmp_path / "made", Recipe("llama")))
    model.lens.blocks[1].attn.b_O.data += 1
    with pytest.raises(CheckpointError, match=r"'llama' has no place for blocks\.1\.attn\.b_O"):
        model.save_pretrained(tmp_path / "saved")
    assert not list(tmp_path.glob("*saved*")), "nothing half-written is left"


def test_changed_weights_are_what_is_saved(tmp_path: Path) -> None:
    model = CodiModel.from_pretrained(make(tmp_path / "made", Recipe("gpt2")))
    model.lens.blocks[1].attn.W_V.data[2] = 0
    again = CodiModel.from_pretrained(model.save_pretrained(tmp_path / "saved"))
    assert again.fingerprint() == model.fingerprint()


def test_dropped_decoder_is_said(tmp_path: Path) -> None:
    folder = make(tmp_path / "m", Recipe(sim_cot=True))
    with pytest.warns(CheckpointWarning, match="2 tensors of an auxiliary decoder"):
        model = CodiModel.from_pretrained(folder)
    assert "dropped" in model.config.notes[0]


def test_weights_share_no_memory_with_the_file(tmp_path: Path) -> None:
    folder = make(tmp_path / "m", Recipe("llama", lora=(), files="merged export"))
    model = CodiModel.from_pretrained(folder)
    before = model.fingerprint()
    path = folder / "model.safetensors"
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        file.write(b"\0" * 20_000)
    assert model.fingerprint() == before


def test_tied_weights_are_in_memory_once(tmp_path: Path) -> None:
    lens = CodiModel.from_pretrained(make(tmp_path / "m", Recipe("qwen2"))).lens
    assert lens.W_E.untyped_storage().data_ptr() == lens.W_U.untyped_storage().data_ptr()


def test_untied_head_counts_even_where_the_config_ties_it(tmp_path: Path) -> None:
    folder = make(tmp_path / "m", Recipe("qwen2"))
    path = folder / "pytorch_model.bin"
    state = torch.load(path, weights_only=True)
    head = next(key for key in state if key.endswith("lm_head.weight"))
    torch.save(state | {head: state[head] + 1}, path)
    with pytest.warns(CheckpointWarning, match="an unembedding of its own"):
        model = CodiModel.from_pretrained(folder)
    assert torch.equal(model.lens.W_U.T, state[head] + 1)
    assert torch.equal(model.lens.W_E, state[head])
    assert verify(model, n=2, settings=False, max_new_tokens=2).passed


@pytest.mark.parametrize("backbone", ["gpt2", "llama", "pythia"])
def test_bfloat16_model_thinks_almost_the_same(backbone: str, tmp_path: Path) -> None:
    folder = make(tmp_path / "m", Recipe(backbone))
    exact = CodiModel.from_pretrained(folder).think([QUESTION], max_new_tokens=1)
    half = CodiModel.from_pretrained(folder, dtype=torch.bfloat16)
    run = half.think([QUESTION], max_new_tokens=1, thoughts=exact.thoughts)
    assert run.thoughts.dtype == torch.bfloat16
    assert (run.attention - exact.attention).isel(query=slice(0, -1)).max() < 0.1


def test_mistral_window_is_used(tmp_path: Path) -> None:
    """A window wider than any question changes the model: the narrow one really cuts."""
    folder = make(tmp_path / "m", Recipe("mistral"))
    narrow = CodiModel.from_pretrained(folder).think([QUESTION], max_new_tokens=1).thoughts
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"sliding_window": 200}))
    wide = CodiModel.from_pretrained(folder).think([QUESTION], max_new_tokens=1).thoughts
    assert (narrow - wide).abs().max() > 0.1


def test_own_thought_tokens_are_found_or_named(tmp_path: Path) -> None:
    folder = make(tmp_path / "m", Recipe("gpt2", own_tokens=True))
    config = read_checkpoint(folder).config
    own = json.loads((folder / "tokenizer.json").read_text())["added_tokens"]
    ids = {token["content"]: token["id"] for token in own}
    assert (config.bot, config.eot) == (ids["<|bocot|>"], ids["<|eocot|>"])
    assert read_checkpoint(folder, bot="<|eocot|>", eot="<|bocot|>").config.bot == config.eot
    assert read_checkpoint(folder, bot=3, eot=4).config.opening == [3]
    with pytest.raises(CheckpointError, match="no token '<think>'"):
        read_checkpoint(folder, bot="<think>", eot="<|eocot|>")
    with pytest.raises(CheckpointError, match="says bot alone; give both bot and eot"):
        read_checkpoint(folder, bot="<|bocot|>")
    with pytest.raises(CheckpointError, match="id 4000, but its embedding has"):
        read_checkpoint(folder, bot=4000, eot=4001)
    with pytest.raises(CheckpointError, match="with the same token"):
        read_checkpoint(folder, bot=3, eot=3)


def test_eos_after_eot_follows_remove_eos_unless_said(tmp_path: Path) -> None:
    folder = make(tmp_path / "m", Recipe(remove_eos=False))
    config = read_checkpoint(folder).config
    assert (config.opening, config.closing) == ([config.eos, config.bot], [config.eot, config.eos])
    settings = json.loads((folder / "codi_config.json").read_text())
    (folder / "codi_config.json").write_text(json.dumps(settings | {"eos_after_eot": False}))
    assert read_checkpoint(folder).config.closing == [config.eot]


def test_padding_rows_are_never_decoded(tmp_path: Path) -> None:
    folder = make(tmp_path / "m", Recipe("llama", padding=5))
    model = CodiModel.from_pretrained(folder)
    padding = slice(model.config.n_tokens, model.lens.cfg.d_vocab)
    assert model.config.never_decoded(model.lens.cfg.d_vocab) == [402, 403, 404, 405, 406, 407]
    model.lens.unembed.b_U.data[padding] = 1000.0
    model.lens.unembed.b_U.data[model.config.eot] = 1000.0
    tokens = model.think([QUESTION], max_new_tokens=4).answer_tokens[0]
    assert tokens
    assert max(tokens) < 402


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model_type": "llama", "attention_bias": True}, "llama models with attention_bias"),
        ({"model_type": "llama", "mlp_bias": True}, "llama models with mlp_bias = True"),
        ({"model_type": "qwen3", "attention_bias": True}, "only those with attention_bias"),
        ({"model_type": "gpt_neox", "attention_bias": False}, "attention_bias = False are not"),
    ],
)
def test_variants_that_are_not_exact_are_refused(values: dict[str, Any], message: str) -> None:
    config = AutoConfig.for_model(**values)
    with pytest.raises(CheckpointError, match=message):
        settings_of(config)


def test_shapes_of_published_models_translate() -> None:
    """LLaMA 1B, 3B and 8B: head counts, widths and rope scaling of the published configs."""
    rope = {
        "rope_type": "llama3", "rope_theta": 500000.0, "factor": 32.0, "low_freq_factor": 1.0,
        "high_freq_factor": 4.0, "original_max_position_embeddings": 8192,
    }  # fmt: skip
    shapes = {"1B": (2048, 8192, 16, 32), "3B": (3072, 8192, 28, 24), "8B": (4096, 14336, 32, 32)}
    for width, inner, n_layers, n_heads in shapes.values():
        config = AutoConfig.for_model(
            "llama", hidden_size=width, intermediate_size=inner, num_hidden_layers=n_layers,
            num_attention_heads=n_heads, num_key_value_heads=8, max_position_embeddings=131072,
            rope_parameters=rope, vocab_size=128259,
        )  # fmt: skip
        lens = settings_of(config)
        shape = [lens[key] for key in ("d_model", "n_layers", "d_head", "n_ctx")]
        assert shape == [width, n_layers, width // n_heads, 131072]
        assert (lens["n_key_value_heads"], lens["NTK_by_parts_factor"]) == (8, 32.0)


def test_supported_architectures_are_all_tested() -> None:
    assert {model_type for model_type, _ in ARCHITECTURES.values()} == set(supported())


def in_hub_cache(folder: Path, name: str, cache: Path, revision: str = "main") -> None:
    """Put a folder where `huggingface_hub` looks for a downloaded repository."""
    repository = cache / f"models--{name.replace('/', '--')}"
    commit = "0123456789abcdef0123456789abcdef01234567"
    (repository / "refs").mkdir(parents=True, exist_ok=True)
    (repository / "refs" / revision).write_text(commit)
    shutil.copytree(folder, repository / "snapshots" / commit, dirs_exist_ok=True)


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty hub cache, and no network: the real download code, up to the network."""
    cache = tmp_path / "hub"
    cache.mkdir()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return cache


def test_published_name_loads_from_the_cache_with_its_known_settings(
    hub_cache: Path, tmp_path: Path
) -> None:
    """`zen-E/CODI-gpt2` holds one .bin; config and tokenizer come from the base it was made of."""
    made = make(tmp_path / "made", Recipe("gpt2", alpha=32), settings=False)
    base = tmp_path / "base"
    base.mkdir()
    for path in made.glob("*.json"):
        path.rename(base / path.name)
    in_hub_cache(made, "zen-E/CODI-gpt2", hub_cache)
    in_hub_cache(base, "openai-community/gpt2", hub_cache)
    model = CodiModel.from_pretrained("zen-E/CODI-gpt2")
    local = CodiModel.from_pretrained(made, base, lora_alpha=32, n_thoughts=6, remove_eos=True)
    assert model.fingerprint() == local.fingerprint()
    assert model.config.base == "openai-community/gpt2"
    in_hub_cache(made, "zen-E/CODI-gpt2", hub_cache, revision="v2")
    assert CodiModel.from_pretrained("zen-E/CODI-gpt2", revision="v2").config.revision == "v2"
    with pytest.raises(CheckpointError, match=r"\(revision v3\).*HF_HOME"):
        CodiModel.from_pretrained("zen-E/CODI-gpt2", revision="v3")


def test_offline_without_a_cached_base_says_what_to_pass(hub_cache: Path, tmp_path: Path) -> None:
    made = make(tmp_path / "made", Recipe("gpt2"), settings=False)
    for path in made.glob("*.json"):
        path.unlink()
    in_hub_cache(made, "zen-E/CODI-gpt2", hub_cache)
    with pytest.raises(CheckpointError, match=r"read from openai-community/gpt2 .*; pass base="):
        CodiModel.from_pretrained("zen-E/CODI-gpt2")


def response_error(kind: type[Exception]) -> Callable[..., None]:
    """What `huggingface_hub` raises for a repository it may not or cannot read."""
    import httpx

    response = httpx.Response(403, request=httpx.Request("GET", "https://example.org"))

    def fail(*_: object, **__: object) -> None:
        raise kind("refused", response=response)  # type: ignore[call-arg]

    return fail


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (GatedRepoError, "owner/name .* is gated: accept its licence .* `hf auth login`"),
        (RepositoryNotFoundError, "no hub repository of that name; if it is private"),
        (RevisionNotFoundError, "has no revision main2; give a branch, tag or commit"),
    ],
)
def test_hub_refusals_say_what_to_do(
    kind: type[Exception], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("codi_lens.loading.hub.snapshot_download", response_error(kind))
    with pytest.raises(CheckpointError, match=message):
        CodiModel.from_pretrained("owner/name", revision="main2")


def test_gated_base_says_what_to_do(
    hub_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make(tmp_path / "made", Recipe("llama"), settings=False)
    for path in made.glob("*.json"):
        path.unlink()
    in_hub_cache(made, "zen-E/CODI-llama3.2-1b-Instruct", hub_cache)
    monkeypatch.setattr(PretrainedConfig, "get_config_dict", response_error(GatedRepoError))
    with pytest.raises(CheckpointError, match=r"1B-Instruct is gated: accept .* pass base="):
        CodiModel.from_pretrained("zen-E/CODI-llama3.2-1b-Instruct")


def test_known_checkpoints_say_everything() -> None:
    for name, settings in known_checkpoints().items():
        assert name.count("/") == 1
        assert {"base", "n_thoughts", "remove_eos"} <= settings.keys()
        merged = "latent-tts" in name or name.endswith("Coconut")
        assert ("lora_alpha" in settings) != merged


def test_one_of_several_shards_missing_is_named(tmp_path: Path) -> None:
    folder = make(tmp_path / "m", Recipe(files="shards without index"))
    (folder / "model-00001-of-00001.safetensors").rename(
        folder / "model-00001-of-00003.safetensors"
    )
    with pytest.raises(CheckpointError, match="holds 1 of the 3 shards"):
        CodiModel.from_pretrained(folder)


def test_distributed_wrappers_and_adapter_names_do_not_matter(tmp_path: Path) -> None:
    folder = make(tmp_path / "m", Recipe())
    before = CodiModel.from_pretrained(folder).fingerprint()
    path = folder / "pytorch_model.bin"
    state = torch.load(path, weights_only=True)
    renamed = {f"module.{key.replace('.default.', '.mine.')}": v for key, v in state.items()}
    torch.save({"state_dict": renamed, "epoch": 3}, path)
    assert CodiModel.from_pretrained(folder).fingerprint() == before


def test_several_adapters_are_refused(tmp_path: Path) -> None:
    folder = make(tmp_path / "m", Recipe())
    path = folder / "pytorch_model.bin"
    state = torch.load(path, weights_only=True)
    key = next(key for key in state if ".lora_A." in key)
    torch.save(state | {key.replace("default", "other"): state[key]}, path)
    with pytest.raises(CheckpointError, match=r"several LoRA adapters \(default, other\)"):
        CodiModel.from_pretrained(folder)
