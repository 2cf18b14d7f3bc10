"""A real JupyterLab for tests: on this machine alone, with settings and folders of its own."""

from __future__ import annotations

import ast
import json
import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nbformat
import pytest
from nbformat import v4
from support.browser import Pages

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

SECONDS = 60  # what a busy machine may take to start JupyterLab, or a kernel
SETTINGS = {
    "@jupyterlab/apputils-extension:notification": {
        "checkForUpdates": False,
        "doNotDisturbMode": True,
        "fetchNews": "false",
    },
    "@jupyterlab/notebook-extension:tracker": {"windowingMode": "none"},  # draw every output
}
OPTIONS = (
    "--no-browser",
    "--allow-root",
    "--ip=127.0.0.1",
    "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
    "--LabApp.expose_app_in_browser=True",
    "--LabApp.extension_manager=readonly",
    "--LabApp.news_url=None",
)
FOLDERS = {
    "JUPYTER_CONFIG_DIR": "config",
    "JUPYTER_DATA_DIR": "data",
    "JUPYTER_RUNTIME_DIR": "runtime",
    "JUPYTERLAB_SETTINGS_DIR": "settings",
    "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
    "IPYTHONDIR": "ipython",
}
SPEC = {"name": "python3", "display_name": "Python 3", "language": "python"}  # or Lab asks which
KERNEL = "window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel"
RUN_ALL = """async () => {
  const panel = window.jupyterapp.shell.currentWidget;
  await Promise.all([panel.revealed, panel.context.ready, panel.sessionContext.ready]);
  await window.jupyterapp.commands.execute("notebook:run-all-cells");
  const { cells } = panel.content.model.toJSON();
  const errors = cells.flatMap((cell) => cell.outputs)
    .filter((output) => output.output_type === "error")
    .map((output) => `${output.ename}: ${output.evalue}`);
  const left = cells.filter((cell) => cell.execution_count === null).length;
  return errors.length || !left ? errors : [`${left} cells did not run`];
}"""
ASK = f"""async (value) => {{
  const asked = {{ code: "", user_expressions: {{ value }}, store_history: false }};
  const reply = await {KERNEL}.requestExecute(asked).done;
  const answer = reply.content.user_expressions.value;
  if (answer.status !== "ok") throw new Error(`${{answer.ename}}: ${{answer.evalue}}`);
  return answer.data["text/plain"];
}}"""


@dataclass
class Lab:
    """Where a running JupyterLab listens, what it asks its readers for, and where its files lie."""

    url: str
    token: str
    notebooks: Path


@pytest.fixture(scope="module")
def lab(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """JupyterLab on a free port of this machine, stopped with its kernels after the module."""
    pytest.importorskip("jupyterlab", reason="jupyterlab is not installed: make test-jupyter")
    folder, token = tmp_path_factory.mktemp("lab"), secrets.token_hex()
    own = {name: str(folder / place) for name, place in FOLDERS.items()}
    for place in (*own.values(), folder / "notebooks", folder / "config" / "labconfig"):
        Path(place).mkdir()
    settings = folder / "config" / "labconfig" / "default_setting_overrides.json"
    settings.write_text(json.dumps(SETTINGS))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "jupyterlab", f"--port={port}", *OPTIONS]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [*command, f"--ServerApp.root_dir={folder / 'notebooks'}"],
            env=os.environ | own | {"JUPYTER_TOKEN": token},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        url = _listening(process, folder)
        yield Lab(url, token, folder / "notebooks")
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:  # seen where kernels were still to be shut down
            process.kill()
            process.wait()


@pytest.fixture
def run_notebook(lab: Lab, browser: Browser) -> Iterator[Callable[[Sequence[str]], Page]]:
    """Opens a new notebook of these cells in JupyterLab and runs them; a cell's error fails."""
    pages, opened = Pages(browser, lab.url), []

    def run(cells: Sequence[str]) -> Page:
        name = f"notebook{len(list(lab.notebooks.glob('*.ipynb')))}"
        written = [v4.new_code_cell(cell) for cell in cells]
        notebook = v4.new_notebook(cells=written, metadata={"kernelspec": SPEC})
        nbformat.write(notebook, lab.notebooks / f"{name}.ipynb")
        workspace = f"{lab.url}/lab/workspaces/{name}"  # another would open its notebooks again
        page = pages(f"{workspace}/tree/{name}.ipynb?token={lab.token}")
        page.wait_for_function(KERNEL, timeout=SECONDS * 1000)
        opened.append(page)
        if errors := page.evaluate(RUN_ALL):
            raise AssertionError("\n".join(errors))
        return page

    yield run
    said = list(pages.complaints)  # and not what Lab says of kernels that go
    for page in opened[-1:]:
        page.evaluate("window.jupyterapp.serviceManager.sessions.shutdownAll()")
    pages.complaints[:] = said
    pages.close()


def kernel_value(page: Page, expression: str) -> Any:
    """An expression's value in the notebook's kernel as JSON has it, or else its repr."""
    shown = page.evaluate(ASK, f"__import__('json').dumps({expression}, default=repr)")
    return json.loads(ast.literal_eval(shown))


def wait_for_value(page: Page, expression: str, expected: Any) -> None:
    """Until the kernel has heard of what the page did."""
    for _ in range(100):
        if kernel_value(page, expression) == expected:
            return
        page.wait_for_timeout(100)
    assert kernel_value(page, expression) == expected


def _listening(process: subprocess.Popen[bytes], folder: Path) -> str:
    """The address that the server writes down once it takes requests."""
    for _ in range(SECONDS * 10):
        for path in (folder / "runtime").glob("jpserver-*.json"):
            return json.loads(path.read_text())["url"].rstrip("/")
        if process.poll() is not None:
            break
        time.sleep(0.1)
    raise AssertionError("JupyterLab did not start:\n" + (folder / "log").read_text()[-2000:])
