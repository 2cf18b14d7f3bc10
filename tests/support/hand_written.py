"""CODI GPT-2 and LLaMA in plain PyTorch, whole sequences, no hooks, and places to edit by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from codi_lens.loading.checkpoint import read_checkpoint
from codi_lens.verification.reference import Reference

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
    """A decoder as its equations say, fed by the thought loop, one problem at a time.

    The parts in which the architectures differ are in `HandWrittenGpt2` and `HandWrittenLlama`.
    """

    def __init__(self, reference: Reference) -> None:
        self.reference = reference
        model = reference.language_model
        self.heads = int(model.config.num_attention_heads)
        self.weights = model.state_dict()
        self.layers = int(model.config.num_hidden_layers)
        self.embedding = weight_of(model.get_input_embeddings())
        self.unembedding = weight_of(model.get_output_embeddings())

    @staticmethod
    def of(folder: str) -> HandWritten:
        reference = Reference.from_checkpoint(read_checkpoint(folder))
        kinds = {"gpt2": HandWrittenGpt2, "llama": HandWrittenLlama}
        return kinds[reference.language_model.config.model_type](reference)

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
        length, _ = vectors.shape
        x = self.positioned(vectors)
        visible = torch.ones(length, length).tril().bool()
        kept: tuple[list[Tensor], list[Tensor], list[Tensor]] = ([], [], [])
        for layer in range(self.layers):
            x = edits.resid_pre(layer, x)
            kept[1].append(x)
            q, k, v = self.queries_keys_values(layer, x)
            scores = q @ k.transpose(1, 2) / q.shape[-1] ** 0.5
            scores = edits.scores(layer, scores.masked_fill(~visible, -torch.inf))
            weights = edits.weights(layer, scores.softmax(dim=-1))
            kept[2].append(weights)
            z = edits.z(layer, (weights @ v).transpose(0, 1))
            kept[0].append(z)
            x = x + edits.attn_out(layer, self.mixed(layer, z))
            x = x + self.mlp(layer, x)
        return self.final(x), *kept

    def linear(self, name: str, x: Tensor) -> Tensor:
        """One linear map, with its bias and its unmerged LoRA where the checkpoint has them."""
        return self.reference.language_model.get_submodule(name)(x)

    def split(self, values: Tensor) -> Tensor:
        """[pos, head * d_head] as [head, pos, d_head]."""
        size = self.embedding.shape[1] // self.heads
        return values.reshape(len(values), -1, size).transpose(0, 1)

    def positioned(self, vectors: Tensor) -> Tensor:
        raise NotImplementedError

    def queries_keys_values(self, layer: int, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        raise NotImplementedError

    def mixed(self, layer: int, z: Tensor) -> Tensor:
        """What the heads of a layer add to the residual stream."""
        raise NotImplementedError

    def mlp(self, layer: int, x: Tensor) -> Tensor:
        raise NotImplementedError

    def final(self, x: Tensor) -> Tensor:
        raise NotImplementedError


def weight_of(module: nn.Module | None) -> Tensor:
    weight = None if module is None else module.weight
    assert isinstance(weight, Tensor)
    return weight


class HandWrittenGpt2(HandWritten):
    """Learned positions, LayerNorm, biases, a GELU with tanh."""

    def norm(self, name: str, x: Tensor) -> Tensor:
        centred = x - x.mean(dim=-1, keepdim=True)
        scaled = centred / (centred.square().mean(dim=-1, keepdim=True) + 1e-5).sqrt()
        return scaled * self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"]

    def positioned(self, vectors: Tensor) -> Tensor:
        return vectors + self.weights["transformer.wpe.weight"][: len(vectors)]

    def queries_keys_values(self, layer: int, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        block = f"transformer.h.{layer}"
        joined = self.linear(f"{block}.attn.c_attn", self.norm(f"{block}.ln_1", x))
        q, k, v = (self.split(part) for part in joined.chunk(3, dim=-1))
        return q, k, v

    def mixed(self, layer: int, z: Tensor) -> Tensor:
        return self.linear(f"transformer.h.{layer}.attn.c_proj", z.reshape(len(z), -1))

    def mlp(self, layer: int, x: Tensor) -> Tensor:
        block = f"transformer.h.{layer}"
        inner = self.linear(f"{block}.mlp.c_fc", self.norm(f"{block}.ln_2", x))
        return self.linear(f"{block}.mlp.c_proj", F.gelu(inner, approximate="tanh"))

    def final(self, x: Tensor) -> Tensor:
        return self.norm("transformer.ln_f", x)


class HandWrittenLlama(HandWritten):
    """Rotary positions, RMSNorm, keys and values shared by groups of heads, a gated MLP."""

    def norm(self, name: str, x: Tensor) -> Tensor:
        epsilon = self.reference.language_model.config.rms_norm_eps
        scaled = x / (x.square().mean(dim=-1, keepdim=True) + epsilon).sqrt()
        return scaled * self.weights[f"{name}.weight"]

    def positioned(self, vectors: Tensor) -> Tensor:
        return vectors

    def rotated(self, vectors: Tensor) -> Tensor:
        """Pairs (i, i + d_head / 2) turned by position times base ** (-2 i / d_head)."""
        base = self.reference.language_model.config.rope_parameters["rope_theta"]
        half = vectors.shape[-1] // 2
        speed = base ** (-torch.arange(half) / half)
        angle = torch.arange(vectors.shape[1])[:, None] * speed
        a, b = vectors[..., :half], vectors[..., half:]
        turned = (a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos())
        return torch.cat(turned, dim=-1)

    def queries_keys_values(self, layer: int, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        block = f"model.layers.{layer}"
        normed = self.norm(f"{block}.input_layernorm", x)
        q, k, v = (
            self.split(self.linear(f"{block}.self_attn.{name}_proj", normed)) for name in "qkv"
        )
        group = len(q) // len(k)
        assert group > 1, "the groups of this checkpoint are single heads"
        k, v = (each.repeat_interleave(group, dim=0) for each in (self.rotated(k), v))
        return self.rotated(q), k, v

    def mixed(self, layer: int, z: Tensor) -> Tensor:
        return self.linear(f"model.layers.{layer}.self_attn.o_proj", z.reshape(len(z), -1))

    def mlp(self, layer: int, x: Tensor) -> Tensor:
        block = f"model.layers.{layer}"
        normed = self.norm(f"{block}.post_attention_layernorm", x)
        gate, up = (self.linear(f"{block}.mlp.{name}_proj", normed) for name in ("gate", "up"))
        return self.linear(f"{block}.mlp.down_proj", gate * gate.sigmoid() * up)

    def final(self, x: Tensor) -> Tensor:
        return self.norm("model.norm", x)
