"""Coconut, LatentTTS, PEFT and SIM-CoT: what their own code computes, or one sentence."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.checkpoint_maker import EMBEDDINGS, LATENT_TOKENS, Recipe, load, make, recipe
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from codi_lens import CheckpointError, CheckpointWarning, CodiModel
from codi_lens.loading.checkpoint import read_checkpoint
from codi_lens.loading.config import known_checkpoints
from codi_lens.verification.verify import verify

QUESTIONS = [
    "Zoe has 14 coins. Then she finds 7 more. How many coins does she have?",
    "  A  shop sells 3 pens. How many are left?  ",
]
State = dict[str, Tensor]
pytestmark = pytest.mark.filterwarnings(
    "ignore:The tokenizer in:codi_lens.errors.CheckpointWarning",
    "ignore:.*auxiliary decoder:codi_lens.errors.CheckpointWarning",
)


@torch.no_grad()
def coconut(language_model: Any, ids: list[int], latent: int) -> tuple[Tensor, Tensor]:
    """Coconut's forward pass in its own terms: latents are filled one after another.

    Each pass runs the whole sequence up to the next latent, without a cache, and puts the last
    hidden state before it where the latent's embedding was.

    Returns:
        What was fed at the latents, and the logits behind the last token.
    """
    vectors = language_model.get_input_embeddings()(torch.tensor([ids])).clone()
    places = [i for i, token in enumerate(ids) if token == latent]
    for place in places:
        out = language_model(inputs_embeds=vectors[:, :place], output_hidden_states=True)
        vectors[0, place] = out.hidden_states[-1][0, -1]
    logits = language_model(inputs_embeds=vectors).logits[0, -1]
    return vectors[0, places], logits


@pytest.mark.parametrize("backbone", ["gpt2", "llama", "qwen2"])
@pytest.mark.parametrize("layout", ["Coconut's file, with SIM-CoT's decoder", "LatentTTS, Coconut"])
def test_a_coconut_model_thinks_as_coconut_does(layout: str, backbone: str, tmp_path: Path) -> None:
    made = recipe(backbone, layout)
    folder = make(tmp_path / "m", made)
    model = load(folder, made)
    home = folder / "base" if (folder / "base").exists() else folder
    tokenizer = AutoTokenizer.from_pretrained(home)
    tokenizer.add_tokens(list(LATENT_TOKENS))  # as its code does, whether or not they are there
    start, end, latent = tokenizer.convert_tokens_to_ids(list(LATENT_TOKENS))
    state = {
        key.removeprefix("base_causallm."): value
        for path in folder.iterdir()
        if path.name in ("checkpoint_28", "model.safetensors")
        for key, value in (
            load_file(path) if path.suffix else torch.load(path, weights_only=True)
        ).items()
        if not key.startswith(("embedding.", "expainable_llm."))
    }
    config = AutoConfig.from_pretrained(home)
    (config.vocab_size,) = {len(v) for k, v in state.items() if k.endswith(EMBEDDINGS)}
    language_model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    assert language_model.load_state_dict(state, strict=False).unexpected_keys == []
    language_model.tie_weights()
    run = model.think(QUESTIONS, max_new_tokens=2)
    for i, question in enumerate(QUESTIONS):
        text = question.strip().replace("  ", " ") + "\n"
        ids = [*tokenizer.encode(text), start, *[latent] * made.n_thoughts, end]
        thoughts, logits = coconut(language_model, ids, latent)
        assert len(thoughts) == made.n_thoughts
        torch.testing.assert_close(run.thoughts[i], thoughts, rtol=0, atol=5e-5)
        torch.testing.assert_close(run.logits[i], logits, rtol=0, atol=5e-5)
        bare = model.think([tokenizer.encode(text)], max_new_tokens=1)
        torch.testing.assert_close(bare.logits[0], logits, rtol=0, atol=5e-5)
    (without,) = model.think([tokenizer.encode(QUESTIONS[0])], max_new_tokens=1).logits
    assert (without - run.logits[0]).abs().max() > 1e-2, "the newline counts"


def test_coconut_asks_for_the_number_of_thoughts_alone(tmp_path: Path) -> None:
    folder = make(tmp_path / "m", Recipe(lora=(), files="Coconut", projection=None))
    with pytest.raises(CheckpointError, match=r"say n_thoughts; .* \(Coconut's c_thought times"):
        read_checkpoint(folder / "checkpoint_28", base=folder / "base")
    whole = CodiModel.from_pretrained(folder, folder / "base", n_thoughts=2)
    assert whole.config.question_end == "\n"
    assert (whole.config.opening, whole.config.closing) == ([400], [401])
    with pytest.raises(CheckpointError, match="does not say its base model; pass base="):
        CodiModel.from_pretrained(folder / "checkpoint_28", n_thoughts=2)
    for path in (folder / "base").iterdir():
        shutil.copy(path, folder)
    assert CodiModel.from_pretrained(folder, n_thoughts=2).fingerprint() == whole.fingerprint()


def test_a_question_end_is_kept_and_counts(tmp_path: Path) -> None:
    made = Recipe(lora=(), files="Coconut", projection=None)
    model = load(make(tmp_path / "m", made), made)
    saved = model.save_pretrained(tmp_path / "saved")
    assert json.loads((saved / "codi_config.json").read_text())["question_end"] == "\n"
    again = CodiModel.from_pretrained(saved)
    assert again.fingerprint() == model.fingerprint()
    assert verify(again, n=2, settings=False).passed
    (saved / "codi_config.json").write_text(
        (saved / "codi_config.json").read_text().replace('"\\n"', '""')
    )
    other = CodiModel.from_pretrained(saved)
    assert other.fingerprint() != model.fingerprint()
    logits = [m.think(QUESTIONS[:1], max_new_tokens=1).logits for m in (model, other)]
    assert (logits[0] - logits[1]).abs().max() > 1e-2
    (saved / "codi_config.json").write_text('{"question_end": 3}')
    with pytest.raises(CheckpointError, match="gives question_end = 3; it must be a text"):
        CodiModel.from_pretrained(saved)


def test_a_plain_language_model_is_taken_for_coconut_only_where_something_says_so(
    tmp_path: Path,
) -> None:
    made = recipe("gpt2", "LatentTTS, Coconut")
    folder = make(tmp_path / "m", made)
    assert load(folder, made).config.question_end == "\n"
    for name in ("tokenizer.json", "tokenizer_config.json"):
        text = (folder / name).read_text()
        (folder / name).write_text(text.replace("start-latent", "begin-latent"))
    with pytest.raises(CheckpointError, match="is not a CODI checkpoint: no key begins with"):
        load(folder, made)


def test_published_names_of_new_families_need_no_argument(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their files in the hub's cache, in the layout that is public, and no network."""
    cache = tmp_path / "hub"
    published = {
        "ModalityDance/latent-tts-codi": "LatentTTS, CODI",
        "ModalityDance/latent-tts-coconut": "LatentTTS, Coconut",
        "internlm/SIM_COT-GPT2-Coconut": "Coconut's file, with SIM-CoT's decoder",
    }
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for number, (name, layout) in enumerate(published.items()):
        made = recipe("gpt2", layout)
        folder = make(tmp_path / str(number), made)
        base = folder / "base" if (folder / "base").exists() else folder
        for source, target in ((folder, name), (base, "openai-community/gpt2")):
            repository = cache / f"models--{target.replace('/', '--')}"
            commit = "0123456789abcdef0123456789abcdef01234567"
            shutil.copytree(source, repository / "snapshots" / commit, dirs_exist_ok=True)
            (repository / "refs").mkdir(exist_ok=True)
            (repository / "refs" / "main").write_text(commit)
            if target == name and base != folder:  # an empty config.json, and no tokenizer
                (repository / "snapshots" / commit / "config.json").touch()
        model = CodiModel.from_pretrained(name, cache_dir=cache, token="hf_not_used")
        assert model.config.n_thoughts == known_checkpoints()[name]["n_thoughts"]
        assert verify(model, n=1, settings=False).passed, "it is read again from the same cache"
        assert "hf_not_used" not in repr(model.config)
    with pytest.raises(CheckpointError, match="could not be fetched"):
        CodiModel.from_pretrained(name)


def test_an_adapter_is_merged_into_the_weights_of_its_base(tmp_path: Path) -> None:
    made = recipe("llama", "PEFT adapter with prj.pt, weights in its base")
    folder = make(tmp_path / "m", made)
    model = load(folder, made)
    assert model.config.base == str(folder / "base") and model.config.lora_rank == made.rank
    moved = Path(shutil.move(folder / "base", tmp_path / "elsewhere"))
    with pytest.raises(CheckpointError, match=r"There is no base model folder '.*/m/base'"):
        CodiModel.from_pretrained(folder)
    again = CodiModel.from_pretrained(folder, moved)
    assert again.fingerprint() == model.fingerprint()
    assert verify(again, n=1, settings=False).passed


def test_an_adapter_without_a_projection_never_guesses(tmp_path: Path) -> None:
    made = recipe("gpt2", "PEFT adapter with prj.pt, weights in its base")
    folder = make(tmp_path / "m", made)
    (folder / "prj.pt").unlink()
    with pytest.raises(CheckpointError, match=r"without the projection .* \"projection\": false"):
        load(folder, made)
    told = json.loads((folder / "codi_config.json").read_text())
    (folder / "codi_config.json").write_text(json.dumps(told | {"projection": False}))
    model = load(folder, made)
    assert isinstance(model.projection, torch.nn.Identity)
    assert verify(model, n=1, settings=False).passed
    (folder / "codi_config.json").write_text(json.dumps(told | {"projection": True}))
    with pytest.raises(CheckpointError, match="pass a projection, and its files hold none"):
        load(folder, made)


def test_a_file_that_lost_its_projection_is_told(tmp_path: Path) -> None:
    made = recipe("gpt2", "LoRA in one .bin")
    folder = make(tmp_path / "m", made)
    changed("pytorch_model.bin", lambda state: {k: v for k, v in state.items() if "prj" not in k})(
        folder
    )
    with pytest.warns(CheckpointWarning, match="holds no projection, so its thoughts"):
        model = load(folder, made)
    assert any("holds no projection" in note for note in model.config.notes)
    model.save_pretrained(tmp_path / "saved")  # which says that there is none
    assert CodiModel.from_pretrained(tmp_path / "saved").fingerprint() == model.fingerprint()
    told("codi_config.json", projection=True)(folder)
    with pytest.raises(CheckpointError, match="pass a projection, and its files hold none"):
        load(folder, made)


def test_a_saved_model_that_lost_its_projection_is_refused(tmp_path: Path) -> None:
    saved = CodiModel.from_pretrained("tiny-gpt2").save_pretrained(tmp_path / "saved")
    (saved / "projection.safetensors").unlink()
    with pytest.raises(CheckpointError, match="pass a projection, and its files hold none"):
        CodiModel.from_pretrained(saved)


def test_a_projection_saved_with_the_adapter_is_found(tmp_path: Path) -> None:
    made = recipe("gpt2", "PEFT adapter with prj.pt, weights in its base")
    folder = make(tmp_path / "m", made)
    before = load(folder, made).fingerprint()
    path = folder / "adapter_model.safetensors"
    projection = torch.load(folder / "prj.pt", weights_only=True)
    inside = {f"base_model.model.prj.{key}": value for key, value in projection.items()}
    save_file(load_file(path) | inside, path)
    (folder / "prj.pt").unlink()
    assert load(folder, made).fingerprint() == before


def changed(file: str, change: Callable[[State], State]) -> Callable[[Path], None]:
    """Change the tensors of a file."""

    def damage(folder: Path) -> None:
        path = folder / file
        if path.suffix == ".safetensors":
            save_file(change(load_file(path)), path)
        else:
            torch.save(change(torch.load(path, weights_only=True)), path)

    return damage


def without(*keys: str) -> Callable[[State], State]:
    return lambda state: {key: value for key, value in state.items() if not key.endswith(keys)}


def told(file: str, **values: Any) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        said = json.loads((folder / file).read_text()) | values
        (folder / file).write_text(json.dumps({k: v for k, v in said.items() if v is not None}))

    return damage


PEFT = "PEFT adapter with prj.pt, weights in its base"
SAFE, COCONUT = "model.safetensors", "checkpoint_28"
DAMAGED: list[tuple[str, Callable[[Path], None], str]] = [
    ("LatentTTS, CODI", changed(SAFE, without("projector.3.bias")), r"lacks projector\.3\.bias"),
    ("LatentTTS, CODI", changed(SAFE, without("projector.4.bias")), r"lacks projector\.4\.bias"),
    (
        "LatentTTS, CODI",
        changed(SAFE, lambda s: s | {"projector.1.weight": s["projector.1.weight"][:, :5].clone()}),
        r"projector\.1\.weight of .* shape \(64, 5\)",
    ),
    (
        "LatentTTS, CODI",
        changed(SAFE, lambda s: s | {"projector.7.weight": torch.ones(1)}),
        r"LatentTTS CODI does not know: projector\.7\.weight",
    ),
    ("LatentTTS, Coconut", changed(SAFE, without("ln_f.weight")), r"lacks transformer\.ln_f"),
    (
        "Coconut's file",
        changed(COCONUT, lambda s: s | {"embedding.weight": s["embedding.weight"] + 1}),
        r"a second time, as embedding\.weight, and the two differ",
    ),
    (
        "Coconut's file",
        changed(COCONUT, lambda s: s | {"embedding.weight": s["embedding.weight"][:9]}),
        r"a second time, as embedding\.weight, and the two differ",
    ),
    (
        "Coconut's file",
        changed(COCONUT, lambda s: s | {"reward_head.weight": torch.ones(1)}),
        r"Coconut does not know: reward_head\.weight",
    ),
    (
        "Coconut's file",
        changed(COCONUT, lambda s: {k: v[:402] if "wte" in k else v for k, v in s.items()}),
        "differ",
    ),
    (
        "LatentTTS, CODI",
        told("tokenizer_config.json", bos_token=""),
        "gives bos_token = '', which is none of its tokens",
    ),
    (PEFT, told("adapter_config.json", base_model_name_or_path=None), "adapter alone|pass base="),
    (PEFT, told("adapter_config.json", peft_type="IA3"), "adapter of type 'IA3'; codi_lens merges"),
    (PEFT, told("adapter_config.json", use_dora=True), "sets use_dora, which"),
    (
        PEFT,
        changed("adapter_model.safetensors", without("wte.weight", "lm_head.weight")),
        r"has 400 rows; the base vocabulary of 400 with pad, bot, eot makes 403",
    ),
    (
        PEFT,
        changed("adapter_model.safetensors", without("h.0.attn.c_attn.lora_A.weight")),
        "without its other half",
    ),
    (PEFT, changed("base/model.safetensors", without("ln_f.weight")), r"base model .* lacks"),
    (PEFT, lambda f: (f / "base/model.safetensors").unlink(), "weights of the base model could"),
    (PEFT, changed("prj.pt", without("1.bias")), r"lacks prj\.1\.bias"),
    ("merged export with prj.pt", changed("prj.pt", lambda s: {"9.x": s["1.bias"]}), r"prj\.9\.x"),
]


@pytest.mark.parametrize(("layout", "damage", "message"), DAMAGED)
def test_damaged_layouts_are_one_sentence(
    layout: str, damage: Callable[[Path], None], message: str, tmp_path: Path
) -> None:
    made = recipe("gpt2", layout)
    folder = make(tmp_path / "m", made)
    load(folder, made)
    damage(folder)
    with pytest.raises(CheckpointError, match=message) as caught:
        load(folder, made)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("model_type", ["phi", "falcon", "gemma", "opt"])
def test_an_architecture_that_is_not_exact_says_so(model_type: str, tmp_path: Path) -> None:
    made = recipe("gpt2", "LoRA in one .bin")
    folder = make(tmp_path / "m", made)
    AutoConfig.for_model(model_type).save_pretrained(folder)
    with pytest.raises(CheckpointError, match=f"'{model_type}' of .*/m is not supported, as a H"):
        load(folder, made)
