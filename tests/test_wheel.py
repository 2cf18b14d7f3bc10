"""What pip installs: the package, its data, the shipped models, and what it says of itself."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

import codi_lens
from codi_lens.loading.sources import shipped_models

ROOT = Path(codi_lens.__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", out]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return next(out.glob("*.whl"))


def test_wheel_holds_the_package_its_data_and_the_models(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        held = {
            name: archive.read(name) for name in archive.namelist() if ".dist-info/" not in name
        }
    expected = [
        path
        for path in (ROOT / "codi_lens").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    ]
    files = {path.relative_to(ROOT).as_posix(): path for path in expected}
    for name in shipped_models():
        for path in (ROOT / "checkpoints" / name).iterdir():
            files[f"codi_lens/checkpoints/{name}/{path.name}"] = path
    assert held.keys() == files.keys()
    assert all(held[name] == path.read_bytes() for name, path in files.items())
    assert "codi_lens/py.typed" in held


def test_metadata_says_what_the_project_is(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith("METADATA"))
        metadata = Parser().parsestr(archive.read(name).decode())
    assert metadata["Version"] == codi_lens.__version__
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {codi_lens.__version__}\n" in citation
    classifiers = metadata.get_all("Classifier") or []
    for version in ("3.11", "3.12", "3.13"):
        assert f"Programming Language :: Python :: {version}" in classifiers
    assert "Operating System :: OS Independent" in classifiers
    assert metadata["Author"]
    assert len(metadata.get_all("Project-URL") or []) >= 3


def test_installed_wheel_thinks_in_an_empty_folder(wheel: Path, tmp_path: Path) -> None:
    place, empty = tmp_path / "place", tmp_path / "empty"
    empty.mkdir()
    install = ["install", "--no-deps", "--no-index", "--no-compile", "--target", place, wheel]
    subprocess.run([sys.executable, "-m", "pip", "--quiet", *install], check=True)
    code = """
import runpy, sys
import codi_lens
print(codi_lens.__file__)
print(codi_lens.CodiModel.from_pretrained("tiny-llama").config.source)
script = sys.argv[1]
for line in ("analyze tiny-gpt2 --n 2 --out x --threads 1", "analyze tiny-gtp2 --out y"):
    sys.argv[1:] = line.split()
    try:
        runpy.run_path(script, run_name="__main__")
    except SystemExit as stopped:
        print("exit", stopped.code)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, place / "bin" / "codi-lens"],
        cwd=empty,
        env=os.environ | {"PYTHONPATH": str(place)},
        capture_output=True,
        text=True,
    )
    assert [line for line in done.stdout.splitlines() if line.startswith("exit")] == [
        "exit None",
        "exit 2",
    ], done.stderr
    assert done.stderr.splitlines()[-1] == (
        "codi-lens: There is no folder tiny-gtp2, and it is not the name of a model that codi_lens "
        f"ships ({', '.join(shipped_models())}) or of a hub repository (owner/name)."
    )
    where, source, *_ = done.stdout.splitlines()
    assert Path(where).is_relative_to(place)
    assert source == "tiny-llama"
    page = (empty / "x" / "index.html").read_text(encoding="utf-8")
    assert re.search(r"<title>tiny-gpt2\b", page)
    assert (
        (empty / "x" / "findings.md")
        .read_text(encoding="utf-8")
        .startswith("# Findings: tiny-gpt2\n")
    )


def test_checkout_finds_the_models_where_they_are() -> None:
    names = ("tiny-gpt2", "tiny-gpt2-plain", "tiny-llama", "tiny-recall", "tiny-recall-control")
    assert shipped_models() == {name: ROOT / "checkpoints" / name for name in names}
