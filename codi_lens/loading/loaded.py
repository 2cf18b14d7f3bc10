"""A loaded CODI checkpoint: what everything that runs a model takes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from transformer_lens import HookedTransformer
from transformers import PretrainedConfig, PreTrainedTokenizerBase

from codi_lens.loading.auxiliary import Auxiliary
from codi_lens.loading.config import CodiConfig

Lens = HookedTransformer
"""The language model; elsewhere than in loading/ and thinking/ it is known by this name."""


@dataclass(frozen=True, eq=False)
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

    @property
    def device(self) -> torch.device:
        """Where the model runs."""
        return torch.device(str(self.lens.cfg.device))
