"""Notebooks run without a kernel of their own, by a process that has imported everything."""

from __future__ import annotations

import json
import os
import sys
from contextlib import redirect_stdout
from pathlib import Path

import sklearn.linear_model
import statsmodels.api
import transformer_lens
from IPython.core.interactiveshell import InteractiveShell
from plotly import graph_objects
from traitlets.config import Config

import codi_lens

LOADED = [getattr(codi_lens, name) for name in dir(codi_lens)]  # public names load when asked for
LOADED += [graph_objects, sklearn, statsmodels, transformer_lens]


def run(notebook: Path, said: Path) -> None:
    """Run the code of a notebook in its folder; ends the process with 1 at the first error.

    Args:
        notebook: is only read.
        said: where what its cells print goes, and the error.
    """
    os.environ["IPYTHONDIR"] = str(said.parent / "ipython")
    os.chdir(notebook.parent)
    shell = InteractiveShell.instance(config=Config({"HistoryManager": {"enabled": False}}))
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    with said.open("w", encoding="utf-8") as opened, redirect_stdout(opened):
        for cell in cells:
            source = "".join(cell["source"])
            if cell["cell_type"] == "code" and not shell.run_cell(source, True).success:
                sys.exit(1)
