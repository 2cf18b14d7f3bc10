"""What users of TransformerLens and Hugging Face type, and how it is done here."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from codi_lens.errors import NotOfferedError
from codi_lens.loading.loaded import Lens

_MOVES = dict.fromkeys(
    ("cuda", "cpu", "mps", "half", "float", "double", "bfloat16"),
    "to('cuda'), to('bfloat16') or to('cuda', 'bfloat16') moves it",
)
_HOOKS = dict.fromkeys(
    ("hooks", "add_hook", "run_with_hooks"),
    "give think interventions, hooks with a scope, as in think(questions, "
    "interventions=[Intervention([(name, function)], at='thinking')]); plain "
    "model.lens.hooks(...) around think are seen too",
)
_INSTEAD = {
    "generate": "think(questions, max_new_tokens=64) decodes answers greedily, behind thoughts",
    "forward": "model(questions) and model.think(questions) run it",
    "push_to_hub": "save_pretrained(folder) writes what `hf upload NAME FOLDER` takes",
    "eval": "it is always in that mode, and never trains",
    "train": "it thinks, and never trains",
    **_MOVES,
    **_HOOKS,
}


def not_offered(name: str, offered: Iterable[str], lens: Lens | None) -> NotOfferedError:
    """The error for an attribute that a `CodiModel` does not have, with what does the same.

    Args:
        name: of the attribute.
        offered: names that it has.
        lens: its language model, whose attributes count too.

    >>> not_offered("generate", [], None)  # doctest: +ELLIPSIS
    NotOfferedError('A CodiModel has no generate; think(questions, max_new_tokens=64) decodes ...')
    """
    instead = _INSTEAD.get(name)
    # By `dir`, not `hasattr`, which would stack the weights of all layers to answer of W_Q.
    if instead is None and lens is not None and not name.startswith("_") and name in dir(lens):
        instead = f"its HookedTransformer has: model.lens.{name}"
    if instead is None:
        close = difflib.get_close_matches(name, offered, n=1)
        instead = f"did you mean {close[0]}?" if close else None
    end = "." if instead is None or not instead.endswith("?") else ""
    return NotOfferedError(f"A CodiModel has no {name}{f'; {instead}' if instead else ''}{end}")
