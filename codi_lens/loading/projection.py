"""The projection: what makes the next thought of a hidden state after the final norm."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


def to_projection(
    tensors: Mapping[str, Tensor],
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
) -> nn.Module:
    """The projection: Linear, GELU (erf), Linear, optional LayerNorm; the identity if it is empty.

    Args:
        tensors: the checkpoint's `prj.` tensors without that prefix.
    """
    if not tensors:
        return nn.Identity()
    inner, d_in = tensors["1.weight"].shape
    d_out = tensors["3.weight"].shape[0]
    with torch.device("meta"):  # without memory, and without drawing random numbers for it
        projection = nn.Sequential(
            nn.Identity(),  # dropout in the original, which gives the next layers their numbers
            nn.Linear(d_in, inner),
            nn.GELU(),
            nn.Linear(inner, d_out),
        )
        if "ln.weight" in tensors:
            projection.add_module("ln", nn.LayerNorm(d_out))
    cast = {k: v.to(device=device, dtype=dtype, copy=True) for k, v in tensors.items()}
    projection.load_state_dict(cast, assign=True)
    return projection.requires_grad_(False).eval()
