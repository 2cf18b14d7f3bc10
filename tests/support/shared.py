"""Shared fixtures: the oracle computed with the original CODI code, and the shipped tiny models."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import sklearn.discriminant_analysis
import statsmodels.api
import torch
import transformer_lens
import zarr
from plotly import graph_objects
from safetensors.torch import load_file
from support.browser import browser as browser
from support.browser import open_page as open_page
from support.hand_written import HandWritten
from support.oracle import FIXTURES, ORACLE_SETTINGS, ROOT, Oracle

from codi_lens import CodiModel
from codi_lens.loading.backends import class_of

# While jaxtyping's hook imports codi_lens, no library has its cached bytecode: import them before.
BEFORE = (graph_objects, sklearn, statsmodels, transformer_lens, zarr)

OF_HOOKED_TRANSFORMERS = {"test_memory.py", "test_fused.py"}

torch.set_num_threads(1)  # two cores, often shared; small tensors gain nothing from more


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    unknown = class_of("hooked") is None
    return True if unknown and collection_path.name in OF_HOOKED_TRANSFORMERS else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest file first, so that processes that share files end at about the same time."""
    items.sort(key=lambda item: item.path.name != "test_notebooks.py")


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
