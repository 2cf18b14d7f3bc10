"""What a built-in story computes, whoever it is about: repeats of it are one observation."""

from __future__ import annotations

import re

_STORY = re.compile(r"(\w+) has \d+ (\w+)\. .*How many \2 does (he|she) have\?")


def chain_of(question: str) -> str:
    """A story without its name, thing and verbs: equal for equal chains. Another text is itself.

    A chain is the start and the operations of a story of `word_problems`.

    >>> chain_of("Mia has 15 stamps. Then she buys 5 more. How many stamps does she have?")
    '_ has 15 _. Then _ _ 5 more. How many _ does _ have?'
    >>> chain_of("Mia is  15.")
    'Mia is 15.'
    """
    words = " ".join(question.split())
    story = _STORY.fullmatch(words)
    if story is None:
        return words
    told = re.sub(rf"\b({'|'.join(story.groups())})\b", "_", words)
    return re.sub(r"_ \w+ (\d+)( more)?\.", r"_ _ \1\2.", told)
