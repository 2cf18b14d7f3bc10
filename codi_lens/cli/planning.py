"""`--dry-run`: what a command would come to, printed before it starts."""

from __future__ import annotations

import sys
from collections.abc import Callable

from rich.console import Console

from codi_lens.cli.printing import print_findings, print_table
from codi_lens.wording import count


def print_plan(console: Console, n_problems: int, run: Callable[..., object]) -> None:
    """Rehearse a command, and say what it comes to.

    Args:
        console: where to.
        n_problems: what it is about.
        run: the command, which takes the folder `out`; it is removed afterwards.
    """
    from codi_lens.work import rehearse

    with console.status("running a sample"), rehearse() as plan:
        run(out=plan.folder / "out")
    columns = ("stage", "interventions", "runs", "batches", "tokens, about", "time")
    rows = []
    for stage in plan.stages:
        counts = (stage.interventions, stage.runs, stage.batches, stage.tokens)
        rows.append((stage.name, *(f"{each:,}" for each in counts), stage.time))
    print_table(console, f"Plan for {n_problems:,} problems", columns, rows)
    acting = plan.interventions > 0
    sentences = [
        (f"{count(plan.interventions, 'intervention')} and the clean runs: " if acting else "")
        + plan.summary,
        f"{plan.bytes / 1e6:.1f} MB in {plan.files:,} files would be written; nothing was.",
    ]
    if peak := _peak():
        sentences.append(f"Running the sample, in batches of full size, peaked at {peak}.")
    print_findings(console, sentences)


def _peak() -> str:
    """The most memory that this process held, and on a GPU."""
    import torch

    found: list[str] = []
    if sys.platform != "win32":
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        found.append(f"{peak * (1 if sys.platform == 'darwin' else 1024) / 1e9:.2f} GB of memory")
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        found.append(f"{torch.cuda.max_memory_allocated() / 1e9:.2f} GB of the GPU's")
    return " and ".join(found)
