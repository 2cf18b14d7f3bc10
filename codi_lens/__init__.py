"""codi_lens: a microscope for continuous thought.

CODI models reason in a few continuous vectors instead of words. codi_lens turns a checkpoint into
a TransformerLens model, runs its thoughts with every hook alive, and ranks its attention heads.

Public names are imported on first use (PEP 562), so that `--help` does not wait for torch. They
are declared once, in the stub beside this file, which type checkers and editors read too.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any


def _lazy_names(
    package: str, file: str
) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """`__getattr__`, `__dir__` and `__all__` of a package, from the imports of its stub.

    Args:
        package: its `__name__`.
        file: its `__file__`, with a `.pyi` beside it.
    """
    tree = ast.parse(Path(file).with_suffix(".pyi").read_text(encoding="utf-8"))
    homes = {
        alias.name: node.module
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and node.module
        for alias in node.names
    }

    def get(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        if homes[name] == package:
            return import_module(f"{package}.{name}")
        value = getattr(import_module(homes[name]), name)
        setattr(sys.modules[package], name, value)
        return value

    def names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *homes})

    return get, names, sorted(homes)


__version__ = "0.2.0"
__getattr__, __dir__, __all__ = _lazy_names(__name__, __file__)
