"""A hook that edits in place acts wherever codi_lens hands it a copy, as in TransformerLens."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, cast

import pytest
import torch
from support.against_hand import OTHERS, PROBLEMS, TEXTS, run, same_bits
from torch import Tensor

from codi_lens import (
    CodiModel,
    Donors,
    Intervention,
    InterventionError,
    Planned,
    compare_interventions,
    extract,
    for_rows,
    with_donors,
)
from codi_lens.thinking.clean_runs import CleanRuns
from codi_lens.thinking.prompts import prepare

Z = "blocks.1.attn.hook_z"
Hook = Callable[..., Any]


def by_index(x: Tensor, hook: object) -> None:
    x[...] = 0


def by_method(x: Tensor, hook: object) -> None:
    x.mul_(0)


def through_a_view(x: Tensor, hook: object) -> None:
    for part in x.unbind(1):
        part.zero_()


def through_a_flat_view(x: Tensor, hook: object) -> None:
    x.view(-1)[:] = 0


def through_data(x: Tensor, hook: object) -> None:
    x.data.zero_()


def through_numpy(x: Tensor, hook: object) -> None:
    x.numpy()[:] = 0


def as_data(x: Tensor, hook: object) -> None:
    x.data = torch.zeros_like(x)


def and_returned(x: Tensor, hook: object) -> Tensor:
    x[...] = 0
    return x


def overruled(x: Tensor, hook: object) -> Tensor:
    x[...] = 7
    return torch.zeros_like(x)


def returned(x: Tensor, hook: object) -> Tensor:
    return torch.zeros_like(x)


EDITS = [
    by_index,
    by_method,
    through_a_view,
    through_a_flat_view,
    through_data,
    through_numpy,
    as_data,
    and_returned,
    overruled,
]


def planned(hook: Hook, at: str) -> Planned:
    return Planned("in place", "question", lambda context: [Intervention([(Z, hook)], at)])


WRAPPERS: dict[str, Callable[[Hook, CodiModel], Intervention | Planned]] = {
    "all": lambda hook, model: Intervention([(Z, hook)]),
    "thinking": lambda hook, model: Intervention([(Z, hook)], at="thinking"),
    "one thought": lambda hook, model: Intervention([(Z, hook)], at="ct1"),
    "rows": lambda hook, model: for_rows(Intervention([(Z, hook)], at="thoughts"), [3, 1]),
    "rows of rows": lambda hook, model: for_rows(
        for_rows(Intervention([(Z, hook)]), [1, 0]), [4, 2, 5]
    ),
    "planned": lambda hook, model: planned(hook, "thoughts"),
    "planned for rows": lambda hook, model: for_rows(planned(hook, "ct2"), [0, 5]),
    "with donors": lambda hook, model: with_donors(planned(hook, "eot"), Donors(model, OTHERS)),
    "answer": lambda hook, model: Intervention([(Z, hook)], at="answer"),
    "pattern": lambda hook, model: Intervention([("blocks.0.attn.hook_pattern", hook)], "ct3"),
    "entry": lambda hook, model: Intervention([("hook_embed", hook)], "ct2"),
    "residual": lambda hook, model: Intervention([("blocks.2.hook_resid_post", hook)], "ct4"),
}


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_in_place_equals_returned(tiny: CodiModel, wrapper: str) -> None:
    wrap = WRAPPERS[wrapper]
    settings = {"names_filter": "blocks.2.hook_resid_post"}
    expected = run(tiny, wrap(returned, tiny), **settings)
    in_place = run(tiny, wrap(by_index, tiny), **settings)
    untouched = run(tiny, **settings)
    assert same_bits(in_place, expected)
    last = "blocks.2.hook_resid_post"
    assert torch.equal(in_place.cache()[last], expected.cache()[last])
    assert not torch.equal(in_place.cache()[last], untouched.cache()[last])


@pytest.mark.parametrize("edit", EDITS)
def test_every_way_to_edit_in_place_acts(tiny_gpt2: CodiModel, edit: Hook) -> None:
    for wrap in (WRAPPERS["thinking"], WRAPPERS["rows of rows"]):
        expected = run(tiny_gpt2, wrap(returned, tiny_gpt2))
        assert same_bits(run(tiny_gpt2, wrap(edit, tiny_gpt2)), expected)


def test_a_hook_that_only_looks_changes_nothing(tiny_gpt2: CodiModel) -> None:
    def look(x: Tensor, hook: object) -> None:
        seen.append(float(x.sum()))

    seen: list[float] = []
    for wrap in (WRAPPERS["all"], WRAPPERS["rows"], WRAPPERS["pattern"]):
        assert same_bits(run(tiny_gpt2, wrap(look, tiny_gpt2)), run(tiny_gpt2))
    assert seen


def test_all_positions_in_place_equal_the_plain_hook(tiny: CodiModel) -> None:
    with tiny.lens.hooks(fwd_hooks=[(Z, by_index)]):
        plain = run(tiny)
    assert same_bits(run(tiny, Intervention([(Z, by_index)])), plain)


@pytest.mark.parametrize("name", [Z, "hook_embed"])
def test_in_place_acts_under_gradients(tiny_gpt2: CodiModel, name: str) -> None:
    def scaled(x: Tensor, hook: object, *, by: Tensor, in_place: bool) -> Tensor | None:
        if not in_place:
            return x * by
        x *= by
        return None

    slopes = []
    clean = CleanRuns.of(tiny_gpt2, prepare(tiny_gpt2, TEXTS[:2]))
    for in_place in (True, False):
        by = torch.tensor(1.5, requires_grad=True)
        hook = partial(scaled, by=by, in_place=in_place)
        rows = for_rows(Intervention([(name, hook)], at=["ct1", "ct2"]), [1])
        assert isinstance(rows, Intervention)
        with clean.resume("ct1", [0, 1], [rows], gradient=True) as again:
            again.logits.sum().backward()
        slopes.append(by.grad)
    assert slopes[0].abs() > 1e-3
    assert torch.equal(*slopes)


def test_measures_and_extractions_see_in_place_edits(tiny_gpt2: CodiModel) -> None:
    arms = {"in place": Intervention([(Z, by_index)]), "returned": Intervention([(Z, returned)])}
    effects = compare_interventions(tiny_gpt2, PROBLEMS, arms).set_index("arm")["effect"]
    assert effects["in place"] == effects["returned"]
    assert abs(effects["in place"]) > 1
    in_place, expected = (
        extract(tiny_gpt2, PROBLEMS, interventions=[arm], progress=False) for arm in arms.values()
    )
    assert in_place.equals(expected)


def test_a_plain_hook_in_place_leaves_given_thoughts_alone(tiny_gpt2: CodiModel) -> None:
    thoughts = run(tiny_gpt2).thoughts
    before = thoughts.clone()
    with tiny_gpt2.lens.hooks(fwd_hooks=[("hook_embed", by_index)]):
        moved = run(tiny_gpt2, thoughts=thoughts)
    assert torch.equal(thoughts, before)
    assert not moved.thoughts.any()
    assert moved.predicted_thoughts.any()


def test_what_a_hook_may_not_return_is_named(tiny_gpt2: CodiModel) -> None:
    wrong = Intervention([(Z, cast(Hook, lambda x, hook: 0.0))], at="ct1")
    with pytest.raises(InterventionError, match=r"returned 0\.0; it must return a tensor of shape"):
        run(tiny_gpt2, wrong)
