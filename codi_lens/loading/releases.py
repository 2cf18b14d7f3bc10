"""What releases of transformers name differently; told from their signatures, not their numbers."""

from __future__ import annotations

import inspect
from typing import Any


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
    taken = inspect.signature(model.forward).parameters
    return {"cache" if "cache" in taken else "past_key_values": cache}
