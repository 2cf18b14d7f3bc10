"""The thought loop, walked once: question, `bot`, thoughts, `eot` through the passes of a `Loop`.

Everything that thinks walks here: a run from its question, and a resumed run from any named
position of a clean one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from codi_lens.loading.loaded import Loaded
from codi_lens.positions import thought_names
from codi_lens.thinking.loop import Loop
from codi_lens.thinking.prompts import left_pad


@dataclass(frozen=True, eq=False)
class Walked:
    """A batch at the end of `eot`.

    Attributes:
        thoughts: as fed; before the first position of a resumed walk, the clean ones.
        predicted: what the projection made for each; where nothing was projected, as fed.
        logits: at the last position of `eot`.
    """

    thoughts: Float[Tensor, "row thought d_model"]
    predicted: Float[Tensor, "row thought d_model"]
    logits: Float[Tensor, "row vocab"]


def walk(
    model: Loaded,
    loop: Loop,
    prompts: Sequence[Sequence[int]],
    kept: Sequence[int],
    first: str = "question",
    *,
    clean: Float[Tensor, "row thought d_model"] | None = None,
    forced: Float[Tensor, "row thought d_model"] | None = None,
    bot_apart: bool = False,
) -> Walked:
    """Feed everything from `first` to the end of `eot`.

    Args:
        model: the model.
        loop: fed up to `first`, its hooks alive.
        prompts: as `prepare` makes them.
        kept: how many thoughts each row keeps; the later ones are masked as if never thought.
        first: "question", "bot", a thought or "eot".
        clean: the thoughts of a clean run, where the walk starts behind `bot`.
        forced: feed these instead of the model's own.
        bot_apart: whether `bot` goes in as a pass of its own, as in a walk that starts there.

    Raises:
        ActivationError: NaN or infinity; says where it began.
    """
    n, bot = model.config.n_thoughts, loop.layout.bot
    hidden = None
    if first in ("question", "bot"):
        width = bot + (not loop.layout.written)
        ids, mask = left_pad(prompts, model.config.pad, loop.mask.device, width=width)
        embedded, done = loop.embed(ids), 0
        if first == "bot" or (bot_apart and not loop.layout.written):
            done = bot
            if first == "question":
                loop.feed(embedded[:, :bot], mask[:, :bot])
        hidden = loop.feed(embedded[:, done:], mask[:, done:])
    start = thought_names(n).index(first) if first in thought_names(n) else 0
    start = n if first == "eot" else start
    fed = [] if clean is None else [clean[:, i : i + 1] for i in range(start)]
    predicted = list(fed)
    for i in range(start, n):
        if hidden is None:  # the first thought to be run again is still the clean one
            assert clean is not None
            predicted.append(clean[:, i : i + 1])
        else:
            predicted.append(model.projection(hidden[:, -1:]))
        vector = predicted[-1] if forced is None else forced[:, i : i + 1]
        if model.lens.hook_embed.fwd_hooks:  # which may edit in place, not what was given
            vector = vector.clone()
        hidden = loop.feed(vector.to(loop.mask.device, model.lens.cfg.dtype))
        fed.append(loop.fed[-1])
    if min(kept) < n:  # what a truncated run does without takes up no position
        columns = torch.arange(loop.mask.shape[1], device=loop.mask.device)
        limits = bot + torch.tensor(list(kept), device=loop.mask.device)
        loop.forget(columns > limits[:, None])
    if model.config.closing:
        closing = torch.tensor(model.config.closing, device=loop.mask.device)
        loop.feed(loop.embed(closing.expand(len(prompts), -1)))
    nothing = loop.fed[-1][:, :0]  # the thoughts of a run that has none
    thoughts = torch.cat(fed or [nothing], dim=1)
    loop.check_finite(torch.isfinite(thoughts.detach()))
    return Walked(thoughts, torch.cat(predicted or [nothing], dim=1), loop.logits())
