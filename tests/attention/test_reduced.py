"""Scores kept without their attention are those of the attention, whole, resumed or taken."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from codi_lens import (
    AttentionError,
    CodiModel,
    OutputError,
    extract,
    extract_scores,
    open_attention,
    open_scores,
    rank_heads,
)
from codi_lens.attention.blocks import BLOCK
from codi_lens.attention.ranking import ranked_heads
from codi_lens.attention.scores import POSITION_SCORES, score_problems
from codi_lens.problems import Problem, word_problems

MANY: list[Problem] = [*word_problems(BLOCK + 40, seed=3)]
MANY[7], MANY[-1] = (Problem(".", None, id) for id in ("dot", "stop"))  # answered without a number
BRIEF: dict[str, Any] = {"max_new_tokens": 6, "batch_size": 64, "progress": False}


@pytest.fixture(scope="module")
def attention(tiny_gpt2: CodiModel) -> xr.DataArray:
    found = extract(tiny_gpt2, MANY, **BRIEF).load()
    assert found.sel(query="anchor").isnull().any(), "some answers hold no number"
    return found


@pytest.fixture(scope="module")
def store(tiny_gpt2: CodiModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("scores") / "scores.zarr"
    extract_scores(tiny_gpt2, MANY, out, **BRIEF)
    return out


@pytest.mark.slow
def test_scores_mean_and_spread_are_those_of_the_attention(
    attention: xr.DataArray, store: Path
) -> None:
    found, wide = open_scores(store.parent), attention.astype(float)
    per_problem = score_problems(attention)
    for name in POSITION_SCORES:
        np.testing.assert_allclose(found[name], per_problem[name], atol=1e-12)
    np.testing.assert_allclose(found["mean"], wide.mean("problem"), atol=1e-12)
    np.testing.assert_allclose(found["std"], wide.std("problem"), atol=1e-12)
    assert found["n"].values.tolist() == wide.notnull().sum("problem")[0, 0, :, 0].values.tolist()
    for name in ("question", "answer", "predicted", "expected", "correct"):
        assert found[name].reset_coords(drop=True).equals(attention[name].reset_coords(drop=True))
    plain = xr.open_zarr(store)
    assert np.array_equal(plain["mean"], found["mean"])
    assert np.array_equal(plain["scores"].sel(score="hub"), found["hub"])


def test_heads_rank_by_scores_alone(attention: xr.DataArray, store: Path) -> None:
    whole, alone = rank_heads(attention), rank_heads(open_scores(store))
    assert alone["name"].tolist() == whole["name"].tolist()
    for name in ("composite", "hub_low", "rank_high", "max_attention"):
        np.testing.assert_allclose(alone[name], whole[name], rtol=1e-9)
    assert alone["hub_position"].equals(whole["hub_position"])
    assert alone["hub_position_share"].isna().all()
    study, same = (ranked_heads(each, "generation") for each in (attention, open_scores(store)))
    np.testing.assert_allclose(same["hub"], study["hub"], rtol=1e-9)
    assert same["hub_low"].isna().all()
    with pytest.raises(AttentionError, match="no scores of extract_scores, since they lack mean"):
        rank_heads(xr.Dataset({"hub": 1}))


@pytest.mark.slow
def test_a_stopped_reduction_goes_on_with_whole_blocks(
    tiny_gpt2: CodiModel, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    think, seen, out = CodiModel.think, [], tmp_path / "scores.zarr"

    def stop_at_the_third(*given: Any, **options: Any) -> Any:
        seen.append(0)
        if len(seen) == 3:
            raise KeyboardInterrupt
        return think(*given, **options)

    monkeypatch.setattr(CodiModel, "think", stop_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        extract_scores(tiny_gpt2, MANY, out, **BRIEF)
    with pytest.raises(OutputError, match=f"holds 0 of {len(MANY)} problems"):
        open_scores(out)
    monkeypatch.undo()
    assert extract_scores(tiny_gpt2, MANY, out, **BRIEF).identical(open_scores(store))
    monkeypatch.setattr(CodiModel, "think", None)
    extract_scores(tiny_gpt2, MANY, out, **BRIEF)


def test_scores_come_from_an_extraction_too(
    tiny_gpt2: CodiModel, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    extract(tiny_gpt2, MANY, tmp_path / "attention.zarr", **BRIEF)
    monkeypatch.setattr(CodiModel, "think", None)
    found = extract_scores(tiny_gpt2, MANY, source=tmp_path, **BRIEF)
    xr.testing.assert_allclose(found, open_scores(store), atol=1e-12)


def test_scores_and_attention_are_not_taken_for_each_other(
    tiny_gpt2: CodiModel, store: Path, tmp_path: Path
) -> None:
    with pytest.raises(OutputError, match="holds scores without the attention"):
        open_attention(store)
    with pytest.raises(OutputError, match="holds another extraction"):
        extract(tiny_gpt2, MANY, store, **BRIEF)
    with pytest.raises(OutputError, match="holds no extracted scores"):
        open_scores(tmp_path)
    extract(tiny_gpt2, MANY[:2], tmp_path / "attention.zarr", **BRIEF)
    with pytest.raises(OutputError, match="holds attention, not scores"):
        open_scores(tmp_path / "attention.zarr")
