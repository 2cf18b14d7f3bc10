"""Experiments on a model that answers at once, or in words: what they measure, and what refuses."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from support.hand_written import HandWritten
from support.oracle import largest
from torch import Tensor, nn

from codi_lens import (
    AttentionError,
    CodiModel,
    Donors,
    OutputError,
    PositionError,
    ablate_heads,
    attribute_edges,
    attribute_heads,
    attribute_thoughts,
    compare_interventions,
    decode_thoughts,
    each_position,
    extract,
    extract_scores,
    generalise,
    grade,
    knock_out,
    known_against_others,
    open_attention,
    operand_swaps,
    output_changes,
    restore,
    sweep_edges,
    sweep_heads,
    sweep_layers,
    sweep_thoughts,
    total_swaps,
)
from codi_lens.attention.probes import probe_thoughts
from codi_lens.causal.attribution import head_attributions
from codi_lens.causal.controls import head_controls
from codi_lens.causal.hub_moves import hub_moves
from codi_lens.causal.measure import measure
from codi_lens.causal.transplants import transplants
from codi_lens.loading.backends import class_of
from codi_lens.problems import word_problems
from codi_lens.problems.pairs import operand_pairs
from codi_lens.readout import (
    answer_attribution,
    logit_lens,
    readable_and_used,
    stopped_answers,
    thought_geometry,
    train_tuned_lens,
)

PROBLEMS = word_problems(8, seed=21)
QUESTIONS = [problem.question for problem in PROBLEMS]
WITHOUT = ("skip", "explain")
QUIET: Any = {"progress": False}
NATS = 1e-4  # of float32, over a few tokens

each_way = pytest.mark.parametrize("way", WITHOUT)


@pytest.fixture(scope="module", params=["hooked", "bridge"])
def backed(request: pytest.FixtureRequest) -> CodiModel:
    if class_of(request.param) is None:
        pytest.skip("TransformerLens 4 has one backend")
    return CodiModel.from_pretrained("tiny-gpt2", backend=request.param)


@contextmanager
def silenced(language_model: Any, layer: int, head: int, d_head: int) -> Iterator[None]:
    """Hugging Face's own model with one head's output zero, wherever it attends from."""
    if hasattr(language_model, "transformer"):
        projection: nn.Module = language_model.transformer.h[layer].attn.c_proj
    else:
        projection = language_model.model.layers[layer].self_attn.o_proj

    def silence(module: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        z = given[0].clone()
        z[..., head * d_head : (head + 1) * d_head] = 0
        return (z,)

    handle = projection.register_forward_pre_hook(silence)
    try:
        yield
    finally:
        handle.remove()


@each_way
def test_effects_equal_a_plain_hugging_face_computation(
    tiny: CodiModel, hand: HandWritten, way: Any
) -> None:
    """Teacher-forced log-probability of the clean number, and greedy answers, of a silent head."""
    model, eos = tiny.in_way(way), tiny.config.eos
    head = {"gpt2": (2, 1), "llama": (0, 2)}[tiny.backbone.model_type]
    arms = {"silent": ablate_heads([head], "zero", at="all")}
    outcomes: Any = measure(model, PROBLEMS, arms, **QUIET).set_index(["arm", "problem"])
    plain: Any = hand.reference.language_model
    clean = model.think(QUESTIONS)
    assert outcomes.loc["silent", "changed"].any()
    for row, problem in enumerate(PROBLEMS):
        prompt = list(tiny.tokenizer(problem.question)["input_ids"])
        prompt += [tiny.config.bot, tiny.config.eot] if way == "skip" else []
        answer = clean.answer_tokens[row]
        start = clean.layout.anchors[row]
        assert start is not None
        number = range(start, len(answer))  # built-in answers end with their number
        for arm in ("clean", "silent"):
            with silenced(plain, *head, tiny.lens.cfg.d_head if arm == "silent" else 0):
                logits = plain(torch.tensor([[*prompt, *answer]])).logits[0].log_softmax(-1)
                written = list(prompt)
                while len(written) < len(prompt) + 64:
                    last = plain(torch.tensor([written])).logits[0, -1]
                    last[tiny.config.eot] = -torch.inf
                    written.append(int(last.argmax()))
                    if written[-1] == eos:
                        break
            scored = sum(float(logits[len(prompt) + i - 1, answer[i]]) for i in number)
            found = outcomes.loc[(arm, problem.id)]
            assert abs(found["log_prob"] - scored) <= NATS
            text = tiny.tokenizer.decode(written[len(prompt) :], skip_special_tokens=True)
            assert found["answer"] == text


@each_way
@pytest.mark.parametrize("mode", ["resample", "mean"])
def test_sweeps_equal_single_runs(backed: CodiModel, way: Any, mode: Any) -> None:
    model, run = backed.in_way(way), getattr(backed, way)
    donors = Donors(model, PROBLEMS)
    arms = {
        f"{head} at {at}": ablate_heads(head, mode, at, donors)
        for head in ("L1H7", "L2H1")
        for at in ("question", "answer")
    }
    arms |= {"all": ablate_heads("L1H7,L2H1", mode, "all", donors)}
    arms |= {"edge": knock_out("answer", "question", "L2H1")}
    outcomes = measure(model, PROBLEMS, arms, **QUIET)
    assert outcomes[outcomes["arm"] != "clean"]["changed"].any()
    asked = outcomes.set_index(["arm", "problem"])["answer"].to_dict()
    for problem in PROBLEMS[:4]:
        one: Any = {"ids": [problem.id], "max_new_tokens": 64}
        assert run([problem.question], **one).answers[0] == asked["clean", problem.id]
        for name, arm in arms.items():
            alone = run([problem.question], interventions=[arm], **one)
            assert alone.answers[0] == asked[name, problem.id]


@each_way
def test_tables_hold_nothing_of_thoughts_and_no_gap(tiny_gpt2: CodiModel, way: Any) -> None:
    model = tiny_gpt2.in_way(way)
    scopes = each_position(0, written=way == "explain")
    table = sweep_heads(model, PROBLEMS, "L1H7,L2H1", at=scopes, **QUIET)
    assert list(dict.fromkeys(table["scope"])) == list(scopes)
    assert "thought_change" not in table and not table.filter(like="change_ct").columns.size
    assert table[["effect", "effect_low", "effect_high", "q", "accuracy"]].notna().all(axis=None)
    changes = output_changes(model, PROBLEMS, at="all", **QUIET)
    assert (changes["output_change"] > 0).all()
    layers = sweep_layers(model, PROBLEMS, "question", **QUIET)
    assert layers["effect"].notna().all()
    names = head_controls(model, PROBLEMS, [(1, 7)], at="answer")
    assert "heads, resample" in names and not any("ct" in name for name in names)


def test_edges_are_those_that_the_way_has(tiny_gpt2: CodiModel) -> None:
    edges = {
        way: sweep_edges(tiny_gpt2.in_way(way), PROBLEMS[:3], **QUIET)  # type: ignore[arg-type]
        for way in WITHOUT
    }
    pairs = {way: list(zip(t["query"], t["key"], strict=True)) for way, t in edges.items()}
    assert pairs["explain"] == [("answer", "question")]
    assert pairs["skip"] == [
        ("bot", "question"),
        ("eot", "question"),
        ("eot", "bot"),
        ("answer", "question"),
        ("answer", "bot"),
        ("answer", "eot"),
    ]


@each_way
def test_integrated_attributions_sum_to_what_replacing_all_heads_does(
    tiny_gpt2: CodiModel, way: Any
) -> None:
    model, some = tiny_gpt2.in_way(way), PROBLEMS[:4]
    every = ",".join(f"L{layer}H{head}" for layer in range(3) for head in range(8))
    donors = Donors(model, some)
    found = head_attributions(
        model, some, "answer", method="integrated", donors=donors, max_steps=4096, **QUIET
    )
    outcomes = measure(model, some, {"x": ablate_heads(every, at="answer", donors=donors)}, **QUIET)
    wide = outcomes.pivot(index="problem", columns="arm", values="log_prob")
    wide = wide.loc[[problem.id for problem in some]]
    effects = (wide["x"] - wide["clean"]).to_numpy()
    assert largest(found["effect"], effects) <= 10 * NATS
    allowed = np.maximum(0.02, 0.02 * np.abs(effects))
    assert (np.abs(found.sum(["layer", "head", "position"]) - effects) <= allowed).all()
    assert attribute_heads(model, some, at="question", **QUIET)["attribution"].notna().all()


@each_way
def test_restoration_of_the_question_is_the_counterparts_question_before_the_own_answer(
    tiny: CodiModel, hand: HandWritten, way: Any
) -> None:
    """Before the first layer that is all that a patch of the question is; Hugging Face runs it."""
    pairs, model = operand_pairs(5), tiny.in_way(way)
    table: Any = restore(model, pairs, "question", [0], **QUIET).set_index("direction")
    plain: Any = hand.reference.language_model
    closing = [tiny.config.bot, tiny.config.eot] if way == "skip" else []
    shifts: dict[str, list[float]] = {"clean into corrupted": [], "corrupted into clean": []}
    for pair in pairs:
        both = (pair.clean, pair.corrupted)
        runs = [model.think([problem.question]) for problem in both]
        starts = [run.layout.anchors[0] for run in runs]
        answers = [run.answer_tokens[0] for run in runs]
        if None in starts:  # no number, and so no difference
            continue
        firsts = [tokens[start or 0] for tokens, start in zip(answers, starts, strict=True)]
        if firsts[0] == firsts[1]:
            continue
        for own, name in ((1, "clean into corrupted"), (0, "corrupted into clean")):
            differences = []
            for problem in (both[own], both[1 - own]):
                ids = tiny.tokenizer(problem.question)["input_ids"]
                tokens = [*ids, *closing, *answers[own][: starts[own]]]
                logits = plain(torch.tensor([tokens])).logits[0, -1]
                differences.append(float(logits[firsts[own]] - logits[firsts[1 - own]]))
            shifts[name].append(differences[0] - differences[1])
    for name, found in shifts.items():
        assert table.loc[name, "n_known"] == len(found) > 0
        assert abs(table.loc[name, "shift"] - np.mean(found)) <= 10 * NATS


@each_way
def test_the_logit_of_an_answer_is_taken_apart(backed: CodiModel, way: Any) -> None:
    model = backed.in_way(way)
    table = answer_attribution(model, PROBLEMS[:4], against="nothing", **QUIET)
    sources = {"skip": ["question", "bot", "eot", "answer"], "explain": ["question", "answer"]}
    assert table["source"].values.tolist() == sources[way]
    assert float(np.abs(table["remainder"]).max()) <= 1e-3
    run = model.think(QUESTIONS[:4], names_filter="blocks.2.hook_resid_post")
    states = run.cache()["blocks.2.hook_resid_post"][range(4), run.index("anchor")]
    with torch.no_grad():
        logits = backed.lens.unembed(backed.lens.ln_final(states[:, None]))[:, 0]
    best = logits.amax(-1)  # no token was refused where a number is written
    assert largest(table["total"], best) <= 1e-3


def test_a_teacher_with_two_ends_is_measured_to_the_second(tiny_gpt2: CodiModel) -> None:
    """An EOS stands between chain and answer, in clean runs and in those that decode on."""
    kept = replace(tiny_gpt2, config=replace(tiny_gpt2.config, remove_eos=False))
    model, eos = kept.in_way("explain"), tiny_gpt2.config.eos
    arms = {
        f"{head} at {at}": ablate_heads(head, "zero", at)
        for head in ("L0H1", "L1H7", "L2H1", "L2H3")
        for at in ("question", "answer", "all")
    }
    some = word_problems(24, seed=21)
    outcomes = measure(model, some, arms, max_new_tokens=45, **QUIET)
    ended = 0
    for name, arm in {"clean": [], **arms}.items():
        answers = outcomes[outcomes["arm"] == name]["answer"].tolist()
        questions = [problem.question for problem in some]
        run = kept.explain(questions, max_new_tokens=45, interventions=arm)
        assert answers == run.answers
        ended += sum(eos in tokens for tokens in run.answer_tokens)
    assert ended, "otherwise no first end is passed over"


def test_attention_of_runs_that_skip_is_kept_by_name(tiny_gpt2: CodiModel, tmp_path: Path) -> None:
    model = tiny_gpt2.in_way("skip")
    kept = extract(model, PROBLEMS, tmp_path / "attention.zarr", value_weighted=True, **QUIET)
    run = tiny_gpt2.skip(QUESTIONS)
    assert kept["query"].values.tolist() == ["bot", "eot", "anchor"]
    assert largest(kept, run.attention) <= 1e-5
    assert kept["answer"].values.tolist() == run.answers
    weighted = kept.coords["value_weighted"].sum("key")
    assert largest(weighted, np.ones(weighted.shape)) <= 1e-4
    with pytest.raises(AttentionError, match=r"model.explain\(questions\).attention"):
        extract(tiny_gpt2.in_way("explain"), PROBLEMS, **QUIET)


def test_results_of_one_way_are_not_resumed_in_another(
    tiny_gpt2: CodiModel, tmp_path: Path
) -> None:
    ways: Any = ("think", "skip", "explain")
    models = {way: tiny_gpt2.in_way(way) for way in ways}
    assert len({model.fingerprint() for model in models.values()}) == 3
    for way, model in models.items():
        place = tmp_path / way
        sweep_heads(model, PROBLEMS[:3], "L1H7", place, at="question", **QUIET)
        for other in (each for each in ways if each != way):
            with pytest.raises(OutputError, match="fingerprint"):
                sweep_heads(models[other], PROBLEMS[:3], "L1H7", place, at="question", **QUIET)
    kept = tmp_path / "attention.zarr"
    extract(models["skip"], PROBLEMS[:3], kept, **QUIET)
    with pytest.raises(OutputError):
        extract(tiny_gpt2, PROBLEMS[:3], kept, **QUIET)
    with pytest.raises(OutputError, match="same model, settings, way and backend"):
        extract(tiny_gpt2, PROBLEMS[:3], source=kept, **QUIET)
    assert open_attention(kept).sizes["query"] == 3


OF_THOUGHTS: dict[str, Callable[[CodiModel], object]] = {
    "sweep_thoughts": lambda model: sweep_thoughts(model, PROBLEMS, **QUIET),
    "attribute_thoughts": lambda model: attribute_thoughts(model, PROBLEMS, **QUIET),
    "edge_attributions": lambda model: attribute_edges(model, PROBLEMS, **QUIET),
    "extract_scores": lambda model: extract_scores(model, PROBLEMS, **QUIET),
    "decode_thoughts": lambda model: decode_thoughts(model, PROBLEMS, **QUIET),
    "stopped_answers": lambda model: stopped_answers(model, PROBLEMS, **QUIET),
    "readable_and_used": lambda model: readable_and_used(model, PROBLEMS, **QUIET),
    "thought_geometry": lambda model: thought_geometry(model, PROBLEMS, **QUIET),
    "probe_thoughts": lambda model: probe_thoughts(model, 8),
    "operand_swaps": lambda model: operand_swaps(model, operand_pairs(4), **QUIET),
    "total_swaps": lambda model: total_swaps(model, PROBLEMS, **QUIET),
    "transplants": lambda model: transplants(
        model, PROBLEMS, (1, 7), np.eye(6) / 2, {"other": np.eye(6) / 3}, **QUIET
    ),
    "The question of hubs": lambda model: hub_moves(model, PROBLEMS, "ct2", 0.1, **QUIET),
    "grade": lambda model: grade(model, word_problems(4, family="hub"), **QUIET),
    "known_against_others": lambda model: known_against_others(
        model, word_problems(4, family="hub"), **QUIET
    ),
    "generalise": lambda model: generalise(model, {"a": PROBLEMS[:4], "b": PROBLEMS[4:]}, **QUIET),
    "verify": lambda model: model.verify(n=1),
}


@each_way
@pytest.mark.parametrize("name", OF_THOUGHTS)
def test_what_is_about_thoughts_says_so_before_it_runs(
    tiny_gpt2: CodiModel, monkeypatch: pytest.MonkeyPatch, way: Any, name: str
) -> None:
    def run(*_: object, **__: object) -> None:
        raise AssertionError("nothing is run")

    monkeypatch.setattr("codi_lens.thinking.loop.Loop.feed", run)
    message = rf"^{name} is about thoughts, and a run in the way '{way}' has none; give the model"
    with pytest.raises(PositionError, match=message):
        OF_THOUGHTS[name](tiny_gpt2.in_way(way))


@pytest.mark.parametrize(
    ("way", "names"), [("skip", "question, bot, eot, answer"), ("explain", "question, answer")]
)
@pytest.mark.parametrize("measured", [sweep_heads, sweep_layers, output_changes, attribute_heads])
def test_a_scope_of_thoughts_is_refused_by_the_names_that_there_are(
    tiny_gpt2: CodiModel, measured: Callable[..., pd.DataFrame], way: Any, names: str
) -> None:
    with pytest.raises(PositionError, match=rf"'thinking'; give at least one of {names}\."):
        measured(tiny_gpt2.in_way(way), PROBLEMS, **QUIET)


@each_way
def test_a_lens_is_trained_and_used_in_its_way(tiny_gpt2: CodiModel, way: Any) -> None:
    model = tiny_gpt2.in_way(way)
    lens = train_tuned_lens(model, word_problems(12), max_epochs=1, **QUIET)
    same = [
        functools.partial(logit_lens, model),
        functools.partial(logit_lens, tiny_gpt2, way=way),
    ]
    tables = [read(PROBLEMS[:3], translator=lens, **QUIET) for read in same]
    assert tables[0].identical(tables[1])


def test_the_same_heads_in_every_way(tiny_gpt2: CodiModel) -> None:
    """L1H7, which thinking needs most, is not what an answer at once needs."""
    effects: dict[str, Any] = {}
    ways: Any = ("think", "skip", "explain")
    for way in ways:
        table = compare_interventions(
            tiny_gpt2.in_way(way),
            word_problems(16, seed=1),
            {head: ablate_heads(head, at="all") for head in ("L1H7", "L2H1")},
            **QUIET,
        ).set_index("arm")
        effects[way] = table
    assert effects["think"].loc["L1H7", "effect_high"] < effects["skip"].loc["L1H7", "effect_low"]
    assert all((table.loc["L2H1", "effect"] < -1) for table in effects.values())
