"""A rehearsal counts what a command does, by the code that does it, and writes nothing."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
from functools import partial
from io import StringIO
from pathlib import Path
from statistics import fmean
from typing import Any
from warnings import warn

import pytest
from rich.console import Console

from codi_lens import (
    CodiLensError,
    CodiModel,
    OutputError,
    decode_thoughts,
    extract,
    follow,
    logit_lens,
    rehearse,
    sweep_heads,
    work,
)
from codi_lens.causal import batches as measuring
from codi_lens.cli import planning
from codi_lens.cli.main import main
from codi_lens.interventions import clean_values
from codi_lens.plans import Plan, counting
from codi_lens.problems import Problem, word_problems
from codi_lens.reports.ablate import ablate_set
from codi_lens.reports.analyze import analyze
from codi_lens.reports.read import read_thoughts
from codi_lens.thinking.clean_runs import CleanRuns
from codi_lens.work import Stage, rehearsing

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


@pytest.mark.parametrize("batch_size", [4, 8, 400])
def test_a_plan_of_an_extraction(tiny_gpt2: CodiModel, tmp_path: Path, batch_size: int) -> None:
    asked: dict[str, Any] = {"batch_size": batch_size, "max_new_tokens": 12, "progress": False}
    plan = planned(lambda out: extract(tiny_gpt2, PROBLEMS, out, **asked))
    with counting() as fed:
        extract(tiny_gpt2, PROBLEMS, tmp_path / "a.zarr", **asked)
    files = [path for path in (tmp_path / "a.zarr").rglob("*") if path.is_file()]
    assert (plan.runs, plan.files) == (len(PROBLEMS), len(files))
    assert plan.bytes == pytest.approx(sum(path.stat().st_size for path in files), rel=0.05)
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


SHORT: dict[str, Any] = {"max_new_tokens": 12, "progress": False}


@pytest.mark.parametrize(
    ("report", "stages"),
    [
        (
            partial(ablate_set, problems=PROBLEMS[:16], heads=HEADS, problems_at_once=4, **SHORT),
            {"thinking", "set", "pairs", "donors"},
        ),
        (
            partial(analyze, problems=PROBLEMS, batch_size=8, **SHORT),
            {"thinking", "reading", "strips"},
        ),
        (partial(read_thoughts, problems=PROBLEMS, **SHORT), {"reading"}),
    ],
    ids=["ablate", "analyze", "read"],
)
def test_a_plan_of_a_report_counts_all_its_stages(
    tiny_gpt2: CodiModel, tmp_path: Path, report: Work, stages: set[str]
) -> None:
    report = partial(report, tiny_gpt2)
    plan = planned(report)
    assert {stage.name for stage in plan.stages} == stages
    with counting() as fed:
        report(out=tmp_path / "real")
    files = [path for path in (tmp_path / "real").rglob("*") if path.is_file()]
    assert plan.files == len(files)
    assert plan.bytes == pytest.approx(sum(path.stat().st_size for path in files), rel=0.1)
    assert plan.tokens == pytest.approx(fed.tokens, rel=0.1)


def test_what_is_read_is_planned_from_a_sample_too(tiny_gpt2: CodiModel) -> None:
    asked: dict[str, Any] = {"max_new_tokens": 12, "progress": False}

    def read(some: Sequence[Problem]) -> object:
        table = decode_thoughts(tiny_gpt2, some, 2, **asked)
        assert table["problem"].unique().tolist() == [problem.id for problem in some]
        lens = logit_lens(tiny_gpt2, some, k=2, at="thoughts", **asked)
        assert lens["problem"].values.tolist() == [problem.id for problem in some]
        return table

    with counting() as sample, rehearse(repeats=0) as plan:
        read(PROBLEMS)
    with counting() as fed:
        read(PROBLEMS)
    assert [stage.name for stage in plan.stages] == ["decoding", "reading"]
    assert plan.runs == 2 * len(PROBLEMS)
    assert plan.tokens == pytest.approx(fed.tokens, rel=0.1)
    assert sample.passes < fed.passes / 2


def test_nothing_made_up_is_written(tiny_gpt2: CodiModel, tmp_path: Path) -> None:
    for run in (lambda out: sweep(tiny_gpt2, out), lambda out: extract(tiny_gpt2, PROBLEMS, out)):
        with rehearse() as plan, pytest.raises(OutputError, match="A rehearsal writes nothing"):
            run(tmp_path / "out")
        assert not plan.folder.exists()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("extract tiny-gpt2", "4 runs, about"),
        ("extract tiny-gpt2 --scores-only", "4 runs, about"),
        ("analyze tiny-gpt2", "12 runs, about"),
        ("read tiny-gpt2", "4 runs, about"),
        ("study tiny-gpt2 --n-probe 120", "124 runs, about"),
        ("ablate tiny-gpt2 --heads L1H7,L0H2", "and the clean runs: "),
        ("patch tiny-gpt2 --questions thoughts", "and the clean runs: "),
        ("generalise tiny-recall --corpora hub,skip", "and the clean runs: "),
        ("grade tiny-recall", "and the clean runs: "),
    ],
)
def test_dry_run_prints_a_plan_and_writes_nothing(
    command: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    main([*command.split(), "--n", "4", "--dry-run", "--out", str(out)])
    printed = " ".join(capsys.readouterr().out.split())
    assert f"Plan for {8 if 'generalise' in command else 4} problems" in printed
    assert said in printed
    assert "files would be written; nothing was." in printed
    assert not out.exists()
    assert not list(tmp_path.iterdir())


class Terminal(StringIO):
    """What a person sees of the standard error."""

    def isatty(self) -> bool:
        return True

    @property
    def lines(self) -> list[str]:
        """Of the whole command, as they followed each other, without what is left of older ones."""
        return re.findall(r"in all: [^\r\n\x1b]*", self.getvalue())


def shares(terminal: Terminal) -> list[int]:
    return [int(each) for each in re.findall(r"in all: (\d+) %", terminal.getvalue())]


def test_one_line_follows_all_of_a_report(tiny_gpt2: CodiModel, tmp_path: Path) -> None:
    asked: dict[str, Any] = {"max_new_tokens": 12, "problems_at_once": 4}
    report = partial(ablate_set, tiny_gpt2, PROBLEMS[:8], HEADS[:2], **asked)
    plan = planned(partial(report, progress=False))
    with redirect_stderr(Terminal()) as terminal, follow(plan):
        report(out=tmp_path / "real")
    seen = shares(terminal)
    assert seen == sorted(seen)
    assert seen[0] == 0
    followed = sum(stage.seconds(fmean) for stage in plan.stages)
    assert seen[-1] == round(100 * followed / plan.seconds[0]), "files and figures are left"
    assert {stage.name for stage in plan.stages if stage.within} == {"donors"}
    line = terminal.lines[-1].rstrip()
    assert re.search(rf"left, {plan.runs:,} of {plan.runs:,} runs, [\d,.]+ a second$", line), line
    assert "\n\rthinking: " in terminal.getvalue(), "the bar of a stage is below it"

    with redirect_stderr(Terminal()) as again, follow(plan):
        report(out=tmp_path / "real")  # all of it is there
    assert shares(again)[-1] == seen[-1]
    assert re.search(r" 0\.0 a second$", again.lines[-1].rstrip()), "what was found took no time"


def test_what_goes_on_shows_the_time_of_what_is_left() -> None:
    def work(done: int) -> None:
        for name in ("first", "second", "unplanned"):
            stage, begin = Stage(name), done if name == "first" else 0
            if not stage.rehearsed or name != "unplanned":
                with stage.bar(10, "run", shown=not stage.rehearsed, done=begin) as tell:
                    stage("", 10, 10, lambda: time.sleep(0.05))
                    for _ in range(begin, 10):
                        time.sleep(0.11)  # tqdm shows a line ten times a second
                        tell(1)

    with rehearse(repeats=0) as plan:
        work(0)
    assert len(plan.stages) == 2
    with redirect_stderr(Terminal()) as terminal, follow(plan):
        work(8)
    first = next(each for each in terminal.lines if "9 of 20 runs" in each)
    rate = float(re.findall(r"([\d.]+) a second", first)[0])
    assert rate < 1 / 0.11 * 1.01, "eight were found and not run"
    assert "20 of 20 runs" in terminal.lines[-1]


def test_work_is_followed_in_terminals_only(
    tiny_gpt2: CodiModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    with rehearse(repeats=0) as plan:
        sweep(tiny_gpt2)
    # Before every batch: so long that tqdm, which shows a line ten times a second, shows each.
    monkeypatch.setattr(work, "tidy", lambda before: time.sleep(0.11))
    with redirect_stderr(StringIO()) as file, follow(plan):
        sweep_heads(tiny_gpt2, PROBLEMS[:4], HEADS, max_new_tokens=4)
    assert "in all" not in file.getvalue()
    assert "intervening: 100%" in file.getvalue()


def test_what_a_sample_lacks_stops_no_work(
    tiny_gpt2: CodiModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def make(out: Path, progress: bool = True) -> str:
        if rehearsing():
            warn("made up", stacklevel=2)
            raise CodiLensError("No clean answer holds a number.")
        return f"made in {out.name}, with a bar: {progress}"

    monkeypatch.setattr(planning, "LONG", 0.0)
    with redirect_stderr(Terminal()):
        made = planning.carried_out(
            Console(), tiny_gpt2, [PROBLEMS[:4]], make, tmp_path / "out", dry_run=False
        )
    assert made == "made in out, with a bar: True"


@pytest.mark.parametrize(
    ("long", "followed", "command"),
    [
        (0.0, True, "patch tiny-gpt2 --questions thoughts"),
        (1e9, False, "patch tiny-gpt2 --questions thoughts"),
        (0.0, True, "ablate tiny-gpt2 --heads L1H7 --at all --way explain"),
    ],
)
def test_long_commands_are_planned_before_they_are_followed(
    long: float, followed: bool, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planning, "LONG", long)
    out = tmp_path / "out"
    given = [*command.split(), "--n", "4", "--out", str(out)]
    with redirect_stderr(Terminal()) as terminal:
        main(given)
    assert bool(terminal.lines) == followed
    assert (out / "index.html").exists()
    if followed:
        with redirect_stderr(Terminal()) as again:
            main(given)
        assert not again.lines, "what is there is not planned"


def test_memory_is_tidied_before_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(work, "tidy", told.append)
    Stage("some")("", 1, 1, lambda: told.append("run"))
    assert told == ["batch", "run"]
