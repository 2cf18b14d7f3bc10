"""Folders and files that are not a CODI checkpoint: what was found, and what to do about it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from torch import Tensor

from codi_lens.errors import CheckpointError
from codi_lens.loading.wrappers import some_of

_SAVE = "save the state dict of the whole CODI module as pytorch_model.bin or model.safetensors"
_FILES = (
    ("*.gguf", "weights for llama.cpp", "give the PyTorch checkpoint that they were made from"),
    ("tf_model.h5", "TensorFlow weights", "give the PyTorch weights"),
    ("*.msgpack", "Flax weights", "give the PyTorch weights"),
    ("zero_to_fp32.py", "DeepSpeed's shards", "gather them with `python zero_to_fp32.py . .`"),
    ("global_step*", "DeepSpeed's shards", "gather them with DeepSpeed's zero_to_fp32.py"),
    ("*.distcp", "a distributed checkpoint", "gather it with `accelerate merge-weights`"),
    ("pytorch_model_fsdp_*", "FSDP's shards", "gather them with `accelerate merge-weights`"),
)
"""Pattern of a file name → what it is, what to do."""
_WEIGHTS = ("*.safetensors", "*.bin", "*.pt", "*.pth", "*.ckpt", "checkpoint*", "consolidated*")
_OTHERS = ("training_args", "optimizer", "scheduler", "scaler", "rng_state", "projection", "prj")
"""How files begin that hold tensors, and no language model's."""
_KEYS = (
    (r"(^|[._])flat_param", "holds the flat shards of FSDP", "gather a full state dict first"),
    (
        r"^(tok_embeddings|layers\.\d+\.attention\.wq)\.",
        "holds a LLaMA model in Meta's own layout, not a CODI checkpoint",
        _SAVE,
    ),
)
"""Pattern of a key → what the checkpoint is, what to do."""
_QUANTISED = (
    (r"bitsandbytes__nf4$", "bitsandbytes' 4 bits (NF4)"),
    (r"bitsandbytes__fp4$", "bitsandbytes' 4 bits (FP4)"),
    (r"\.(nested_)?(absmax|quant_map)$", "bitsandbytes' 4 bits"),
    (r"\.(SCB|weight_format)$", "bitsandbytes' 8 bits (LLM.int8)"),
    (r"weight_scale_inv$", "float8 with scales by block"),
    (r"\.g_idx$", "GPTQ"),
    (r"\.q(weight|zeros)$", "AWQ or GPTQ"),
    (r"\.W_q$", "HQQ"),
    (r"\.weight_(packed|scale|zero_point|scale_2)$", "compressed-tensors or float8 with scales"),
    (r"_(blocks|scales)$", "MXFP4"),
    (r"(_packed_params|\.zero_point)", "PyTorch's quantisation"),
)
"""Pattern of a key → how its weights are quantised; the first pattern that any key has counts."""


def lone_weights(folder: Path) -> list[Path]:
    """The only file of weights in a folder, whatever its name; none where there are several."""
    found = _weights(folder)
    foreign = any(path for pattern, *_ in _FILES for path in folder.glob(pattern))
    return found if len(found) == 1 and not foreign else []


def refuse_folder(folder: Path) -> None:
    """Say what a folder without loadable weights holds.

    Raises:
        CheckpointError: always.
    """
    for pattern, what, advice in _FILES:
        found = sorted(folder.glob(pattern))
        if found:
            raise CheckpointError(
                f"{folder} is not a CODI checkpoint: it holds {what} ({found[0].name}); {advice}."
            )
    inside = [path for path in folder.iterdir() if path.is_dir() and _weights(path)]
    if inside:
        last = max(inside, key=lambda path: (_numbers(path.name), path.name))
        more = f" and {len(inside) - 1} more folders" if len(inside) > 1 else ""
        raise CheckpointError(
            f"{folder} holds its weights in {last.name}{more}; give the folder {last}, with the "
            "config and tokenizer in it or in base=."
        )
    weights = _weights(folder)
    if weights:
        raise CheckpointError(
            f"{folder} has neither model.safetensors nor pytorch_model.bin but "
            f"{some_of([path.name for path in weights])}; give the file that is meant, such as "
            f"{max(weights, key=lambda path: (_numbers(path.name), path.name))}."
        )
    raise CheckpointError(
        f"{folder} is not a CODI checkpoint: it has neither model.safetensors nor "
        "pytorch_model.bin (nor shards of one)."
    )


def refuse_foreign_keys(state: Mapping[str, Tensor], name: str) -> None:
    """Refuse quantised weights, and state dicts of something other than CODI.

    Raises:
        CheckpointError: says what it is and what to do.
    """
    for pattern, kind in _QUANTISED:
        key = _first(pattern, state)
        if key is not None:
            raise CheckpointError(
                f"{name} holds weights quantised by {kind} ({key}); dequantise them with the "
                "library that made them (in transformers, model.dequantize()) and save them in "
                "bfloat16 or float32."
            )
    if any(key.startswith(("codi.", "prj.")) for key in state):
        return
    for pattern, what, advice in _KEYS:
        key = _first(pattern, state)
        if key is not None:
            raise CheckpointError(f"{name} {what} (it has {key}); {advice}.")


def _first(pattern: str, keys: Iterable[str]) -> str | None:
    return next((key for key in keys if re.search(pattern, key)), None)


def _weights(folder: Path) -> list[Path]:
    found = {path for pattern in _WEIGHTS for path in folder.glob(pattern) if path.is_file()}
    found = {path for path in found if path.suffix not in (".json", ".txt", ".py")}
    return sorted(path for path in found if not path.name.startswith(_OTHERS))


def _numbers(name: str) -> list[int]:
    return [int(digits[:18]) for digits in re.findall(r"\d+", name)]
