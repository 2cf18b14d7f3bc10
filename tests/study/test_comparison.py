"""Two models compare in the study's own fields, whatever their sizes."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from support.constructed import random_attention

from codi_lens.attention.quantities import corrected_quantities
from codi_lens.errors import AttentionError
from codi_lens.outputs import to_json
from codi_lens.study.comparison import compare_corrected, compare_studies
from codi_lens.study.run import run_study

SMALL = run_study(random_attention(7, n_layers=2, n_heads=3, n=4), "small")
LARGE = run_study(random_attention(7, n_layers=6, n_heads=8, n=6, seed=1), "large")


def test_models_of_different_size_compare_in_the_fields_of_the_study() -> None:
    table = compare_studies(SMALL, LARGE)
    assert set(table) >= {
        "models",
        "hub_analysis",
        "top_heads",
        "functional_type_distribution_top20",
        "layer_distribution_top20",
        "key_findings",
    }
    assert table["models"]["small"] == {
        "n_layers": 2,
        "n_heads": 3,
        "total_heads": 6,
        "n_thoughts": 4,
        "n_problems": 7,
    }
    assert [len(table["hub_analysis"][name]["all_hub_scores"]) for name in ("small", "large")] == [
        4,
        6,
    ]
    assert table["hub_analysis"]["small"]["uniform_baseline"] == 1 / 4
    assert sum(table["layer_distribution_top20"]["small"].values()) == 6, "it has only six heads"
    assert sum(table["layer_distribution_top20"]["large"].values()) == 20


def test_comparison_repeats_what_each_study_says() -> None:
    table = compare_studies(SMALL, LARGE)
    for study in (SMALL, LARGE):
        name, best = study.model, study.heads.iloc[0]
        assert table["top_heads"][name]["composite_score"] == best["composite_score"]
        assert table["top_heads"][name]["functional_type"] == best["functional_type"]
        hub = table["key_findings"]["hub_strength"][name]
        assert hub["ratio"] == study.summary["hub_analysis"]["hub_ratio"]
        for metric in ("flow_score", "hub_score", "skip_score"):
            shown = table["attention_metrics"][name][metric]
            assert shown["mean"] == pytest.approx(study.heads[metric].mean())
            assert shown["max"] == study.heads[metric].max()


def test_order_of_the_models_does_not_change_what_is_said_of_them() -> None:
    one, other = compare_studies(SMALL, LARGE), compare_studies(LARGE, SMALL)
    assert one == other
    assert list(other["models"]) == ["large", "small"]


def test_comparison_is_plain_json() -> None:
    table = compare_studies(SMALL, LARGE)
    assert json.loads(to_json(table)) == json.loads(json.dumps(table))


def test_models_of_the_same_name_are_refused() -> None:
    with pytest.raises(AttentionError, match="Both models are called 'small'"):
        compare_studies(SMALL, run_study(random_attention(seed=3), "small"))


def test_corrected_quantities_stand_side_by_side_and_what_a_model_lacks_is_nan() -> None:
    each = {
        name: corrected_quantities(random_attention(n=n), n_resamples=10)
        for name, n in (("three thoughts", 3), ("five thoughts", 5))
    }
    beside = compare_corrected(each)
    for name, table in each.items():
        for row in table[table["quantity"] != "strongest link"].to_dict("records"):
            found = beside.loc[(row["quantity"], row["at"]), (name, "value")]
            np.testing.assert_equal(found, row["value"])
    lacking: Any = beside.loc[("sequential", "ct4→ct3")]
    assert np.isnan(lacking[("three thoughts", "value")])
    assert lacking[("five thoughts", "value")] > 0
    quantities = list(dict.fromkeys(beside.index.get_level_values("quantity")))
    runs = [
        name
        for i, name in enumerate(beside.index.get_level_values("quantity"))
        if i == 0 or name != beside.index[i - 1][0]
    ]
    assert runs == quantities, "the rows of a quantity stay together"
