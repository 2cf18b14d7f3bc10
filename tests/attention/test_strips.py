"""Attention to single tokens is kept ragged, as it was in the run, and read without the model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr

from codi_lens import (
    AttentionError,
    CodiModel,
    OutputError,
    explore,
    open_attention,
    open_strips,
    rehearse,
)
from codi_lens.attention.blocks import BLOCK
from codi_lens.attention.extract import extract
from codi_lens.cli.main import main
from codi_lens.explorer.details import read_details
from codi_lens.explorer.folder import gather
from codi_lens.problems import Problem, word_problems
from codi_lens.reports.analyze import analyze

pytestmark = pytest.mark.slow

PROBLEMS = word_problems(BLOCK + 5, seed=4)
ASKED: dict[str, Any] = {"max_new_tokens": 8, "progress": False, "batch_size": 64}


@pytest.fixture(scope="module")
def kept(tiny_gpt2: CodiModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("strips") / "attention.zarr"
    extract(tiny_gpt2, PROBLEMS, out, strips=True, **ASKED)
    return out


def assert_same(one: Path, other: Path) -> None:
    """Every array as it is stored, and some as they are read."""
    stored = [zarr.open_group(path, mode="r") for path in (one, other)]
    for name in ("strip", "token", "first_token", "n_tokens"):
        first, second = (np.asarray(group[name]) for group in stored)
        np.testing.assert_array_equal(first, second, strict=True)
    a, b = open_strips(one), open_strips(other)
    assert list(a) == list(b)
    assert all(a[id].identical(b[id]) for id in list(a)[::20])


def test_a_strip_is_the_pattern_over_the_tokens_of_its_question(
    tiny_gpt2: CodiModel, kept: Path
) -> None:
    strips, attention = open_strips(kept), open_attention(kept)
    assert list(strips) == [problem.id for problem in PROBLEMS]
    lengths = {strip.sizes["token"] for strip in strips.values()}
    assert len(lengths) > 5, "ragged"
    for problem in (PROBLEMS[3], PROBLEMS[BLOCK - 1], PROBLEMS[BLOCK + 2]):
        run = tiny_gpt2.think([problem.question], max_new_tokens=8)
        columns = run.span("question")[0]
        strip, cache = strips[problem.id], run.cache()
        assert strip["token"].values.tolist() == run.tokens[0][columns]
        for query in ("bot", "ct0", "ct4", "eot", "anchor"):
            place = run.index(query)[0]
            for layer in range(3):
                pattern = cache[f"blocks.{layer}.attn.hook_pattern"][0, :, place, columns]
                found = strip.sel(layer=layer, query=query).values
                np.testing.assert_allclose(found, pattern.numpy(), atol=1e-5)
        whole = attention.sel(problem=problem.id, key="question")
        np.testing.assert_allclose(strip.sum("token"), whole, atol=1e-5)
    with pytest.raises(KeyError, match="There is no problem"):
        strips["nobody"]


def test_plain_xarray_reads_the_tokens_of_a_problem(kept: Path) -> None:
    data = xr.open_zarr(kept)
    mine, place = PROBLEMS[BLOCK + 1].id, BLOCK + 1
    begin, n = int(data["first_token"][place]), int(data["n_tokens"][place])
    plain = data["strip"].isel(token=slice(begin, begin + n))
    strip = open_strips(kept)[mine]
    assert plain["token"].values.tolist() == strip["token"].values.tolist()
    np.testing.assert_array_equal(plain.transpose(*strip.dims), strip)


def test_attention_is_the_same_with_strips_and_without(
    tiny_gpt2: CodiModel, kept: Path, tmp_path: Path
) -> None:
    plain = extract(tiny_gpt2, PROBLEMS[:8], tmp_path / "plain", **ASKED)
    with_strips = open_attention(kept).isel(problem=range(8))
    # Patterns are computed whole for strips, so that only the plain extraction is fused.
    np.testing.assert_allclose(plain.values, with_strips.values, atol=1e-5)
    for path in (tmp_path / "plain", tmp_path):
        with pytest.raises(OutputError, match=r"no attention to single tokens; .* --strips"):
            open_strips(path)
    with pytest.raises(OutputError, match="its strips differ"):
        extract(tiny_gpt2, PROBLEMS[:8], tmp_path / "plain", strips=True, **ASKED)
    with pytest.raises(OutputError, match="kept on disk only; give out=FOLDER"):
        extract(tiny_gpt2, PROBLEMS[:8], strips=True, **ASKED)


def test_what_was_stopped_goes_on_and_what_is_damaged_is_made_again(
    tiny_gpt2: CodiModel, kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, think, seen = tmp_path / "a.zarr", CodiModel.think, []

    def stopped(*given: Any, **options: Any) -> Any:
        if sum(seen) > BLOCK // 2:
            raise KeyboardInterrupt
        seen.append(len(given[1]))
        return think(*given, **options)

    monkeypatch.setattr(CodiModel, "think", stopped)
    with pytest.raises(KeyboardInterrupt):
        extract(tiny_gpt2, PROBLEMS, out, strips=True, **ASKED)
    monkeypatch.undo()
    with pytest.raises(OutputError, match=f"holds {sum(seen)} of {len(PROBLEMS)} problems"):
        open_strips(out)
    extract(tiny_gpt2, PROBLEMS, out, strips=True, **ASKED)
    assert_same(out, kept)

    damaged = out / "strip" / "c" / "1" / "0" / "0" / "0"
    damaged.write_bytes(damaged.read_bytes()[:-40])
    with pytest.raises(OutputError, match=r"is damaged .*run the extraction again"):
        open_strips(out)[PROBLEMS[-1].id]
    extract(tiny_gpt2, PROBLEMS, out, strips=True, **ASKED)
    assert_same(out, kept)

    for name in ("token", "first_token", "n_tokens"):  # zarr would read it as if it were empty
        (out / name / "c" / "0").unlink()
        with pytest.raises(OutputError, match=f"holds 0 of {len(PROBLEMS)} problems"):
            open_strips(out)
        extract(tiny_gpt2, PROBLEMS, out, strips=True, **ASKED)
        assert_same(out, kept)


def test_strips_are_taken_from_an_earlier_extraction(
    tiny_gpt2: CodiModel, kept: Path, tmp_path: Path
) -> None:
    some = PROBLEMS[BLOCK + 3 : BLOCK - 3 : -1]  # of both blocks, in another order
    asked: dict[str, Any] = {"max_new_tokens": 8, "progress": False}
    extract(tiny_gpt2, some, tmp_path / "a", source=kept, strips=True, **asked)
    taken, strips = open_strips(tmp_path / "a"), open_strips(kept)
    assert list(taken) == [problem.id for problem in some]
    assert all(taken[id].identical(strips[id]) for id in taken)
    extract(tiny_gpt2, some, tmp_path / "half", source=kept, strips=True, dtype="float16", **asked)
    for id, strip in open_strips(tmp_path / "half").items():
        np.testing.assert_allclose(strip, strips[id], atol=2.5e-4)
    extract(tiny_gpt2, some, tmp_path / "plain", source=kept, **asked)
    with pytest.raises(OutputError, match="no attention to single tokens"):
        extract(tiny_gpt2, some, tmp_path / "b", source=tmp_path / "plain", strips=True, **asked)


def test_a_plan_counts_strips(tiny_gpt2: CodiModel, kept: Path) -> None:
    with rehearse(repeats=0) as plan:
        extract(tiny_gpt2, PROBLEMS, plan.folder / "out", strips=True, **ASKED)
    files = [path for path in kept.rglob("*") if path.is_file()]
    assert plan.files == len(files)
    assert plan.bytes == pytest.approx(sum(path.stat().st_size for path in files), rel=0.1)


def test_the_explorer_shows_them_without_a_model(
    tiny_gpt2: CodiModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    some = word_problems(6, seed=8)
    folder = tmp_path / "extraction"
    main(["extract", "tiny-gpt2", "--n", "6", "--seed", "8", "--strips", "--out", str(folder)])
    strips, attention = open_strips(folder), open_attention(folder)
    shown = explore(attention, runs=strips).payload
    assert [each["tokens"] for each in shown["problems"]] == [
        strip["token"].values.tolist() for strip in strips.values()
    ]
    assert gather(folder).payload["problems"] == shown["problems"]
    with pytest.raises(AttentionError, match="the first 5 problems of the attention runs= holds"):
        explore(attention.assign_coords(problem=[*"abcdef"]), runs=strips, n_problems=5)

    analyze(tiny_gpt2, some, tmp_path / "thought", progress=False)
    kept_patterns: list[object] = []
    think = CodiModel.think

    def noted(*given: Any, **options: Any) -> Any:
        names = options.get("names_filter")
        kept_patterns.append(callable(names) and names("blocks.0.attn.hook_pattern"))
        return think(*given, **options)

    monkeypatch.setattr(CodiModel, "think", noted)
    analyze(tiny_gpt2, some, tmp_path / "taken", source=folder, progress=False)
    assert not any(kept_patterns), "nothing is thought about for strips"
    told = gather(tmp_path / "taken").payload["problems"]
    assert told[0]["totals"], "which an extraction does not know"
    for both in ((tmp_path / "taken", folder), (folder, tmp_path / "taken")):
        assert gather(*both).payload["problems"] == told
    one, other = (read_details(tmp_path / name / "details.npz") for name in ("thought", "taken"))
    assert list(one) == list(other)
    for id, detail in one.items():
        assert detail.tokens == other[id].tokens
        assert detail.strip is not None
        off = np.abs(detail.strip.astype(int) - np.asarray(other[id].strip, dtype=int))
        assert off.max() <= 1  # rounded to 8 bits


def test_questions_of_any_length_are_kept(tiny_gpt2: CodiModel, tmp_path: Path) -> None:
    short = Problem("Zoe has 14 coins. How many coins does she have?", 14, "short")
    extract(tiny_gpt2, [short], tmp_path / "one", strips=True, **ASKED)
    (strip,) = open_strips(tmp_path / "one").values()
    run = tiny_gpt2.think([short.question])
    assert strip["token"].values.tolist() == run.tokens[0][run.span("question")[0]]
    group: Any = zarr.open_group(tmp_path / "one", mode="r")
    assert 0 <= group["strip"].shape[0] - strip.sizes["token"] < 16, "whole pieces"
