"""What is measured: interventions by name, and the problems' rivals, made sure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from codi_lens.causal.strata import CLEAN
from codi_lens.errors import InterventionError, shown
from codi_lens.problems.problem import Problem
from codi_lens.thinking.hooks import Intervention
from codi_lens.thinking.plan import Planned, as_interventions

Arm = Intervention | Planned | Sequence[Intervention | Planned]
"""One intervention, or several that act together."""


def identity_of(arm: Sequence[Intervention | Planned]) -> list[list[str]]:
    """What a resumed measurement must find unchanged; fixed hooks are known by name only."""
    return [[each.name, each.details if isinstance(each, Planned) else ""] for each in arm]


def named_arms(arms: Any) -> dict[str, list[Intervention | Planned]]:
    """The interventions of every arm, by name.

    Raises:
        InterventionError: no arm, one that is empty, or a name that is not free.
    """
    if not isinstance(arms, Mapping):
        raise InterventionError(f"The arms are a dict of interventions by name, not {shown(arms)}.")
    if not arms:
        raise InterventionError("There is no intervention to measure; give at least one.")
    named: dict[str, list[Intervention | Planned]] = {}
    for name, arm in arms.items():
        if not isinstance(name, str):
            raise InterventionError(f"The name of an arm is text, not {shown(name)}.")
        named[name] = as_interventions(arm)
        if not named[name] or name == CLEAN:
            reason = "is the name of the runs without intervention" if named[name] else "is empty"
            raise InterventionError(f"The arm {name!r} {reason}; give it an intervention.")
    return named


def check_rivals(problems: Sequence[Problem], rivals: Mapping[str, str]) -> None:
    """Refuse rivals that are not other problems of the measurement, or a problem without one.

    Raises:
        InterventionError: names the first.
    """
    ids = {problem.id for problem in problems}
    for problem in problems:
        rival = rivals.get(problem.id)
        if rival not in ids or rival == problem.id:
            raise InterventionError(
                f"The rival of {problem.id!r} is {rival!r}; give the id of another problem of the "
                "measurement."
            )
