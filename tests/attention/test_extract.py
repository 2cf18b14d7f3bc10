"""Extraction is exact, labelled, resumable, and refuses what it cannot do whole."""

from __future__ import annotations

import shutil
import sys
import warnings
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
from codi_lens.attention.extract import extract
from codi_lens.attention.values import question_tokens, value_weighted_attention
from codi_lens.outputs import held
from codi_lens.problems import Problem, parse_answer, word_problems

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
    with pytest.raises(OutputError, match="holds 6 of 9 problems"):
        open_attention(tmp_path / "a.zarr")
    monkeypatch.setattr(CodiModel, "think", lambda *a, **k: (seen.append(0), think(*a, **k))[1])
    resumed = run(tiny_gpt2, tmp_path / "a.zarr", batch_size=3)
    assert len(seen) == 3, "one batch was missing"
    monkeypatch.undo()
    assert resumed.load().identical(run(tiny_gpt2, batch_size=3).load())


def test_extraction_stopped_within_a_batch_gives_the_same_bits(
    tiny_gpt2: CodiModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "a.zarr"
    written: list[str] = []

    def stop_at_the_sixth(text: str) -> Any:
        if len(written) == 5:
            raise KeyboardInterrupt
        written.append(text)
        return parse_answer(text)

    module = sys.modules["codi_lens.attention.extract"]
    monkeypatch.setattr(module, "parse_answer", stop_at_the_sixth)
    with pytest.raises(KeyboardInterrupt):
        run(tiny_gpt2, out, batch_size=4)
    monkeypatch.undo()
    with pytest.raises(OutputError, match="holds 5 of 9 problems"):
        open_attention(out)
    resumed = run(tiny_gpt2, out, batch_size=4).load()
    assert resumed.identical(run(tiny_gpt2, batch_size=4).load())


def test_batches_hold_questions_of_similar_length(
    tiny_gpt2: CodiModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    think = CodiModel.think
    lengths: list[list[int]] = []

    def watch(self: CodiModel, questions: Any, **options: Any) -> Any:
        lengths.append([len(question) for question in questions])
        return think(self, questions, **options)

    monkeypatch.setattr(CodiModel, "think", watch)
    run(tiny_gpt2, batch_size=4)
    flat = [length for batch in lengths for length in batch]
    assert flat == sorted(flat, reverse=True)
    assert len(set(flat)) > 1


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
def test_a_damaged_chunk_is_computed_again(
    tiny_gpt2: CodiModel, tmp_path: Path, name: str, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "a.zarr"
    first = run(tiny_gpt2, out, problems=PROBLEMS[:3], batch_size=1).load()
    chunk = sorted(path for path in (out / name / "c").rglob("*") if path.is_file())[-1]
    whole = chunk.read_bytes()
    if how == "missing":
        chunk.unlink()
        with pytest.raises(OutputError, match=r"holds \d of 3 problems"):
            open_attention(out)
    else:
        middle = len(whole) // 2
        flipped = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
        chunk.write_bytes(whole[:-1] if how == "cut" else flipped)
        with pytest.raises(OutputError, match=r"is damaged \(.*\); .*extract"):
            open_attention(out).load()
    think, seen = CodiModel.think, []
    monkeypatch.setattr(CodiModel, "think", lambda *a, **k: (seen.append(0), think(*a, **k))[1])
    assert run(tiny_gpt2, out, problems=PROBLEMS[:3], batch_size=1).load().identical(first)
    assert len(seen) == (1 if name in ("attention", "answer") else 3)
    assert chunk.read_bytes() == whole


def test_a_store_without_version_and_checksums_goes_on(
    tiny_gpt2: CodiModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "a.zarr"
    first = run(tiny_gpt2, out).load()
    attributes = dict(zarr.open_group(out, mode="r").attrs)
    assert attributes.pop("codi_lens") == __version__
    group = zarr.open_group(out, mode="r+")
    group.attrs.put(attributes)
    shutil.rmtree(out / "answer" / "c" / "0", ignore_errors=True)  # as an empty answer once was
    monkeypatch.setattr(CodiModel, "think", None)
    (out / "answer" / "c" / "0").unlink(missing_ok=True)
    again = run(tiny_gpt2, out).load()
    assert again["answer"].values[0] == ""
    assert (again == first).all()


def test_two_processes_do_not_write_one_store(tiny_gpt2: CodiModel, tmp_path: Path) -> None:
    with (
        held(tmp_path / "a.zarr"),
        pytest.raises(OutputError, match=r"a\.zarr is being written by another process; wait"),
    ):
        run(tiny_gpt2, tmp_path / "a.zarr")
    run(tiny_gpt2, tmp_path / "a.zarr")
    assert [path.name for path in tmp_path.iterdir()] == ["a.zarr"]


def test_each_problem_is_one_chunk(tiny_gpt2: CodiModel, tmp_path: Path) -> None:
    run(tiny_gpt2, tmp_path / "a.zarr")
    array: Any = zarr.open_group(tmp_path / "a.zarr", mode="r")["attention"]
    assert array.chunks[0] == 1


def test_value_weighted_attention_is_kept_beside_the_plain_one(
    tiny: CodiModel, tmp_path: Path
) -> None:
    chosen = word_problems(7, seed=5)
    path = tmp_path / "weighted.zarr"
    attention = extract(
        tiny, chosen, path, value_weighted=True, batch_size=3, max_new_tokens=7, progress=False
    )
    plain = extract(tiny, chosen, batch_size=3, max_new_tokens=7, progress=False)
    np.testing.assert_allclose(attention.values, plain.values, atol=1e-6)
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
