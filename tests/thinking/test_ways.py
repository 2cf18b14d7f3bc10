"""The same weights in words and with no thoughts: what comes, and what refuses it."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import binom
from support.hand_written import Edits, HandWritten
from support.oracle import largest

from codi_lens import (
    AttentionError,
    CodiModel,
    Donors,
    InterventionError,
    Planned,
    PositionError,
    ThoughtRun,
    ablate_heads,
    check_untouched,
    force_hub,
    generation_view,
    logit_lens,
    patch_thoughts,
    rank_heads,
    reorder_thoughts,
    run_study,
    steer_thoughts,
    thought_view,
    transplant_pattern,
    truncate_thoughts,
)
from codi_lens.errors import ProblemError
from codi_lens.problems import is_correct, parse_answer, word_problems
from codi_lens.problems.parsing import result_spans
from codi_lens.thinking.answers import steps

PROBLEMS = word_problems(60, seed=21)
QUESTIONS = [problem.question for problem in PROBLEMS]
ATTENTION, LOGITS = 1e-5, 1e-4  # of float32; sums of softmaxes, and logits of up to 30


@pytest.fixture(scope="module")
def written(tiny: CodiModel) -> ThoughtRun:
    return tiny.explain(QUESTIONS)


@pytest.fixture(scope="module")
def skipped(tiny: CodiModel) -> ThoughtRun:
    return tiny.skip(QUESTIONS)


def keeping_eos(model: CodiModel) -> CodiModel:
    """The model as if it were trained with EOS kept, which makes its prompts other ones."""
    return replace(model, config=replace(model.config, remove_eos=False))


def greedy(model: CodiModel, hand: HandWritten, after: list[int], n_ends: int) -> list[list[int]]:
    """What transformers' own generation writes, cut at the EOS of this number."""
    prompts = [[*model.tokenizer(question)["input_ids"], *after] for question in QUESTIONS]
    width, eos = max(map(len, prompts)), model.config.eos
    output = hand.reference.language_model.generate(  # type: ignore[operator]
        torch.tensor([[0] * (width - len(p)) + p for p in prompts]),
        attention_mask=torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts]),
        max_new_tokens=45,
        do_sample=False,
        suppress_tokens=[model.config.eot],
        pad_token_id=eos,
    )
    rows = [row + [eos] * n_ends for row in output[:, width:].tolist()]
    ends = [[i for i, token in enumerate(row) if token == eos][n_ends - 1] for row in rows]
    return [row[:end] for row, end in zip(rows, ends, strict=True)]


def test_words_equal_greedy_generation_of_transformers(
    tiny: CodiModel, hand: HandWritten, written: ThoughtRun
) -> None:
    assert tiny.explain(QUESTIONS, max_new_tokens=45).answer_tokens == greedy(tiny, hand, [], 1)
    assert written.answers == [str(tiny.tokenizer.decode(row)) for row in written.answer_tokens]


def test_a_teacher_with_eos_has_it_behind_question_and_chain(
    tiny: CodiModel, hand: HandWritten
) -> None:
    """transformers stops at the first EOS that it is told of, so it is told of none."""
    eos = tiny.config.eos
    generation = copy.copy(hand.reference.language_model.generation_config)
    hand.reference.language_model.generation_config.eos_token_id = None
    run = keeping_eos(tiny).explain(QUESTIONS, max_new_tokens=45)
    expected = greedy(tiny, hand, [eos], 2)
    hand.reference.language_model.generation_config = generation
    assert run.answer_tokens == expected
    assert any(eos in row for row in expected)
    assert [row[run.layout.bot - 1] for row in run.tokens] == [tiny.tokenizer.decode([eos])] * 60


def test_words_reach_the_models_known_accuracy(tiny_folder: Path, written: ThoughtRun) -> None:
    known = json.loads((tiny_folder / "evaluation.json").read_text())
    known = known["conditions"]["explicit chain of thought"]["all"]
    right = sum(is_correct(a, p.answer) for a, p in zip(written.answers, PROBLEMS, strict=True))
    assert binom.cdf(right, len(PROBLEMS), known["correct"] / known["n"]) > 1e-3


def test_steps_of_words_are_the_running_totals(written: ThoughtRun) -> None:
    for row, problem in enumerate(PROBLEMS):
        if parse_answer(written.answers[row]) != problem.answer:
            continue
        columns = [(span[0] + written.layout.bot) for span in written.layout.steps[row]]
        totals = [int(written.tokens[row][column]) for column in columns]
        assert totals == list(problem.totals[:-1])


def test_attention_of_words_equals_transformers(
    tiny: CodiModel, hand: HandWritten, written: ThoughtRun
) -> None:
    for row in (0, 1, 5):
        question = tiny.tokenizer(QUESTIONS[row])["input_ids"]
        tokens = written.answer_tokens[row]
        out = hand.reference.language_model(
            torch.tensor([[*question, *tokens]]), output_attentions=True
        )
        full = torch.stack([layer[0] for layer in out.attentions]).detach()
        results = {
            f"step{i}": slice(len(question) + first, len(question) + stop)
            for i, (first, stop) in enumerate(written.layout.steps[row])
        }
        queries = {name: columns.stop - 1 for name, columns in results.items()}
        queries["anchor"] = len(question) + len(tokens) - 2  # before the last token, the number
        for query, column in queries.items():
            own = full[:, :, column]
            found = written.attention.isel(problem=row).sel(query=query)
            named = {"question": own[..., : len(question)].sum(-1)}
            named |= {name: own[..., columns].sum(-1) for name, columns in results.items()}
            named["answer"] = own.sum(-1) - sum(named.values())
            for key, value in named.items():
                assert largest(found.sel(key=key), value) <= ATTENTION, (query, key)


def test_rows_of_words_sum_to_one_or_are_absent(written: ThoughtRun) -> None:
    sums = written.attention.sum("key", skipna=False)
    absent = sums.isnull().all(("layer", "head"))
    steps = [f"step{i}" for i in range(4)]
    assert written.attention["query"].values.tolist() == [*steps, "anchor"]
    assert written.attention["key"].values.tolist() == ["question", *steps, "answer"]
    expected = [[len(own) <= i for i in range(4)] for own in written.layout.steps]
    assert absent.sel(query=steps).values.tolist() == expected
    assert largest(sums.fillna(1), 1.0) <= ATTENTION


def test_no_thoughts_equal_the_equations(
    tiny: CodiModel, hand: HandWritten, skipped: ThoughtRun
) -> None:
    assert tuple(skipped.thoughts.shape) == (60, 0, 96)
    bot, closing = tiny.config.bot, tiny.config.closing
    for row in (0, 3):
        prompt = [*tiny.tokenizer(QUESTIONS[row])["input_ids"], bot]
        run = hand.think(prompt, closing, n=0)
        assert largest(skipped.logits[row], run.logits.detach()) <= LOGITS
        full = torch.stack(run.weights).detach()
        at_bot = len(prompt) - 1
        for query, column in (("bot", at_bot), ("eot", at_bot + 1)):
            own = full[:, :, column]
            expected = [own[..., :at_bot].sum(-1), own[..., at_bot], own[..., at_bot + 1]]
            found = skipped.attention.isel(problem=row).sel(query=query)
            found = found.sel(key=["question", "bot", "eot"])
            assert largest(found, torch.stack(expected, dim=-1)) <= ATTENTION
        sequence, logits = hand.embedding[[*prompt, *closing]], run.logits
        for token in [*skipped.answer_tokens[row], tiny.config.eos]:
            logits[tiny.config.eot] = -torch.inf
            assert int(logits.argmax()) == token
            sequence = torch.cat([sequence, hand.embedding[[token]]])
            hidden = hand.forward(sequence, Edits())[0]
            logits = hidden[-1] @ hand.unembedding.T


def test_no_thoughts_equal_thoughts_that_are_cut(tiny: CodiModel, skipped: ThoughtRun) -> None:
    cut = tiny.think(QUESTIONS[:8], interventions=[truncate_thoughts(0)])
    assert cut.answers == skipped.answers[:8]
    assert largest(cut.logits, skipped.logits[:8]) <= LOGITS
    scored = tiny.skip(QUESTIONS[:2], answers=skipped.answers[:2])
    assert scored.answer_log_probs is not None
    assert scored.answer_tokens == skipped.answer_tokens[:2]


@pytest.mark.parametrize("way", ["skip", "explain"])
def test_a_batch_equals_single_runs(
    tiny: CodiModel, written: ThoughtRun, skipped: ThoughtRun, way: str
) -> None:
    batch = {"skip": skipped, "explain": written}[way]
    assert len(set(batch.layout.question_lengths)) > 1
    for row in range(6):
        single = getattr(tiny, way)([QUESTIONS[row]])
        assert single.answer_tokens[0] == batch.answer_tokens[row]
        assert largest(single.logits[0], batch.logits[row]) <= LOGITS
        labels = {"query": single.attention["query"], "key": single.attention["key"]}
        own = batch.attention[row].sel(labels)
        assert np.array_equal(np.isnan(own), np.isnan(single.attention[0]))
        assert largest(own.fillna(0), single.attention[0].fillna(0)) <= ATTENTION


@pytest.mark.parametrize("way", ["skip", "explain"])
def test_the_cache_is_ordinary(tiny: CodiModel, way: str) -> None:
    hook = f"blocks.{tiny.lens.cfg.n_layers - 1}.hook_resid_post"
    run = getattr(tiny, way)(QUESTIONS[:4])
    kept = getattr(tiny, way)(QUESTIONS[:4], names_filter=hook).cache()[hook]
    states = run.cache()[hook][range(4), run.index("anchor")]
    assert largest(states, kept[range(4), run.index("anchor")]) <= LOGITS
    with torch.no_grad():
        said = tiny.lens.unembed(tiny.lens.ln_final(states[:, None]))[:, 0].argmax(-1)
    numbers = [int(text) for text in tiny.tokenizer.batch_decode(said[:, None])]
    assert numbers == [parse_answer(answer) for answer in run.answers]
    assert all(len(row) == kept.shape[1] for row in run.tokens)


def test_positions_are_those_of_the_way(written: ThoughtRun, skipped: ThoughtRun) -> None:
    assert skipped.index("eot").tolist() == [skipped.layout.bot + 1] * 60
    some = replace(written.layout, steps=written.layout.steps[:0])
    wanted: list[tuple[Callable[[], object], str]] = [
        (lambda: skipped.index("ct0"), "there are bot, eot, anchor"),
        (lambda: written.index("bot"), "there are step0, step1, step2, step3, anchor"),
        (lambda: written.span("eot"), "not a single position"),
        (lambda: written.index("step3"), "write no step3"),
        (lambda: some.index("step0"), "write no step0"),
    ]
    for ask, message in wanted:
        with pytest.raises(PositionError, match=message):
            ask()


@pytest.mark.parametrize("way", ["skip", "explain"])
@pytest.mark.parametrize(
    "measure",
    [rank_heads, thought_view, generation_view, run_study],
    ids=lambda each: each.__name__,
)
def test_what_measures_thoughts_refuses(
    written: ThoughtRun, skipped: ThoughtRun, measure: Callable[..., object], way: str
) -> None:
    run = {"skip": skipped, "explain": written}[way]
    with pytest.raises(AttentionError, match="run without thoughts"):
        measure(run.attention)


@pytest.mark.parametrize("way", ["skip", "explain"])
def test_ablation_of_a_head_equals_a_plain_hook(tiny: CodiModel, way: str) -> None:
    def silence(z: torch.Tensor, hook: object) -> torch.Tensor:
        z[:, :, 3] = 0
        return z

    run = getattr(tiny, way)
    scoped = run(QUESTIONS[:6], interventions=[ablate_heads("L1H3", "zero", at="all")])
    with tiny.lens.hooks([("blocks.1.attn.hook_z", silence)]):
        plain = run(QUESTIONS[:6])
    assert scoped.answers == plain.answers
    assert scoped.attention.equals(plain.attention)
    assert not scoped.attention.equals(run(QUESTIONS[:6]).attention)


@pytest.mark.parametrize("way", ["skip", "explain"])
def test_donors_run_in_the_same_way(tiny: CodiModel, way: str) -> None:
    run = getattr(tiny, way)
    donors = Donors(tiny, PROBLEMS[10:14], way=way)  # type: ignore[arg-type]
    for mode in ("resample", "mean"):
        heads = ablate_heads("L1H3", mode, at="all", donors=donors)  # type: ignore[arg-type]
        assert len(run(QUESTIONS[:2], interventions=[heads]).answers) == 2
        heads = ablate_heads("L1H3", mode, at="all")  # type: ignore[arg-type]
        assert len(run(QUESTIONS[:2], interventions=[heads]).answers) == 2
    other = ablate_heads("L1H3", at="answer", donors=Donors(tiny, PROBLEMS[10:14]))
    with pytest.raises(InterventionError, match=f"make Donors with way='{way}'"):
        run(QUESTIONS[:2], interventions=[other])


@pytest.mark.parametrize(
    ("way", "at", "message"),
    [
        (
            "skip",
            "thinking",
            "without thoughts: 'thinking'; give at least one of question, bot, eot",
        ),
        ("skip", "ct0", "no position 'ct0' in a run with 0 thoughts"),
        ("explain", "bot", "no position 'bot' in a run with 0 thoughts"),
    ],
)
def test_scopes_that_the_way_lacks(tiny_gpt2: CodiModel, way: str, at: str, message: str) -> None:
    with pytest.raises(PositionError, match=message):
        getattr(tiny_gpt2, way)(QUESTIONS[:1], interventions=[ablate_heads("L1H3", "zero", at=at)])


@pytest.mark.parametrize("way", ["skip", "explain"])
@pytest.mark.parametrize(
    "intervention",
    [
        patch_thoughts(),
        steer_thoughts(torch.ones(96)),
        reorder_thoughts([]),
        transplant_pattern(torch.eye(6) / 2, "L0H1"),
    ],
    ids=lambda each: each.name,
)
def test_what_changes_thoughts_refuses(
    tiny_gpt2: CodiModel, intervention: Planned, way: str
) -> None:
    with pytest.raises(PositionError, match="no position of a run without thoughts"):
        getattr(tiny_gpt2, way)(QUESTIONS[:2], interventions=[intervention])


@pytest.mark.parametrize("way", ["skip", "explain"])
def test_the_lens_reads_every_way(
    tiny: CodiModel, written: ThoughtRun, skipped: ThoughtRun, way: str
) -> None:
    run = {"skip": skipped, "explain": written}[way]
    table = logit_lens(tiny, PROBLEMS[:6], targets="totals", way=way, progress=False)  # type: ignore[arg-type]
    said = table["token"].isel(layer=-1, rank=0).sel(position="anchor").values.tolist()
    assert [int(token) for token in said] == [parse_answer(a) for a in run.answers[:6]]
    assert "ct0" not in table["position"].values
    if way == "explain":
        text = table["text"].sel(position="step0").values.tolist()
        expected = [str(p.totals[0]) if len(p.totals) > 1 else "" for p in PROBLEMS[:6]]
        assert [each.strip() for each in text] == expected


def test_results_are_whole_numbers_of_tokens(tiny_gpt2: CodiModel, oracle_gpt2: CodiModel) -> None:
    text = "<<16-3-4=9>> <<9*2=1234>>The answer is: 1234"
    tokens = oracle_gpt2.tokenizer(text)["input_ids"]
    spans = steps(tokens, oracle_gpt2.tokenizer)
    found = [str(oracle_gpt2.tokenizer.decode(tokens[first:stop])) for first, stop in spans]
    assert [each.strip("= ><") for each in found] == ["9", "1234"]
    assert steps([], tiny_gpt2.tokenizer) == ()
    assert result_spans("5 apples, then 6 = six") == []


def test_runs_and_models_are_shown_in_a_few_lines(
    tiny: CodiModel, written: ThoughtRun, skipped: ThoughtRun
) -> None:
    lines = repr(tiny).splitlines()
    assert lines[0] == f"CodiModel: {tiny.config.source}" and len(lines) == 5
    assert "3 layers × 8 heads" in lines[2] and "float32 on cpu" in lines[4]
    for run, kind in ((written, "in written words"), (skipped, "with 0 thoughts")):
        lines = repr(run).splitlines()
        assert lines[0] == f"ThoughtRun: 60 problems {kind}" and len(lines) == 7
        assert lines[-1].split() == ["…", "57", "more"]
    html = written._repr_html_()
    assert html.startswith("<b>ThoughtRun: 60") and "&lt;&lt; " in html and "<<" not in html
    assert tiny._repr_html_().count("<tr>") == 4


def test_a_written_run_is_held_against_its_clean_run(tiny_gpt2: CodiModel) -> None:
    clean = tiny_gpt2.explain(QUESTIONS[:2])
    early = ablate_heads("L1H3", "zero", at="question")
    run = tiny_gpt2.explain(QUESTIONS[:2], interventions=[early])
    check_untouched(clean, run, "question")
    with pytest.raises(InterventionError, match="before 'answer'"):
        check_untouched(clean, run, "answer")


@pytest.mark.parametrize("way", ["skip", "explain"])
def test_a_model_in_a_way_runs_so_and_comes_back(
    tiny: CodiModel, written: ThoughtRun, skipped: ThoughtRun, tmp_path: Path, way: Any
) -> None:
    model = tiny.in_way(way)
    expected = {"skip": skipped, "explain": written}[way].answers[:6]
    assert model.think(QUESTIONS[:6], max_new_tokens=64).answers == expected
    assert isinstance(model, CodiModel) and model.lens is tiny.lens
    other = "explain" if way == "skip" else "skip"
    for start in (model, model.in_way(other), model.in_way("think").in_way(other)):
        assert start.in_way(way).fingerprint() == model.fingerprint() != tiny.fingerprint()
        assert start.in_way("think").fingerprint() == tiny.fingerprint()
        assert getattr(start, way)(QUESTIONS[:2]).answers == expected[:2]
    edited = replace(model, config=replace(model.config, question_end="."))
    assert edited.in_way("think").config == replace(tiny.config, question_end=".")
    again = pickle.loads(pickle.dumps(model))
    assert again.fingerprint() == model.fingerprint()
    assert again.in_way("think").think(QUESTIONS[:1]).answers == tiny.think(QUESTIONS[:1]).answers
    saved = CodiModel.from_pretrained(model.save_pretrained(tmp_path / "saved"))
    assert saved.fingerprint() == tiny.fingerprint()
    shown = {"skip": "not at all: answers at once", "explain": "in words"}[way]
    assert repr(model).splitlines()[3].split("thinks")[1].strip() == shown


def test_ways_that_there_are_not(tiny_gpt2: CodiModel) -> None:
    wrong: Any = "say"
    with pytest.raises((ProblemError, TypeError), match="say"):  # jaxtyping's, in tests
        tiny_gpt2.in_way(wrong)
    with pytest.raises(ProblemError, match="answers= goes with runs that think or skip"):
        tiny_gpt2.in_way("explain").think(QUESTIONS[:1], answers=["The answer is: 3"])
    with pytest.raises(PositionError, match="there are none in a run in words"):
        tiny_gpt2.explain(QUESTIONS[:1], interventions=force_hub("bot", 0.5, at="answer"))


def test_donors_and_lens_are_in_the_way_of_their_model(tiny_gpt2: CodiModel) -> None:
    donors = Donors(tiny_gpt2.in_way("explain"), PROBLEMS[10:14])
    heads = ablate_heads("L1H3", at="answer", donors=donors)
    assert len(tiny_gpt2.explain(QUESTIONS[:2], interventions=heads).answers) == 2
    model = tiny_gpt2.in_way("explain")
    table = logit_lens(model, PROBLEMS[:4], at=["steps", "anchor"], progress=False)
    most = max(len(problem.totals) for problem in PROBLEMS[:4]) - 1
    assert table["position"].values.tolist() == [*(f"step{i}" for i in range(most)), "anchor"]
    thinking = logit_lens(model, PROBLEMS[:2], at="ct0", way="think", progress=False)
    assert thinking["thought"].size == 6
