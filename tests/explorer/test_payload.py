"""What the page is given: the schema holds, and numbers are those of the attention."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy import stats
from support.constructed import make_attention, make_heads, random_attention
from support.explored import block, large, recall, undefined
from support.oracle import ROOT
from support.pages import Tags, data_of

from codi_lens import ConstantMetricWarning, explore, rank_heads
from codi_lens.attention.example import two_heads
from codi_lens.errors import AttentionError
from codi_lens.explorer.packing import MAX_ERROR, to_bytes
from codi_lens.explorer.payload import STRIPS_LIMIT, VERSION
from codi_lens.plots import explorer_page
from codi_lens.plots.html import script_json

SCHEMA = json.loads((ROOT / "codi_lens/explorer/schema.json").read_text(encoding="utf-8"))
CELLS = (3, 8, 9, 10)


def as_sent(explorer: Any) -> dict[str, Any]:
    return json.loads(script_json(explorer.payload))


@pytest.mark.parametrize(
    "made",
    [
        lambda: recall().explorer,
        lambda: large(2),
        lambda: explore(two_heads()),
        lambda: explore(two_heads().mean("problem")),
        lambda: explore(random_attention(n=2), n_problems=0),
    ],
    ids=["everything", "large", "two heads", "a mean", "two thoughts"],
)
def test_every_payload_keeps_to_the_schema(made: Any) -> None:
    jsonschema.Draft202012Validator(SCHEMA).validate(as_sent(made()))


def test_the_schema_refuses_what_it_does_not_know() -> None:
    sent = as_sent(explore(two_heads()))
    assert SCHEMA["properties"]["version"]["const"] == VERSION == sent["version"]
    for change in ({"version": 2}, {"layers": []}, {"news": 1}, {"series": []}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(sent | change, SCHEMA)


def test_eight_bits_are_off_by_a_510th_at_most() -> None:
    values = np.random.default_rng(0).uniform(size=100_000)
    kept = to_bytes(values) / 255
    assert np.abs(kept - values).max() <= MAX_ERROR
    explored = recall()
    for i, id in enumerate(explored.attention["problem"].values):
        sent = block(explored.explorer, f"a0/{i}", np.uint8, *CELLS) / 255
        given = explored.attention.sel(problem=id).to_numpy()
        assert np.nanmax(np.abs(sent - given)) <= MAX_ERROR + 1e-6
        other = block(explored.explorer, f"a1/{i}", np.uint8, *CELLS) / 255
        assert np.nanmax(np.abs(other - explored.ablated.sel(problem=id))) <= MAX_ERROR + 1e-6


def test_means_and_their_intervals_are_those_of_scipy() -> None:
    attention = random_attention(n_problems=300)
    attention[::3, :, :, -1] = np.nan  # answers without a number
    made = explore(attention)
    for rows, given in ((slice(None, -1), attention), (slice(-1, None), attention[1::3])):
        if rows == slice(-1, None):
            given = attention[np.isfinite(attention[:, 0, 0, -1, 0].values)]
        values = given.isel(query=rows).to_numpy().astype(float)
        mean = block(made, "m0", "<f4", 3, 4, 9, 10)[:, :, rows]
        half = block(made, "h0", "<f4", 3, 4, 9, 10)[:, :, rows]
        np.testing.assert_allclose(mean, values.mean(0), atol=1e-6)
        margin = stats.t.ppf(0.975, len(values) - 1) * stats.sem(values)
        np.testing.assert_allclose(half, margin, atol=1e-6)
    undefined = [each["undefined"] for each in made.payload["problems"][:3]]
    assert undefined == [[["anchor"]], [[]], [[]]]


def test_strips_are_the_patterns_of_the_run_and_sum_to_the_question() -> None:
    explored = recall()
    cache = explored.runs[0].cache()
    for i, problem in enumerate(explored.problems[:8]):
        tokens = explored.explorer.payload["problems"][i]["tokens"]
        assert "".join(tokens).endswith(problem.question)
        strip = block(explored.explorer, f"t{i}", np.uint8, 3, 8, 9, len(tokens)) / 255
        where = explored.runs[0].span("question")[i]
        place = int(explored.runs[0].index("ct1")[i])
        pattern = cache["blocks.2.attn.hook_pattern"][i, 3, place, where].numpy()
        np.testing.assert_allclose(strip[2, 3, 2], pattern, atol=MAX_ERROR + 1e-6)
        given = explored.attention.sel(problem=problem.id, key="question").to_numpy()
        np.testing.assert_allclose(strip.sum(-1), given, atol=len(tokens) * MAX_ERROR)


def test_what_the_lens_reads_goes_along() -> None:
    explored = recall()
    lens = explored.explorer.payload["lens"]
    shape = (len(lens["positions"]), len(lens["layers"]), lens["k"])
    assert lens["positions"] == ["bot", *(f"ct{i}" for i in range(6)), "eot", "anchor"]
    packed = block(explored.explorer, "l4", np.uint8, -1)
    n = int(np.prod(shape))
    tokens = packed[: 2 * n].view("<u2").reshape(shape)
    table = explored.lens.sel(problem=explored.problems[4].id, position=lens["positions"])
    table = table.transpose("position", "layer", "rank", ...)
    assert [[lens["texts"][id] for id in row] for row in tokens[:, -1]] == table["token"][
        :, -1
    ].values.tolist()
    likely = packed[2 * n :].reshape(shape) / 255
    np.testing.assert_allclose(likely, table["probability"], atol=MAX_ERROR + 1e-6)


def test_totals_edges_answers_and_effects_go_along() -> None:
    explored = recall()
    for told, problem in zip(explored.explorer.payload["problems"], explored.problems, strict=True):
        assert [each["value"] for each in told["totals"]] == [
            str(total) for total in (problem.start, *problem.totals)
        ]
        expected = [["anchor" if q == "answer" else q, k] for q, k in problem.edges]
        assert told["edges"] == expected and told["expected"] == f"{problem.answer:g}"
    by_scope = {
        each["scope"]: each
        for each in explored.explorer.payload["quantities"]
        if each["group"] == "Ablation"
    }
    assert list(by_scope) == ["thinking", "anchor"]
    table = explored.effects[explored.effects["scope"] == "anchor"].set_index("name")
    sent = by_scope["anchor"]
    assert (sent["unit"], sent["signed"], sent["n"]) == ("nats", True, len(explored.problems))
    names = [f"L{layer}H{head}" for layer in range(3) for head in range(8)]
    np.testing.assert_allclose(sent["values"], table.loc[names, "effect"], rtol=1e-5)
    np.testing.assert_allclose(sent["q"], table.loc[names, "q"], rtol=1e-5)


def test_a_selection_keeps_its_labels() -> None:
    attention = random_attention(n_layers=3, n_heads=6)
    chosen = attention.isel(layer=[2, 0], head=[5, 3])
    made = explore(chosen)
    assert (made.payload["layers"], made.payload["heads"]) == ([0, 2], [3, 5])
    expected = attention.mean("problem").sel(layer=2, head=3)
    np.testing.assert_allclose(block(made, "m0", "<f4", 2, 2, 9, 10)[1, 0], expected, atol=1e-6)


def test_strips_of_the_best_heads_stay_within_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    limit = STRIPS_LIMIT // 10
    monkeypatch.setattr("codi_lens.explorer.payload.STRIPS_LIMIT", limit)
    made = large(10)
    kept = made.payload["strips"]["heads"]
    assert 0 < len(kept) < 512
    assert sum(len(each) for name, each in made.blocks.items() if name[0] == "t") <= limit
    scores = np.array(made.payload["quantities"][0]["values"])
    left_out = sorted(set(range(512)) - set(kept))
    assert scores[kept].min() >= scores[left_out].max()


def test_the_page_refers_to_nothing_outside_itself() -> None:
    tags = Tags(recall().explorer.page()).tags
    for tag, attributes in tags:
        assert tag not in ("link", "iframe", "img")
        assert not {"src", "href"} & attributes.keys(), (tag, attributes)
    (policy,) = (found["content"] for _, found in tags if "http-equiv" in found)
    assert policy.startswith("default-src 'none'") and "connect-src 'none'" in policy


def test_text_cannot_become_markup() -> None:
    attack = "</script><script>alert(1)</script><b>&{{js}}"
    attention = make_attention(1, 2)
    tables = {"position": make_heads(attention)}
    tables["position"]["type"] = "</script><!--<script>"
    page = explorer_page(attention, tables, title=attack, facts={attack: attack}, findings=[attack])
    plain = explorer_page(attention, tables, title="t", facts={}, findings=[])
    count = [[tag for tag, _ in Tags(each).tags].count("script") for each in (page, plain)]
    assert count[0] == count[1] and "alert(1)</script>" not in page and "<!--<script>" not in page
    assert data_of(page)["labels"][0]["values"] == ["</script><!--<script>"] * 2


def test_an_undefined_score_is_null_and_not_a_broken_page() -> None:
    attention = make_attention(1, 2)
    table = make_heads(attention)
    table.loc[0, ["hub", "hub_low", "hub_high"]] = np.nan
    sent = data_of(explorer_page(attention, {"position": table}, title="t", facts={}, findings=[]))
    (hub,) = (each for each in sent["quantities"] if each["name"] == "position/hub")
    assert hub["values"].count(None) == hub["low"].count(None) == 1


def page_of(attention: xr.DataArray, tables: Any) -> str:
    return explorer_page(attention, tables, title="t", facts={}, findings=[])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda a: page_of(a, {}), 'needs a heads table under "position" or "generation"'),
        (
            lambda a: page_of(a, {"thoughts": make_heads(a)}),
            'must be one of "position", "generation"',
        ),
        (lambda a: page_of(a, {"position": make_heads(a, "generation")}), "in the generation view"),
        (lambda a: page_of(a, {"position": make_heads(a)[1:]}), "24 heads, not 23"),
        (lambda a: explore(a.expand_dims("batch")), "[Ll]abel|dim"),
        (lambda a: explore(a, edges={"p0": [("ct1", "ct0")]}), "belong to problems"),
        (lambda a: explore(two_heads(), edges={"x": [("ct1", "ct0")]}), "the problem 'x', which"),
        (
            lambda a: explore(two_heads(), edges={two_heads()["problem"].values[0]: [("a", "b")]}),
            "the edge a → b; queries are bot",
        ),
        (lambda a: explore(two_heads(), baseline=a), "baseline 'baseline' has 3 layer labels"),
        (lambda a: explore(two_heads(), runs=recall().runs), "hold 10 problems and the attention"),
        (
            lambda a: explore(
                two_heads(), effects=pd.DataFrame({"layer": [9], "head": [0], "effect": [1.0]})
            ),
            "has the head L9H0, which the attention",
        ),
        (
            lambda a: explore(two_heads(), effects=pd.DataFrame({"layer": [0], "head": [0]})),
            "no column effect or attribution",
        ),
        (lambda a: explore(two_heads(), effects=pd.DataFrame({"x": [0]})), "layer"),
        (lambda a: explore(two_heads(), readout=xr.Dataset({"y": 1})), "not a dataset of y"),
        (lambda a: explore(two_heads(), readout=pd.DataFrame({"x": [0]})), "logit_lens"),
        (lambda a: explore(two_heads(), n_problems=-1), "n_problems"),
    ],
)
def test_what_does_not_belong_together_is_refused(make: Any, message: str) -> None:
    with pytest.raises(AttentionError, match=message):
        make(make_attention())


def test_runs_of_other_problems_are_refused() -> None:
    explored = recall()
    with pytest.raises(AttentionError, match="is not that of its attention"):
        explore(explored.attention[1:9], runs=explored.runs[0])


def test_attention_of_a_run_is_taken_as_it_is() -> None:
    explored = recall()
    run = explored.runs[0]
    made = explore(run.attention, runs=run, edges={"0": [("answer", "ct0")]})
    first = made.payload["problems"][0]
    assert (first["id"], first["edges"]) == ("0", [["anchor", "ct0"]]) and first["tokens"]
    twice = run.attention.assign_coords(problem=["a", "a", *map(str, range(2, len(run.answers)))])
    with pytest.raises(AttentionError, match="Two problems of the attention have the id 'a'"):
        explore(twice)


def test_each_series_says_which_rows_it_lacks() -> None:
    told = [each["undefined"] for each in undefined().payload["problems"]]
    assert told == [[[], ["anchor"]], [["anchor"], []], [[], []]]


def test_a_table_of_its_own_view_is_taken_alone() -> None:
    with pytest.warns(ConstantMetricWarning):
        table = rank_heads(two_heads(), "generation")
    made = explore(two_heads(), table)
    assert {each["view"] for each in made.payload["quantities"]} == {"generation"}
