"""Parity of every layout and architecture: `make parity` prints its table.

Random checkpoints in the original's key layout are loaded and compared with the independent
Hugging Face loop of `codi_lens.verification.reference` (float32, unmerged LoRA, batch 1).
"""

from __future__ import annotations

import sys
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests"))

from saving import save  # noqa: E402
from support.checkpoint_maker import ARCHITECTURES, LAYOUTS, load, make, recipe  # noqa: E402

from codi_lens.errors import CheckpointWarning  # noqa: E402
from codi_lens.verification.verify import verify  # noqa: E402

NAMES = {
    "gpt2": "GPT-2",
    "llama": "LLaMA, grouped queries",
    "llama3": "LLaMA, llama3 rope, tied",
    "llama-wide-heads": "LLaMA, wide heads",
    "mistral": "Mistral, sliding window",
    "qwen2": "Qwen2, tied",
    "qwen3": "Qwen3, tied",
    "pythia": "Pythia (GPT-NeoX)",
    "neox-sequential": "GPT-NeoX, sequential",
}


def main() -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", CheckpointWarning)
    lines = [
        "# Parity of layouts and architectures",
        "",
        "`make parity`: the largest absolute difference of thoughts, attention and logits from an",
        "independent Hugging Face loop, with forced thoughts (and free running), over four",
        "built-in problems; random float32 checkpoints of 3 layers × 6 heads whose activations",
        f"are of order one; one thread, torch {torch.__version__}.",
        "Answers are the same tokens in every cell.",
        "",
        f"| | largest | {' | '.join(NAMES[backbone] for backbone in ARCHITECTURES)} |",
        f"|---|---|{'---|' * len(ARCHITECTURES)}",
    ]
    errors: list[list[tuple[float, float]]] = []
    for layout in LAYOUTS:
        errors.append([measure(backbone, layout) for backbone in ARCHITECTURES])
        lines.append(row(layout, errors[-1]))
        print(lines[-1], flush=True)
    lines.append(row("**largest**", [largest(column) for column in zip(*errors, strict=True)]))
    text = "\n".join(lines) + "\n"
    save("parity", text)
    print(text)


def measure(backbone: str, layout: str) -> tuple[float, float]:
    made = recipe(backbone, layout)
    with tempfile.TemporaryDirectory() as scratch:
        model = load(make(Path(scratch) / "m", made), made)
        verification = verify(model, n=4, settings=False, max_new_tokens=12)
    if not verification.passed:
        raise SystemExit(f"{backbone}, {layout}: {verification.verdict}")
    table = verification.table
    numbers = table[~table["quantity"].isin(["tokens", "answers"])]
    return float(numbers["forced_error"].max()), float(numbers["free_error"].max())


def largest(errors: Sequence[tuple[float, float]]) -> tuple[float, float]:
    return max(forced for forced, _ in errors), max(free for _, free in errors)


def row(name: str, errors: Sequence[tuple[float, float]]) -> str:
    cells = (f"{forced:.0e} ({free:.0e})" for forced, free in (largest(errors), *errors))
    return f"| {name} | {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
