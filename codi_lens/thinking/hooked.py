"""The thought loop on a `HookedTransformer`: TransformerLens' own passes and key-value cache.

TransformerLens recomputes positions and masks from the attention mask, so the *full* mask goes
into every pass: with it, padding changes nothing beyond float rounding; without it errors are of
order 1.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens import HookedTransformer
from transformer_lens.cache.key_value_cache import TransformerLensKeyValueCache
from transformer_lens.hook_points import HookPoint

from codi_lens.thinking.fused_pass import can_fuse, fused_norm, run_blocks
from codi_lens.thinking.hooks import HookFunction
from codi_lens.thinking.key_values import KeyValueEntry


class HookedState:
    """TransformerLens' key-value cache, in memory that is allocated ahead."""

    def __init__(self, cache: TransformerLensKeyValueCache) -> None:
        cache.entries = [KeyValueEntry(e.past_keys, e.past_values) for e in cache.entries]
        self.cache = cache

    def select(self, rows: Int[Tensor, " row"] | None, start: int, length: int) -> HookedState:
        """See `State`."""
        chosen = slice(None) if rows is None else rows
        entries: list[Any] = [
            KeyValueEntry(e.past_keys[chosen, start:length], e.past_values[chosen, start:length])
            for e in self.cache.entries
        ]
        mask = self.cache.previous_attention_mask[chosen, start:length]
        return HookedState(TransformerLensKeyValueCache(entries, mask))


class HookedEngine:
    """See `Engine`."""

    rotates_all_keys = True

    def __init__(self, lens: HookedTransformer) -> None:
        self.lens = lens

    @property
    def points(self) -> Mapping[str, HookPoint]:
        """See `Engine`."""
        return self.lens.hook_dict

    def hooks(self, hooks: Sequence[tuple[str, HookFunction]]) -> AbstractContextManager[Any]:
        """See `Engine`."""
        return self.lens.hooks(fwd_hooks=list(hooks))  # type: ignore[arg-type]

    def can_fuse(self, hooked: Collection[str]) -> bool:
        """See `Engine`."""
        return can_fuse(self.lens, hooked)

    def state(self, n_problems: int) -> HookedState:
        """See `Engine`."""
        cfg = self.lens.cfg
        return HookedState(TransformerLensKeyValueCache.init_cache(cfg, cfg.device, n_problems))

    def embed(self, tokens: Int[Tensor, "problem pos"]) -> Float[Tensor, "problem pos d_model"]:
        """See `Engine`."""
        return self.lens.embed(tokens)

    def enter(
        self, vectors: Float[Tensor, "problem pos d_model"]
    ) -> Float[Tensor, "problem pos d_model"]:
        """See `Engine`."""
        return self.lens.hook_embed(vectors)

    def run(
        self,
        vectors: Float[Tensor, "problem pos d_model"],
        mask: Int[Tensor, "problem key"],
        state: Any,
        queries: Int[Tensor, "problem row"] | None = None,
    ) -> tuple[Float[Tensor, "problem pos d_model"], list[Tensor] | None]:
        """See `Engine`."""
        lens, cache = self.lens, state.cache
        past = mask.shape[1] - vectors.shape[1]
        cache.previous_attention_mask = mask
        residual, _ = lens.get_residual(vectors, past, attention_mask=mask)
        if queries is not None and not residual.requires_grad:
            residual, patterns = run_blocks(lens, residual, mask, cache.entries, queries)
            return fused_norm(lens.ln_final, residual), patterns
        residual = lens(
            residual,
            start_at_layer=0,
            stop_at_layer=lens.cfg.n_layers,
            attention_mask=mask,
            past_kv_cache=cache,
        )
        return lens.ln_final(residual), None

    def unembed(
        self, hidden: Float[Tensor, "problem pos d_model"]
    ) -> Float[Tensor, "problem pos vocab"]:
        """See `Engine`."""
        return self.lens.unembed(hidden)
