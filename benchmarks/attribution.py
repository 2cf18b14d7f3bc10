"""Hold attributions against exact sweeps on the tiny models: `python benchmarks/attribution.py`.

Both use the same problems, donors and outcome. What is measured is CPU time of the one thread, the
donors' clean runs made before.
"""

from __future__ import annotations

import argparse
import platform
import time
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from itertools import product
from typing import Any

import pandas as pd
import torch
from saving import save

from codi_lens.causal.agreement import Agreement, compare_with_exact
from codi_lens.causal.attribution import (
    IncompleteAttributionWarning,
    attribute_heads,
    attribute_thoughts,
)
from codi_lens.causal.gradients import Method
from codi_lens.causal.outcomes import Outcome
from codi_lens.causal.sweeps import sweep_heads, sweep_thoughts
from codi_lens.interventions import Donors
from codi_lens.interventions.replacements import Mode
from codi_lens.model import CodiModel
from codi_lens.problems import Problem, word_problems

MODELS = ("tiny-gpt2", "tiny-llama")
MODES: tuple[Mode, ...] = ("resample", "mean", "zero")
METHODS: tuple[Method, ...] = ("patching", "integrated")
OUTCOMES: dict[Outcome, str] = {"log_prob": "log-prob", "logit_difference": "logit difference"}
NOTES = """\

## Where it fails

- Patching on the log-probability: the clean answers of these models are all but certain, so that
  its gradient at the clean run is nearly 0. Its estimates are orders of magnitude too small (slope)
  and often of the wrong sign; do not rank heads or thoughts by it here.
- Patching on the logit difference, which does not saturate so, ranks heads where the rows above
  say so, but not thoughts.
- Integrated gradients of heads follow a path on which all heads are replaced together. They sum
  to the effect of that, which need not be the sum of the effects of one head at a time: where the
  slope is far below 1, they give heads far more than replacing these heads alone costs.
- Integrated thoughts equal the effects where their sums are complete. For zeroed thoughts some
  problems are not, after 1,024 points (rows above): float noise on a steep path.
- With 24 heads the sweep is faster than integrated gradients of heads, and replacing six thoughts
  is faster than integrating them: only patching is cheaper here. An attribution takes the same
  passes whatever the number of heads, a sweep one run per head; how they compare on larger models
  was not measured.
"""
HEADER = """\
| model | mode | method | outcome | Spearman [95 %] | within layers | Pearson | slope | \
top 5 shared | sign of effects that matter | complete (largest gap) | times as fast |
|---|---|---|---|---|---|---|---|---|---|---|---|
"""
THOUGHT_HEADER = """\
| model | mode | method | outcome | Spearman | Pearson | slope | mean absolute error | \
largest effect | complete (largest gap) | times as fast |
|---|---|---|---|---|---|---|---|---|---|---|
"""


def timed(function: Callable[[], pd.DataFrame]) -> tuple[pd.DataFrame, float]:
    begin = time.thread_time()
    table = function()
    return table, time.thread_time() - begin


def compare(name: str, problems: Sequence[Problem]) -> tuple[list[str], list[str]]:
    """The rows of one model: heads, and thoughts."""
    model = CodiModel.from_pretrained(name)
    donors = Donors(model, problems)
    hooks = [f"blocks.{layer}.attn.hook_z" for layer in range(model.lens.cfg.n_layers)]
    donors.prepare([*hooks, "hook_embed"])
    shared: dict[str, Any] = {"donors": donors, "progress": False}
    heads: list[str] = []
    thoughts: list[str] = []
    for mode in MODES:
        exact, sweep = timed(partial(sweep_heads, model, problems, mode=mode, **shared))
        by_thought, walk = timed(partial(sweep_thoughts, model, problems, [mode], **shared))
        for method, outcome in product(METHODS, OUTCOMES):
            chosen: dict[str, Any] = {"method": method, "outcome": outcome, **shared}
            labels = (name, mode, method, OUTCOMES[outcome])
            found, took = timed(partial(attribute_heads, model, problems, mode=mode, **chosen))
            agreement = compare_with_exact(found, exact, outcome=outcome)
            heads.append(head_row(*labels, agreement, complete(found), sweep / took))
            found, took = timed(partial(attribute_thoughts, model, problems, [mode], **chosen))
            agreement = compare_with_exact(found, by_thought, outcome=outcome)
            thoughts.append(thought_row(*labels, agreement, complete(found), walk / took))
    return heads, thoughts


def complete(found: pd.DataFrame) -> str:
    """Of how many problems the attributions sum to the effect; for thoughts, of the worst one."""
    if "n_complete" not in found:
        return ""
    row = found.iloc[0]
    return f"{found['n_complete'].min()} of {row['n_known']} ({found['largest_gap'].max():.2f})"


def head_row(
    name: str,
    mode: str,
    method: str,
    outcome: str,
    found: Agreement,
    complete: str,
    faster: float,
) -> str:
    assert found.within is not None
    overall, within = found.overall, found.within
    return (
        f"| {name} | {mode} | {method} | {outcome} "
        f"| {overall.rho:.2f} [{overall.low:.2f}, {overall.high:.2f}] "
        f"| {within.rho:.2f} [{within.low:.2f}, {within.high:.2f}] | {found.pearson:.2f} "
        f"| {found.slope:.2f} | {found.shared} | {100 * found.same_sign_effects:.0f} % of "
        f"{found.n_effects} | {complete} | {faster:.1f} |\n"
    )


def thought_row(
    name: str,
    mode: str,
    method: str,
    outcome: str,
    found: Agreement,
    complete: str,
    faster: float,
) -> str:
    units = found.units
    return (
        f"| {name} | {mode} | {method} | {outcome} | {found.overall.rho:.2f} | {found.pearson:.2f} "
        f"| {found.slope:.2f} | {units['error'].abs().mean():.3f} | {units['effect'].min():.2f} "
        f"| {complete} | {faster:.1f} |\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="few problems; writes nothing")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", IncompleteAttributionWarning)  # the tables say it
    problems = word_problems(6 if options.quick else 60, seed=42)
    rows = [compare(name, problems) for name in MODELS]
    text = (
        "# Attributions against exact sweeps\n\n"
        "`python benchmarks/attribution.py`. Every head replaced at `thinking`, every thought as\n"
        f"it enters; {len(problems)} word problems (seed 42), each with the same donor on both\n"
        "sides; integrated gradients refined, in 8 to 1,024 points, until they sum to the effect\n"
        "to 2 % or 0.02 (complete: of how many problems, and the largest gap; of the worst\n"
        "thought). Slope: of the measured on the estimated effect, by least squares. Times as\n"
        "fast: CPU time of the sweep over that of the\n"
        f"attribution. Effects in nats, of the logit difference in logits.\n"
        f"torch {torch.__version__}, {platform.processor() or platform.machine()}.\n\n"
        f"## Heads\n\n{HEADER}{''.join(row for heads, _ in rows for row in heads)}\n"
        f"## Thoughts\n\n{THOUGHT_HEADER}{''.join(row for _, each in rows for row in each)}"
    )
    text += NOTES
    if not options.quick:
        save("attribution", text)
    print(text)


if __name__ == "__main__":
    main()
