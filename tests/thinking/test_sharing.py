"""Runs and models travel: pickled, saved, copied, sent to a pool, used by several threads."""

from __future__ import annotations

import copy
import io
import pickle
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context

import pytest
import torch
from support.against_hand import PROBLEMS, TEXTS, run, same_bits

from codi_lens import CodiModel, InterventionError, ThoughtRun, ablate_heads, compare_interventions
from codi_lens.thinking.hook_names import hooked_names

NAME = "blocks.1.attn.hook_z"


def answers_of(answered: ThoughtRun) -> list[str]:
    return answered.answers


def saved(answered: ThoughtRun) -> ThoughtRun:
    file = io.BytesIO()
    torch.save(answered, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


def pickled(answered: ThoughtRun) -> ThoughtRun:
    return pickle.loads(pickle.dumps(answered))


@pytest.mark.parametrize("send", [pickled, saved])
def test_a_run_travels_with_what_it_kept(tiny: CodiModel, send: object) -> None:
    kept = run(tiny, ablate_heads([(0, 1)]), names_filter=NAME)
    again = send(kept)  # type: ignore[operator]
    assert same_bits(kept, again)
    assert again.layout == kept.layout
    assert torch.equal(again.cache()[NAME], kept.cache()[NAME])
    without = send(run(tiny))  # type: ignore[operator]
    with pytest.raises(InterventionError, match=r"comes without its model .*names_filter"):
        without.cache()
    assert len(pickle.dumps(run(tiny))) < 1e6


def test_a_copied_run_keeps_its_model(tiny_gpt2: CodiModel) -> None:
    answered = run(tiny_gpt2)
    for other in (copy.copy(answered), copy.deepcopy(answered)):
        assert torch.equal(other.cache()[NAME], answered.cache()[NAME])


def test_a_run_with_gradients_travels_without_them(tiny_gpt2: CodiModel) -> None:
    thoughts = run(tiny_gpt2).thoughts.clone().requires_grad_()
    answers = ["The answer is: 13"] * len(TEXTS)
    answered = run(tiny_gpt2, thoughts=thoughts, answers=answers, names_filter=NAME)
    again = pickled(answered)
    assert torch.equal(again.thoughts, answered.thoughts)
    assert not again.logits.requires_grad
    assert answered.logits.requires_grad


@pytest.mark.slow
def test_runs_go_to_a_pool(tiny_gpt2: CodiModel) -> None:
    answered = run(tiny_gpt2)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        assert pool.submit(answers_of, answered).result() == answered.answers


def test_models_are_copied_and_pickled_with_their_locks_elsewhere(tiny: CodiModel) -> None:
    expected = run(tiny)
    for other in (copy.deepcopy(tiny), pickle.loads(pickle.dumps(tiny))):
        assert other.lens is not tiny.lens
        assert same_bits(run(other), expected)


def test_threads_take_turns_on_one_model(tiny_gpt2: CodiModel) -> None:
    alone = [tiny_gpt2.think([text], max_new_tokens=4) for text in TEXTS]
    cut = ablate_heads([(1, 2)], "zero")
    table = compare_interventions(tiny_gpt2, PROBLEMS, {"cut": cut})

    def one(i: int) -> bool:
        if i % 7 == 6:
            again = compare_interventions(tiny_gpt2, PROBLEMS, {"cut": cut})
            return again.equals(table)
        again = tiny_gpt2.think([TEXTS[i % 6]], max_new_tokens=4)
        again.cache()  # no other thread's hooks are taken for the run's own
        return same_bits(again, alone[i % 6])

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(one, range(21)))
    assert hooked_names(tiny_gpt2.lens) == []


def test_a_run_inside_the_plan_of_a_run_needs_no_second_lock(tiny_gpt2: CodiModel) -> None:
    with ThreadPoolExecutor(2) as pool:  # donors of the call think inside it
        first, second = pool.map(lambda _: run(tiny_gpt2, ablate_heads([(1, 2)])), range(2))
    assert same_bits(first, second)
