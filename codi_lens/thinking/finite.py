"""NaN or infinite activations: where in a run they began."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from codi_lens.errors import ActivationError
from codi_lens.loading.loaded import Lens
from codi_lens.thinking.engine import engine_of
from codi_lens.thinking.hook_names import can_fire
from codi_lens.thinking.hooks import position_axis


def first_broken(
    lens: Lens, again: Callable[[], None], names: Callable[[], list[str]]
) -> ActivationError:
    """What to raise about a run that gave NaN or infinity: it is run again, and looked at.

    Args:
        lens: the model.
        again: runs it again, its own hooks being alive.
        names: the position of each column that was fed so far.
    """
    engine = engine_of(lens)
    hooks = [(name, partial(_look, names)) for name in engine.points if can_fire(lens, name)]
    try:
        with engine.hooks(hooks):
            again()
    except ActivationError as found:
        return ActivationError(f"{found} (dtype {lens.cfg.dtype}).")
    return ActivationError(
        f"The logits are NaN or infinite at {names()[-1]!r}: look at the unembedding and at hooks "
        f"there (dtype {lens.cfg.dtype})."
    )


def _look(names: Callable[[], list[str]], activation: Tensor, hook: Any) -> None:
    broken = ~torch.isfinite(activation)
    if hook.name.endswith("hook_attn_scores"):  # minus infinity is how keys are masked
        broken = torch.isnan(activation) | torch.isposinf(activation)
    if not broken.any():
        return
    axis = position_axis(hook.name)
    first = broken.nonzero()[0].tolist()
    position = names()[-activation.shape[axis] :][first[axis]]
    layer = re.match(r"blocks\.(\d+)\.", hook.name)
    where = f"layer {layer[1]} ({hook.name})" if layer else hook.name
    raise ActivationError(
        f"Activations become NaN or infinite in {where} at {position!r} of problem {first[0]}: "
        "look at the weights, interventions and given thoughts before it"
    )
