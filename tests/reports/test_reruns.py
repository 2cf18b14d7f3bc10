"""A finished report runs again without a forward pass, and a stranger's folder is left alone."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from codi_lens import CodiModel, Intervention, OutputError, __version__
from codi_lens.causal.measure import measure
from codi_lens.outputs import check_output, held, open_report
from codi_lens.problems import word_problems
from codi_lens.reports.ablate import ablate_all, ablate_set, ablate_top
from codi_lens.reports.analyze import analyze
from codi_lens.reports.patch import patch_positions
from codi_lens.reports.study import report_study

SOME = word_problems(4, seed=0)
QUICK: dict[str, Any] = {"max_new_tokens": 6, "progress": False}
COMMANDS: dict[str, Callable[[CodiModel, Path], Any]] = {
    "analyze": lambda model, out: analyze(model, SOME, out, **QUICK),
    "study": lambda model, out: report_study([model], SOME, out, n_probe=60, **QUICK),
    "ablate --heads": lambda model, out: ablate_set(
        model, SOME, [(1, 7), (0, 2)], out, candidates=word_problems(30, split="train"), **QUICK
    ),
    "ablate --top": lambda model, out: ablate_top(model, SOME, 1, out, n_random=2, **QUICK),
    "ablate --all": lambda model, out: ablate_all(model, SOME, out, **QUICK),
    "patch": lambda model, out: patch_positions(
        model, SOME, out, n_pairs=2, components=["mlp_out"], at="bot", **QUICK
    ),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_finished_report_runs_again_without_a_forward_pass(
    tiny_gpt2: CodiModel, tmp_path: Path, command: str
) -> None:
    passes: list[int] = []
    seen = tiny_gpt2.lens.blocks[0].register_forward_pre_hook(lambda *_: passes.append(1))
    out = tmp_path / "out"
    try:
        COMMANDS[command](tiny_gpt2, out)
        assert passes
        first = written(out)
        passes.clear()
        COMMANDS[command](tiny_gpt2, out)
        assert len(passes) == 0
    finally:
        seen.remove()
    assert written(out) == first
    assert json.loads((out / "codi_lens.json").read_text())["codi_lens"] == __version__
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("how", ["missing", "cut", "flipped"])
def test_damaged_outcomes_are_computed_again(
    tiny_gpt2: CodiModel, tmp_path: Path, how: str
) -> None:
    silence = {"silence": Intervention([("blocks.0.attn.hook_z", zeros)], "ct2", name="silence")}
    run = partial(measure, tiny_gpt2, SOME, silence, tmp_path, progress=False)
    first = run()
    outcomes = tmp_path / "outcomes.parquet"
    whole = outcomes.read_bytes()
    place = whole.index(b"PAR1") + 60
    damaged = {
        "missing": b"",
        "cut": whole[:-9],
        "flipped": whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :],
    }[how]
    outcomes.write_bytes(damaged)
    assert run().equals(first)
    assert outcomes.read_bytes() == whole


def zeros(activation: Tensor, hook: object) -> Tensor:
    return torch.zeros_like(activation)


def written(folder: Path) -> dict[str, bytes]:
    """All that does not draw a figure, whose file names its box at random."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.suffix != ".html"
    }


@pytest.mark.parametrize("command", ["analyze", "study", "ablate --all", "patch"])
@pytest.mark.parametrize("holds", ["results", "outcomes", "attention.zarr", "index.html"])
def test_a_strangers_folder_is_refused(tmp_path: Path, command: str, holds: str) -> None:
    if "." in holds and "zarr" not in holds:
        (tmp_path / holds).write_text("mine")
    else:
        (tmp_path / holds).mkdir()
    with (
        pytest.raises(OutputError, match="exists with other content"),
        open_report(tmp_path, command),
    ):
        pass
    assert [path.name for path in tmp_path.iterdir()] == [holds]


def test_a_report_is_of_one_command_and_one_process(tmp_path: Path) -> None:
    out = tmp_path / "new" / "out"
    with (
        open_report(out, "ablate --top 4"),
        pytest.raises(OutputError, match="is being written by another process"),
        open_report(out, "ablate --top 4"),
    ):
        pass
    check_output(out, "ablate")
    check_output(out, "ablate --top 4")
    for command in ("patch", "ablate --top 3"):
        with pytest.raises(OutputError, match=f"of `ablate --top 4`, not of `{command}`"):
            check_output(out, command)
    (out / "codi_lens.json").write_text('{"command": "abl')
    with pytest.raises(OutputError, match=r"codi_lens\.json is damaged"):
        check_output(out, "ablate")
    (out / "codi_lens.json").write_text("[]")
    with pytest.raises(OutputError, match=r"codi_lens\.json is damaged"):
        check_output(out, "ablate")
    (out / "codi_lens.json").write_text("{}")
    with pytest.raises(OutputError, match="other content"):
        check_output(out, "ablate")


def test_another_process_waits_its_turn(tmp_path: Path) -> None:
    keeps = "from codi_lens.outputs import open_report; import sys, time\n"
    keeps += "with open_report(sys.argv[1], 'patch'): print('kept', flush=True); time.sleep(300)"
    out = tmp_path / "out"
    with subprocess.Popen([sys.executable, "-c", keeps, out], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None and other.stdout.readline() == b"kept\n"
        with (
            pytest.raises(OutputError, match=r"^.*out is being written by another process; \S.*$"),
            open_report(out, "patch"),
        ):
            pass
        other.kill()
    with open_report(out, "patch"):
        pass
    assert [each.name for each in tmp_path.iterdir()] == ["out"]


def test_reports_that_are_older_than_the_marker_go_on(tiny_gpt2: CodiModel, tmp_path: Path) -> None:
    analyze(tiny_gpt2, SOME, tmp_path / "analysis", **QUICK)
    (tmp_path / "analysis" / "codi_lens.json").unlink()
    check_output(tmp_path / "analysis", "analyze")
    with pytest.raises(OutputError, match="report of `analyze`, not of `study`"):
        check_output(tmp_path / "analysis", "study")
    results = tmp_path / "study" / "results" / "tiny-gpt2"
    shutil.copytree(tmp_path / "analysis" / "attention.zarr", results / "attention.zarr")
    check_output(tmp_path / "study", "study")
    (tmp_path / "ablation" / "outcomes").mkdir(parents=True)
    (tmp_path / "ablation" / "outcomes" / "command.json").write_text('{"command": "ablate --all"}')
    with open_report(tmp_path / "ablation", "ablate --all") as folder:
        assert (folder / "codi_lens.json").is_file()


def test_what_a_stop_left_of_ours_is_cleared_and_nothing_else(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / ".codi_lens.json.77-0a1b2c3d.codi_lens.partial").write_text("half")
    (tmp_path / ".out.codi_lens.lock").touch()
    (tmp_path / ".out.partial").write_text("mine")
    with open_report(out, "patch"):
        assert [path.name for path in out.iterdir()] == ["codi_lens.json"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [".out.partial", "out"]
    (tmp_path / ".kept.codi_lens.lock").write_text("not a lock")
    with held(tmp_path / "kept"):
        pass
    assert (tmp_path / ".kept.codi_lens.lock").read_text() == "not a lock"
