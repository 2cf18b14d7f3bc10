"""The tools find what is wrong with JavaScript, and make the same files every time."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from javascript import tools

SCHEMA = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "Payload",
    "type": "object",
    "properties": {"title": {"type": "string"}, "heads": {"$ref": "#/$defs/heads"}},
    "required": ["title"],
    "additionalProperties": False,
    "$defs": {"heads": {"type": "array", "items": {"type": "integer"}}},
}
MAIN = """\
/** @typedef {import("./schema").Payload} Payload */

/** @param {Payload} payload */
export function heading(payload) {
  return `${payload.title} – ${payload.heads?.length ?? 0} heads`;
}
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A small explorer in a tree like this one, with what is made from its sources."""
    try:
        tools.install()
    except tools.NoToolsError as why:
        pytest.skip(str(why))
    explorer = tmp_path / "codi_lens" / "explorer"
    (explorer / "js").mkdir(parents=True)
    (explorer / "js" / "main.js").write_text(MAIN, encoding="utf-8")
    (explorer / "schema.json").write_text(json.dumps(SCHEMA))
    (explorer / "explorer.css").write_text("p {\n  margin: 0;\n}\n")
    (tmp_path / "tests" / "javascript").mkdir(parents=True)
    shutil.copy(tools.HERE / "tsconfig.json", tmp_path / "tests" / "javascript")
    assert list(tools.build(tmp_path)) == []
    return tmp_path


def test_what_was_built_is_what_its_sources_give(root: Path) -> None:
    explorer = root / "codi_lens" / "explorer"
    assert list(tools.findings(root)) == []
    assert "export interface Payload {" in (explorer / "js" / "schema.d.ts").read_text()
    bundle = (explorer / "explorer.bundle.js").read_text(encoding="utf-8")
    assert "var CodiLensExplorer" in bundle and "–" in bundle and str(root) not in bundle
    assert (explorer / "js" / "main.js").read_text(encoding="utf-8") == MAIN


def test_a_wrong_type_an_old_file_and_a_wrong_style_are_found(root: Path) -> None:
    explorer = root / "codi_lens" / "explorer"
    (explorer / "js" / "main.js").write_text(MAIN.replace("payload.title", "payload.name"))
    (explorer / "explorer.css").write_text("p{margin:0}\n")
    (explorer / "schema.json").write_text(json.dumps(SCHEMA | {"required": []}))
    types, style, *old = tools.findings(root)
    assert "codi_lens/explorer/js/main.js(5," in types and "'name' does not exist" in types
    assert "explorer.css" in style and "main.js" not in style
    assert [line.split(" is not ")[0] for line in old] == [
        "codi_lens/explorer/js/schema.d.ts",
        "codi_lens/explorer/explorer.bundle.js",
    ]


def test_the_lock_pins_all_and_names_no_registry() -> None:
    wanted = json.loads((tools.HERE / "package.json").read_text())["devDependencies"]
    lock = json.loads((tools.HERE / "package-lock.json").read_text())["packages"]
    assert lock[""]["devDependencies"] == wanted
    assert all(lock[f"node_modules/{name}"]["version"] == pin for name, pin in wanted.items())
    assert [name for name, held in lock.items() if "resolved" in held] == []
