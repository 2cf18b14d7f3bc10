"""The house holds: packages import one way, without circles, in modules that fit on few screens."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parents[1]
HOUSE = (
    "errors positions head_names metrics stats outputs wording plans memory work stand_ins problems"
    " workers < loading < thinking < interventions verification < model < attention < study"
    " < causal < readout < plots < explorer < reports < cli"
)
LEVELS = {name: level for level, row in enumerate(HOUSE.split("<")) for name in row.split()}
FACES = {"__init__", "__main__"}  # the root: public names on first use, and the command line
PATHS = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted((ROOT / "codi_lens").rglob("*.py"))
}
LINES = {name: path.read_text(encoding="utf-8").splitlines() for name, path in PATHS.items()}


@cache
def nodes(module: str) -> list[ast.AST]:
    return list(ast.walk(ast.parse("\n".join(LINES[module]))))


def package_of(module: str) -> str:
    return module.split(".")[1] if "." in module else "__init__"


def imported(module: str) -> Iterator[str]:
    """Every module that this one names in an import, wherever the import stands."""
    for node in nodes(module):
        if isinstance(node, ast.ImportFrom):
            assert node.module and node.level == 0, f"{module} imports relative to itself"
            names = (f"{node.module}.{alias.name}" for alias in node.names)
            yield from (name if name in PATHS else node.module for name in names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


@cache
def inside() -> dict[str, set[str]]:
    return {name: {other for other in imported(name) if other in PATHS} for name in PATHS}


def test_packages_import_only_from_their_left() -> None:
    assert {package_of(name) for name in PATHS} - FACES <= set(LEVELS)
    assert inside()["codi_lens"] == set()  # so whoever imports the root ties no circle
    pairs = [
        (a, b) for a in PATHS if package_of(a) not in FACES for b in inside()[a] - {"codi_lens"}
    ]
    assert [f"{a} -> {b}" for a, b in pairs if not may_import(package_of(a), package_of(b))] == []


def may_import(package: str, other: str) -> bool:  # the ground also its own row
    return package == other or (other not in FACES and LEVELS[other] < max(LEVELS[package], 1))


def test_no_circle() -> None:
    try:
        TopologicalSorter(inside()).prepare()
    except CycleError as error:
        raise AssertionError(" -> ".join(error.args[1])) from None


def test_transformer_lens_stays_behind_its_seam() -> None:
    found = {name for name in PATHS for o in imported(name) if o.startswith("transformer_lens")}
    assert {package_of(name) for name in found} <= {"loading", "thinking"}


def test_modules_and_functions_are_short() -> None:
    assert [name for name, lines in LINES.items() if len(lines) > 350] == []
    functions = [(m, n) for m in PATHS for n in nodes(m) if isinstance(n, ast.FunctionDef)]
    assert [f"{m}.{f.name}" for m, f in functions if code_lines(m, f) > 60] == []


def code_lines(module: str, function: ast.FunctionDef) -> int:
    """Lines of the signature and of statements: no docstring, blank line or comment."""
    first = function.body[0]
    text = range(first.lineno, (first.end_lineno or 0) + 1) if ast.get_docstring(function) else ()
    lines = set(range(function.lineno, (function.end_lineno or 0) + 1)).difference(text)
    code = (LINES[module][line - 1].strip() for line in lines)
    return sum(bool(line) and not line.startswith("#") for line in code)
