"""The house holds: packages import one way, without circles, in modules that fit on few screens."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parents[1] / "codi_lens"
ORDER: list[set[str]] = [
    {"errors", "faces", "positions", "head_names", "metrics", "stats", "outputs", "wording"}
    | {"problems"},
    {"loading"},
    {"thinking"},
    {"interventions", "verification"},
    {"model"},
    {"attention"},
    {"study"},
    {"causal"},
    {"readout"},
    {"plots"},
    {"explorer"},
    {"reports"},
    {"cli"},
]
LEVELS = {package: level for level, packages in enumerate(ORDER) for package in packages}
FACES = {"__init__", "__main__"}  # the public names: they may import everything
TRANSFORMER_LENS = {"loading", "thinking"}
MODULES = {
    ".".join(("codi_lens", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(
        ".__init__"
    ): path
    for path in sorted(ROOT.rglob("*.py"))
}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in MODULES.items()}


def package_of(module: str) -> str:
    return module.split(".")[1] if "." in module else "__init__"


def imported(module: str) -> Iterator[str]:
    """Every module that this one names in an import, wherever the import stands."""
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in MODULES else node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def to_its_left(package: str, of: str) -> bool:
    return LEVELS[package] < LEVELS[of] or LEVELS[package] == LEVELS[of] == 0


INSIDE = {name: {other for other in imported(name) if other in MODULES} for name in MODULES}


def test_every_package_has_its_place() -> None:
    assert {package_of(name) for name in MODULES} - FACES <= set(LEVELS)


def test_packages_import_only_from_their_left() -> None:
    wrong = [
        f"{name} -> {other}"
        for name, others in INSIDE.items()
        for other in others
        if package_of(name) not in FACES and package_of(other) != package_of(name)
        if package_of(other) in FACES or not to_its_left(package_of(other), package_of(name))
    ]
    assert wrong == []


def test_no_circle() -> None:
    try:
        TopologicalSorter(INSIDE).prepare()
    except CycleError as error:
        raise AssertionError(" -> ".join(error.args[1])) from None


def test_transformer_lens_stays_behind_its_seam() -> None:
    found = {name for name in MODULES for o in imported(name) if o.startswith("transformer_lens")}
    assert {package_of(name) for name in found} <= TRANSFORMER_LENS


def test_modules_and_functions_are_short() -> None:
    long = [n for n, p in MODULES.items() if len(p.read_text("utf-8").splitlines()) > 350]
    for name, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef) and code_lines(node) > 60:
                long.append(f"{name}.{node.name}: {code_lines(node)} lines")
    assert long == []


def code_lines(function: ast.FunctionDef) -> int:
    """Lines of statements, signature and docstring apart."""
    body = function.body[1:] if ast.get_docstring(function) else function.body
    return body[-1].end_lineno - body[0].lineno + 1 if body and body[-1].end_lineno else 0
