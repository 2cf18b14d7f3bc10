"""What a page holds, read without a browser."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from typing import Any


def data_of(page: str) -> dict[str, Any]:
    return json.loads(re.findall(r'id="data">(.*?)</script>', page, re.DOTALL)[0])


class Tags(HTMLParser):
    """The tags of a page in their order, each with its attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, Any]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
