"""What the reference shows: doctests as code, and the names that a stub hands on as public."""

from __future__ import annotations

import re
from typing import Any

import griffe

EXAMPLE = re.compile(r"^>>> .*(?:\n.+)*", flags=re.MULTILINE)


class Faces(griffe.Extension):
    """Fences the examples of docstrings, and exports what the stub of a package imports."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Put a fence around every paragraph of a docstring that begins with `>>>`."""
        if obj.docstring:
            obj.docstring.value = EXAMPLE.sub(r"```pycon\n\g<0>\n```", obj.docstring.value)

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        """Take for public what a lazy package declares in the stub beside it."""
        for module in (pkg, pkg["plots"], pkg["interventions"], pkg["readout"]):
            module.exports = [name for name, it in module.members.items() if it.is_alias]
