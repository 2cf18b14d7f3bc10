"""A HookedTransformer and a TransformerBridge give the same numbers; traps of the bridge.

Where TransformerLens has the bridge alone, the suite itself runs on it, against the oracle.
"""

from __future__ import annotations

import pickle
import sys
import weakref
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.checkpoint_maker import ARCHITECTURES, BRIDGED, TARGETS, Recipe, make
from support.oracle import FIXTURES, FORCED, ORACLE_SETTINGS, largest

from codi_lens import (
    CodiModel,
    InterventionError,
    ablate_heads,
    extract,
    knock_out,
    rank_heads,
    sweep_heads,
)
from codi_lens.causal.attribution import head_attributions
from codi_lens.errors import CheckpointError
from codi_lens.loading.backends import backend_of, class_of, usable_backend
from codi_lens.problems import word_problems
from codi_lens.readout import answer_attribution, logit_lens
from codi_lens.thinking.engine import engine_of

both = pytest.mark.skipif(class_of("hooked") is None, reason="TransformerLens 4 has one backend")
TINY = ("tiny-gpt2", "tiny-llama")
PROBLEMS = word_problems(6, seed=3)
QUESTIONS = [problem.question for problem in PROBLEMS]


@pytest.fixture(scope="module", params=TINY)
def pair(request: pytest.FixtureRequest) -> tuple[CodiModel, CodiModel]:
    if class_of("hooked") is None:
        pytest.skip("TransformerLens 4 has one backend")
    hooked, bridge = (
        CodiModel.from_pretrained(request.param, backend=backend)
        for backend in ("hooked", "bridge")
    )
    return hooked, bridge


@pytest.fixture(scope="module", params=TINY)
def bridge(request: pytest.FixtureRequest) -> CodiModel:
    return CodiModel.from_pretrained(request.param, backend="bridge")


def test_the_first_that_is_there_is_the_default() -> None:
    expected = "bridge" if class_of("hooked") is None else "hooked"
    assert usable_backend(None) == expected
    assert backend_of(CodiModel.from_pretrained("tiny-gpt2").lens) == expected
    given: Any = {"backend": "native"}
    with pytest.raises((CheckpointError, TypeError), match="'native'"):  # jaxtyping's, in tests
        CodiModel.from_pretrained("tiny-gpt2", **given)


def test_what_is_not_installed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "codi_lens.loading.backends.class_of", lambda name: object if name == "bridge" else None
    )
    assert usable_backend(None) == "bridge"
    with pytest.raises(CheckpointError, match=r"needs a HookedTransformer, .* it has 'bridge'"):
        usable_backend("hooked")


@both
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_the_bridge_equals_the_original_code(family: str) -> None:
    """On TransformerLens 4 tests/thinking/test_think.py says so of every model."""
    from safetensors.torch import load_file

    folder = FIXTURES / "oracle" / family
    model = CodiModel.from_pretrained(
        folder / "ckpt", folder / "base", backend="bridge", **ORACLE_SETTINGS
    )
    tensors = load_file(folder / "oracle.safetensors")
    for i in range(6):
        expected = tensors[f"q{i}.latents"][:6]
        ids = tensors[f"q{i}.input_ids"].tolist()
        run = model.think([ids], thoughts=expected[None], max_new_tokens=1)
        assert largest(run.predicted_thoughts[0], expected) <= FORCED
        assert largest(run.logits[0], tensors[f"q{i}.logits_eot"]) <= FORCED


@both
def test_every_hook_sees_the_same(pair: tuple[CodiModel, CodiModel]) -> None:
    runs = [model.think(QUESTIONS, names_filter=lambda _: True) for model in pair]
    assert runs[0].answers == runs[1].answers
    assert largest(runs[0].thoughts, runs[1].thoughts) <= FORCED
    hooked, bridge = (run.cache() for run in runs)
    assert hooked.keys() == bridge.keys()
    padding = torch.tensor([[text == "" for text in row] for row in runs[0].tokens])
    for name, expected in hooked.items():
        found, rows = bridge[name], padding
        assert found.shape == expected.shape, name
        if name.endswith(("hook_pattern", "hook_attn_scores")):  # a row of each head
            rows = padding[:, None].expand(*expected.shape[:3])
        masked = torch.isinf(expected[~rows])
        assert torch.equal(masked, torch.isinf(found[~rows])), name
        assert largest(expected[~rows][~masked], found[~rows][~masked]) <= 2e-4, name
        if name.endswith("hook_pattern"):
            assert not found[padding[:, None].expand(*found.shape[:3])].any(), "padding attends"


@both
def test_every_edit_acts_the_same(pair: tuple[CodiModel, CodiModel]) -> None:
    """An edit at each hook of a layer, at a thought, moves both by the same."""
    names = [name for name in engine_of(pair[0].lens).points if name.startswith("blocks.1.")]
    silent = ("hook_attn_in", "_input", "hook_mlp_in", "hook_result")
    names = [name for name in names if not name.endswith(silent)]
    clean = pair[0].think(QUESTIONS[:2]).thoughts
    for name in names:
        edit = (name, partial(_halved))
        moved = [
            model.think(QUESTIONS[:2], interventions=_at(edit, "ct1")).thoughts for model in pair
        ]
        assert largest(moved[0], moved[1]) <= 3e-4, name
        assert largest(moved[0], clean) > 10 * largest(moved[0], moved[1]), name


def _halved(activation: torch.Tensor, hook: Any) -> torch.Tensor:
    if hook.name.endswith("hook_attn_scores"):  # all by the same would change nothing
        return activation * 0.5
    return activation / 2 if not hook.name.endswith("hook_scale") else activation * 2


def _at(edit: Any, position: str) -> Any:
    from codi_lens import Intervention

    return Intervention([edit], at=position)


def test_switched_hooks_fire_where_they_are_switched_on(bridge: CodiModel) -> None:
    name = "blocks.1.attn.hook_result"
    edit = _at((name, _halved), "ct1")
    with pytest.raises(InterventionError, match=r"never fired|fired in 0"):
        bridge.think(QUESTIONS[:1], interventions=edit)
    clean = bridge.think(QUESTIONS[:1]).thoughts
    bridge.lens.set_use_attn_result(True)
    try:
        edited = bridge.think(QUESTIONS[:1], interventions=edit).thoughts
    finally:
        bridge.lens.set_use_attn_result(False)
    assert largest(clean, edited) > 1e-3
    with pytest.raises(InterventionError, match=r"no hook 'blocks.1.attn.hook_zz'"):
        bridge.think(QUESTIONS[:1], interventions=_at(("blocks.1.attn.hook_zz", _halved), "ct1"))


@both
def test_the_same_heads_rank_and_the_same_ablations_act(
    pair: tuple[CodiModel, CodiModel], tmp_path: Path
) -> None:
    tables = [
        rank_heads(extract(model, PROBLEMS, tmp_path / f"{i}.zarr", progress=False))
        for i, model in enumerate(pair)
    ]
    ours, theirs = (table.sort_values("name").select_dtypes("number") for table in tables)
    assert np.nanmax(abs(ours.to_numpy(float) - theirs.to_numpy(float))) <= 1e-4
    for acting in (
        ablate_heads([(1, 1), (2, 2)], mode="mean"),
        ablate_heads([(1, 1)], mode="resample", at="ct0"),
        knock_out("ct2", "ct0", heads=[(1, 1)]),
    ):
        runs = [model.think(QUESTIONS, interventions=acting) for model in pair]
        assert runs[0].answers == runs[1].answers
        assert largest(runs[0].thoughts, runs[1].thoughts) <= 5e-4


@both
def test_sweeps_gradients_and_lenses_agree(pair: tuple[CodiModel, CodiModel]) -> None:
    swept = [sweep_heads(model, PROBLEMS, heads=[(1, 1), (2, 3)], progress=False) for model in pair]
    effects = [each["effect"].to_numpy(float) for each in swept]
    assert largest(*effects) <= 1e-4
    given = [head_attributions(model, PROBLEMS, progress=False) for model in pair]
    assert largest(*(each.fillna(0).values for each in given)) <= 1e-3
    parts = [answer_attribution(model, PROBLEMS, progress=False) for model in pair]
    for name in ("total", "by_head", "mlp", "embedding", "remainder"):
        assert largest(*(each[name].fillna(0).values for each in parts)) <= 1e-3, name
    lenses = [logit_lens(model, PROBLEMS, progress=False) for model in pair]
    assert largest(*(each["entropy"].fillna(0).values for each in lenses)) <= 1e-3


@both
def test_other_ways_of_thinking_agree(pair: tuple[CodiModel, CodiModel]) -> None:
    for way in ("skip", "explain"):
        runs = [getattr(model, way)(QUESTIONS) for model in pair]
        assert runs[0].answers == runs[1].answers
        assert np.nanmax(abs(runs[0].attention - runs[1].attention)) <= 1e-4


def test_padding_changes_nothing(bridge: CodiModel) -> None:
    """With vectors for tokens a bridge does not work out positions from the mask (1607, 1609)."""
    questions = [QUESTIONS[0], "Zoe has 14 coins. Then she finds 7 more. How many coins has she?"]
    assert len({len(bridge.tokenizer(text)["input_ids"]) for text in questions}) == 2
    together = bridge.think(questions)
    for i, question in enumerate(questions):
        alone = bridge.think([question])
        assert largest(alone.thoughts[0], together.thoughts[i]) <= FORCED
        assert largest(alone.attention[0].fillna(0), together.attention[i].fillna(0)) <= FORCED


def test_replay_equals_the_run_with_its_cache(bridge: CodiModel) -> None:
    run = bridge.think(QUESTIONS[:2], names_filter="blocks.1.hook_resid_post")
    kept, replayed = run.cache(), bridge.think(QUESTIONS[:2]).cache()
    real = torch.tensor([[text != "" for text in row] for row in run.tokens])
    name = "blocks.1.hook_resid_post"
    assert largest(kept[name][real], replayed[name][real]) <= 1e-4


def test_folded_norms_are_refused() -> None:
    model = CodiModel.from_pretrained("tiny-gpt2", backend="bridge")
    lens: Any = model.lens
    lens.enable_compatibility_mode(no_processing=True)
    assert model.think(QUESTIONS[:1]).answers == [f"The answer is: {PROBLEMS[0].answer:g}"]
    lens.enable_compatibility_mode()
    with pytest.raises(CheckpointError, match=r"final norm of model\.lens is folded"):
        model.think(QUESTIONS[:1])


def test_transformers_is_left_as_it_was() -> None:
    """Building a bridge replaces the eager attention of Gemma 2 and 3 for everybody (1795)."""
    CodiModel.from_pretrained("tiny-llama", backend="bridge")
    for family in ("gemma2", "gemma3"):
        module = sys.modules[f"transformers.models.{family}.modeling_{family}"]
        assert module.eager_attention_forward.__module__ == module.__name__


def test_hooks_and_models_do_not_stay() -> None:
    """Backward hooks leak from a bridge (1324); nothing here sets one."""
    model = CodiModel.from_pretrained("tiny-gpt2", backend="bridge")
    head_attributions(model, PROBLEMS[:2], progress=False)
    points = model.lens.hook_dict.values()
    assert not any(point.fwd_hooks or point.bwd_hooks for point in points)
    assert not any(point._forward_pre_hooks for point in points)
    gone = weakref.ref(model.lens)
    del model, points
    import gc

    gc.collect()
    assert gone() is None


def test_saving_moving_and_fingerprints(bridge: CodiModel, tmp_path: Path) -> None:
    name = bridge.config.source
    saved = CodiModel.from_pretrained(bridge.save_pretrained(tmp_path / "saved"), backend="bridge")
    assert saved.fingerprint() == bridge.fingerprint()
    run, again = (model.think(QUESTIONS[:2]) for model in (bridge, saved))
    assert torch.equal(run.thoughts, again.thoughts)
    half = CodiModel.from_pretrained(name, backend="bridge").to(torch.bfloat16)
    assert half.think(QUESTIONS[:2]).thoughts.dtype == torch.bfloat16
    assert half.fingerprint() != bridge.fingerprint()
    again = pickle.loads(pickle.dumps(bridge))
    assert again.fingerprint() == bridge.fingerprint()
    assert torch.equal(again.think(QUESTIONS[:2]).thoughts, run.thoughts)


@pytest.mark.filterwarnings("ignore:The tokenizer in .* is read by transformers as")
@pytest.mark.parametrize("backbone", [*ARCHITECTURES, "phi", "gemma", "gemma3", "olmo2", "falcon"])
def test_architectures_on_a_bridge_are_verified(backbone: str, tmp_path: Path) -> None:
    """Those of a HookedTransformer, and others that it does not compute exactly."""
    lora = None if backbone in TARGETS else ()  # as CODI's code trains them, or in full
    folder = make(tmp_path / "m", Recipe(backbone=backbone, lora=lora))
    verification = CodiModel.from_pretrained(folder, backend="bridge").verify(
        word_problems(2), settings=False, max_new_tokens=4
    )
    assert verification.passed, verification.verdict
    if backbone in BRIDGED and class_of("hooked") is not None:
        with pytest.raises(CheckpointError, match="and backend='bridge' runs many others"):
            CodiModel.from_pretrained(folder, backend="hooked")


def test_an_edit_whose_reach_is_not_known_is_refused(tmp_path: Path) -> None:
    model = CodiModel.from_pretrained(
        make(tmp_path / "m", Recipe(backbone="gemma", lora=())), backend="bridge"
    )
    assert "blocks.1.hook_resid_mid" in model.think(QUESTIONS[:1], max_new_tokens=1).cache()
    edit = _at(("blocks.1.hook_resid_mid", _halved), "ct1")
    with pytest.raises(InterventionError, match="not known on the bridge of GemmaForCausalLM"):
        model.think(QUESTIONS[:1], interventions=edit)


@pytest.mark.parametrize(
    ("backbone", "message"),
    [
        ("opt", "where hooks cannot reach it: an edit at blocks.0.attn.hook_attn_scores"),
        ("gemma2", "it scales or caps them"),
        ("cohere", "it scales or caps them"),
    ],
)
def test_what_a_bridge_would_compute_otherwise_is_refused(
    backbone: str, message: str, tmp_path: Path
) -> None:
    folder = make(tmp_path / "m", Recipe(backbone=backbone, lora=()))
    with pytest.raises(CheckpointError, match=message):
        CodiModel.from_pretrained(folder, backend="bridge")


def test_what_the_layers_of_others_write_is_not_taken_apart(tmp_path: Path) -> None:
    folder = make(tmp_path / "m", Recipe(backbone="olmo2", lora=()))
    model = CodiModel.from_pretrained(folder, backend="bridge")
    with pytest.raises(CheckpointError, match="olmo2 models write is not taken apart"):
        answer_attribution(model, PROBLEMS, progress=False)
