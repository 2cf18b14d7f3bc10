"""Checkpoints with mistakes that parity cannot see: `make verify-wrong` prints what verify says.

Each is a copy of a shipped model with one wrong value in a file that every implementation reads.
Caught is an exit code other than 0; invisible is what no answer shows and the verdict names.
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
from support.wrong_checkpoints import WRONG, Wrong  # noqa: E402

from codi_lens import CodiModel  # noqa: E402
from codi_lens.errors import CheckpointWarning, ProblemWarning  # noqa: E402


def main() -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", CheckpointWarning)
    warnings.simplefilter("ignore", ProblemWarning)
    lines = [
        "# Wrong checkpoints, and what `verify` says",
        "",
        "`make verify-wrong`: copies of the shipped models, each with one wrong value that both",
        "implementations read alike, under `codi-lens verify` with its defaults.",
        "",
        "| model | mistake | right | exit code | |",
        "|---|---|---|---|---|",
    ]
    missed = 0
    for wrong in (Wrong(name, "none", lambda folder: None) for name in ("tiny-gpt2", "tiny-llama")):
        lines.append(measure(wrong)[0])
        print(lines[-1], flush=True)
    for wrong in WRONG:
        line, seen = measure(wrong)
        missed += not seen
        lines.append(line)
        print(line, flush=True)
    lines += ["", f"{missed} of {len(WRONG)} are neither caught nor named."]
    print(lines[-1])
    save("verify_wrong", "\n".join(lines) + "\n")
    raise SystemExit(missed > 0)


def measure(wrong: Wrong) -> tuple[str, bool]:
    """The row of one mistake, and whether it is caught or named."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = wrong.make(Path(scratch) / wrong.model)
        found = CodiModel.from_pretrained(folder).verify()
    said = [found.verdict, *found.warnings]
    named = bool(wrong.named) and any(wrong.named in sentence for sentence in said)
    if found.exit_code == 1:
        better = found.settings[found.settings["verdict"] == "variant better"]["setting"]
        text = f"caught: better with {'; '.join(better)}"
    elif found.exit_code == 3:
        text = "caught: fewer right than expected"
    else:
        text = "invisible, named" if named else "passes"
    assert found.accuracy is not None
    right = f"{found.accuracy.correct} of {found.accuracy.n}"
    row = f"| {wrong.model} | {wrong.mistake} | {right} | {found.exit_code} | {text} |"
    return row, found.exit_code != 0 or named


if __name__ == "__main__":
    main()
