"""The thought loop equals the original CODI code, and itself in every other arrangement."""

from __future__ import annotations

import gc
from typing import Any

import numpy as np
import pytest
import torch
from support.oracle import FORCED, FREE, FREE_ATTENTION, Oracle, largest

from codi_lens import (
    CodiModel,
    Intervention,
    InterventionError,
    PositionError,
    ProblemError,
    generation_view,
)
from codi_lens.interventions import position_axis
from codi_lens.loading.backends import backend_of
from codi_lens.positions import possible_cells, thought_names
from codi_lens.problems import word_problems
from codi_lens.thinking.run import ThoughtRun

THOUGHTS = list(thought_names(6))


@pytest.fixture(scope="module")
def batch(oracle: Oracle) -> ThoughtRun:
    return oracle.model.think(oracle.texts, max_new_tokens=12)


def test_forced_thoughts_equal_the_original(oracle: Oracle) -> None:
    for i in range(len(oracle.questions)):
        thoughts = oracle.tensors[f"q{i}.latents"][:6]
        run = oracle.model.think([oracle.ids(i)], thoughts=thoughts[None], max_new_tokens=1)
        assert largest(run.predicted_thoughts[0], thoughts) <= FORCED
        assert largest(run.logits[0], oracle.tensors[f"q{i}.logits_eot"]) <= FORCED
        assert torch.equal(run.thoughts[0], thoughts)


def test_free_run_equals_the_original(oracle: Oracle, batch: ThoughtRun) -> None:
    for i, question in enumerate(oracle.questions):
        assert largest(batch.thoughts[i], oracle.tensors[f"q{i}.latents"][:6]) <= FREE
        assert largest(batch.logits[i], oracle.tensors[f"q{i}.logits_eot"]) <= FREE
        assert batch.answer_tokens[i] == question["answer"]


def test_attention_equals_the_original(oracle: Oracle, batch: ThoughtRun) -> None:
    for i in range(len(oracle.questions)):
        attention = batch.attention.isel(problem=i)
        prefill = oracle.tensors[f"q{i}.attn.prefill"][:, :, -1].numpy()
        n_question = prefill.shape[-1] - 1
        bot = attention.sel(query="bot")
        assert largest(bot.sel(key="question"), prefill[..., :n_question].sum(-1)) <= FREE_ATTENTION
        assert largest(bot.sel(key="bot"), prefill[..., n_question]) <= FREE_ATTENTION
        for s in range(6):
            original = oracle.tensors[f"q{i}.attn.step{s + 1}"].numpy()[..., n_question:]
            ours = attention.sel(query=f"ct{s}", key=["bot", *THOUGHTS[: s + 1]])
            assert largest(ours, original) <= FREE_ATTENTION
        original = oracle.tensors[f"q{i}.attn.eot"][:, :, -1].numpy()[..., n_question:]
        ours = attention.sel(query="eot", key=["bot", *THOUGHTS, "eot"])
        assert largest(ours, original) <= FREE_ATTENTION


def test_generation_view_equals_the_studys_extraction(oracle: Oracle, batch: ThoughtRun) -> None:
    view = generation_view(batch.attention).values
    for i in range(len(oracle.questions)):
        assert largest(view[i], oracle.tensors[f"q{i}.ref6x6"]) <= FREE_ATTENTION


def test_batched_run_equals_single_runs(oracle: Oracle, batch: ThoughtRun) -> None:
    lengths = batch.layout.question_lengths
    assert len(set(lengths)) > 1, "the batch must hold unequal lengths"
    for i, text in enumerate(oracle.texts):
        single = oracle.model.think([text], max_new_tokens=12)
        assert largest(batch.thoughts[i], single.thoughts[0]) <= FREE
        assert (
            largest(batch.attention[i].fillna(0), single.attention[0].fillna(0)) <= FREE_ATTENTION
        )
        assert batch.answers[i] == single.answers[0]


def test_same_batch_twice_is_bit_identical(oracle: Oracle, batch: ThoughtRun) -> None:
    again = oracle.model.think(oracle.texts, max_new_tokens=12)
    assert torch.equal(again.thoughts, batch.thoughts)
    assert again.attention.identical(batch.attention)


def test_text_and_token_lists_give_the_same_run(oracle: Oracle, batch: ThoughtRun) -> None:
    ids = [oracle.ids(i) for i in range(len(oracle.questions))]
    assert torch.equal(oracle.model.think(ids, max_new_tokens=12).thoughts, batch.thoughts)


def test_rows_of_attention_sum_to_one_and_forbidden_cells_are_zero(batch: ThoughtRun) -> None:
    fixed = batch.attention.sel(query=["bot", *THOUGHTS, "eot"])
    assert largest(fixed.sum("key"), 1.0) <= 1e-5
    forbidden = ~possible_cells(6)[:-1]
    assert (fixed.values[..., forbidden] == 0).all()
    allowed = fixed.values[..., ~forbidden]
    assert (allowed > 0).mean() > 0.99


def test_run_without_a_number_has_no_anchor(batch: ThoughtRun) -> None:
    without = [i for i, anchor in enumerate(batch.layout.anchors) if anchor is None]
    assert without, "random models write answers without numbers"
    assert np.isnan(batch.attention.isel(problem=without).sel(query="anchor")).all()
    with pytest.raises(PositionError, match="hold no number"):
        batch.index("anchor")


def test_anchor_is_where_the_number_is_predicted(tiny_gpt2: CodiModel) -> None:
    questions = ["Zoe has 14 coins. Then she finds 7 more. How many coins does she have?"]
    run = tiny_gpt2.think(questions, names_filter="ln_final.hook_normalized")
    hidden = run.cache()["ln_final.hook_normalized"][0, run.index("anchor")[0]]
    hidden = hidden * tiny_gpt2.lens.ln_final.w + tiny_gpt2.lens.ln_final.b  # type: ignore
    token = int(tiny_gpt2.lens.unembed(hidden[None, None])[0, 0].argmax())
    assert str(tiny_gpt2.tokenizer.decode([token])).strip() == "21"
    assert largest(run.attention.sel(query="anchor").sum("key"), 1.0) <= 1e-5


def test_stitched_cache_equals_one_full_forward(oracle: Oracle) -> None:
    replayed = oracle.model.think(oracle.texts, max_new_tokens=6).cache()
    run = oracle.model.think(oracle.texts, max_new_tokens=6, names_filter=lambda name: True)
    stitched = run.cache()
    assert set(stitched) == set(replayed)
    for name in stitched:
        axis = position_axis(name) - 1
        for i, question in enumerate(run.span("question")):  # padding before it is arbitrary
            real = slice(question.start, None)
            cut = (slice(None),) * axis + (real,)
            a, b = stitched[name][i][cut], replayed[name][i][cut]
            finite = torch.isfinite(a)
            assert torch.equal(finite, torch.isfinite(b)), name
            assert largest(a[finite], b[finite]) <= 2e-4, name


def test_cache_is_ordinary_and_indexed_by_names(oracle: Oracle) -> None:
    run = oracle.model.think(oracle.texts, max_new_tokens=4, names_filter=["hook_embed"])
    embeddings = run.cache()["hook_embed"]
    for i in range(6):
        at = run.index(f"ct{i}")
        assert torch.equal(embeddings[torch.arange(len(at)), at], run.thoughts[:, i])
    bot = embeddings[torch.arange(6), run.index("bot")]
    assert torch.equal(bot, oracle.model.lens.W_E[oracle.model.config.bot].expand(6, -1))


def test_padding_without_the_full_mask_would_be_wrong(oracle: Oracle) -> None:
    """The oracle's record of the original's batched loop shows what the mask is for."""
    longest = max(range(6), key=lambda i: len(oracle.ids(i)))
    shortest = min(range(6), key=lambda i: len(oracle.ids(i)))
    padded = [0] * (len(oracle.ids(longest)) - len(oracle.ids(shortest))) + oracle.ids(shortest)
    right = oracle.model.think([oracle.ids(shortest)], max_new_tokens=1)
    wrong = oracle.model.think([padded], max_new_tokens=1)
    assert largest(right.thoughts, wrong.thoughts) > 0.1


def test_scoped_hook_sees_only_its_positions_in_every_pass(oracle: Oracle) -> None:
    seen: list[int] = []

    def watch(z: torch.Tensor, hook: object) -> None:
        seen.append(z.shape[1])

    hooks = [("blocks.1.attn.hook_z", watch)]
    oracle.model.think(
        oracle.texts, max_new_tokens=3, interventions=[Intervention(hooks, at="thinking")]
    )
    assert seen == [1] * 6  # bot, ct0 … ct4
    seen.clear()
    at = ["ct5", "eot", "answer"]
    oracle.model.think(oracle.texts, max_new_tokens=3, interventions=[Intervention(hooks, at=at)])
    assert seen == [1] * 4  # ct5, eot, and the two answer tokens that were fed


def test_intervention_changes_nothing_before_its_position(oracle: Oracle) -> None:
    def silence(z: torch.Tensor, hook: object) -> torch.Tensor:
        return torch.zeros_like(z)

    clean = oracle.model.think(oracle.texts, max_new_tokens=1)
    cut = Intervention([("blocks.0.attn.hook_z", silence)], at="ct2")
    run = oracle.model.think(oracle.texts, max_new_tokens=1, interventions=[cut])
    assert torch.equal(run.thoughts[:, :3], clean.thoughts[:, :3])
    assert largest(run.thoughts[:, 3], clean.thoughts[:, 3]) > 1e-3


def test_scoped_zero_ablation_equals_plain_hook_on_every_pass(oracle: Oracle) -> None:
    def silence_head_1(z: torch.Tensor, hook: object) -> torch.Tensor:
        z[:, :, 1] = 0
        return z

    name = "blocks.2.attn.hook_z"
    scoped = oracle.model.think(
        oracle.texts, max_new_tokens=4, interventions=[Intervention([(name, silence_head_1)])]
    )
    with oracle.model.lens.hooks(fwd_hooks=[(name, silence_head_1)]):
        plain = oracle.model.think(oracle.texts, max_new_tokens=4)
    assert torch.equal(scoped.thoughts, plain.thoughts)
    assert scoped.answer_tokens == plain.answer_tokens


def test_replacing_a_thought_where_it_enters_equals_forcing_it(oracle: Oracle) -> None:
    clean = oracle.model.think(oracle.texts, max_new_tokens=1)
    donor = clean.thoughts.roll(1, dims=0)[:, 2:3]
    swap = Intervention([("hook_embed", lambda embed, hook: donor)], at="ct2")
    swapped = oracle.model.think(oracle.texts, max_new_tokens=1, interventions=[swap])
    assert torch.equal(swapped.thoughts[:, 2:3], donor)
    assert torch.equal(swapped.predicted_thoughts[:, :3], clean.predicted_thoughts[:, :3])
    forced = oracle.model.think(oracle.texts, max_new_tokens=1, thoughts=swapped.thoughts)
    assert torch.equal(forced.logits, swapped.logits)


def test_pattern_hook_is_scoped_by_query(oracle: Oracle) -> None:
    def only_self(pattern: torch.Tensor, hook: object) -> torch.Tensor:
        pattern[:] = 0
        pattern[..., -1] = 1
        return pattern

    cut = Intervention([("blocks.0.attn.hook_pattern", only_self)], at="ct3")
    run = oracle.model.think(oracle.texts, max_new_tokens=1, interventions=[cut])
    row = run.attention.sel(layer=0, query="ct3")
    assert (row.sel(key="ct3") == 1).all()
    assert (row.drop_sel(key="ct3") == 0).all()


def test_run_leaves_no_hook_behind(oracle: Oracle) -> None:
    oracle.model.think(oracle.texts[:1], max_new_tokens=1, names_filter=lambda name: True)
    assert not any(point.fwd_hooks for point in oracle.model.lens.hook_dict.values())


def test_no_parameter_asks_for_gradients_but_a_thought_may(oracle: Oracle) -> None:
    thoughts = oracle.tensors["q0.latents"][None, :6].clone().requires_grad_()
    run = oracle.model.think([oracle.ids(0)], thoughts=thoughts, max_new_tokens=1)
    run.logits.max().backward()
    assert thoughts.grad is not None
    assert thoughts.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("questions", "message"),
    [
        ([], "no question"),
        ("one string", "put the single question in a list"),
        (["  "], "Question 0 is empty"),
        ([[1, 2], [5, 9999]], "Question 1 holds the token id 9999; the vocabulary is 0..402"),
        ([[1] * 121], "has 121 tokens; with 6 thoughts the context of 128 has room for 120"),
    ],
)
def test_bad_questions_are_named(oracle_gpt2: CodiModel, questions: list, message: str) -> None:
    with pytest.raises(ProblemError, match=message):
        oracle_gpt2.think(questions)


def test_answers_stop_at_the_end_of_the_context(oracle_gpt2: CodiModel) -> None:
    run = oracle_gpt2.think([[1] * 120, [1] * 110], max_new_tokens=64)
    assert [len(tokens) for tokens in run.answer_tokens] == [1, 11]


def test_bad_interventions_are_named(oracle_gpt2: CodiModel) -> None:
    def keep(activation: torch.Tensor, hook: object) -> None:
        return None

    def think(name: str, at: str) -> None:
        oracle_gpt2.think(
            [[1, 2]], max_new_tokens=1, interventions=[Intervention([(name, keep)], at)]
        )

    with pytest.raises(InterventionError, match=r"no hook 'blocks\.9\.attn.*layers 0\.\.3"):
        think("blocks.9.attn.hook_z", "all")
    with pytest.raises(PositionError, match="no position 'ct6' in a run with 6 thoughts"):
        think("blocks.0.attn.hook_z", "ct6")
    with pytest.raises(InterventionError, match="never fired: the run holds none"):
        think("blocks.0.attn.hook_z", "answer")
    with pytest.raises(InterventionError, match="fired in 0 of the 6 passes"):
        think("blocks.0.attn.hook_result", "thoughts")


def test_hook_that_changes_the_shape_is_an_error(oracle_gpt2: CodiModel) -> None:
    cut = Intervention([("blocks.0.attn.hook_z", lambda z, hook: z[:, :, :1])], at="ct0")
    with pytest.raises(InterventionError, match="must keep the shape"):
        oracle_gpt2.think([[1, 2]], max_new_tokens=1, interventions=[cut])


def test_intervened_run_is_not_replayed(oracle_gpt2: CodiModel) -> None:
    cut = Intervention([("blocks.0.attn.hook_z", lambda z, hook: z * 0)], at="ct0")
    run = oracle_gpt2.think([[1, 2]], max_new_tokens=1, interventions=[cut])
    with pytest.raises(InterventionError, match="names_filter"):
        run.cache()
    kept = oracle_gpt2.think(
        [[1, 2]], max_new_tokens=1, interventions=[cut], names_filter="blocks.0.attn.hook_z"
    )
    assert (kept.cache()["blocks.0.attn.hook_z"][:, kept.index("ct0")] == 0).all()


def test_run_under_plain_hooks_is_not_replayed_clean(oracle_gpt2: CodiModel) -> None:
    with oracle_gpt2.lens.hooks(fwd_hooks=[("blocks.1.attn.hook_z", lambda z, hook: z * 0)]):
        run = oracle_gpt2.think([[1, 2]], max_new_tokens=1)
        kept = oracle_gpt2.think([[1, 2]], max_new_tokens=1, names_filter="blocks.1.attn.hook_z")
    with pytest.raises(InterventionError, match="interventions or hooks is not replayed"):
        run.cache()
    assert (kept.cache()["blocks.1.attn.hook_z"] == 0).all()


@pytest.mark.parametrize("plain", [True, False])
def test_fully_masked_row_is_an_error_not_zeros(oracle_gpt2: CodiModel, plain: bool) -> None:
    def mask_all(scores: torch.Tensor, hook: object) -> torch.Tensor:
        return torch.full_like(scores, -torch.inf)

    name = "blocks.2.attn.hook_attn_scores"
    message = "hook_attn_scores every key of head 0 is masked for the query '(question|ct2)'"
    with pytest.raises(InterventionError, match=message):
        if plain:
            with oracle_gpt2.lens.hooks(fwd_hooks=[(name, mask_all)]):
                oracle_gpt2.think([[1, 2], [3, 4, 5]], max_new_tokens=1)
        else:
            cut = Intervention([(name, mask_all)], at="ct2")
            oracle_gpt2.think([[1, 2], [3, 4, 5]], max_new_tokens=1, interventions=[cut])


def test_wrong_shape_of_thoughts_is_named(oracle_gpt2: CodiModel) -> None:
    with pytest.raises(PositionError, match=r"\(1, 5, 64\).*\(1, 6, 64\)"):
        oracle_gpt2.think([[1, 2]], thoughts=torch.zeros(1, 5, 64))


def test_eos_around_the_question_is_kept_where_the_model_has_it(oracle: Oracle) -> None:
    settings = {"lora_alpha": 32, "n_thoughts": 3, "remove_eos": False}
    model = CodiModel.from_pretrained(oracle.checkpoint, oracle.base, **settings)
    run = model.think(oracle.texts[:2], max_new_tokens=2, names_filter="hook_embed")
    embeddings = run.cache()["hook_embed"]
    eos = model.lens.W_E[model.config.eos]
    assert torch.equal(embeddings[0, run.index("bot")[0] - 1], eos)
    assert torch.equal(embeddings[0, run.index("eot")[0]], eos)
    assert [span.stop - span.start for span in run.span("eot")] == [2, 2]
    assert run.thoughts.shape[1] == 3
    assert largest(run.attention.sel(query="eot").sum("key"), 1.0) <= 1e-5


GIVEN = ["The answer is: 42", "7", "The answer is: 1234 coins", "no number", "3 or 4", "x"]


def given_tokens(model: CodiModel) -> list[list[int]]:
    return [list(model.tokenizer(text, add_special_tokens=False)["input_ids"]) for text in GIVEN]


def test_log_probs_of_given_answers_equal_one_full_forward(oracle: Oracle) -> None:
    lens: Any
    lens, eos = oracle.model.lens, oracle.model.config.eos
    for text, answer, tokens in zip(oracle.texts, GIVEN, given_tokens(oracle.model), strict=True):
        run = oracle.model.think([text], answers=[answer], names_filter="hook_embed")
        embedded = run.cache()["hook_embed"]
        if backend_of(lens) == "bridge":
            logits = lens.original_model(inputs_embeds=embedded).logits
        else:
            logits = lens(lens.get_residual(embedded, 0)[0], start_at_layer=0)
        logits = logits[0, run.index("eot")[0] :]
        targets = torch.tensor([*tokens, eos])
        expected = logits.log_softmax(-1)[torch.arange(len(targets)), targets]
        assert run.answer_log_probs is not None
        assert run.answer_log_probs[0].dtype == torch.float32
        assert largest(run.answer_log_probs[0], expected) <= FREE_ATTENTION
        assert run.answer_tokens == [tokens]


def test_forcing_the_greedy_answers_reproduces_the_greedy_run(tiny: CodiModel) -> None:
    questions = [problem.question for problem in word_problems(6, seed=2)]
    greedy = tiny.think(questions)
    assert greedy.answer_log_probs is None
    forced = tiny.think(
        questions, answers=greedy.answer_tokens, names_filter="ln_final.hook_normalized"
    )
    assert forced.answers == greedy.answers
    assert forced.answer_tokens == greedy.answer_tokens
    assert forced.layout == greedy.layout
    assert torch.equal(forced.logits, greedy.logits)
    assert largest(forced.attention, greedy.attention) <= 1e-5
    assert forced.answer_log_probs is not None
    final = tiny.lens.ln_final
    hidden = forced.cache()["ln_final.hook_normalized"] * final.w  # type: ignore[operator]
    hidden = hidden + final.b if hasattr(final, "b") else hidden  # type: ignore[operator]
    for i, tokens in enumerate(greedy.answer_tokens):
        start = int(forced.index("eot")[i])
        logits = tiny.lens.unembed(hidden[i : i + 1, start : start + len(tokens) + 1])[0]
        logits[:, tiny.config.eot] = -torch.inf
        assert logits.argmax(-1).tolist() == [*tokens, tiny.config.eos]
        assert (forced.answer_log_probs[i] <= 0).all()


def test_given_answers_of_unequal_length_equal_single_runs(oracle: Oracle) -> None:
    batch = oracle.model.think(oracle.texts, answers=GIVEN)
    assert batch.answer_log_probs is not None
    assert len({len(scores) for scores in batch.answer_log_probs}) > 1
    for i, (text, answer) in enumerate(zip(oracle.texts, GIVEN, strict=True)):
        single = oracle.model.think([text], answers=[answer])
        assert single.answer_log_probs is not None
        assert largest(batch.answer_log_probs[i], single.answer_log_probs[0]) <= FREE
        a, b = batch.attention[i], single.attention[0]
        assert (a.isnull() == b.isnull()).all()
        assert largest(a.fillna(0), b.fillna(0)) <= FREE_ATTENTION


def test_text_and_token_answers_with_or_without_eos_are_the_same(oracle: Oracle) -> None:
    tokens = given_tokens(oracle.model)
    ended = [[*row, oracle.model.config.eos] for row in tokens]
    runs = [oracle.model.think(oracle.texts, answers=answers) for answers in (GIVEN, tokens, ended)]
    for run in runs:
        assert run.answer_log_probs is not None
        assert run.answer_tokens == tokens
        assert [len(row) for row in run.answer_log_probs] == [len(row) + 1 for row in tokens]
        for a, b in zip(run.answer_log_probs, runs[0].answer_log_probs or [], strict=True):
            assert torch.equal(a, b)


def test_eos_alone_may_be_forced(oracle: Oracle) -> None:
    eos = oracle.model.config.eos
    run = oracle.model.think(oracle.texts[:1], answers=[[eos]])
    assert run.answer_log_probs is not None
    assert largest(run.answer_log_probs[0], run.logits.log_softmax(-1)[0, eos]) <= 1e-6
    assert run.answer_tokens == [[]]


def test_given_answers_have_a_cache_that_equals_one_full_forward(oracle: Oracle) -> None:
    kept = oracle.model.think(oracle.texts, answers=GIVEN, names_filter=lambda name: True)
    stitched = kept.cache()
    replayed = oracle.model.think(oracle.texts, answers=GIVEN).cache()
    for name in ("blocks.1.hook_resid_post", "blocks.2.attn.hook_z"):
        for i, (question, answer) in enumerate(
            zip(kept.span("question"), kept.span("answer"), strict=True)
        ):
            real = slice(question.start, answer.stop)
            assert largest(stitched[name][i, real], replayed[name][i, real]) <= 2e-4


def test_intervention_on_the_answer_acts_on_given_answers(oracle: Oracle) -> None:
    hooks = [("blocks.0.attn.hook_z", lambda z, hook: torch.zeros_like(z))]
    clean = oracle.model.think(oracle.texts, answers=GIVEN)
    cut = oracle.model.think(
        oracle.texts, answers=GIVEN, interventions=[Intervention(hooks, at="answer")]
    )
    assert clean.answer_log_probs is not None
    assert cut.answer_log_probs is not None
    for a, b in zip(clean.answer_log_probs, cut.answer_log_probs, strict=True):
        assert torch.equal(a[0], b[0]), "eot scores the first token"
        assert largest(a[1:], b[1:]) > 1e-4
    assert torch.equal(clean.thoughts, cut.thoughts)


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        (["1"], "given 1 answers for 2 questions; give one each"),
        ("12", "given a single string for 2 questions"),
        (["1", ""], "Answer 1 is empty"),
        ([[1], []], "Answer 1 is empty"),
        ([[1], [999999]], "Answer 1 holds the token id 999999; the vocabulary is 0..402"),
        ([[1], [0, 1]], r"Answer 1 holds EOS \(0\) before its end"),
        ([[1], [1] * 21], "Answer 1 has 21 tokens; .* the context has room for 20"),
    ],
)
def test_bad_answers_are_named(oracle_gpt2: CodiModel, answers: list, message: str) -> None:
    with pytest.raises(ProblemError, match=message):
        oracle_gpt2.think([[1, 2], [1] * 100], answers=answers)


def test_longest_answer_that_fits_is_scored(oracle_gpt2: CodiModel) -> None:
    run = oracle_gpt2.think([[1, 2], [1] * 100], answers=[[1], [1] * 20])
    assert run.answer_log_probs is not None
    assert [len(scores) for scores in run.answer_log_probs] == [2, 21]


def test_run_keeps_no_keys_values_or_patterns_alive(oracle: Oracle) -> None:
    """What a finished run holds grows with its vectors, not with layers times keys and values."""
    run = oracle.model.think(oracle.texts, max_new_tokens=2)
    gc.collect()
    shapes = [tuple(o.shape) for o in gc.get_objects() if type(o) is torch.Tensor and o.ndim == 4]
    cfg, n_problems = oracle.model.lens.cfg, len(oracle.texts)
    heads = cfg.n_key_value_heads or cfg.n_heads
    memories = [s for s in shapes if s[:2] == (n_problems, heads) and s[-1] == cfg.d_head]
    assert not memories
    assert run.attention.sizes["problem"] == n_problems


def test_gradient_through_a_given_answer_equals_a_finite_difference(oracle_gpt2: CodiModel) -> None:
    base = oracle_gpt2.think([[5, 6, 7]], max_new_tokens=1).thoughts
    thoughts = base.clone().requires_grad_()
    run = oracle_gpt2.think([[5, 6, 7]], thoughts=thoughts, answers=[[3, 4]])
    assert run.answer_log_probs is not None
    run.answer_log_probs[0].sum().backward()
    assert thoughts.grad is not None
    step = 1e-2 * thoughts.grad / thoughts.grad.norm()

    def score(vectors: torch.Tensor) -> float:
        scores = oracle_gpt2.think([[5, 6, 7]], thoughts=vectors, answers=[[3, 4]]).answer_log_probs
        assert scores is not None
        return float(scores[0].sum())

    slope = (score(base + step) - score(base - step)) / 2e-2
    assert slope == pytest.approx(float(thoughts.grad.norm()), rel=2e-2)
