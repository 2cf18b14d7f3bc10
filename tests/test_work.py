"""A rehearsal counts what a command does, by the code that does it, and writes nothing."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from codi_lens import CodiModel, OutputError, extract, rehearse, sweep_heads
from codi_lens.causal import batches as measuring
from codi_lens.cli.main import main
from codi_lens.interventions import clean_values
from codi_lens.problems import word_problems
from codi_lens.reports.ablate import ablate_set
from codi_lens.thinking.clean_runs import CleanRuns
from codi_lens.work import Plan, counting

PROBLEMS = word_problems(40, seed=1)
HEADS = [(1, 7), (0, 2), (2, 3)]
Work = Callable[..., object]


def planned(work: Work) -> Plan:
    with rehearse() as plan:
        work(out=plan.folder / "out")
    return plan


def sweep(model: CodiModel, out: Path | None = None) -> object:
    asked: dict[str, Any] = {"problems_at_once": 16, "rows_at_once": 32, "max_new_tokens": 12}
    return sweep_heads(model, PROBLEMS, HEADS, out, progress=False, **asked)


def test_a_plan_counts_the_runs_and_batches_that_are_made(
    tiny_gpt2: CodiModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = planned(lambda out: sweep(tiny_gpt2, out))
    batches: list[int] = []
    score, of, run = measuring.score, CleanRuns.of, clean_values.think

    def scored(clean: Any, answers: Any, rows: Any, first: str, acting: Any = ()) -> Any:
        batches.append(len(rows) if acting else 0)  # clean runs are scored without running again
        return score(clean, answers, rows, first, acting)

    def thought(model: Any, prompts: Any) -> Any:
        batches.append(len(prompts))
        return of(model, prompts)

    def donated(model: Any, questions: Any, **options: Any) -> Any:
        batches.append(len(questions))
        return run(model, questions, **options)

    monkeypatch.setattr(measuring, "score", scored)
    monkeypatch.setattr(CleanRuns, "of", thought)
    monkeypatch.setattr(clean_values, "think", donated)
    with counting() as fed:
        sweep(tiny_gpt2)
    assert plan.runs == sum(batches) == len(PROBLEMS) * (1 + len(HEADS) + 1)
    assert sum(stage.batches for stage in plan.stages) == len(batches)
    assert plan.interventions == len(HEADS)
    assert plan.tokens == pytest.approx(fed.tokens, rel=0.1)
    assert fed.passes > len(batches)


@pytest.mark.parametrize("batch_size", [8, 400])
def test_a_plan_of_an_extraction(tiny_gpt2: CodiModel, tmp_path: Path, batch_size: int) -> None:
    asked: dict[str, Any] = {"batch_size": batch_size, "max_new_tokens": 12, "progress": False}
    plan = planned(lambda out: extract(tiny_gpt2, PROBLEMS, out, **asked))
    with counting() as fed:
        extract(tiny_gpt2, PROBLEMS, tmp_path / "a.zarr", **asked)
    files = [path for path in (tmp_path / "a.zarr").rglob("*") if path.is_file()]
    assert (plan.runs, plan.files) == (len(PROBLEMS), len(files))
    assert plan.bytes == pytest.approx(sum(path.stat().st_size for path in files), rel=0.1)
    exact = batch_size == 400  # one batch: the sample is all there is
    assert plan.tokens == pytest.approx(fed.tokens, rel=0 if exact else 0.1)
    assert plan.sampled > 0


def test_the_time_of_a_plan_is_about_that_of_the_work(tiny_gpt2: CodiModel) -> None:
    plan = planned(lambda out: sweep(tiny_gpt2, out))
    begin = time.perf_counter()
    sweep(tiny_gpt2)
    mean, least, most = plan.seconds
    assert least < mean < most
    assert 0.2 < mean / (time.perf_counter() - begin) < 5  # a neighbour may come or go meanwhile


def test_a_plan_of_a_report_counts_all_its_stages(tiny_gpt2: CodiModel, tmp_path: Path) -> None:
    asked: dict[str, Any] = {"max_new_tokens": 12, "problems_at_once": 4, "progress": False}
    report = partial(ablate_set, tiny_gpt2, PROBLEMS[:16], HEADS, **asked)
    plan = planned(report)
    with counting() as fed:
        report(out=tmp_path / "real")
    files = [path for path in (tmp_path / "real").rglob("*") if path.is_file()]
    assert plan.files == len(files)
    assert plan.bytes == pytest.approx(sum(path.stat().st_size for path in files), rel=0.1)
    assert plan.tokens == pytest.approx(fed.tokens, rel=0.1)


def test_nothing_made_up_is_written(tiny_gpt2: CodiModel, tmp_path: Path) -> None:
    for work in (lambda out: sweep(tiny_gpt2, out), lambda out: extract(tiny_gpt2, PROBLEMS, out)):
        with rehearse() as plan, pytest.raises(OutputError, match="A rehearsal writes nothing"):
            work(tmp_path / "out")
        assert not plan.folder.exists()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "command",
    [
        "extract tiny-gpt2",
        "extract tiny-gpt2 --scores-only",
        "ablate tiny-gpt2 --heads L1H7,L0H2",
        "patch tiny-gpt2 --questions thoughts,restoration",
    ],
)
def test_dry_run_prints_a_plan_and_writes_nothing(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    main([*command.split(), "--n", "8", "--dry-run", "--out", str(out)])
    printed = " ".join(capsys.readouterr().out.split())
    assert "Plan for 8 problems" in printed
    assert "files would be written; nothing was." in printed
    assert not out.exists()
    assert not list(tmp_path.iterdir())
