"""Write a CODI model as a merged folder of safetensors that loads back identically."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

from huggingface_hub import save_torch_state_dict
from safetensors.torch import save_file

from codi_lens.errors import CheckpointWarning, OutputError
from codi_lens.loading.language_model import dense_weights
from codi_lens.loading.loaded import Loaded
from codi_lens.outputs import held, in_place_of


def save_model(model: Loaded, folder: str | Path) -> Path:
    """Write a model; see `CodiModel.save_pretrained`."""
    folder, config = Path(folder), model.config
    _check_new(folder)
    if model.auxiliary is not None:
        warnings.warn(
            f"The auxiliary decoder of {config.source} is not saved; it is read from there alone.",
            CheckpointWarning,
            stacklevel=3,
        )
    weights = dense_weights(model.lens, model.backbone)
    with held(folder), in_place_of(folder) as partial:
        _check_new(folder)  # since another process kept it until now, perhaps
        partial.mkdir()
        save_torch_state_dict(weights, partial, max_shard_size="5GB")
        tensors = {key: v.contiguous().cpu() for key, v in model.projection.state_dict().items()}
        if tensors:
            save_file(tensors, partial / "projection.safetensors")
        model.backbone.save_pretrained(partial)
        model.tokenizer.save_pretrained(partial)
        settings = {
            "n_thoughts": config.n_thoughts,
            "remove_eos": config.remove_eos,
            "projection": bool(tensors),
            "eos_after_eot": config.eos_after_eot,
            "pad": config.pad,
            "bot": config.bot,
            "eot": config.eot,
            "n_tokens": config.n_tokens,
            "question_end": config.question_end or None,
        }
        said = {key: value for key, value in settings.items() if value is not None}
        (partial / "codi_config.json").write_text(json.dumps(said, indent=2) + "\n")
        if folder.is_dir():
            folder.rmdir()  # an empty one, which not every system replaces
    return folder


def _check_new(folder: Path) -> None:
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise OutputError(f"{folder} exists and is not empty; give a new folder.")
