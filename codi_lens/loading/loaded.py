"""A loaded CODI checkpoint: what everything that runs a model takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedTokenizerBase

from codi_lens.loading.auxiliary import Auxiliary
from codi_lens.loading.backends import Lens, backend_of
from codi_lens.loading.config import CodiConfig
from codi_lens.loading.language_model import build_lens, dense_weights
from codi_lens.wording import card, count, html_card


@dataclass(frozen=True, eq=False, repr=False)
class Loaded:
    """A language model, the projection that makes thoughts, and its tokens.

    Attributes:
        lens: the language model; every TransformerLens tool works on it. Weights are raw: nothing
            is folded or centred, since a thought is the hidden state after the final norm.
        projection: from the final-norm hidden state to the next thought, both of size d_model.
        tokenizer: the base model's tokenizer.
        config: special tokens, number of thoughts, and the settings the model was loaded with.
        backbone: the Hugging Face configuration of the language model.
        auxiliary: the decoder that only training uses, where it was kept.
    """

    lens: Lens
    projection: nn.Module
    tokenizer: PreTrainedTokenizerBase
    config: CodiConfig
    backbone: PretrainedConfig
    auxiliary: Auxiliary | None = None

    def __getstate__(self) -> dict[str, Any]:
        """What pickle and copy take: of a bridge, which neither can, the weights."""
        state = dict(vars(self))
        if backend_of(self.lens) == "bridge":
            cfg, weights = self.lens.cfg, dense_weights(self.lens, self.backbone)
            state["lens"] = (weights, str(cfg.device), cfg.dtype)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        """The bridge is built again."""
        if isinstance(state["lens"], tuple):
            weights, device, dtype = state["lens"]
            given = (state["backbone"], weights, state["tokenizer"])
            state = {**state, "lens": build_lens("bridge", *given, device=device, dtype=dtype)}
        vars(self).update(state)

    @property
    def device(self) -> torch.device:
        """Where the model runs."""
        return torch.device(str(self.lens.cfg.device))

    def __repr__(self) -> str:
        """A few lines: where it comes from, its shape and its dtype."""
        return card(*self._card())

    def _repr_html_(self) -> str:
        """The same, for notebooks."""
        return html_card(*self._card())

    def _card(self) -> tuple[str, dict[str, str]]:
        cfg, config = self.lens.cfg, self.config
        without = "in words" if config.written else "not at all: answers at once"
        return f"{type(self).__name__}: {config.source}", {
            "architecture": self.backbone.model_type,
            "size": f"{count(cfg.n_layers, 'layer')} × {count(cfg.n_heads, 'head')}",
            "thinks": count(config.n_thoughts, "thought") if config.n_thoughts else without,
            "runs": f"{str(cfg.dtype).removeprefix('torch.')} on {cfg.device}",
        }
