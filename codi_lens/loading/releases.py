"""What releases of transformers name differently; told from their signatures, not their numbers."""

from __future__ import annotations

import inspect
from functools import cache
from typing import Any

from torch import nn


@cache
def arguments_of(kind: type[nn.Module]) -> frozenset[str]:
    """The names of what a module's forward pass takes."""
    return frozenset(inspect.signature(kind.forward).parameters)


def cached(model: Any, cache: Any) -> dict[str, Any]:
    """The cache as an argument of a model's forward pass: `past_key_values`, since 5.24 `cache`.

    >>> from transformers import AutoConfig, AutoModelForCausalLM
    >>> sizes = {"n_embd": 8, "n_head": 2, "n_layer": 1}
    >>> model = AutoModelForCausalLM.from_config(AutoConfig.for_model("gpt2", **sizes))
    >>> list(cached(model, None).values())
    [None]
    """
    while hasattr(model, "get_base_model"):  # PEFT hands arguments on
        model = model.get_base_model()
    return {"cache" if "cache" in arguments_of(type(model)) else "past_key_values": cache}
