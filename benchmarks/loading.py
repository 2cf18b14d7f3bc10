"""Time and memory of loading: `make bench-loading` prints its table.

Makes a checkpoint of the shape of Llama-3.2-1B with random bf16 weights, in the layout of the
published one (unmerged LoRA of rank 128 on all seven projections, projection of width 2048), loads
it in a fresh process and reads that process's peak resident memory. The file is memory-mapped, so
its pages count too. Needs 3 GB of disk and 9 GB of memory.
"""

from __future__ import annotations

import json
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from saving import save
from shapes import LLAMA_1B
from transformers import AutoConfig, AutoTokenizer

from codi_lens.loading.keys import empty_model, tied_names

HERE = Path(__file__).parent
GIB = 2**30
BASE_TOKENIZER = HERE.parent / "tests/fixtures/oracle/llama/base"


def main() -> None:
    if sys.argv[1:2] == ["--load"]:
        load(sys.argv[2], sys.argv[3])
        return
    lines = [
        "# Loading a model of the shape of Llama-3.2-1B",
        "",
        "`make bench-loading`: random bf16 weights in the published layout, loaded in a fresh",
        f"process; {platform.machine()}, torch {torch.__version__}, default threads. Peak is the",
        "process's peak resident memory less what it held once everything was imported; the",
        "memory-mapped file counts in it.",
        "",
        "| checkpoint | loaded as | parameters | seconds | weights, GiB | peak, GiB | ratio |",
        "|---|---|---|---|---|---|---|",
    ]
    with tempfile.TemporaryDirectory() as scratch:
        for lora in (True, False):
            folder = Path(scratch) / ("lora" if lora else "dense")
            write(folder, lora=lora)
            for dtype in ("bfloat16", "float32"):
                command = [sys.executable, __file__, "--load", str(folder), dtype]
                output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
                row = json.loads(output.splitlines()[-1])
                lines.append(
                    f"| {'unmerged LoRA' if lora else 'dense'} | {dtype} "
                    f"| {row['parameters'] / 1e9:.2f} billion | {row['seconds']:.0f} "
                    f"| {row['weights'] / GIB:.2f} | {row['peak'] / GIB:.2f} "
                    f"| {row['peak'] / row['weights']:.2f} |"
                )
                print(lines[-1], flush=True)
    text = "\n".join(lines) + "\n"
    save("loading", text)
    print(text)


def write(folder: Path, *, lora: bool) -> None:
    """A checkpoint in the layout of the original code, without ever building its model."""
    folder.mkdir()
    config = AutoConfig.for_model("llama", **LLAMA_1B)
    config.save_pretrained(folder)
    AutoTokenizer.from_pretrained(BASE_TOKENIZER).save_pretrained(folder)
    settings = {"lora_alpha": 32, "n_thoughts": 6, "remove_eos": True}
    (folder / "codi_config.json").write_text(json.dumps(settings))
    config.vocab_size += 3
    model = empty_model(config)
    embedding = min(tied_names(model))
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
        return torch.empty(*shape, dtype=dtype).normal_(std=0.02, generator=generator)

    state: dict[str, torch.Tensor] = {}
    for key, value in model.state_dict().items():
        module, _, part = key.rpartition(".")
        if key in tied_names(model) and key != embedding:
            continue
        if not lora:
            state[f"codi.{key}"] = random(*value.shape)
        elif "_proj." in key:
            prefix = f"codi.base_model.model.{module}"
            state[f"{prefix}.base_layer.{part}"] = random(*value.shape)
            state[f"{prefix}.lora_A.default.weight"] = random(
                128, value.shape[1], dtype=torch.float32
            )
            state[f"{prefix}.lora_B.default.weight"] = random(
                value.shape[0], 128, dtype=torch.float32
            )
        else:
            state[f"codi.base_model.model.{key}"] = random(*value.shape)
    d_model = config.hidden_size
    for layer in (1, 3):
        state[f"prj.{layer}.weight"] = random(d_model, d_model, dtype=torch.float32)
        state[f"prj.{layer}.bias"] = torch.zeros(d_model)
    state |= {"prj.ln.weight": torch.ones(d_model), "prj.ln.bias": torch.zeros(d_model)}
    torch.save(state, folder / "pytorch_model.bin")


def load(folder: str, dtype: str) -> None:
    from codi_lens import CodiModel

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    begin = time.perf_counter()
    model = CodiModel.from_pretrained(folder, dtype=getattr(torch, dtype))
    seconds = time.perf_counter() - begin
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
    tensors = {
        value.untyped_storage().data_ptr(): value.untyped_storage().nbytes()
        for module in (model.lens, model.projection)
        for value in module.parameters()
    }
    width = getattr(torch, dtype).itemsize
    row = {"seconds": seconds, "peak": peak, "weights": sum(tensors.values())}
    print(json.dumps(row | {"parameters": sum(tensors.values()) / width}))


if __name__ == "__main__":
    main()
