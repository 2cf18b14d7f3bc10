"""Interventions on heads, thoughts and the residual stream do what they say, and nothing else."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
import torch
from support.against_hand import (
    FREE,
    IDS,
    OTHERS,
    PROBLEMS,
    TEXTS,
    check_against_hand,
    close,
    prompts,
    run,
    same_bits,
)
from support.hand_written import Edits, HandWritten, HandWrittenGpt2
from torch import Tensor

from codi_lens import (
    CodiModel,
    Donors,
    Intervention,
    InterventionError,
    Planned,
    PositionError,
    ThoughtRun,
    ablate_heads,
    check_untouched,
    for_rows,
    fraction_recovered,
    keep_heads,
    patch_residual,
    patch_thoughts,
    reorder_thoughts,
    scale_heads,
    steer_thoughts,
    swap_thoughts,
    truncate_thoughts,
    with_donors,
)
from codi_lens.attention.extract import extract
from codi_lens.interventions.heads import Mode
from codi_lens.problems import Problem, is_correct, word_problems


@pytest.fixture(scope="module")
def donors(tiny: CodiModel) -> Donors:
    return Donors(tiny, OTHERS)


@pytest.fixture(scope="module")
def clean(tiny: CodiModel) -> ThoughtRun:
    return tiny.think(TEXTS, max_new_tokens=8)


def right(answered: ThoughtRun) -> int:
    return sum(
        is_correct(a, p.answer or 0) for a, p in zip(answered.answers, PROBLEMS, strict=True)
    )


def test_hand_written_model_is_the_model(tiny: CodiModel, hand: HandWritten) -> None:
    answered = tiny.think(TEXTS, max_new_tokens=1)
    for i, prompt in enumerate(prompts(tiny, TEXTS)):
        expected = hand.think(prompt, list(tiny.config.closing))
        assert close(answered.thoughts[i], expected.thoughts)
        assert close(answered.logits[i], expected.logits)


@pytest.mark.parametrize("mode", ["zero", "mean", "resample"])
def test_ablated_heads_equal_hand_written_ones(
    tiny: CodiModel, hand: HandWritten, mode: Mode
) -> None:
    """Thoughts ct1 and ct4 of two heads, by values that are computed by hand too."""
    given = Donors(tiny, OTHERS)
    closing = list(tiny.config.closing)
    tokens = prompts(tiny, [problem.question for problem in OTHERS])
    theirs = [hand.think(prompt, closing).z for prompt in tokens]
    drawn = given.draw(IDS)

    def value(problem: int, layer: int, position: int) -> Tensor:
        all_z = torch.stack(
            [z[layer][len(p) + position] for z, p in zip(theirs, tokens, strict=True)]
        )
        values = {
            "zero": 0 * all_z[0],
            "mean": all_z.mean(dim=0),
            "resample": all_z[drawn[problem]],
        }
        return values[mode]

    def edits(problem: int, bot: int) -> Edits:
        def z(layer: int, values: Tensor) -> Tensor:
            values = values.clone()
            for position in (1, 4):
                for edited, head in ((0, 3), (2, 6)):
                    if edited == layer and bot + 1 + position < len(values):
                        values[bot + 1 + position, head] = value(problem, layer, position)[head]
            return values

        return Edits(z=z)

    cut = ablate_heads([(0, 3), (2, 6)], mode, at=["ct1", "ct4"], donors=given)
    check_against_hand(tiny, hand, cut, edits)


def test_zeroing_all_heads_of_a_layer_removes_its_attention_output_up_to_the_bias(
    tiny: CodiModel, hand: HandWritten
) -> None:
    bias = hand.mixed(1, torch.zeros(1, 8, 12))[0]
    assert bias.any() == isinstance(hand, HandWrittenGpt2)

    def edits(problem: int, bot: int) -> Edits:
        def attn_out(layer: int, values: Tensor) -> Tensor:
            if layer == 1:
                values = values.clone()
                values[bot : bot + 6] = bias
            return values

        return Edits(attn_out=attn_out)

    cut = ablate_heads([(1, head) for head in range(8)], "zero", at="thinking")
    check_against_hand(tiny, hand, cut, edits)


def test_patched_residual_is_read_and_written_at_the_same_point(
    tiny: CodiModel, hand: HandWritten
) -> None:
    given = Donors(tiny, OTHERS)
    drawn = given.draw(IDS)
    closing = list(tiny.config.closing)
    tokens = prompts(tiny, [problem.question for problem in OTHERS])

    def edits(problem: int, bot: int) -> Edits:
        prompt = tokens[drawn[problem]]
        donor = hand.think(prompt, closing).resid_pre[1][len(prompt) + 2]

        def resid_pre(layer: int, values: Tensor) -> Tensor:
            if layer == 1 and len(values) > bot + 3:
                values = values.clone()
                values[bot + 3] = donor
            return values

        return Edits(resid_pre=resid_pre)

    check_against_hand(tiny, hand, patch_residual(1, "ct2", donors=given), edits)


@pytest.mark.parametrize("k", [0, 1, 3, 5])
def test_truncation_equals_a_run_with_fewer_thoughts(tiny: CodiModel, k: int) -> None:
    short = dataclasses.replace(tiny, config=dataclasses.replace(tiny.config, n_thoughts=k or 6))
    truncated = run(tiny, truncate_thoughts(k))
    if k == 0:  # a run without thoughts is a question that goes on with `eot`
        closing = list(tiny.config.closing)
        for i, prompt in enumerate(prompts(tiny, TEXTS)):
            logits = tiny.lens(torch.tensor([prompt + closing]))[0, -1]
            assert close(truncated.logits[i], logits)
        return
    expected = short.think(TEXTS, max_new_tokens=8)
    assert close(truncated.thoughts[:, :k], expected.thoughts)
    assert close(truncated.logits, expected.logits)
    assert truncated.answers == expected.answers
    rows = truncated.attention.sel(query="eot", key=[f"ct{i}" for i in range(k, 6)])
    assert not rows.values.any()


def test_truncation_of_some_rows_leaves_the_others(tiny: CodiModel) -> None:
    everywhere, some = (
        run(tiny, truncate_thoughts(2)),
        run(tiny, for_rows(truncate_thoughts(2), [1, 4])),
    )
    assert close(some.logits[[1, 4]], everywhere.logits[[1, 4]])
    untouched = run(tiny)
    assert same_bits(some, untouched, [0, 2, 3, 5])


def test_truncating_to_all_thoughts_changes_nothing(tiny: CodiModel, clean: ThoughtRun) -> None:
    assert same_bits(run(tiny, truncate_thoughts(6)), clean)


@pytest.mark.parametrize("which", ["ct0", "ct3", "thoughts"])
def test_swapping_a_thought_with_itself_changes_nothing(
    tiny: CodiModel, clean: ThoughtRun, which: str
) -> None:
    assert same_bits(run(tiny, swap_thoughts(which, clean.thoughts)), clean)
    # The same through donors: their batch is composed as this one, and each is its own pair.
    own = Donors(tiny, PROBLEMS).paired({name: name for name in IDS})
    assert same_bits(run(tiny, swap_thoughts(which, own)), clean)
    assert same_bits(run(tiny, patch_residual(1, which, donors=own)), clean)
    heads = [(0, 1), (2, 5)]
    assert same_bits(run(tiny, ablate_heads(heads, at=which, donors=own)), clean)


def test_interventions_that_change_nothing_are_bit_identical(
    tiny: CodiModel, clean: ThoughtRun
) -> None:
    order = [f"ct{i}" for i in range(6)]
    assert same_bits(run(tiny, reorder_thoughts(order)), clean)
    assert same_bits(run(tiny, scale_heads([(1, 2)], 1)), clean)
    assert same_bits(run(tiny, steer_thoughts(torch.ones(96), 0)), clean)


def test_a_swapped_thought_moves_the_answer_where_arithmetic_says(tiny: CodiModel) -> None:
    """Donors differ in one operand: the answer follows from the donor's total by own steps."""
    problems = word_problems(60, seed=5, n_operations=4)
    partner = dict(
        zip([p.id for p in problems], [p.id for p in problems[1:]] + [problems[0].id], strict=True)
    )
    donors = Donors(tiny, problems).paired(partner)
    answered = tiny.think(
        [problem.question for problem in problems],
        ids=[problem.id for problem in problems],
        max_new_tokens=8,
        interventions=[swap_thoughts("ct1", donors)],
    )
    by_id = {problem.id: problem for problem in problems}
    hits = tested = own = 0
    for problem, answer in zip(problems, answered.answers, strict=True):
        total = by_id[partner[problem.id]].totals[1]
        for operation in problem.operations[2:]:
            total = operation.apply(total)
        if 0 <= total < 50 and total != problem.answer:
            tested += 1
            hits += is_correct(answer, total)
            own += is_correct(answer, problem.answer or 0)
    assert tested >= 30
    assert hits / tested >= 0.8
    assert own / tested <= 0.1


def test_patching_recovers_the_whole_difference_in_both_directions(tiny: CodiModel) -> None:
    """Everything later follows from what layer 0 reads of the question; what it reads of one
    thought decides only a part."""
    template = "Zoe has {} coins. Then she finds {} more. How many coins does she have?"
    cases = [(14, 7, 19), (21, 5, 11), (30, 4, 12)]
    first = [Problem(template.format(a, b), a + b, f"first {a}") for a, b, _ in cases]
    second = [Problem(template.format(c, b), c + b, f"second {a}") for a, b, c in cases]
    assert len({len(prompt) for prompt in prompts(tiny, [p.question for p in first + second])}) == 1

    for clean, corrupted in ((first, second), (second, first)):
        pairs = {b.id: a.id for a, b in zip(clean, corrupted, strict=True)}
        donors = Donors(tiny, clean).paired(pairs)
        answers = [f"The answer is: {p.answer}" for p in clean]

        def score(problems: list[Problem], *patches: Planned) -> Tensor:
            scored = tiny.think(
                [p.question for p in problems],
                ids=[p.id for p in problems],
                answers=answers,  # noqa: B023
                interventions=patches,
            ).answer_log_probs
            assert scored is not None
            return torch.stack([log_probs.sum() for log_probs in scored])

        ends = score(clean), score(corrupted)
        assert (ends[0] - ends[1] > 3).all()
        question = score(corrupted, patch_residual(0, "question", donors=donors))
        assert torch.allclose(fraction_recovered(*ends, question), torch.ones(3), atol=FREE)
        eot = score(corrupted, patch_residual(0, "eot", donors=donors))
        assert torch.allclose(fraction_recovered(*ends, eot), torch.zeros(3), atol=FREE)
        thought = fraction_recovered(*ends, score(corrupted, patch_thoughts("ct5", donors=donors)))
        assert (thought < 0.9).all()
    assert fraction_recovered(1.0, 1.0, 1.5).isnan()


INTERVENTIONS: dict[str, Callable[[Donors], Planned]] = {
    "heads": lambda d: ablate_heads([(1, 2), (2, 0)], at=["ct2", "eot"], donors=d),
    "keep": lambda d: keep_heads([(0, 1)], "mean", at="ct1", donors=d),
    "scale": lambda d: scale_heads([(0, 1)], 3.0, at="ct2"),
    "thought": lambda d: patch_thoughts("ct3", donors=d),
    "noise": lambda d: patch_thoughts(["ct1", "ct4"], "noise"),
    "order": lambda d: reorder_thoughts(["ct0", "ct1", "ct4", "ct3", "ct2", "ct5"]),
    "steer": lambda d: steer_thoughts(torch.ones(96), 0.5, "ct2"),
    "residual": lambda d: patch_residual(1, ["ct1", "ct3"], "mean", "mlp_out", donors=d),
    "question": lambda d: ablate_heads([(0, 0)], at="question", donors=d),
    "answer": lambda d: ablate_heads([(0, 0), (1, 1)], at="answer", donors=d),
}


@pytest.mark.parametrize("name", INTERVENTIONS)
def test_nothing_before_the_first_position_changes(
    tiny: CodiModel, clean: ThoughtRun, donors: Donors, name: str
) -> None:
    planned = INTERVENTIONS[name](donors)
    changed = run(tiny, planned, names_filter="blocks.2.hook_resid_post")
    check_untouched(clean, changed, planned.first)
    same = run(tiny, names_filter="blocks.2.hook_resid_post")
    residuals = [r.cache()["blocks.2.hook_resid_post"] for r in (same, changed)]
    start = int(clean.index(planned.first)[0]) if planned.first.startswith("ct") else 0
    start = clean.layout.eot + 1 if planned.first == "answer" else start
    length = min(residual.shape[1] for residual in residuals)
    assert torch.equal(residuals[0][:, :start], residuals[1][:, :start])
    assert not torch.equal(residuals[0][:, start:length], residuals[1][:, start:length])


def test_check_untouched_finds_a_change(tiny: CodiModel, clean: ThoughtRun) -> None:
    changed = run(tiny, scale_heads([(0, 1)], 3.0, at="ct2"))
    with pytest.raises(
        InterventionError, match="differs from the clean one at 'ct2', before 'eot'"
    ):
        check_untouched(clean, changed, "eot")


@pytest.mark.parametrize("name", INTERVENTIONS)
def test_rows_without_the_intervention_are_bit_identical(
    tiny: CodiModel, clean: ThoughtRun, donors: Donors, name: str
) -> None:
    planned = INTERVENTIONS[name](donors)
    some = run(tiny, for_rows(planned, [4, 1]))
    assert same_bits(some, clean, [0, 2, 3, 5])
    whole = run(tiny, planned)
    assert same_bits(some, whole, [1, 4])


def test_rows_of_one_batch_carry_their_own_interventions(tiny: CodiModel, donors: Donors) -> None:
    first, second = INTERVENTIONS["thought"](donors), INTERVENTIONS["heads"](donors)
    both = run(tiny, for_rows(first, [0, 1, 2]), for_rows(for_rows(second, [2, 0]), [3, 4, 5]))
    assert same_bits(both, run(tiny, first), [0, 1, 2])
    assert same_bits(both, run(tiny, second), [3, 5])
    assert same_bits(both, run(tiny), [4])


def test_keeping_heads_is_ablating_the_others(tiny: CodiModel, donors: Donors) -> None:
    others = [(layer, head) for layer in range(3) for head in range(8) if (layer, head) != (1, 3)]
    kept = run(tiny, keep_heads([(1, 3)], donors=donors))
    assert same_bits(kept, run(tiny, ablate_heads(others, donors=donors)))


def test_noise_has_the_norm_of_the_thought(tiny: CodiModel) -> None:
    noisy = run(tiny, patch_thoughts("ct2", "noise", seed=3))
    assert torch.allclose(
        noisy.thoughts[:, 2].norm(dim=-1), noisy.predicted_thoughts[:, 2].norm(dim=-1)
    )
    cosines = torch.cosine_similarity(noisy.thoughts[:, 2], noisy.predicted_thoughts[:, 2], dim=-1)
    assert (cosines.abs() < 0.6).all()
    assert same_bits(noisy, run(tiny, patch_thoughts("ct2", "noise", seed=3)))


def test_thoughts_are_replaced_where_they_enter(tiny: CodiModel, clean: ThoughtRun) -> None:
    donors = Donors(tiny, PROBLEMS)
    zero = run(tiny, patch_thoughts("ct1", "zero"))
    assert not zero.thoughts[:, 1].any()
    mean = run(tiny, patch_thoughts("ct1", "mean", donors))
    assert torch.allclose(mean.thoughts[0, 1], clean.thoughts[:, 1].mean(dim=0), atol=1e-5)
    moved = run(tiny, reorder_thoughts(["ct5", "ct1", "ct2", "ct3", "ct4", "ct0"]))
    assert torch.equal(moved.thoughts, clean.thoughts[:, [5, 1, 2, 3, 4, 0]])
    steered = run(tiny, steer_thoughts(torch.ones(96), 2.0, "ct0"))
    assert torch.allclose(steered.thoughts[:, 0], clean.thoughts[:, 0] + 2)


def test_a_donor_is_never_the_problem_and_does_not_depend_on_batching(tiny_gpt2: CodiModel) -> None:
    corpus = [*PROBLEMS, *OTHERS, dataclasses.replace(PROBLEMS[0], id="the same under another id")]
    donors = Donors(tiny_gpt2, corpus, batch_size=5)
    for seed in range(40):
        drawn = donors.with_seed(seed).draw(IDS)
        assert all(
            corpus[index].question != p.question for index, p in zip(drawn, PROBLEMS, strict=True)
        )
        one_by_one = [donors.with_seed(seed).draw([name])[0] for name in IDS]
        assert drawn == one_by_one
    unknown = donors.draw(["unknown"], prompts=[prompts(tiny_gpt2, TEXTS[:1])[0]])
    assert corpus[unknown[0]].question != TEXTS[0]
    assert len({tuple(donors.with_seed(seed).draw(IDS)) for seed in range(40)}) > 30


def test_donors_are_drawn_by_their_answers(tiny_gpt2: CodiModel) -> None:
    corpus = word_problems(120, seed=30)
    donors = Donors(tiny_gpt2, corpus)
    known = [p for p in PROBLEMS if donors.answers.count(p.answer) > 0]
    assert len(known) >= 3
    answers = {p.id: p.answer for p in known}
    ids = list(answers)
    same = donors.draw(ids, list(answers.values()), same_answer=True)
    assert [donors.answers[i] for i in same] == list(answers.values())
    assert donors.matching(answers, same=True).draw(ids) == same
    other = donors.matching(answers, same=False).draw(ids)
    assert all(donors.answers[i] != answers[name] for i, name in zip(other, ids, strict=True))
    with pytest.raises(InterventionError, match="no donor with the same answer"):
        donors.draw(["x"], [12345], same_answer=True)


def test_donor_values_are_those_of_a_clean_run(tiny: CodiModel, donors: Donors) -> None:
    name = "blocks.1.attn.hook_z"
    alone = tiny.think([OTHERS[3].question], names_filter=name)
    z = alone.cache()[name][0]
    assert close(donors.values(name, "ct4", [3])[0], z[int(alone.index("ct4")[0])])
    question = alone.span("question")[0]
    assert close(donors.values(name, "question", [3])[0], z[question].mean(dim=0))
    pooled = torch.cat(donors.tokens(name, "question", range(len(donors))))
    assert torch.allclose(donors.mean(name, "question"), pooled.mean(dim=0))
    answer = alone.span("answer")[0]
    assert close(donors.tokens(name, "answer", [3])[0], z[answer])


def test_problems_of_the_call_are_donors_by_default(tiny: CodiModel) -> None:
    default = run(tiny, patch_thoughts("ct2"))
    given = run(tiny, with_donors(patch_thoughts("ct2"), Donors(tiny, PROBLEMS)))
    assert same_bits(default, given)
    alone = Donors(tiny, PROBLEMS[:1])
    with pytest.raises(InterventionError, match="no donor for the problem"):
        tiny.think(TEXTS[:1], interventions=[patch_thoughts("ct2", donors=alone)])


def test_extraction_under_interventions_equals_runs(tiny_gpt2: CodiModel) -> None:
    cut = ablate_heads([(1, 5)], at="thinking")
    attention = extract(tiny_gpt2, PROBLEMS, interventions=[cut], batch_size=4, progress=False)
    expected = run(tiny_gpt2, with_donors(cut, Donors(tiny_gpt2, PROBLEMS)))
    assert abs(attention.values - expected.attention.values).max() <= FREE
    assert list(attention["answer"].values) == expected.answers


def test_bad_interventions_are_one_clear_sentence(
    tiny_gpt2: CodiModel, oracle_gpt2: CodiModel
) -> None:
    bad: list[tuple[type[Exception], str, Intervention | Planned]] = [
        (PositionError, "no head L9H0; the model has L0H0 to L2H7", ablate_heads([(9, 0)])),
        (PositionError, "no position 'ct9'", ablate_heads([(0, 0)], at="ct9")),
        (PositionError, "'bot' is not a thought", patch_thoughts("bot")),
        (PositionError, r"truncate to 0\.\.6, not 7", truncate_thoughts(7)),
        (PositionError, "give each of ct0", reorder_thoughts(["ct0", "ct0"])),
        (PositionError, r"no layer 3; the model has 0\.\.2", patch_residual(3, "ct1")),
        (InterventionError, "has size 5; d_model is 96", steer_thoughts(torch.ones(5))),
        (InterventionError, r"have shape \(2, 6, 96\)", swap_thoughts("ct1", torch.ones(2, 6, 96))),
        (InterventionError, "every head", keep_heads([(i, j) for i in range(3) for j in range(8)])),
        (InterventionError, "rows \\[7\\]", for_rows(patch_thoughts("ct1"), [7])),
        (
            InterventionError,
            "another model",
            patch_thoughts("ct1", donors=Donors(oracle_gpt2, [Problem("1+1?", 2, "a")])),
        ),
    ]
    for error, message, intervention in bad:
        with pytest.raises(error, match=message):
            run(tiny_gpt2, intervention)
    with pytest.raises(InterventionError, match="given no head"):
        ablate_heads([])
    with pytest.raises(InterventionError, match="hold no problem 'x'"):
        Donors(tiny_gpt2, OTHERS).paired({"a": "x"})
    with pytest.raises(InterventionError, match=r"no values at 'blocks\.0\.attn\.hook_pattern'"):
        Donors(tiny_gpt2, OTHERS).mean("blocks.0.attn.hook_pattern", "ct1")


def test_a_donor_that_writes_nothing_gives_nothing_at_the_answer(tiny_gpt2: CodiModel) -> None:
    first = tiny_gpt2.think([PROBLEMS[0].question]).answer_tokens[0][0]
    config = dataclasses.replace(tiny_gpt2.config, eos=first)
    model = dataclasses.replace(tiny_gpt2, config=config)
    cut = ablate_heads("L1H7", at="answer", donors=Donors(model, PROBLEMS[:2]))
    said = f"The donor {PROBLEMS[0].id!r} has no token at 'answer'; give donors= without it"
    with pytest.raises(InterventionError, match=said):
        model.think([PROBLEMS[1].question], ids=[PROBLEMS[1].id], interventions=cut)
