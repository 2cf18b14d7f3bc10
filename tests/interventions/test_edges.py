"""Interventions on edges and patterns, against the equations and against their promises."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from support.against_hand import TEXTS, check_against_hand, close, run, same_bits
from support.hand_written import Edits, HandWritten
from torch import Tensor

from codi_lens import (
    CodiModel,
    Intervention,
    InterventionError,
    Planned,
    PositionError,
    ThoughtRun,
    ablate_heads,
    check_untouched,
    for_rows,
    force_hub,
    freeze_patterns,
    generation_view,
    knock_out,
    patch_thoughts,
    set_pattern,
    swap_columns,
    thought_view,
    transplant_pattern,
)
from codi_lens.attention.extract import extract
from codi_lens.problems import word_problems

THOUGHTS = [f"ct{i}" for i in range(6)]


@pytest.fixture(scope="module")
def clean(tiny: CodiModel) -> ThoughtRun:
    return tiny.think(TEXTS, max_new_tokens=8)


def cut_by_hand(
    queries: list[int], keys: list[int], chosen: set[tuple[int, int]]
) -> Callable[[int, int], Edits]:
    """Minus infinity on edges between thoughts (-1 is bot), in chosen heads."""

    def edits(problem: int, bot: int) -> Edits:
        def scores(layer: int, values: Tensor) -> Tensor:
            values = values.clone()
            for head in range(values.shape[0]):
                for query in queries:
                    row = bot + 1 + query
                    if (layer, head) in chosen and row < values.shape[1]:
                        values[
                            head, row, [bot + 1 + key for key in keys if key <= query]
                        ] = -torch.inf
            return values

        return Edits(scores=scores)

    return edits


EVERY = {(layer, head) for layer in range(3) for head in range(8)}


def test_knocked_out_edges_equal_hand_written_ones(tiny: CodiModel, hand: HandWritten) -> None:
    one = cut_by_hand([3], [1], {(0, 2), (1, 6)})
    check_against_hand(tiny, hand, knock_out("ct3", "ct1", heads=[(0, 2), (1, 6)]), one)
    layer = cut_by_hand([2, 4], [-1, 0], {(1, head) for head in range(8)})
    check_against_hand(tiny, hand, knock_out(["ct2", "ct4"], ["bot", "ct0"], layers=[1]), layer)
    everywhere = cut_by_hand(list(range(6)), list(range(6)), EVERY)
    check_against_hand(tiny, hand, knock_out("thoughts", "thoughts"), everywhere)


def test_cutting_all_edges_into_a_thought_drops_that_key(
    tiny: CodiModel, hand: HandWritten
) -> None:
    """By hand the softmax runs over the keys that are left, as if the key were not there."""

    def edits(problem: int, bot: int) -> Edits:
        def scores(layer: int, values: Tensor) -> Tensor:
            kept[:] = [values]
            return values

        def weights(layer: int, values: Tensor) -> Tensor:
            columns = [i for i in range(values.shape[2]) if i != bot + 1]
            values = values.clone()
            for row in range(bot + 2, values.shape[1]):
                values[:, row] = 0
                values[:, row, columns] = kept[0][:, row, columns].softmax(dim=-1)
            return values

        kept: list[Tensor] = []
        return Edits(scores=scores, weights=weights)

    cut = knock_out([*THOUGHTS[1:], "eot"], "ct0")
    check_against_hand(tiny, hand, cut, edits)


@pytest.mark.parametrize("queries", ["thoughts", ["ct3", "eot"], "thinking"])
def test_knocked_out_weights_are_zero_and_rows_sum_to_one(
    tiny: CodiModel, queries: str | list[str]
) -> None:
    keys = ["question", "ct1"]
    attention = run(tiny, knock_out(queries, keys, heads=[(1, 3)])).attention
    names = {"thoughts": THOUGHTS, "thinking": ["bot", *THOUGHTS[:5]]}
    chosen = queries if isinstance(queries, list) else names[queries]
    cut = attention.sel(query=chosen, key=keys).isel(layer=1, head=3)
    assert not cut.values.any()
    assert abs(attention.sum("key").values - 1).max() < 1e-5
    others = attention.sel(query=chosen, key=keys).isel(layer=1, head=[0, 1, 2, 4, 5, 6, 7])
    assert (others.sum("key").values > 0).all()


def test_a_query_that_loses_all_keys_is_refused(tiny_gpt2: CodiModel) -> None:
    with pytest.raises(InterventionError, match="leave it at least one"):
        run(tiny_gpt2, knock_out("ct2", ["question", "bot", "thoughts"]))
    with pytest.raises(InterventionError, match="leave it at least one"):
        run(tiny_gpt2, knock_out("question", "question"))


def test_a_broken_promise_is_an_error(tiny_gpt2: CodiModel) -> None:
    def uniform(pattern: Tensor, hook: object) -> Tensor:
        return torch.full_like(pattern, 1 / pattern.shape[-1])

    writes = Intervention([("blocks.1.attn.hook_pattern", uniform)], at="ct3")
    with pytest.raises(InterventionError, match="that was cut carries the weight"):
        run(tiny_gpt2, writes, knock_out("ct3", "ct1"))
    doubles = Intervention([("blocks.1.attn.hook_pattern", lambda p, hook: 2 * p)], at="ct3")
    with pytest.raises(InterventionError, match="misses the sum of 1 by 1"):
        run(tiny_gpt2, doubles, swap_columns("ct0", "ct1", at="ct3"))


def test_a_forced_hub_equals_a_hand_written_one(tiny: CodiModel, hand: HandWritten) -> None:
    def edits(problem: int, bot: int) -> Edits:
        def weights(layer: int, values: Tensor) -> Tensor:
            values, hub = values.clone(), bot + 2
            if layer == 1:
                for row in range(bot + 3, min(bot + 7, values.shape[1])):
                    old = values[4, row].clone()
                    values[4, row] = 0.4 * old / (1 - old[hub])
                    values[4, row, hub] = 0.6
            return values

        return Edits(weights=weights)

    check_against_hand(tiny, hand, force_hub("ct1", 0.6, [(1, 4)]), edits)


def test_a_forced_hub_gets_its_share_and_the_rest_keeps_its_proportions(
    tiny: CodiModel, clean: ThoughtRun
) -> None:
    attention = run(tiny, force_hub("ct1", 0.5, [(0, 2)])).attention.isel(layer=0, head=2)
    rows = attention.sel(query=THOUGHTS[2:])
    assert abs(rows.sel(key="ct1").values - 0.5).max() < 1e-5
    assert abs(rows.sum("key").values - 1).max() < 1e-5
    # ct2 is the first query that is touched, so that its clean row is what is rescaled.
    before = clean.attention.isel(layer=0, head=2).sel(query="ct2")
    rest = [key for key in before["key"].values if key != "ct1"]
    expected = before.sel(key=rest) * 0.5 / (1 - before.sel(key="ct1"))
    assert abs(attention.sel(query="ct2", key=rest).values - expected.values).max() < 1e-5


def test_swapped_columns_equal_hand_written_ones(tiny: CodiModel, hand: HandWritten) -> None:
    def edits(problem: int, bot: int) -> Edits:
        def weights(layer: int, values: Tensor) -> Tensor:
            values = values.clone()
            stop = min(bot + 7, values.shape[1])
            if stop > bot + 4:
                old = values[:, bot + 4 : stop].clone()
                values[:, bot + 4 : stop, bot + 1] = old[:, :, bot + 3]
                values[:, bot + 4 : stop, bot + 3] = old[:, :, bot + 1]
            return values

        return Edits(weights=weights)

    check_against_hand(tiny, hand, swap_columns("ct0", "ct2"), edits)


def test_swapping_twice_changes_nothing(tiny: CodiModel, clean: ThoughtRun) -> None:
    swap = swap_columns("ct0", "ct2")
    assert same_bits(run(tiny, swap, swap), clean)
    assert not same_bits(run(tiny, swap), clean)


def test_freezing_to_the_own_pattern_changes_nothing(tiny: CodiModel, clean: ThoughtRun) -> None:
    assert same_bits(run(tiny, freeze_patterns(at=["question", "thinking", "ct5", "eot"])), clean)


def test_frozen_patterns_hold_under_other_interventions(tiny: CodiModel, clean: ThoughtRun) -> None:
    zero = patch_thoughts("ct1", "zero")
    moved = run(tiny, zero).attention.sel(query=["ct2", "ct3"])
    frozen = run(tiny, zero, freeze_patterns(at=["ct2", "ct3"])).attention.sel(query=["ct2", "ct3"])
    before = clean.attention.sel(query=["ct2", "ct3"])
    assert np.array_equal(frozen.values, before.values)
    assert abs(moved.values - before.values).max() > 0.01


def test_a_set_pattern_is_what_the_head_does(tiny: CodiModel, clean: ThoughtRun) -> None:
    own = clean.attention.isel(layer=1, head=2).sel(query=["bot", "ct1", "ct4", "eot"])
    again = run(tiny, set_pattern(own, [(1, 2)]))
    assert close(again.logits, clean.logits)
    other = clean.attention.isel(layer=0, head=5).sel(query=["bot", "ct1", "ct4", "eot"])
    attention = run(tiny, set_pattern(other, [(1, 2), (2, 1)])).attention
    for layer, head in ((1, 2), (2, 1)):
        given = attention.isel(layer=layer, head=head).sel(query=other["query"].values)
        assert abs(given.values - other.values).max() < 1e-5
    mean = other.mean("problem")
    attention = run(tiny, set_pattern(mean, [(1, 2)])).attention.isel(layer=1, head=2)
    assert abs(attention.sel(query=other["query"].values).values - mean.values).max() < 1e-5


def test_a_transplanted_block_equals_a_hand_written_one(tiny: CodiModel, hand: HandWritten) -> None:
    block = torch.rand(6, 6, generator=torch.Generator().manual_seed(0)).tril() / 7

    def edits(problem: int, bot: int) -> Edits:
        def weights(layer: int, values: Tensor) -> Tensor:
            values = values.clone()
            for row in range(6) if layer == 2 else ():
                at = bot + 1 + row
                if at < values.shape[1]:
                    rest = values[3, at, : bot + 1].clone()
                    values[3, at, : bot + 1] = rest / rest.sum() * (1 - block[row].sum())
                    values[3, at, bot + 1 : bot + 7] = 0
                    values[3, at, bot + 1 : at + 1] = block[row, : row + 1]
            return values

        return Edits(weights=weights)

    check_against_hand(tiny, hand, transplant_pattern(block, [(2, 3)]), edits)


def test_a_block_of_another_model_is_transplanted(tiny: CodiModel, tiny_gpt2: CodiModel) -> None:
    problems = word_problems(6, seed=21)
    donor = thought_view(extract(tiny_gpt2, problems, progress=False)).isel(layer=1, head=4)
    result = run(tiny, transplant_pattern(donor, [(2, 3)])).attention
    given = thought_view(result).isel(layer=2, head=3)
    assert abs(given.values - donor.values).max() < 1e-5
    assert abs(result.isel(layer=2, head=3).sum("key").values - 1).max() < 1e-5
    mean = donor.mean("problem")
    given = thought_view(run(tiny, transplant_pattern(mean, [(2, 3)])).attention)
    assert abs(given.isel(layer=2, head=3).values - mean.values).max() < 1e-5


def test_labelled_patterns_are_given_by_their_labels(tiny: CodiModel) -> None:
    whole = extract(tiny, word_problems(6, seed=21), progress=False).sel(layer=1, head=4)
    thoughts = thought_view(whole).squeeze()
    for block, give in (
        (thoughts, transplant_pattern),
        (whole.sel(query=["ct0", "ct1", "ct2", "ct3"]), set_pattern),
    ):
        expected = run(tiny, give(block, [(2, 3)])).attention
        backwards = {"query": slice(None, None, -1), "key": slice(None, None, -1)}
        orders = ({"problem": [5, 0, 3, 1, 2, 4]}, backwards)
        for turned in (*map(block.isel, orders), block.transpose()):
            found = run(tiny, give(turned, [(2, 3)])).attention
            assert abs(found - expected).max() < 1e-6
    alone = run(tiny, transplant_pattern(thought_view(whole), [(2, 3)])).attention
    assert alone.equals(run(tiny, transplant_pattern(thoughts, [(2, 3)])).attention)
    with pytest.raises(InterventionError, match="label it with the ids"):
        run(tiny, transplant_pattern(thoughts.assign_coords(problem=list("abcdef")), [(2, 3)]))
    with pytest.raises(InterventionError, match="in the position view, not bot"):
        transplant_pattern(generation_view(whole).squeeze(), [(2, 3)])


def test_transplanting_the_own_block_changes_nothing_beyond_rounding(
    tiny: CodiModel, clean: ThoughtRun
) -> None:
    own = thought_view(clean.attention).isel(layer=1, head=4)
    assert close(run(tiny, transplant_pattern(own, [(1, 4)])).logits, clean.logits)


INTERVENTIONS: dict[str, Callable[[ThoughtRun], Planned]] = {
    "edge": lambda clean: knock_out("ct3", "ct1"),
    "edges": lambda clean: knock_out(["bot", "ct2"], "question", heads=[(1, 1)]),
    "hub": lambda clean: force_hub("ct1", 0.5),
    "columns": lambda clean: swap_columns("ct1", "ct3"),
    "set": lambda clean: set_pattern(
        clean.attention.isel(layer=0, head=1).mean("problem").sel(query=["ct2"]), [(1, 1)]
    ),
    "block": lambda clean: transplant_pattern(
        np.tril(np.full((6, 6), 0.1)), [(1, 1)], at=["ct1", "ct3"]
    ),
}


@pytest.mark.parametrize("name", INTERVENTIONS)
def test_edges_touch_nothing_before_their_first_query_nor_other_rows(
    tiny: CodiModel, clean: ThoughtRun, name: str
) -> None:
    planned = INTERVENTIONS[name](clean)
    whole = run(tiny, planned)
    check_untouched(clean, whole, planned.first)
    with pytest.raises(InterventionError, match=f"differs from the clean one at '{planned.first}'"):
        check_untouched(clean, whole, "answer")
    some = run(tiny, for_rows(planned, [1, 4]))
    assert same_bits(some, clean, [0, 2, 3, 5])
    assert same_bits(some, whole, [1, 4])


def test_interventions_compose_in_order(tiny: CodiModel) -> None:
    cut, heads = knock_out("ct3", "ct1"), ablate_heads([(0, 1)], "zero", at="ct3")
    both = run(tiny, cut, heads)
    assert not same_bits(both, run(tiny, cut))
    assert not same_bits(both, run(tiny, heads))
    assert not both.attention.sel(query="ct3", key="ct1").values.any()


def test_bad_edges_and_patterns_are_one_clear_sentence(tiny_gpt2: CodiModel) -> None:
    ones = torch.ones(6, 6)
    bad: list[tuple[type[Exception], str, Planned]] = [
        (InterventionError, "no query comes after a key", knock_out("ct1", "ct3")),
        (PositionError, "no position 'ct7'", knock_out("ct1", "ct7")),
        (PositionError, r"no head L1H8", knock_out("ct2", "ct1", heads=[(1, 8)])),
        (PositionError, r"no head L3H0", knock_out("ct2", "ct1", layers=[3])),
        (InterventionError, "given no layer", knock_out("ct2", "ct1", layers=[])),
        (PositionError, "'question' is not a single position", force_hub("question", 0.5)),
        (PositionError, "No thought comes after 'eot'", force_hub("eot", 0.5)),
        (PositionError, "'ct0' comes before 'ct1'", force_hub("ct1", 0.5, at="thoughts")),
        (InterventionError, "later thoughts", transplant_pattern(ones / 6, [(0, 0)])),
        (InterventionError, "at most 1", transplant_pattern(ones.tril(), [(0, 0)])),
        (InterventionError, "has shape", transplant_pattern(ones[:5, :5], [(0, 0)])),
        (
            PositionError,
            "thoughts only, not for 'bot'",
            transplant_pattern(ones, [(0, 0)], at="bot"),
        ),
        (PositionError, "'answer' has no pattern", freeze_patterns(at="all")),
    ]
    for error, message, intervention in bad:
        with pytest.raises(error, match=message):
            run(tiny_gpt2, intervention)
    with pytest.raises(InterventionError, match="heads or layers, not both"):
        knock_out("ct2", "ct1", heads=[(0, 0)], layers=[0])
    with pytest.raises(InterventionError, match=r"from 0 to 1; it is 1\.5"):
        force_hub("ct1", 1.5)
    with pytest.raises(InterventionError, match="twice"):
        swap_columns("ct1", "ct1")
