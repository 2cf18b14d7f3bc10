"""Attributions are the gradients they claim to be, and integrate to what interventions measure."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from support.oracle import ROOT
from support.reading import layout_of, number, traces_of
from torch import Tensor, nn

from codi_lens import CodiModel, Intervention
from codi_lens.causal.agreement import compare_with_exact
from codi_lens.causal.attribution import (
    IncompleteAttributionWarning,
    attribute_heads,
    attribute_thoughts,
    head_attributions,
    summarise_attributions,
    thought_attributions,
)
from codi_lens.causal.measure import CLEAN, measure
from codi_lens.causal.outcomes import Outcome
from codi_lens.causal.path import Refining, integrate
from codi_lens.causal.sweeps import sweep_heads, sweep_thoughts
from codi_lens.errors import InterventionError, PositionError, ProblemError
from codi_lens.head_names import all_heads
from codi_lens.interventions import Donors, ablate_heads, patch_thoughts, scale_heads
from codi_lens.loading.backends import backend_of
from codi_lens.plots.causal.attribution import attribution_scatter, thought_attributions_figure
from codi_lens.problems import word_problems
from codi_lens.reports.questions.heads import attribution_section

PROBLEMS = word_problems(5, seed=17)
OTHERS = word_problems(9, seed=18)
# The tiny models' answers have fewer tokens; what an intervention broke would talk on to 64.
QUIET: dict[str, Any] = {"progress": False, "max_new_tokens": 12}
SHORT: dict[str, Any] = QUIET | {"max_new_tokens": 2}
STEP = 1e-4  # of central differences; their error is of order 1e-8 in float64


@pytest.fixture(scope="module", params=["tiny-gpt2", "tiny-llama"])
def precise(request: pytest.FixtureRequest) -> CodiModel:
    model = CodiModel.from_pretrained(ROOT / "checkpoints" / request.param, dtype=torch.float64)
    if backend_of(model.lens) == "bridge" and request.param == "tiny-llama":
        pytest.skip("Hugging Face's LLaMA computes norms and patterns in float32")
    return model


def log_probs(
    model: CodiModel, arms: dict[str, Any], outcome: str = "log_prob"
) -> dict[str, np.ndarray]:
    table = measure(model, PROBLEMS, arms, progress=False)
    return {str(name): rows[outcome].to_numpy() for name, rows in table.groupby("arm")}


def scaled_thought(name: str, factor: float) -> Intervention:
    return Intervention([("hook_embed", lambda embed, hook: embed * factor)], at=name)


def slope(found: dict[str, np.ndarray], unit: Any) -> np.ndarray:
    """Along the way to zero: a gate g scales what it lets through by 1 - g."""
    return (found[f"{unit} less"] - found[f"{unit} more"]) / (2 * STEP)


@pytest.mark.parametrize("outcome", ["log_prob", "logit_difference"])
def test_heads_are_attributed_their_derivative_through_all_thoughts(
    precise: CodiModel, outcome: Outcome
) -> None:
    units = [(0, 0, "bot"), (1, 7, "bot"), (0, 3, "ct1"), (2, 5, "ct3"), (1, 2, "eot")]
    arms = {
        f"{unit} {way}": scale_heads([unit[:2]], 1 + sign * STEP, unit[2])
        for unit in units
        for way, sign in (("less", -1), ("more", 1))
    }
    measured = log_probs(precise, arms, outcome)
    at = ["bot", "ct1", "ct3", "eot"]
    found = head_attributions(precise, PROBLEMS, mode="zero", at=at, outcome=outcome, **QUIET)
    for unit in units:
        layer, head, position = unit
        ours = found.sel(layer=layer, head=head, position=position).values
        expected = slope(measured, unit)
        assert np.abs(expected).max() > 1e-6, "nothing to attribute"
        np.testing.assert_allclose(ours, expected, rtol=1e-3, atol=1e-9, err_msg=str(unit))


def test_thoughts_are_attributed_their_derivative_through_later_thoughts(
    precise: CodiModel,
) -> None:
    names = ["ct0", "ct2", "ct5"]
    arms = {
        f"{name} {way}": scaled_thought(name, 1 + sign * STEP)
        for name in names
        for way, sign in (("less", -1), ("more", 1))
    }
    measured = log_probs(precise, arms)
    found = thought_attributions(precise, PROBLEMS, mode="zero", **QUIET)
    for name in names:
        expected = slope(measured, name)
        ours = found.sel(thought=name).values
        np.testing.assert_allclose(ours, expected, rtol=1e-3, atol=1e-9, err_msg=name)

    class Cut(nn.Module):
        def forward(self, hidden: Tensor) -> Tensor:
            return precise.projection(hidden).detach()

    cut = thought_attributions(
        dataclasses.replace(precise, projection=Cut()), PROBLEMS, mode="zero", **QUIET
    )
    missed = np.abs(cut.sel(thought="ct0").values - slope(measured, "ct0")).max()
    assert missed > 0.1 * np.abs(slope(measured, "ct0")).max(), "later thoughts do not matter here"
    last = [each.sel(thought="ct5").values for each in (cut, found)]
    np.testing.assert_allclose(*last, rtol=1e-9, atol=1e-12)  # no thought follows the last


def test_integrated_thoughts_sum_to_the_effect_of_patching_them(tiny: CodiModel) -> None:
    """By completeness, thought by thought, on any path however steep."""
    donors = Donors(tiny, OTHERS)
    names = ["ct0", "ct2", "ct3"]
    measured = log_probs(tiny, {name: patch_thoughts(name, "resample", donors) for name in names})
    effects = np.stack([measured[name] - measured[CLEAN] for name in names], axis=1)
    assert np.abs(effects).mean() > 0.5
    found = thought_attributions(tiny, PROBLEMS, names, method="integrated", donors=donors, **QUIET)
    np.testing.assert_allclose(found["effect"], effects, atol=1e-4)
    np.testing.assert_allclose(found["gap"], found - found["effect"], atol=1e-12)
    np.testing.assert_allclose(found, effects, rtol=0.02, atol=0.02)
    points = found["points"].values
    assert points.min() == 8, "a straight path needs no refining"
    assert 8 < points.max() <= 1024


@pytest.mark.parametrize("mode", ["resample", "mean", "zero"])
def test_integrated_heads_sum_to_the_effect_of_ablating_all_of_them(
    tiny: CodiModel, mode: Any
) -> None:
    """Over all of thinking the path is so steep that 16 points miss by up to 77 nats."""
    donors, few = Donors(tiny, OTHERS), PROBLEMS[:3]
    whole = ablate_heads(all_heads(tiny.lens.cfg), mode, "thinking", donors)
    measured = log_probs(tiny, {"all": whole})
    effect = (measured["all"] - measured[CLEAN])[:3]
    settings: dict[str, Any] = {"method": "integrated", "mode": mode, "donors": donors, **QUIET}
    found = head_attributions(tiny, few, **settings)
    np.testing.assert_allclose(found["effect"], effect, atol=1e-4)
    total = found.sum(["layer", "head", "position"])
    np.testing.assert_allclose(found["gap"], total - found["effect"], atol=1e-9)
    np.testing.assert_allclose(total, effect, rtol=0.02, atol=0.02)
    coarse = head_attributions(tiny, few, max_steps=16, **settings)
    assert np.abs(coarse["gap"]).max() > 10 * np.abs(found["gap"]).max()


def test_sums_that_are_not_complete_are_warned_of(tiny_gpt2: CodiModel) -> None:
    settings: dict[str, Any] = {"method": "integrated", "donors": Donors(tiny_gpt2, OTHERS)}
    with pytest.warns(IncompleteAttributionWarning, match="of 5 problems .* do not rank by them"):
        coarse = attribute_heads(tiny_gpt2, PROBLEMS, steps=2, max_steps=2, **settings, **QUIET)
    fine = attribute_heads(tiny_gpt2, PROBLEMS, **settings, **QUIET)
    assert coarse["n_complete"].max() < 5
    assert set(fine["n_complete"]) == {5}
    assert fine["largest_gap"].max() < 1 < coarse["largest_gap"].max()
    patching = attribute_heads(tiny_gpt2, PROBLEMS, donors=settings["donors"], **QUIET)
    assert "n_complete" not in patching, "a gradient at one point sums to nothing in particular"


def test_the_integral_of_a_step_is_found_where_it_is() -> None:
    """Two problems: a straight line, and a step of width 1e-3 that 16 points overlook."""

    def slopes_at(rows: Any, gates: np.ndarray) -> tuple[Tensor, Tensor]:
        at, steep = torch.tensor(gates), torch.tensor(rows) == 1
        step = torch.sigmoid((at - 0.3) * 1e4)
        outcome = torch.where(steep, -8 * step, 2 * at)
        slope = torch.where(steep, -8e4 * step * (1 - step), torch.full_like(at, 2.0))
        return outcome, torch.stack([0.25 * slope, 0.75 * slope], dim=1)

    found = integrate(slopes_at, 2, Refining(), 7)
    np.testing.assert_allclose(found.effect, [2, -8])
    np.testing.assert_allclose(found.values, [[0.5, 1.5], [-2, -6]], atol=0.15)
    assert found.points[0] == 8 < found.points[1] < 512
    few = integrate(slopes_at, 2, Refining(max_steps=16), 7)
    assert abs(few.gap[1]) > 1 > abs(few.gap[0])
    for odd in (Refining(steps=0), Refining(max_steps=4), Refining(tolerance=0.0)):
        with pytest.raises(InterventionError, match=r"at least|above 0"):
            odd.checked()


def test_integrated_attribution_sees_what_the_saturated_gradient_does_not(
    tiny_gpt2: CodiModel,
) -> None:
    """The answers are nearly certain, so that the clean gradient vanishes; the path leaves that."""
    problems = word_problems(8, seed=23)
    donors = Donors(tiny_gpt2, problems)
    effects = sweep_thoughts(tiny_gpt2, problems, ["resample"], donors=donors, **QUIET)
    settings: dict[str, Any] = {"donors": donors, **QUIET}
    tables = {
        method: attribute_thoughts(tiny_gpt2, problems, ["resample"], method=method, **settings)
        for method in ("patching", "integrated")
    }
    assert effects["effect"].min() < -1
    assert tables["patching"]["attribution"].abs().max() < -0.1 * effects["effect"].min()
    assert compare_with_exact(tables["integrated"], effects).pearson > 0.999, "by completeness"


def test_attributions_do_not_depend_on_batching(tiny_gpt2: CodiModel) -> None:
    donors = Donors(tiny_gpt2, OTHERS)
    settings: dict[str, Any] = {"method": "integrated", "max_steps": 16, "donors": donors, **QUIET}
    for function in (head_attributions, thought_attributions):
        whole = function(tiny_gpt2, PROBLEMS, **settings)
        apart = function(tiny_gpt2, PROBLEMS, problems_at_once=3, rows_at_once=3, **settings)
        assert whole.problem.values.tolist() == [problem.id for problem in PROBLEMS]
        # Float32 in other batches, at points of a steep path.
        np.testing.assert_allclose(apart, whole, rtol=2e-2, atol=1e-3)


def test_every_scope_can_be_attributed(tiny_gpt2: CodiModel) -> None:
    donors = Donors(tiny_gpt2, OTHERS)
    whole = head_attributions(tiny_gpt2, PROBLEMS, at="all", donors=donors, **QUIET)
    assert np.isfinite(whole.values).all()
    thinking = head_attributions(tiny_gpt2, PROBLEMS, donors=donors, **QUIET)
    some = whole.sel(position=thinking["position"].values)
    np.testing.assert_allclose(some, thinking, rtol=1e-2, atol=1e-5)
    table = attribute_heads(tiny_gpt2, PROBLEMS, donors=donors, **QUIET)
    expected = thinking.sel(layer=1, head=7).sum("position").mean().item()
    assert number(table.set_index("name"), "L1H7", "attribution") == pytest.approx(expected)


def test_problems_without_a_number_are_left_out(tiny_gpt2: CodiModel) -> None:
    found = thought_attributions(tiny_gpt2, PROBLEMS, mode="zero", **SHORT)
    assert np.isnan(found.values).all()
    values = np.array([[1.0], [np.nan], [3.0]])
    row = summarise_attributions(values).iloc[0]
    assert row[["n", "n_known", "attribution"]].tolist() == [3, 2, 2.0]


def test_agreement_is_what_the_tables_say() -> None:
    names = ["L0H0", "L0H1", "L1H0", "L1H1"]
    heads = pd.DataFrame({"layer": [0, 0, 1, 1], "name": names})
    attributions = heads.assign(attribution=[-4.0, 1.0, -2.0, 0.5])
    effects = heads.assign(effect=[-8.0, 2.0, -1.0, -1.5], matters=[True, False, True, True])[::-1]
    found = compare_with_exact(attributions, effects, top=2)
    assert found.overall.rho == pytest.approx(0.8)
    assert found.within is not None
    assert found.shared == 1
    assert (found.same_sign, found.n_effects) == (0.75, 3)
    assert found.same_sign_effects == pytest.approx(2 / 3)
    assert found.pearson == pytest.approx(
        np.corrcoef(attributions["attribution"], effects["effect"][::-1])[0, 1]
    )
    assert found.units["name"].tolist() == ["L0H0", "L1H1", "L0H1", "L1H0"]
    assert found.units["error"].tolist() == [4.0, 2.0, -1.0, -1.0]


def heads_like(seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Attributions and effects of 24 heads, the largest ones close together."""
    rng = np.random.default_rng(seed)
    effect = -rng.exponential(size=24)
    effect[:4] = [-9.0, -8.95, -8.9, -8.85]
    guess = effect * 0.5 + rng.normal(scale=0.1, size=24)
    names = [f"L{i // 8}H{i % 8}" for i in range(24)]
    heads = pd.DataFrame({"layer": np.arange(24) // 8, "name": names, "matters": False})
    tables = [
        heads.assign(
            **{column: values, f"{column}_low": values - 0.2, f"{column}_high": values + 0.3}
        )
        for column, values in (("attribution", guess), ("effect", effect))
    ]
    return tables[0], tables[1]


def test_the_scatter_shows_every_head_and_names_the_largest_apart() -> None:
    attributions, effects = heads_like(0)
    found = compare_with_exact(attributions, effects)
    figure = attribution_scatter(attributions, effects[::-1], found.overall, method="patching")
    drawn = {
        name: (x, y)
        for trace in traces_of(figure)[1:]
        for name, x, y in zip(trace.text, trace.x, trace.y, strict=True)
    }
    for a, e in zip(attributions.to_dict("records"), effects.to_dict("records"), strict=True):
        assert drawn[a["name"]] == (a["attribution"], e["effect"])
    labels = layout_of(figure).annotations
    assert {"L0H0", "L0H1", "L0H2", "L0H3"} <= {label.text for label in labels}
    scale = 400 / np.ptp(layout_of(figure).yaxis.range)
    for side in (-46, 46):
        heights = sorted(label.y * scale - label.ay for label in labels if label.ax == side)
        assert (np.diff(heights) > 16).all()
    with pytest.raises(InterventionError, match="no column 'effect'"):
        attribution_scatter(attributions, attributions, found.overall)


def test_the_section_holds_both_methods_against_the_sweep(tiny_gpt2: CodiModel) -> None:
    few, donors = PROBLEMS[:2], Donors(tiny_gpt2, OTHERS)
    effects = sweep_heads(tiny_gpt2, few, donors=donors, **QUIET)
    section = attribution_section(tiny_gpt2, few, effects, donors=donors, max_steps=16, **QUIET)
    assert len(section.findings) == 5
    assert "sum to the effect of replacing all heads together" in section.findings[-1]
    assert len(section.tables["attribution_heads_integrated"]) == 24
    figure = section.figures["attribution_thoughts"]
    measured = section.tables["attribution_thoughts_measured"]
    assert [trace.name for trace in traces_of(figure)] == [
        "measured",
        "attribution patching",
        "integrated gradients",
    ]
    assert list(traces_of(figure)[0].y) == measured["effect"].tolist()
    with pytest.raises(InterventionError, match="holds no thought in mode 'zero'"):
        thought_attributions_figure({}, measured, "zero")


def test_mistakes_are_named(tiny_gpt2: CodiModel) -> None:
    wrong: Any = "guess"
    with pytest.raises(InterventionError, match="no attribution method 'guess'; there are patch"):
        inspect.unwrap(attribute_heads)(tiny_gpt2, PROBLEMS, method=wrong, **QUIET)
    with pytest.raises(InterventionError, match="no attribution mode 'guess'; there are resample"):
        inspect.unwrap(attribute_thoughts)(tiny_gpt2, PROBLEMS, [wrong], **QUIET)
    with pytest.raises(InterventionError, match="no differentiable outcome 'guess'; there are log"):
        inspect.unwrap(attribute_heads)(tiny_gpt2, PROBLEMS, outcome=wrong, **QUIET)
    with pytest.raises(InterventionError, match="steps must be at least 1, not 0"):
        attribute_heads(tiny_gpt2, PROBLEMS, method="integrated", steps=0, **QUIET)
    with pytest.raises(PositionError, match="'bot' is not a thought; give names from ct0 on"):
        thought_attributions(tiny_gpt2, PROBLEMS, "thinking", **QUIET)
    with pytest.raises(ProblemError, match="occurs twice"):
        attribute_heads(tiny_gpt2, PROBLEMS * 2, **QUIET)
    heads = pd.DataFrame({"layer": [0, 0, 1], "name": ["a", "b", "c"], "attribution": [1.0, 2, 3]})
    effects = heads.rename(columns={"attribution": "effect"}).assign(matters=False)
    with pytest.raises(InterventionError, match="Only 2 of 3 attributed units have an exact"):
        compare_with_exact(heads, effects[:2])
    with pytest.raises(InterventionError, match="no column 'effect'; compare attribute_heads"):
        compare_with_exact(heads, heads)
    with pytest.raises(InterventionError, match="top must be from 1 to 3; it is 5"):
        compare_with_exact(heads, effects)
