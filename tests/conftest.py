"""Shared fixtures: the oracle computed with the original CODI code, and the shipped tiny models."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from hand_written import HandWritten
from safetensors.torch import load_file
from torch import Tensor

from codi_lens import CodiModel

ROOT = Path(__file__).parent.parent
FIXTURES = Path(__file__).parent / "fixtures"
ORACLE_SETTINGS: dict[str, Any] = {"lora_alpha": 32, "n_thoughts": 6, "remove_eos": True}

torch.set_num_threads(1)  # two cores, often shared; small tensors gain nothing from more


@dataclass(frozen=True)
class Oracle:
    """A tiny random checkpoint and what the original code computes on it."""

    checkpoint: Path
    base: Path
    tensors: dict[str, Tensor]
    questions: list[dict[str, Any]]
    model: CodiModel

    @property
    def texts(self) -> list[str]:
        return [question["text"] for question in self.questions]

    def ids(self, i: int) -> list[int]:
        return self.tensors[f"q{i}.input_ids"].tolist()


@pytest.fixture(scope="session", params=["gpt2", "llama"])
def oracle(request: pytest.FixtureRequest) -> Oracle:
    folder = FIXTURES / "oracle" / request.param
    meta = json.loads((folder / "meta.json").read_text())
    model = CodiModel.from_pretrained(folder / "ckpt", folder / "base", **ORACLE_SETTINGS)
    tensors = load_file(folder / "oracle.safetensors")
    return Oracle(folder / "ckpt", folder / "base", tensors, meta["questions"], model)


@pytest.fixture(scope="session")
def oracle_gpt2() -> CodiModel:
    folder = FIXTURES / "oracle" / "gpt2"
    return CodiModel.from_pretrained(folder / "ckpt", folder / "base", **ORACLE_SETTINGS)


@pytest.fixture
def gpt2_folder(tmp_path: Path) -> Path:
    """A copy of the GPT-2 oracle as a self-contained checkpoint folder, to be damaged."""
    source = FIXTURES / "oracle" / "gpt2"
    folder = tmp_path / "checkpoint"
    shutil.copytree(source / "base", folder)
    shutil.copy(source / "ckpt" / "pytorch_model.bin", folder)
    (folder / "codi_config.json").write_text(json.dumps(ORACLE_SETTINGS))
    return folder


@pytest.fixture(scope="session", params=["tiny-gpt2", "tiny-llama"])
def tiny_folder(request: pytest.FixtureRequest) -> Path:
    return ROOT / "checkpoints" / request.param


@pytest.fixture(scope="session")
def tiny(tiny_folder: Path) -> CodiModel:
    return CodiModel.from_pretrained(tiny_folder)


@pytest.fixture(scope="session")
def hand(tiny_folder: Path) -> HandWritten:
    """The equations of the model `tiny`, written by hand."""
    return HandWritten.of(str(tiny_folder))


@pytest.fixture(scope="session")
def tiny_gpt2() -> CodiModel:
    return CodiModel.from_pretrained(ROOT / "checkpoints" / "tiny-gpt2")
