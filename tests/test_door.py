"""The door is light: names load on first use, help and refusals load no model, ^C is one line."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import tyro

import codi_lens
from codi_lens import interventions, plots, problems, readout
from codi_lens.cli.main import main

HEAVY = ("numpy", "torch", "transformers", "transformer_lens", "pandas", "xarray", "plotly")
STOPPED = "codi-lens: stopped; the same command resumes.\n"
REFUSED = [
    ["analyze"],
    ["analyze", "tiny-gpt2"],
    ["analyze", "tiny-gpt2", "--out", "new", "--no-such-option"],
    ["analyze", "tiny-gpt2", "--out", "new", "--threads", "0"],
    ["analyze", "tiny-gtp2", "--out", "new"],
    ["analyze", "tiny-gpt2", "--out", "new", "--problems", "math"],
    ["verify", "tiny-gpt2", "--n", "0"],
    ["study", "a", "b", "c", "--out", "new"],
    ["ablate", "tiny-gpt2", "--out", "new"],
    ["ablate", "tiny-gpt2", "--out", "new", "--all", "--top", "3"],
    ["patch", "tiny-gpt2", "--out", "new", "--dtype", "int4"],
    ["no-such-command"],
]


def python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def test_importing_codi_lens_loads_no_library() -> None:
    code = f"import sys, codi_lens; dir(codi_lens); print({{*{HEAVY!r}}} & sys.modules.keys())"
    assert python(code).stdout == "set()\n"


def test_help_version_and_refusals_load_no_library() -> None:
    code = f"""
import contextlib, io, json, sys
from codi_lens.cli.main import main
for line in json.loads(sys.argv[1]):
    code = 0
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        try:
            main(line)
        except SystemExit as stopped:
            code = stopped.code
    print(code, *sorted({{*{HEAVY!r}}} & sys.modules.keys()))
"""
    helped = [["--version"], ["--help"], ["analyze", "--help"], ["study", "--help"]]
    done = python(code, json.dumps(helped + REFUSED))
    assert done.stdout.splitlines() == ["0"] * len(helped) + ["2"] * len(REFUSED), done.stderr


def test_module_runs_as_the_command_does() -> None:
    command = [sys.executable, "-m", "codi_lens", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == f"codi-lens {codi_lens.__version__}\n"


@pytest.mark.parametrize("face", [codi_lens, plots, interventions, problems, readout])
def test_public_names_are_there(face: ModuleType) -> None:
    namespace: dict[str, object] = {}
    exec(f"from {face.__name__} import *", namespace)
    assert namespace.keys() >= set(face.__all__) <= set(dir(face))
    for name in face.__all__:
        value = getattr(face, name)
        assert namespace[name] is value
        if name not in {"interventions", "metrics", "plots", "problems", "readout"}:
            assert not isinstance(value, ModuleType), "hidden by a module of its name"
        if isinstance(value, type):
            assert pickle.loads(pickle.dumps(value)) is value
    with pytest.raises(AttributeError, match="has no attribute 'no_such_name'"):
        _ = face.no_such_name


@pytest.mark.parametrize("module", ["tyro", "torch", "transformers.utils"])
def test_interrupt_during_an_import_is_one_line(module: str, tmp_path: Path) -> None:
    code = f"""
import os, signal, sys
class Interrupt:
    def find_spec(self, name, *_):
        if name == {module!r}:
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupt())
from codi_lens.cli.main import main
main(["analyze", "tiny-gpt2", "--n", "2", "--out", sys.argv[1]])
"""
    done = python(code, str(tmp_path / "new"))
    assert (done.returncode, done.stderr) == (130, STOPPED)
    assert not (tmp_path / "new").exists()


def test_interrupt_in_executed_text_exits_too() -> None:
    code = """
import tyro
tyro.extras.subcommand_cli_from_dict = lambda *_, **__: exec("raise KeyboardInterrupt")
from codi_lens.cli.main import main
main([])
"""
    done = python(code)
    assert (done.returncode, done.stderr) == (130, STOPPED)


def test_interrupt_of_work_exits_and_leaves_the_handler(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = signal.getsignal(signal.SIGINT)

    def interrupted(*_: object, **__: object) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(tyro.extras, "subcommand_cli_from_dict", interrupted)
    with pytest.raises(SystemExit) as stopped:
        main([])
    assert stopped.value.code == 130
    assert capsys.readouterr().err == STOPPED
    assert signal.getsignal(signal.SIGINT) is before
