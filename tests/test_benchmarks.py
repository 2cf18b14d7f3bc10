"""The benchmark of the thought loop runs, its table is whole, and its main claim holds."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from support.oracle import ROOT

from codi_lens.problems import Problem


@pytest.fixture(scope="module")
def output() -> str:
    results = ROOT / "benchmarks" / "results" / "thinking.md"
    before = results.read_text() if results.exists() else None
    command = [sys.executable, str(ROOT / "benchmarks" / "thinking.py"), "--quick"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert (results.read_text() if results.exists() else None) == before, "--quick writes nothing"
    return done.stdout


def table(output: str, title: str) -> dict[str, tuple[float, float]]:
    section = output.split(f"## {title}")[1].split("## ")[0]
    rows = re.findall(r"^\| (\(.*?) \| ([\d.]+) \| .*? \| ([\d.]+) \|$", section, re.MULTILINE)
    return {name: (float(ms), float(ratio)) for name, ms, ratio in rows}


@pytest.mark.parametrize("title", ["GPT-2, small", "LLaMA, small"])
def test_every_way_is_measured(output: str, title: str) -> None:
    rows = table(output, title)
    assert [name[1] for name in rows] == list("abcdefghij")
    assert all(ms > 0 for ms, _ in rows.values())
    assert list(rows.values())[4][1] == 1.0
    section = output.split(f"## {title}")[1]
    assert re.search(
        r"times the floor, [\d.]+ times that in batches of 8, and is [\d.]+ times", section
    )
    assert re.search(r"as many tokens take [\d.]+ times what batches of 32 take", section)
    assert re.search(r"bfloat16 .* attention differs by at most 0\.\d+", section)


@pytest.mark.parametrize("title", ["GPT-2, small", "LLaMA, small"])
def test_think_is_faster_than_the_studys_way(output: str, title: str) -> None:
    study, _, exact, fused, *_ = (ms for ms, _ in table(output, title).values())
    assert exact < study
    assert fused < study


def test_a_sweep_gives_what_rerunning_gives() -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "sweeps.py"), "--quick"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "Answers that differ between the ways: 0 of " in done.stdout


def test_scores_are_those_of_a_loop_over_matrices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    timed = importlib.import_module("metrics")
    attention = timed.random_attention(4, 2, 3)
    vectorised = timed.HeadScores.of(attention).values
    for loop in (timed.loop_over_matrices, timed.loop_over_heads):
        for name, values in loop(attention).items():
            np.testing.assert_allclose(values.mean(axis=0).ravel(), vectorised[name], atol=1e-9)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peaks are Linux's")
def test_scale_is_measured_from_few_problems_to_many(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    scale = importlib.import_module("scale")
    monkeypatch.setattr(scale, "alone", lambda work, *given: work(*given))
    *table, sentence, _ = scale.rows("Tiny", scale.of_tiny, 330, tmp_path)
    few, many, scores = (row.split(" | ") for row in table if row[:3] in ("| 1", "| 3"))
    assert int(many[4]) - int(few[4]) == 2, "one more block, of two arrays"
    assert float(scores[3]) < float(many[3]) / 2
    assert "From 100 to 330 problems" in sentence
    scale.stored(5, 2, 2, tmp_path / "large.zarr")
    for work in (scale.ranked, scale.shown):
        assert work(tmp_path / "large.zarr")["peak"] > 0
    questions = [Problem(f"Ann has {i} cards. How many cards?", None, i) for i in range(9)]
    ids = scale.trained(questions)("Ann has 12 cards.")["input_ids"]
    assert 2 < len(ids) < 9, "words are tokens, as in GPT-2"


def test_results_are_written_only_where_asked(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    saving = importlib.import_module("saving")
    monkeypatch.setattr(saving, "FOLDER", tmp_path / "results")
    monkeypatch.delenv("SAVE", raising=False)
    saving.save("page", "text")
    assert not (tmp_path / "results").exists()
    monkeypatch.setenv("SAVE", "1")
    saving.save("page", "text")
    assert (tmp_path / "results" / "page.md").read_text() == "text"
