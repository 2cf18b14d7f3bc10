"""Parity of every layout and architecture: `make parity` prints its table.

Random checkpoints in the original's key layout are loaded and compared with the independent
Hugging Face loop of `codi_lens.verification.reference` (float32, unmerged LoRA, batch 1).
"""

from __future__ import annotations

import sys
import tempfile
import warnings
from pathlib import Path

import torch

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests"))

from saving import save  # noqa: E402
from support.checkpoint_maker import ARCHITECTURES, LAYOUTS, make, recipe  # noqa: E402

from codi_lens import CodiModel  # noqa: E402
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
        "built-in problems; random float32 checkpoints of 3 layers × 6 heads whose activations are",
        f"of order one; one thread, torch {torch.__version__}. Answers are the same tokens in",
        "every cell.",
        "",
        f"| | {' | '.join(LAYOUTS)} |",
        f"|---|{'---|' * len(LAYOUTS)}",
    ]
    for backbone in ARCHITECTURES:
        cells = [measure(backbone, layout) for layout in LAYOUTS]
        lines.append(f"| {NAMES[backbone]} | {' | '.join(cells)} |")
        print(lines[-1], flush=True)
    text = "\n".join(lines) + "\n"
    save("parity", text)
    print(text)


def measure(backbone: str, layout: str) -> str:
    with tempfile.TemporaryDirectory() as scratch:
        model = CodiModel.from_pretrained(make(Path(scratch) / "m", recipe(backbone, layout)))
        verification = verify(model, n=4, settings=False, max_new_tokens=12)
    if not verification.passed:
        raise SystemExit(f"{backbone}, {layout}: {verification.verdict}")
    table = verification.table
    numbers = table[~table["quantity"].isin(["tokens", "answers"])]
    return f"{numbers['forced_error'].max():.0e} ({numbers['free_error'].max():.0e})"


if __name__ == "__main__":
    main()
