"""Many interventions over many problems, each compared with the clean run of the same problem.

One clean run of a batch of problems serves every intervention on it: all go on from its keys and
values at the first position they can touch, many (problem, intervention) pairs in one batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from codi_lens.causal.arms import Arm, check_rivals, identity_of, named_arms
from codi_lens.causal.batches import Job, batches_of, fed_from, tasks_of
from codi_lens.causal.clean_answers import CleanAnswer, clean_answers
from codi_lens.causal.results import Results
from codi_lens.causal.strata import CLEAN, Only, judged, kept
from codi_lens.errors import InterventionError, check_choice, check_flags
from codi_lens.model import CodiModel
from codi_lens.problems.arguments import whole_number
from codi_lens.problems.problem import Problem, Problems, check_problems
from codi_lens.thinking.clean_runs import CleanRuns
from codi_lens.thinking.given import problems_for
from codi_lens.thinking.hook_names import hooked_names
from codi_lens.thinking.prompts import prepare_problems
from codi_lens.work import Stage
from codi_lens.workers.spread import Spread, Workers, spread_of


class Decoding(Spread, total=False):
    """How answers are decoded, and by whom: what `extract` takes as experiments do.

    Attributes:
        max_new_tokens: longest answer; 64 by default.
        progress: show a progress bar; so by default.
    """

    max_new_tokens: int
    progress: bool


class Running(Decoding, total=False):
    """How runs are made: what every experiment takes and hands on to `measure`.

    Attributes:
        problems_at_once: problems that share one clean run; 32 by default.
        rows_at_once: (problem, intervention) pairs per forward pass; 128 by default.
    """

    problems_at_once: int
    rows_at_once: int


def decoding(running: Running) -> Decoding:
    """The part of `Running` that is not about interventions.

    >>> decoding({"rows_at_once": 8, "progress": False})
    {'progress': False}
    """
    found: Decoding = {}
    if "max_new_tokens" in running:
        found["max_new_tokens"] = running["max_new_tokens"]
    if "progress" in running:
        found["progress"] = running["progress"]
    if "workers" in running:
        found["workers"] = running["workers"]
    if "ray_address" in running:
        found["ray_address"] = running["ray_address"]
    return found


def measure(
    model: CodiModel,
    problems: Problems,
    arms: Mapping[str, Arm],
    out: str | Path | None = None,
    *,
    problems_at_once: int = 32,
    rows_at_once: int = 128,
    max_new_tokens: int = 64,
    progress: bool = True,
    workers: Workers | None = None,
    ray_address: str | None = None,
    rivals: Mapping[str, str] | None = None,
    only: Only = "all",
) -> pd.DataFrame:
    """Run every intervention on every problem; one row of outcomes for each, and for clean runs.

    Args:
        model: the model.
        problems: what to think about; ids must be unique.
        arms: what to compare with the clean runs, by name: an intervention, or several that act
            together.
        out: a folder for the results, as parquet; if it holds part of the same work (the same
            model, questions, interventions, seeds and donors), only the rest is run. Whether the
            answers are correct is always judged by the problems that are given now.
        problems_at_once: problems that share one clean run.
        rows_at_once: (problem, intervention) pairs per forward pass.
        max_new_tokens: longest answer.
        progress: show a progress bar.
        workers, ray_address: who runs them; see `codi_lens.workers.spread`. A cluster's machines
            need `out` on a file system that they share.
        rivals: for the id of every problem that of another one of them: `logit_difference` is then
            over the number of that problem's clean answer, not over the run's own runner-up.
        only: "all" problems, or those whose clean answer is "right", or "wrong". Every problem is
            run all the same, and is in `out`, so that another choice costs nothing.

    Returns:
        One row per problem and arm, the arm `clean` first: `problem`, `arm`, and the outcomes of
        `codi_lens.causal.outcomes.score`, in the order of the problems; `n_right` and `n_wrong`,
        how many clean answers were right and wrong of all problems, whichever are kept.

    Raises:
        ProblemError: no problem, ids that are not unique, or a question that does not fit.
        InterventionError: no arm, a hook that does not exist or never fired, a problem without
            a rival among the problems, or no problem that `only` keeps.
        OutputError: `out` holds something else.

    >>> from codi_lens import Intervention
    >>> from codi_lens.problems import word_problems
    >>> model = CodiModel.from_pretrained("checkpoints/tiny-gpt2")
    >>> silence = Intervention([("blocks.0.attn.hook_z", lambda z, hook: 0 * z)], at="ct2")
    >>> outcomes = measure(model, word_problems(4), {"silence": silence}, progress=False)
    >>> outcomes["arm"].tolist() == ["clean"] * 4 + ["silence"] * 4
    True
    """
    check_choice("only", only, Only)
    problems = problems_for(model, problems)
    named = named_arms(arms)
    ids = check_work(model, problems, problems_at_once, rows_at_once, progress)
    spread = spread_of(workers, ray_address)
    problems_at_once, rows_at_once = int(problems_at_once), int(rows_at_once)
    max_new_tokens = whole_number("max_new_tokens", max_new_tokens)
    if rivals is not None:
        check_rivals(problems, rivals)
    place = {each: i for i, each in enumerate(ids)}
    prompts = prepare_problems(model, problems)
    batches = list(batches_of(prompts, named, problems_at_once, rows_at_once))
    settings = {
        "fingerprint": model.fingerprint(),
        # Without gold answers, which judge the outcomes and decide none of them.
        "problems": [each.identity for each in problems],
        "arms": {name: identity_of(arm) for name, arm in named.items()},
        "batches": [problems_at_once, rows_at_once],
        "max_new_tokens": max_new_tokens,
        "outcomes": ["log_prob", "logit_difference", "logit_margin"],
    }
    rival: list[int] | None = None
    if rivals is not None:
        settings["rivals"] = dict(rivals)
        rival = [place[rivals[each]] for each in ids]
    answered = partial(answered_runs, model, problems, prompts, max_new_tokens=max_new_tokens)
    total = len(problems) * (len(named) + 1)
    stage = Stage("intervening", len(named), out)
    with Results(out, settings) as results:
        todo = [] if results.finished else enumerate(batches)
        parts = [(f"{number:06d}", batch) for number, batch in todo]
        missing = [each for each in parts if each[0] not in results]
        done = total - sum(len(batch) for _, batch in missing)
        fed = partial(fed_from, model, prompts)
        job, tasks = Job(answered, named, rival, ids, fed, stage), tasks_of(missing, spread)
        with stage.bar(total, "run", shown=progress, done=done) as tell:
            results.fill(
                job,
                tasks,
                model.device,
                spread,
                lambda task: tell(sum(len(batch) for _, batch in task)),
            )
        outcomes = judged(results.finish(), problems)
        results.keep(outcomes)
    return kept(_ordered(outcomes, ids, [CLEAN, *named]), only)


def check_work(
    model: CodiModel,
    problems: Sequence[Problem],
    problems_at_once: int,
    rows_at_once: int,
    progress: bool,
) -> list[str]:
    """The ids of problems of which clean runs can be made.

    Raises:
        ProblemError: no problem, ids that are not unique, or nothing at once.
        InterventionError: the model carries hooks of its own.
    """
    check_flags(progress=progress)
    ids = check_problems(
        problems, "run", problems_at_once=problems_at_once, rows_at_once=rows_at_once
    )
    if hooked_names(model.lens):
        raise InterventionError(
            "The model carries hooks of its own, which clean runs must not; remove them first."
        )
    return ids


def answered_runs(
    model: CodiModel,
    problems: Sequence[Problem],
    prompts: Sequence[Sequence[int]],
    which: Sequence[int],
    *,
    max_new_tokens: int,
) -> tuple[CleanRuns, list[CleanAnswer]]:
    """Clean runs of some of the problems in one batch, and their answers."""
    clean = CleanRuns.of(model, [prompts[i] for i in which])
    chosen = [problems[i] for i in which]
    return clean, clean_answers(clean, chosen, max_new_tokens=max_new_tokens)


def _ordered(outcomes: pd.DataFrame, ids: Sequence[str], arms: Sequence[str]) -> pd.DataFrame:
    """Arm by arm, in the order of the problems."""
    order = {name: place for place, name in enumerate(arms)}
    place = {each: i for i, each in enumerate(ids)}
    keys = np.lexsort((outcomes["problem"].map(place), outcomes["arm"].map(order)))
    return outcomes.iloc[keys].reset_index(drop=True)
