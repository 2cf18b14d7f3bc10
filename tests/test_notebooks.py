"""Every notebook runs from top to bottom; `make notebooks` runs them in kernels of Jupyter."""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext
from pathlib import Path

import pytest
from support import notebooks
from support.oracle import ROOT

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.fixture(scope="module")
def started() -> ForkServerContext:
    """Makes processes from one that has imported everything, without the types' import hook."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([notebooks.__name__])
    with pytest.MonkeyPatch.context() as patch:  # Python 3.11 does not tell it sys.path
        patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
        forkserver.ensure_running()
    return context


def run(context: ForkServerContext, notebook: Path, folder: Path) -> tuple[int | None, str]:
    """How a notebook ended, and what it said."""
    said = folder / "said.txt"
    process = context.Process(target=notebooks.run, args=(notebook, said))
    process.start()
    process.join(600)
    process.kill()
    return process.exitcode, said.read_text(encoding="utf-8")


def written(folder: Path, *cells: str) -> Path:
    made = folder / "made.ipynb"
    code = [{"cell_type": "code", "source": [cell]} for cell in cells]
    made.write_text(json.dumps({"cells": code}), encoding="utf-8")
    return made


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda notebook: notebook.stem)
def test_it_runs(started: ForkServerContext, notebook: Path, tmp_path: Path) -> None:
    assert len(NOTEBOOKS) > 10
    code, said = run(started, notebook, tmp_path)
    assert code == 0, said[-3000:]


def test_one_that_fails_is_found_and_stops(started: ForkServerContext, tmp_path: Path) -> None:
    """Each starts anew: what another one made is not there."""
    made = written(tmp_path, "made_here = 6 * 7\nprint(made_here)", "1 / 0", "print('went on')")
    code, said = run(started, made, tmp_path)
    assert code == 1 and said.startswith("42") and "ZeroDivisionError" in said
    assert "went on" not in said
    code, said = run(started, written(tmp_path, "made_here"), tmp_path)
    assert code == 1 and "NameError" in said
