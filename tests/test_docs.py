"""What README and docs show runs as written, prints what they print, and leads somewhere."""

from __future__ import annotations

import contextlib
import functools
import importlib
import io
import re
import shlex
import subprocess
import sys
import tomllib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.oracle import ROOT
from test_architecture import HOUSE

from codi_lens import CodiModel, InterventionWarning
from codi_lens.cli.main import main
from codi_lens.cli.options import Loading

README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md"))]
TEXTS = {path.relative_to(ROOT).as_posix(): path.read_text("utf-8") for path in PAGES}
NOT_RUN = "<!-- not run: "  # stands before a block, and says why
BLOCK = re.compile(
    rf"(?P<before>{NOT_RUN}[^\n]*\n)?^```python\n(?P<code>.*?)^```\n(?:\n```text\n(?P<printed>.*?)^```$)?",
    flags=re.DOTALL | re.MULTILINE,
)
COMMANDS = {
    command
    for text in TEXTS.values()
    for block in re.findall(r"^```console\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)
    for command in re.findall(r"^\$ codi-lens (.*)$", block, flags=re.MULTILINE)
}
PUBLIC = {
    "codi_lens",
    *(f"codi_lens.{m}" for m in ("metrics", "problems", "plots", "interventions", "readout")),
}
LINK = re.compile(r"\]\(([^)#\s]+)[^)]*\)")


@pytest.fixture(scope="module")
def load_once() -> Iterator[None]:
    """Models are shared by all blocks, which ask for few and change none."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CodiModel, "from_pretrained", functools.cache(CodiModel.from_pretrained))
        yield


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that is not a clone: what ships with the package is found by its name alone."""
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("page", TEXTS)
def test_python_runs_and_prints_what_is_shown(page: str, load_once: None, elsewhere: None) -> None:
    namespace: dict[str, Any] = {"__name__": page}
    for block in BLOCK.finditer(TEXTS[page]):
        if block["before"]:
            continue
        line = TEXTS[page].count("\n", 0, block.start("code"))
        code = compile("\n" * line + block["code"], page, "exec")
        with contextlib.redirect_stdout(io.StringIO()) as printed, warnings.catch_warnings():
            warnings.simplefilter("ignore", InterventionWarning)  # the page says so itself
            exec(code, namespace)
        assert printed.getvalue() == (block["printed"] or ""), block["code"]


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_commands_are_understood(
    command: str,
    elsewhere: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Everything up to loading the model, or to the folder that another command writes."""
    monkeypatch.setattr(Loading, "load", _loaded)
    if command.startswith("inspect "):
        main(shlex.split(command))
        assert "would load" in capsys.readouterr().out
        return
    if command.startswith("explore "):
        with pytest.raises(SystemExit):
            main(shlex.split(command))
        assert "is no folder" in capsys.readouterr().err
        return
    with pytest.raises(LoadingError, match="tiny-"):
        main(shlex.split(command))


class LoadingError(BaseException):
    """Raised in place of loading a model; not an error that a command would report."""


def _loaded(loading: Loading, model: str, console: object) -> None:
    raise LoadingError(model)


def test_every_block_is_one_that_is_run() -> None:
    for page, text in TEXTS.items():
        assert text.count("```python") == len(BLOCK.findall(text)), page
    assert len(COMMANDS) >= 6


def test_readme_opens_with_a_picture_and_two_commands() -> None:
    text = TEXTS["README.md"]
    places = [text.index(it) for it in ("![", "make demo", "make test", "pip install", "```python")]
    assert places == sorted(places)


@pytest.mark.parametrize("page", TEXTS)
def test_every_link_leads_somewhere(page: str) -> None:
    for target in LINK.findall(TEXTS[page]):
        here = target.split("/blob/main/")  # pages of the site reach files beside docs like this
        path = ROOT / here[1] if len(here) == 2 else (ROOT / page).parent / target
        assert ("://" in here[0] and len(here) == 1) or path.exists(), target


def test_the_readme_of_the_package_has_no_relative_link() -> None:
    hooks = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["hatch"]
    text = TEXTS["README.md"]
    for rule in hooks["metadata"]["hooks"]["fancy-pypi-readme"]["substitutions"]:
        text = re.sub(rule["pattern"], rule["replacement"], text)
    targets = LINK.findall(text)
    assert all(target.startswith("https://") for target in targets)
    assert sum("raw.githubusercontent.com" in target for target in targets) == text.count("![")


@pytest.fixture(scope="module")
def site() -> dict[str, str]:
    """The pages of the site, built as `make docs` builds them."""
    build = [
        sys.executable,
        "-m",
        "zensical",
        "build",
        "--clean",
        "--strict",
        "--config-file",
        "mkdocs.yml",
    ]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    folder = ROOT / "build" / "site"
    pages = {
        it.relative_to(folder).as_posix(): it.read_text("utf-8") for it in folder.rglob("*.html")
    }
    assert pages.keys() >= {f"{Path(page).stem}.html" for page in TEXTS if page.startswith("docs/")}
    return pages


@pytest.mark.parametrize("module", sorted(PUBLIC))
def test_the_reference_shows_every_public_name(site: dict[str, str], module: str) -> None:
    page = site[f"api/{module.removeprefix('codi_lens.')}.html"]
    found = importlib.import_module(module)
    here = [name for name, it in vars(found).items() if getattr(it, "__module__", "") == module]
    names = getattr(found, "__all__", [name for name in here if not name.startswith("_")])
    shown = re.findall(rf'id="{re.escape(module)}\.(\w+)"', page)
    assert [it for it in names if it not in shown and f"{module}.{it}" not in PUBLIC] == []


def test_the_site_loads_nothing_from_the_network(site: dict[str, str]) -> None:
    for page, text in site.items():
        loaded = re.findall(r"<(?:script|img|iframe|source)[^>]*\ssrc=\"?([^\s\">]+)", text)
        loaded += re.findall(r"<link[^>]*\shref=\"?([^\s\">]+)", text)
        assert loaded and not [it for it in loaded if it.startswith(("http", "//"))], page


@pytest.mark.parametrize("page", ["README.md", "docs/architecture.md", "CONTRIBUTING.md"])
def test_the_rule_is_the_one_that_is_tested(page: str) -> None:
    line = re.search(r"^ *ground < (.*)$", (ROOT / page).read_text("utf-8"), flags=re.MULTILINE)
    assert line is not None
    rule = [part.replace(",", " ").strip("{} ").split() for part in line[1].split("<")]
    assert rule == [part.split() for part in HOUSE.split("<")[1:]]


def test_the_architecture_names_files_that_exist() -> None:
    rows = re.findall(r"^\| an? .*$", TEXTS["docs/architecture.md"], flags=re.MULTILINE)
    assert len(rows) >= 10
    for _, _, where, test, _ in (row.split("|") for row in rows):
        for folder, cell in (("codi_lens", where), ("tests", test)):
            for name in re.findall(r"`([\w./]+[/.]\w*)`", cell):
                assert (ROOT / folder / name).exists() or (ROOT / name).exists(), name
