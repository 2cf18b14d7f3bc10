"""The thought loop on a `TransformerBridge`: Hugging Face's own passes, with hooks in between.

Two things are brought to what they are on a `HookedTransformer`. Where keys are masked scores are
minus infinity, not the smallest number; and padding attends to nothing, not to everything.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import count
from typing import Any
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens.hook_points import HookPoint
from transformer_lens.model_bridge import TransformerBridge
from transformers import DynamicCache

from codi_lens.errors import InterventionError
from codi_lens.loading.architectures import supported
from codi_lens.loading.bridge import embedding_of, run_below_head
from codi_lens.thinking.hooks import HookFunction

_CLASSIC = re.compile(
    r"hook_(embed|pos_embed)|ln_final\.hook_(scale|normalized)|unembed\.hook_(in|out)|"
    r"blocks\.\d+\.(hook_(resid_(pre|mid|post)|(attn|mlp)_(in|out)|[qkv]_input)|"
    r"attn\.hook_([qkvz]|rot_[qk]|attn_scores|pattern|result)|mlp\.hook_(pre|pre_linear|post)|"
    r"ln[12]\.hook_(scale|normalized))"
)
_POINTS: WeakKeyDictionary[TransformerBridge, Mapping[str, HookPoint]] = WeakKeyDictionary()
"""Of each model, since a bridge takes milliseconds to list them."""
_LEVELS = count(1)  # marks of hooks that belong together; TransformerLens' own are positive


class BridgeState:
    """Hugging Face's key-value cache, which holds every position also where a window slides."""

    def __init__(self, cache: DynamicCache) -> None:
        self.cache = cache

    def select(self, rows: Int[Tensor, " row"] | None, start: int, length: int) -> BridgeState:
        """See `State`."""
        chosen, copied = slice(None) if rows is None else rows, DynamicCache()
        for number, layer in enumerate(self.cache.layers):
            past: Any = layer
            keys, values = (e[chosen, :, start:length] for e in (past.keys, past.values))
            copied.update(keys, values, number)
        return BridgeState(copied)


class BridgeEngine:
    """See `Engine`."""

    rotates_all_keys = False

    def __init__(self, lens: TransformerBridge) -> None:
        self.lens = lens
        self._blind = torch.empty(0)

    @property
    def points(self) -> Mapping[str, HookPoint]:
        """See `Engine`."""
        if self.lens not in _POINTS:
            _POINTS[self.lens] = {
                name: point
                for name, point in self.lens.hook_dict.items()
                if _CLASSIC.fullmatch(name)
                and (name != "hook_pos_embed" or hasattr(self.lens, "pos_embed"))
            }
        return _POINTS[self.lens]

    @contextmanager
    def hooks(self, hooks: Sequence[tuple[str, HookFunction]]) -> Iterator[None]:
        """See `Engine`."""
        level = -next(_LEVELS)
        with ExitStack() as opened:
            opened.enter_context(warnings.catch_warnings())
            warnings.filterwarnings("ignore", "A forward hook edited hook_scale", UserWarning)
            for name, point in self.points.items():  # before all others' hooks
                if name.endswith((".hook_attn_scores", ".hook_pattern")):
                    as_there = self._scores if name.endswith("scores") else self._pattern
                    opened.callback(point.register_forward_pre_hook(as_there).remove)
            for name, function in hooks:
                if name.endswith(".hook_resid_mid"):
                    skip = _Skip(function, self.lens.original_model)
                    after = self.points[name.replace("_mid", "_post")]
                    opened.callback(after.register_forward_pre_hook(skip.add).remove)
                    function = skip.edit
                hook: Any = function
                self.points[name].add_hook(hook, level=level, alias_names=[name])
                opened.callback(self.points[name].remove_hooks, level=level)
            yield

    def can_fuse(self, hooked: Collection[str]) -> bool:
        """Never: the bridge computes every pattern."""
        return False

    def state(self, n_problems: int) -> BridgeState:
        """See `Engine`."""
        return BridgeState(DynamicCache())

    def embed(self, tokens: Int[Tensor, "problem pos"]) -> Float[Tensor, "problem pos d_model"]:
        """See `Engine`."""
        return embedding_of(self.lens)(tokens)

    def enter(
        self, vectors: Float[Tensor, "problem pos d_model"]
    ) -> Float[Tensor, "problem pos d_model"]:
        """See `Engine`."""
        return self.points["hook_embed"](vectors)

    def run(
        self,
        vectors: Float[Tensor, "problem pos d_model"],
        mask: Int[Tensor, "problem key"],
        state: Any,
        queries: Int[Tensor, "problem row"] | None = None,
    ) -> tuple[Float[Tensor, "problem pos d_model"], list[Tensor] | None]:
        """See `Engine`."""
        return run_below_head(self.lens, vectors, mask, state.cache), None

    def unembed(
        self, hidden: Float[Tensor, "problem pos d_model"]
    ) -> Float[Tensor, "problem pos vocab"]:
        """See `Engine`."""
        return self.lens.unembed(hidden)

    def _scores(self, point: HookPoint, given: tuple[Tensor]) -> Tensor:
        masked = given[0] <= torch.finfo(given[0].dtype).min
        self._blind = masked.all(dim=-1, keepdim=True)  # padding before a question: sees no key
        return given[0].masked_fill(masked & ~self._blind, -torch.inf)

    def _pattern(self, point: HookPoint, given: tuple[Tensor]) -> Tensor:
        return given[0].masked_fill(self._blind | given[0].isnan(), 0)  # NaN as there


class _Skip:
    """An edit of the residual stream between attention and MLP.

    On a bridge this hook is at the entry of the second norm: what it changes reaches the MLP, and
    has to be added to what goes past it.
    """

    def __init__(self, function: HookFunction, model: Any) -> None:
        self._function, self._model, self._added = function, model, torch.zeros(1)

    def edit(self, activation: Tensor, hook: Any) -> Tensor | None:
        """The edit itself.

        Raises:
            InterventionError: a block in which something else may come between.
        """
        before = activation.clone()
        edited = self._function(activation, hook=hook)
        self._added = (activation if edited is None else edited) - before
        if self._model.config.model_type not in supported() and self._added.any():
            raise InterventionError(
                f"What an edit at {hook.name} does to the residual stream is not known on the "
                f"bridge of {type(self._model).__name__}; edit hook_resid_pre or hook_attn_out."
            )
        return edited

    def add(self, point: HookPoint, given: tuple[Tensor]) -> Tensor:
        """To the residual stream after the block."""
        added, self._added = self._added, torch.zeros(1)
        return given[0] + added.to(given[0])
