"""`inspect` says what is there, where settings come from, and whether it would load."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from support.checkpoint_maker import LAYOUTS, UNTOLD, make, recipe
from transformers import AutoConfig

from codi_lens import CheckpointError, CodiModel
from codi_lens.cli.main import main
from codi_lens.loading.inspection import inspect_checkpoint

FAMILIES = {
    "LoRA in one .bin": "CODI, LoRA",
    "LoRA on two modules, .safetensors": "CODI, LoRA",
    "LoRA in shards, with SIM-CoT's decoder": "SIM-CoT on CODI, LoRA",
    "full fine-tune, projection without LayerNorm": "CODI, full fine-tune",
    "full fine-tune, no projection, EOS kept": "CODI, full fine-tune",
    "merged export, narrow projection": "CODI, merged export",
    "own thought tokens, padded vocabulary, 3 thoughts": "CODI, LoRA",
    "merged export with prj.pt": "CODI, merged export",
    "PEFT adapter with prj.pt, weights in its base": "CODI, PEFT adapter",
    "LatentTTS, CODI": "LatentTTS CODI",
    "LatentTTS, Coconut": "Coconut, plain",
    "Coconut's file": "Coconut",
    "Coconut's file, with SIM-CoT's decoder": "SIM-CoT on Coconut",
}


@pytest.mark.filterwarnings("ignore:.*auxiliary decoder:codi_lens.errors.CheckpointWarning")
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_told_and_loads_as_it_is_told(layout: str, tmp_path: Path) -> None:
    made = recipe("gpt2", layout)
    folder = make(tmp_path / "m", made)
    base = folder / "base" if made.files == "Coconut" else None
    found = inspect_checkpoint(folder, base)
    assert found.family == FAMILIES[layout]
    assert found.missing == ({"n_thoughts": "n_thoughts=6"} if made.files in UNTOLD else {})
    assert found.loadable == (made.files not in UNTOLD)
    found = inspect_checkpoint(folder, base, n_thoughts=made.n_thoughts)
    assert found.loadable and not found.missing
    assert found.settings["n_thoughts"] == (made.n_thoughts, "the call")
    assert found.architecture["model_type"] == "gpt2" and found.architecture["n_layers"] == 3
    model = CodiModel.from_pretrained(folder, base, n_thoughts=made.n_thoughts)
    assert found.notes == model.config.notes
    assert found.settings["bot"][0] == model.config.bot
    held = {group.name: group for group in found.groups}
    n_projection = sum(value.numel() for value in model.projection.parameters())
    assert (held["projection"].parameters if "projection" in held else 0) == n_projection


def test_tensors_are_counted_as_in_the_header(tmp_path: Path) -> None:
    folder = make(tmp_path / "m", recipe("gpt2", "LatentTTS, CODI"))
    found = inspect_checkpoint(folder)
    with safe_open(folder / "model.safetensors", "pt") as file:
        keys = set(file.keys())
    assert sum(group.tensors for group in found.groups) == len(keys)
    assert {group.first for group in found.groups} <= keys
    assert all(group.dtypes == ("float32",) for group in found.groups)


def test_settings_name_who_says_them(tmp_path: Path) -> None:
    folder = make(tmp_path / "m", recipe("gpt2", "PEFT adapter with prj.pt, weights in its base"))
    found = inspect_checkpoint(folder, remove_eos=False)
    assert found.settings["remove_eos"] == (False, "the call")
    assert found.settings["n_thoughts"] == (6, "codi_config.json")
    assert found.settings["base"] == (str(folder / "base"), "adapter_config.json")
    coconut = make(tmp_path / "c", recipe("gpt2", "Coconut's file"))
    found = inspect_checkpoint(coconut / "checkpoint_28", coconut / "base")
    assert found.settings["question_end"] == ("\n", "the code of its family")


def test_what_does_not_load_is_told_as_loading_tells_it(tmp_path: Path) -> None:
    made = make(tmp_path / "made", recipe("gpt2", "LoRA in one .bin"))

    def copy(name: str) -> Path:
        return Path(shutil.copytree(made, tmp_path / name))

    (truncated := copy("truncated")).joinpath("pytorch_model.bin").write_bytes(b"PK\3\4 no more")
    (empty := copy("empty")).joinpath("pytorch_model.bin").unlink()
    torch.save(
        {"encoder.weight": torch.ones(2)}, (foreign := copy("foreign")) / "pytorch_model.bin"
    )
    (foreign / "codi_config.json").unlink()
    AutoConfig.for_model("phi").save_pretrained(phi := copy("phi"))
    (unsaid := copy("unsaid")).joinpath("codi_config.json").unlink()
    (odd := copy("odd")).joinpath("codi_config.json").write_text("{")
    for folder in (truncated, empty, foreign, phi, unsaid, odd):
        with pytest.raises(CheckpointError) as caught:
            CodiModel.from_pretrained(folder)
        assert inspect_checkpoint(folder).problem == str(caught.value), folder
    assert inspect_checkpoint(phi).architecture["model_type"] == "phi"
    (group,) = inspect_checkpoint(foreign).groups
    assert (group.name, group.first) == ("encoder", "encoder.weight")
    assert inspect_checkpoint(foreign).family is None
    assert inspect_checkpoint(unsaid).missing.keys() == {"n_thoughts", "remove_eos", "lora_alpha"}
    assert inspect_checkpoint(unsaid, lora_alpha=1, n_thoughts=2, remove_eos=True).loadable
    with pytest.raises(CheckpointError, match=r"no folder .*nowhere"):
        inspect_checkpoint(tmp_path / "nowhere")


def test_the_command_ends_with_whether_it_loads(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["inspect", "tiny-gpt2"])
    assert "tiny-gpt2 would load." in capsys.readouterr().out
    folder = make(tmp_path / "m", recipe("gpt2", "LatentTTS, CODI"))
    with pytest.raises(SystemExit) as ended:
        main(["inspect", str(folder)])
    assert ended.value.code == 1
    out = " ".join(capsys.readouterr().out.split())
    assert "LatentTTS CODI" in out and "pass --n-thoughts 6" in out
    main(["inspect", str(folder), "--n-thoughts", "6", "--cache-dir", str(tmp_path / "hub")])
    with pytest.raises(SystemExit) as ended:
        main(["inspect", str(tmp_path / "nowhere")])
    assert ended.value.code == 2
