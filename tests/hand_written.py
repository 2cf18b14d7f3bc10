"""CODI GPT-2 in plain PyTorch, whole sequences and no hooks, with places to edit by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from codi_lens.checkpoint import read_checkpoint
from codi_lens.reference import Reference

Edit = Callable[[int, Tensor], Tensor]
"""From a layer and [head, query, key], [pos, head, d_head] or [pos, d_model] to a new one."""


def nothing(layer: int, values: Tensor) -> Tensor:
    return values


@dataclass
class Edits:
    """What to change: z per head, scores before the softmax, weights after it, residual stream."""

    z: Edit = nothing
    scores: Edit = nothing
    weights: Edit = nothing
    attn_out: Edit = nothing
    resid_pre: Edit = nothing


@dataclass
class HandRun:
    thoughts: Tensor
    logits: Tensor
    z: list[Tensor]
    resid_pre: list[Tensor]
    weights: list[Tensor]


class HandWritten:
    """GPT-2 as its equations say, fed by the thought loop, one problem at a time."""

    def __init__(self, folder: str) -> None:
        self.reference = Reference.from_checkpoint(read_checkpoint(folder))
        model = self.reference.language_model
        self.heads = int(model.config.n_head)
        self.blocks = list(model.transformer.h)
        self.embedding = model.get_input_embeddings().weight
        self.positions = model.transformer.wpe.weight
        self.final = model.transformer.ln_f
        self.unembedding = model.get_output_embeddings().weight

    def think(
        self, prompt: list[int], closing: list[int], edits: Edits | None = None, n: int = 6
    ) -> HandRun:
        edits = edits or Edits()
        sequence = self.embedding[prompt]
        for _ in range(n):
            hidden = self.forward(sequence, edits)[0]
            thought = self.reference.projection(hidden[-1:])
            sequence = torch.cat([sequence, thought])
        thoughts = sequence[len(prompt) :]
        hidden, z, resid, weights = self.forward(
            torch.cat([sequence, self.embedding[closing]]), edits
        )
        return HandRun(thoughts, hidden[-1] @ self.unembedding.T, z, resid, weights)

    def forward(
        self, vectors: Tensor, edits: Edits
    ) -> tuple[Tensor, list[Tensor], list[Tensor], list[Tensor]]:
        length, size = vectors.shape
        x = vectors + self.positions[:length]
        visible = torch.ones(length, length).tril().bool()
        kept: tuple[list[Tensor], list[Tensor], list[Tensor]] = ([], [], [])
        for layer, block in enumerate(self.blocks):
            x = edits.resid_pre(layer, x)
            kept[1].append(x)
            normed = block.ln_1(x)
            q, k, v = (
                part.reshape(length, self.heads, -1).transpose(0, 1)
                for part in block.attn.c_attn(normed).split(size, dim=-1)
            )
            scores = q @ k.transpose(1, 2) / (size // self.heads) ** 0.5
            scores = edits.scores(layer, scores.masked_fill(~visible, -torch.inf))
            weights = edits.weights(layer, scores.softmax(dim=-1))
            kept[2].append(weights)
            z = edits.z(layer, (weights @ v).transpose(0, 1))
            kept[0].append(z)
            x = x + edits.attn_out(layer, block.attn.c_proj(z.reshape(length, size)))
            inner = F.gelu(block.mlp.c_fc(block.ln_2(x)), approximate="tanh")
            x = x + block.mlp.c_proj(inner)
        return self.final(x), *kept
