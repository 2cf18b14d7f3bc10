"""Extraction is exact, labelled, resumable, and refuses what it cannot do whole."""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr

from codi_lens import (
    CodiModel,
    OutputError,
    ProblemError,
    __version__,
    open_attention,
    rank_heads,
)
from codi_lens.attention import store
from codi_lens.attention.blocks import BLOCK
from codi_lens.attention.extract import extract
from codi_lens.attention.opening import DIMS, WEIGHTED
from codi_lens.attention.provenance import git_commit
from codi_lens.attention.values import question_tokens, value_weighted_attention
from codi_lens.outputs import held
from codi_lens.problems import Problem, word_problems

pytestmark = pytest.mark.slow  # a model thinks in nearly all of them

PROBLEMS = word_problems(9, seed=1)


def run(model: CodiModel, out: Path | None = None, **options: Any) -> Any:
    return extract(model, options.pop("problems", PROBLEMS), out, progress=False, **options)


def test_extracted_attention_equals_think(tiny_gpt2: CodiModel) -> None:
    attention = run(tiny_gpt2, batch_size=4)
    thought = tiny_gpt2.think([problem.question for problem in PROBLEMS])
    np.testing.assert_allclose(attention.values, thought.attention.values, atol=1e-5)
    assert attention["answer"].values.tolist() == thought.answers
    assert attention["problem"].values.tolist() == [problem.id for problem in PROBLEMS]
    assert attention["expected"].values.tolist() == [problem.answer for problem in PROBLEMS]
    correct = attention["predicted"].values == attention["expected"].values
    assert attention["correct"].values.tolist() == correct.tolist()


def test_bfloat16_gives_almost_the_same_attention(tiny_gpt2: CodiModel) -> None:
    half = CodiModel.from_pretrained(tiny_gpt2.config.source, dtype="bfloat16")
    exact, near = run(tiny_gpt2), run(half)
    assert near["answer"].values.tolist() == exact["answer"].values.tolist()
    np.testing.assert_allclose(near.values, exact.values, atol=0.1)
    assert 0 < abs(near - exact).mean() < 1e-3
    assert near.dtype == np.float32


def test_disk_and_memory_hold_the_same(tiny_gpt2: CodiModel, tmp_path: Path) -> None:
    stored = run(tiny_gpt2, tmp_path / "a.zarr")
    assert stored.load().identical(run(tiny_gpt2).load())
    assert open_attention(tmp_path / "a.zarr").load().identical(stored)


@pytest.mark.parametrize("options", [{}, {"consolidated": True}, {"consolidated": False}])
def test_plain_xarray_selects_from_the_store_by_name(
    tiny_gpt2: CodiModel, tmp_path: Path, options: dict[str, Any]
) -> None:
    stored = run(tiny_gpt2, tmp_path / "a.zarr", value_weighted=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = xr.open_zarr(tmp_path / "a.zarr", **options)
    assert {"problem", "layer", "head", "query", "key"} == set(data.coords)
    where: dict[str, Any] = {"problem": PROBLEMS[4].id, "layer": 2, "query": "ct1", "key": "bot"}
    assert np.array_equal(data.attention.sel(where), stored.sel(where))
    assert np.array_equal(data.value_weighted.sel(where), stored.value_weighted.sel(where))
    last = data.attention.sel(layer=[2])
    assert set(rank_heads(last, n_resamples=5)["band"]) == {"late"}, "the model's last of three"
    assert rank_heads(data.attention, n_resamples=5).equals(rank_heads(stored, n_resamples=5))


def test_a_store_keeps_its_labels_when_gold_answers_change(
    tiny_gpt2: CodiModel, tmp_path: Path
) -> None:
    run(tiny_gpt2, tmp_path / "a.zarr", problems=PROBLEMS[:2])
    changed = [Problem(each.question, 3, each.id) for each in PROBLEMS[:2]]
    assert run(tiny_gpt2, tmp_path / "a.zarr", problems=changed)["expected"].values.tolist() == [
        3,
        3,
    ]
    data = xr.open_zarr(tmp_path / "a.zarr", consolidated=True)
    assert data["problem"].values.tolist() == [each.id for each in changed]


def test_selections_know_the_model_s_layers(tiny_gpt2: CodiModel) -> None:
    attention = run(tiny_gpt2, problems=PROBLEMS[:2], value_weighted=True)
    thought = tiny_gpt2.think([PROBLEMS[0].question]).attention
    for each in (attention, attention.value_weighted, thought):
        assert each.isel(layer=[0]).attrs["n_layers"] == 3
        assert set(rank_heads(each.isel(layer=[0]), n_resamples=5)["band"]) == {"early"}


def test_stopped_extraction_resumes_without_recomputing(
    tiny_gpt2: CodiModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    think = CodiModel.think
    seen: list[int] = []

    def stop_after_two(self: CodiModel, questions: Any, **options: Any) -> Any:
        if len(seen) == 2:
            raise KeyboardInterrupt
        seen.append(len(questions))
        return think(self, questions, **options)

    monkeypatch.setattr(CodiModel, "think", stop_after_two)
    with pytest.raises(KeyboardInterrupt):
        run(tiny_gpt2, tmp_path / "a.zarr", batch_size=3)
    with pytest.raises(OutputError, match=f"holds {sum(seen)} of 9 problems"):
        open_attention(tmp_path / "a.zarr")
    monkeypatch.setattr(CodiModel, "think", lambda *a, **k: (seen.append(0), think(*a, **k))[1])
    resumed = run(tiny_gpt2, tmp_path / "a.zarr", batch_size=3)
    made = len(seen)
    whole = run(tiny_gpt2, batch_size=3)
    assert len(seen) - made == made, "those that were there are not made again"
    monkeypatch.undo()
    assert resumed.load().identical(whole.load())


MANY = word_problems(2 * BLOCK + 40, seed=3)
BRIEF: dict[str, Any] = {"problems": MANY, "max_new_tokens": 8, "batch_size": 64}


@pytest.fixture(scope="module")
def many(tiny_gpt2: CodiModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("many") / "a.zarr"
    run(tiny_gpt2, out, **BRIEF)
    return out


def files_in(store: Path) -> dict[str, bytes]:
    return {str(p.relative_to(store)): p.read_bytes() for p in store.rglob("*") if p.is_file()}


def test_a_killed_extraction_loses_no_block_and_goes_on(
    tiny_gpt2: CodiModel, many: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, think, seen = tmp_path / "a.zarr", CodiModel.think, []
    whole, parent = files_in(many), os.getpid()

    def counted(*given: Any, **options: Any) -> Any:
        if os.getpid() != parent and sum(seen) > BLOCK:
            os._exit(9)
        seen.append(len(given[1]))
        return think(*given, **options)

    monkeypatch.setattr(CodiModel, "think", counted)
    if (pid := os.fork()) == 0:
        run(tiny_gpt2, out, **BRIEF)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9
    with pytest.raises(OutputError, match=f"holds {BLOCK} of {len(MANY)} problems"):
        open_attention(out)
    run(tiny_gpt2, out, **BRIEF)
    assert sum(seen) == len(MANY) - BLOCK, "the second block and the third"
    assert files_in(out) == whole


def test_blocks_are_read_only_where_there_is_something(
    tiny_gpt2: CodiModel, many: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "a.zarr"
    shutil.copytree(many, out)
    for file in out.glob("a*/c/1*"):
        shutil.rmtree(file) if file.is_dir() else file.unlink()
    read: list[slice] = []
    reads = store.readable

    def noted(array: Any, which: slice) -> Any:
        read.extend([which] if array.basename == "attention" else [])
        return reads(array, which)

    monkeypatch.setattr(store, "readable", noted)
    run(tiny_gpt2, out, **BRIEF)
    assert read == [slice(0, BLOCK), slice(2 * BLOCK, len(MANY))]
    assert files_in(out) == files_in(many)


def test_a_block_is_one_file_an_array_and_pieces_of_it_are_read_alone(many: Path) -> None:
    group = zarr.open_group(many, mode="r")
    array: Any = group["attention"]
    assert array.shards[0] == BLOCK
    assert array.chunks[0] == 16
    names = [name for name in files_in(many) if name.startswith("attention/c/")]
    assert names == [f"attention/c/{i}/0/0/0/0" for i in range(3)] or len(names) == 3
    answers: Any = group["answer"]
    assert answers.chunks == (BLOCK,)


def test_a_store_of_all_of_gsm8k_has_at_most_200_files(many: Path, tmp_path: Path) -> None:
    group = zarr.open_group(many, mode="r")
    per_block = ["attention", "answer", *WEIGHTED]
    labels = len(files_in(many)) - 2 * 3  # what does not grow with the blocks
    assert labels + len(WEIGHTED) + len(per_block) * -(-7473 // BLOCK) <= 200
    assert set(dict(group.arrays())) == {*DIMS, "attention", "answer", "done", "predicted"}


def test_a_store_says_what_made_it(tiny_gpt2: CodiModel, many: Path) -> None:
    told = xr.open_zarr(many).attrs
    assert told["fingerprint"] == tiny_gpt2.fingerprint()
    assert told["versions"]["zarr"] == zarr.__version__
    assert told["codi_lens"] == __version__
    assert told["git_commit"] == git_commit()
    assert told["max_new_tokens"] == 8


def test_any_rows_of_several_blocks_are_read_in_their_order(many: Path) -> None:
    attention, data = open_attention(many), xr.open_zarr(many, chunks=None)["attention"]
    whole = data.values
    assert np.array_equal(attention.values, whole, equal_nan=True)
    order = np.random.default_rng(0).permutation(len(MANY))
    for rows in (order, slice(None, None, -3), slice(300, 700), slice(5, 5), 321):
        found = open_attention(many).isel(problem=rows, head=[2, 0])
        assert np.array_equal(found.values, whole[rows][..., [2, 0], :, :], equal_nan=True)


def test_float16_is_off_by_what_is_said(tiny_gpt2: CodiModel, many: Path, tmp_path: Path) -> None:
    out = tmp_path / "half.zarr"
    half, exact = run(tiny_gpt2, out, dtype="float16", **BRIEF), open_attention(many)
    assert half.dtype == np.float32
    off = np.abs(half.values - exact.values)
    assert 0.0001 < np.nanmax(off) <= 0.00025
    stored: Any = zarr.open_group(out, mode="r")["attention"]
    assert stored.dtype == np.float16
    size, whole = (sum(map(len, files_in(each).values())) for each in (out, many))
    assert size < 0.6 * whole
    with pytest.raises(OutputError, match="its dtype differ"):
        run(tiny_gpt2, out, **BRIEF)


def test_an_interrupted_block_goes_on_with_the_same_bits(
    tiny_gpt2: CodiModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, think, seen = tmp_path / "a.zarr", CodiModel.think, []

    def stop_at_the_third(*given: Any, **options: Any) -> Any:
        if len(seen) == 2:
            raise KeyboardInterrupt
        seen.append(len(given[1]))
        return think(*given, **options)

    monkeypatch.setattr(CodiModel, "think", stop_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        run(tiny_gpt2, out, batch_size=4)
    monkeypatch.undo()
    with pytest.raises(OutputError, match=f"holds {sum(seen)} of 9 problems"):
        open_attention(out)
    resumed = run(tiny_gpt2, out, batch_size=4).load()
    assert resumed.identical(run(tiny_gpt2, batch_size=4).load())


def lengths_in_batches(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """Where the lengths of all questions will stand that are thought about, batch by batch."""
    think = CodiModel.think
    lengths: list[list[int]] = []

    def watch(self: CodiModel, questions: Any, **options: Any) -> Any:
        lengths.append([len(question) for question in questions])
        return think(self, questions, **options)

    monkeypatch.setattr(CodiModel, "think", watch)
    return lengths


def of_lengths(sizes: Sequence[int]) -> list[Problem]:
    return [Problem("Leo" + " coins" * (n - 1), None, f"p{i}") for i, n in enumerate(sizes)]


@pytest.mark.parametrize("batch_size", [1, 4])
def test_batches_hold_questions_of_similar_length_and_as_many_tokens(
    tiny_gpt2: CodiModel, monkeypatch: pytest.MonkeyPatch, batch_size: int
) -> None:
    lengths = lengths_in_batches(monkeypatch)
    problems = of_lengths([*[2] * 12, *[10] * 16, *[40] * 8])
    run(tiny_gpt2, problems=problems, batch_size=batch_size, max_new_tokens=1)
    flat = [length for batch in lengths for length in batch]
    assert flat == sorted(flat, reverse=True)
    if batch_size == 1:
        assert len(lengths) == len(problems)
        return
    around = 1 + 6 + 1 + 1  # bot, thoughts, eot, the answer
    budget = batch_size * (np.median(flat) + around)
    for batch in lengths:
        assert 0 <= budget - len(batch) * (batch[0] + around) < batch[0] + around
    assert len(lengths[0]) < batch_size < len(lengths[-1])


def test_a_block_of_long_questions_has_no_larger_batches(
    tiny_gpt2: CodiModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    lengths = lengths_in_batches(monkeypatch)
    run(tiny_gpt2, problems=of_lengths([*[2] * BLOCK, *[40] * 8]), batch_size=8, max_new_tokens=1)
    assert [len(batch) for batch in lengths] == [8] * (BLOCK // 8) + [1] * 8


def test_another_extraction_is_never_overwritten(tiny_gpt2: CodiModel, tmp_path: Path) -> None:
    out = tmp_path / "a.zarr"
    run(tiny_gpt2, out)
    with pytest.raises(OutputError, match=r"another extraction \(its questions differ\)"):
        run(tiny_gpt2, out, problems=PROBLEMS[:3])
    with pytest.raises(OutputError, match="max_new_tokens differ"):
        run(tiny_gpt2, out, max_new_tokens=3)
    fewer = CodiModel.from_pretrained(tiny_gpt2.config.source, n_thoughts=2)
    with pytest.raises(OutputError, match="fingerprint differ"):
        run(fewer, out)
    (tmp_path / "notes").mkdir()
    with pytest.raises(OutputError, match="is not extracted attention"):
        run(tiny_gpt2, tmp_path / "notes")
    with pytest.raises(OutputError, match="holds no extracted attention"):
        open_attention(tmp_path / "notes")


def test_unknown_answers_are_neither_right_nor_wrong(tiny_gpt2: CodiModel) -> None:
    problems = [Problem(PROBLEMS[0].question, None, "unknown"), PROBLEMS[1]]
    attention = run(tiny_gpt2, problems=problems)
    assert np.isnan(attention["correct"].values[0])
    assert attention["correct"].values[1] in (0, 1)


def test_problems_that_cannot_be_run_are_named_before_anything_is_written(
    tiny_gpt2: CodiModel, tmp_path: Path
) -> None:
    out = tmp_path / "a.zarr"
    long = Problem(" ".join(["coins"] * 300), 1, "long-one")
    with pytest.raises(ProblemError, match="Question long-one has 300 tokens"):
        run(tiny_gpt2, out, problems=[*PROBLEMS, long])
    with pytest.raises(ProblemError, match="id 'test-1-0' occurs twice"):
        run(tiny_gpt2, out, problems=[PROBLEMS[0], PROBLEMS[0]])
    with pytest.raises(ProblemError, match="no problems"):
        run(tiny_gpt2, out, problems=[])
    for name in ("batch_size", "max_new_tokens"):
        with pytest.raises(ProblemError, match=f"{name} must be at least 1, not 0"):
            run(tiny_gpt2, out, **{name: 0})
    assert not out.exists()


def test_extraction_under_hooks_is_not_mixed_with_a_clean_one(
    tiny_gpt2: CodiModel, tmp_path: Path
) -> None:
    run(tiny_gpt2, tmp_path / "a.zarr")
    hook = ("blocks.0.attn.hook_z", lambda z, hook: z * 0)
    with (
        tiny_gpt2.lens.hooks(fwd_hooks=[hook]),
        pytest.raises(OutputError, match=r"its hooks differ"),
    ):
        run(tiny_gpt2, tmp_path / "a.zarr")


def test_damaged_store_is_named(tiny_gpt2: CodiModel, tmp_path: Path) -> None:
    out = tmp_path / "a.zarr"
    run(tiny_gpt2, out)
    (out / "zarr.json").write_text("{oops")
    with pytest.raises(OutputError, match=r"is damaged .*delete it and extract again"):
        run(tiny_gpt2, out)
    with pytest.raises(OutputError, match="is damaged"):
        open_attention(out)
    zarr.open_group(tmp_path / "foreign.zarr", mode="w")
    with pytest.raises(OutputError, match="is damaged"):
        open_attention(tmp_path / "foreign.zarr")


def test_only_our_own_traces_are_cleared(tiny_gpt2: CodiModel, tmp_path: Path) -> None:
    (tmp_path / ".a.zarr.partial").mkdir()  # somebody else's
    (tmp_path / ".a.zarr.12-0123abcd.codi_lens.partial").mkdir()
    run(tiny_gpt2, tmp_path / "a.zarr")
    assert {path.name for path in tmp_path.iterdir()} == {"a.zarr", ".a.zarr.partial"}


def test_a_store_is_made_up_from_what_a_stop_left(tiny_gpt2: CodiModel, tmp_path: Path) -> None:
    out = tmp_path / "a.zarr"
    first = run(tiny_gpt2, out).load()
    for left in ("zarr.json", "attention/zarr.json", "done"):
        name, _, _ = left.partition("/")
        for path in sorted(out.iterdir()):
            if path.name not in ("zarr.json", name):
                shutil.rmtree(path)
        if left != "zarr.json":
            shutil.rmtree(out / name)
            (out / name).mkdir()
            (out / name / "zarr.0123.partial").write_text("half")
        assert run(tiny_gpt2, out).load().identical(first)
        assert not list(out.rglob("*.partial"))


@pytest.mark.parametrize("name", ["attention", "answer", "predicted", "done"])
@pytest.mark.parametrize("how", ["missing", "cut", "flipped"])
def test_a_damaged_block_is_computed_again(
    tiny_gpt2: CodiModel,
    many: Path,
    tmp_path: Path,
    name: str,
    how: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = tmp_path / "a.zarr"
    shutil.copytree(many, out)
    chunk = sorted(path for path in (out / name / "c").rglob("*") if path.is_file())[-1]
    whole = chunk.read_bytes()
    if how == "missing":
        chunk.unlink()
    else:
        middle = len(whole) // 2
        flipped = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
        chunk.write_bytes(whole[:-1] if how == "cut" else flipped)
    if name != "predicted":  # which follows from the answers
        missing = how == "missing"
        sentence = r"holds \d+ of 680 problems" if missing else r"is damaged \(.*\); .*extract"
        with pytest.raises(OutputError, match=sentence):
            open_attention(out).load()
    think, seen = CodiModel.think, []
    monkeypatch.setattr(CodiModel, "think", lambda *a, **k: (seen.append(0), think(*a, **k))[1])
    run(tiny_gpt2, out, **BRIEF)
    assert len(seen) == (name in ("attention", "answer"))
    assert files_in(out) == files_in(many)


def test_a_store_of_an_earlier_release_is_read_and_finished(
    tiny_gpt2: CodiModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "a.zarr"
    first = run(tiny_gpt2, out).load()
    group = zarr.open_group(out, mode="r+", use_consolidated=False)
    new = {"dtype", "versions", "git_commit"}
    group.attrs.put({name: told for name, told in group.attrs.items() if name not in new})
    for name in ("attention", "answer"):  # which had a file a problem
        array: Any = group[name]
        values, dims = array[:], array.metadata.dimension_names
        del group[name]
        shape = {"shape": values.shape, "chunks": (1, *values.shape[1:]), "dtype": array.dtype}
        like: dict[str, Any] = shape | {"dimension_names": dims, "fill_value": array.fill_value}
        with zarr.config.set({"array.write_empty_chunks": True}):
            group.create_array(name, **like)[:] = values
    assert open_attention(out).load().identical(first)
    (out / "attention" / "c" / "3" / "0" / "0" / "0" / "0").unlink()
    with pytest.raises(OutputError, match="holds 8 of 9 problems"):
        open_attention(out)
    assert run(tiny_gpt2, out).load().identical(first)


def test_two_processes_do_not_write_one_store(tiny_gpt2: CodiModel, tmp_path: Path) -> None:
    with (
        held(tmp_path / "a.zarr"),
        pytest.raises(OutputError, match=r"a\.zarr is being written by another process; wait"),
    ):
        run(tiny_gpt2, tmp_path / "a.zarr")
    run(tiny_gpt2, tmp_path / "a.zarr")
    assert [path.name for path in tmp_path.iterdir()] == ["a.zarr"]


def test_value_weighted_attention_is_kept_beside_the_plain_one(
    tiny: CodiModel, tmp_path: Path
) -> None:
    chosen = word_problems(7, seed=5)
    path = tmp_path / "weighted.zarr"
    attention = extract(
        tiny, chosen, path, value_weighted=True, batch_size=3, max_new_tokens=7, progress=False
    )
    plain = extract(tiny, chosen, batch_size=3, max_new_tokens=7, progress=False)
    # Values need every pattern, so that only the plain extraction is fused: equal to rounding,
    # through six projections.
    np.testing.assert_allclose(attention.values, plain.values, atol=5e-6)
    run = tiny.think([chosen[2].question], max_new_tokens=7)
    alone = value_weighted_attention(tiny.lens, run)
    np.testing.assert_allclose(attention.value_weighted.values[2], alone.values[0], atol=1e-5)
    np.testing.assert_allclose(
        attention.sink.values[2], question_tokens(tiny.lens, run)[0].values[0], atol=1e-5
    )
    assert (attention.sink <= attention.sel(key="question") + 1e-6).all()
    heads = rank_heads(open_attention(path).value_weighted)
    assert len(heads) == tiny.lens.cfg.n_layers * tiny.lens.cfg.n_heads
    with pytest.raises(OutputError, match="its value_weighted differ"):
        extract(tiny, chosen, path, max_new_tokens=7, progress=False)


def test_a_corrected_gold_answer_judges_what_is_stored(
    tiny_gpt2: CodiModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "a.zarr"
    first = run(tiny_gpt2, out).load()
    monkeypatch.setattr(CodiModel, "think", None)
    predicted = [float(number) for number in first["predicted"].values]
    corrected = [replace(problem, answer=n) for problem, n in zip(PROBLEMS, predicted, strict=True)]
    again = run(tiny_gpt2, out, problems=corrected).load()
    assert again["correct"].values.tolist() == [1.0] * len(PROBLEMS)
    assert again["expected"].values.tolist() == predicted
    assert open_attention(out).load().identical(again)
    unknown = [replace(problem, answer=None) for problem in PROBLEMS]
    assert np.isnan(run(tiny_gpt2, out, problems=unknown)["correct"].values).all()
    assert run(tiny_gpt2, out).load().identical(first)


def test_problems_come_in_anything_that_yields_them(tiny_gpt2: CodiModel) -> None:
    whole = run(tiny_gpt2, problems=PROBLEMS[:2])
    assert run(tiny_gpt2, problems=(each for each in PROBLEMS[:2])).identical(whole)
    for given in (PROBLEMS[0], "How many?", ["How many?"], [{"question": "How many?"}], None):
        with pytest.raises(ProblemError, match="to extract"):
            run(tiny_gpt2, problems=given)


def test_a_source_gives_its_dtype_unless_another_is_asked_for(
    tiny_gpt2: CodiModel, tmp_path: Path
) -> None:
    chosen = word_problems(3, seed=5)
    whole = extract(tiny_gpt2, chosen, tmp_path / "whole", progress=False)
    half = extract(
        tiny_gpt2,
        chosen,
        tmp_path / "half",
        source=tmp_path / "whole",
        dtype="float16",
        progress=False,
    )
    stored = xr.open_zarr(tmp_path / "half", chunks=None)["attention"]
    assert stored.dtype == np.float16
    np.testing.assert_allclose(half.values, whole.values, atol=0.00025)


def test_attention_read_for_another_kind_of_answer_is_not_taken(
    tiny_gpt2: CodiModel, tmp_path: Path
) -> None:
    chosen = word_problems(3, seed=5)
    extract(tiny_gpt2, chosen, tmp_path / "numbers", progress=False)
    words = [Problem(p.question, "yes", p.id, kind="boolean") for p in chosen]
    with pytest.raises(OutputError, match="lacks 3 of these 3 problems"):
        extract(tiny_gpt2, words, source=tmp_path / "numbers", progress=False)
    kept = extract(tiny_gpt2, words, tmp_path / "words", progress=False)
    again = extract(tiny_gpt2, words, source=tmp_path / "words", progress=False)
    np.testing.assert_array_equal(again.values, kept.values)
