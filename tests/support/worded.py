"""tiny-gpt2 in a language without numbers: same tokens, but they are written as words."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

from support.oracle import ROOT

LETTERS = "ABCDEFGHIJ"
WORDS = {str(n): f"{LETTERS[n // 10]}{LETTERS[n % 10]}" for n in range(50)}
"""Two letters for each number: "21" is "CB"."""


def worded(folder: Path, words: Mapping[str, str]) -> Path:
    """A copy of the checkpoint whose tokenizer writes these numbers as words."""
    shutil.copytree(ROOT / "checkpoints" / "tiny-gpt2", folder)
    path = folder / "tokenizer.json"
    tokenizer = json.loads(path.read_text("utf-8"))
    vocabulary = tokenizer["model"]["vocab"]
    tokenizer["model"]["vocab"] = {in_words(text, words): id for text, id in vocabulary.items()}
    path.write_text(json.dumps(tokenizer))
    return folder


def in_words(text: str, words: Mapping[str, str]) -> str:
    return re.sub(r"\d+", lambda number: words.get(number[0], number[0]), text)
