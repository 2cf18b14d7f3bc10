"""What the README shows runs as written."""

from __future__ import annotations

import re

import pytest
from support.oracle import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


def test_readme_opens_with_a_picture_that_exists() -> None:
    image = re.search(r"!\[.*?\]\((.*?)\)", README)
    assert image is not None
    assert (ROOT / image[1]).is_file()
    assert README.index("make demo") < README.index("```python")


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_python_of_the_readme_runs(block: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    exec(compile(block, "README.md", "exec"), {"__name__": "readme"})


def test_every_link_of_the_readme_leads_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        if "://" not in target:
            assert (ROOT / target).exists(), target
