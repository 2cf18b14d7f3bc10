"""LoRA matrices beside the weights that they change: found, paired, and checked."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from codi_lens.errors import CheckpointError
from codi_lens.loading.wrappers import some_of

_LORA = re.compile(r"(?P<module>.+)\.lora_(?P<side>[AB])(?:\.(?P<adapter>\w+))?\.weight")


def lora_pairs(tensors: Mapping[str, Tensor], name: str) -> dict[str, tuple[Tensor, Tensor]]:
    """The LoRA matrices A [rank, in] and B [out, rank] of every wrapped module.

    Raises:
        CheckpointError: one without the other, or a LoRA tensor of another kind.
    """
    sides: dict[str, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if ".lora_" in key:
            match = _LORA.fullmatch(key)
            if match is None:
                raise CheckpointError(
                    f"{name} holds {key}, which is not a LoRA matrix codi_lens knows."
                )
            sides.setdefault(match["module"], {})[match["side"]] = value
    for module, pair in sides.items():
        if len(pair) < 2:
            have = "AB".replace("A" if "B" in pair else "B", "")
            raise CheckpointError(
                f"{name} holds {module}.lora_{have}.default.weight without its other half."
            )
    return {module: (pair["A"], pair["B"]) for module, pair in sides.items()}


def one_adapter(tensors: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    """LoRA matrices under the adapter name `default`, whatever they were saved under.

    Raises:
        CheckpointError: several adapters.
    """
    adapters: set[str] = set()
    renamed: dict[str, Tensor] = {}
    for key, value in tensors.items():
        match = _LORA.fullmatch(key)
        if match is not None:
            adapters.add(match["adapter"] or "default")
            key = f"{match['module']}.lora_{match['side']}.default.weight"
        renamed[key] = value
    if len(adapters) > 1:
        raise CheckpointError(
            f"{name} holds several LoRA adapters ({some_of(sorted(adapters))}); merge them first."
        )
    return renamed


def check_lora(
    module: str,
    a: Tensor,
    b: Tensor,
    dense: Mapping[str, Tensor],
    transposed: set[str],
    name: str,
) -> None:
    """That a pair of matrices fits the weight that it changes.

    Raises:
        CheckpointError: names the shapes.
    """
    if a.ndim != 2 or b.ndim != 2 or a.shape[0] != b.shape[1]:
        raise CheckpointError(
            f"The LoRA matrices of {module} in {name} have shapes {tuple(a.shape)} and "
            f"{tuple(b.shape)}; expected [rank, in] and [out, rank]."
        )
    target = f"{module}.weight"
    if target not in dense:
        raise CheckpointError(f"{name} holds LoRA matrices of {module} without its base weight.")
    delta = (b.shape[0], a.shape[1])
    delta = delta[::-1] if target in transposed else delta
    if delta != tuple(dense[target].shape):
        raise CheckpointError(
            f"The LoRA matrices of {module} in {name} make a delta of shape {delta}, but its "
            f"weight has {tuple(dense[target].shape)}."
        )
