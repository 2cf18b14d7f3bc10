"""Which donors an intervention takes its values from: its own, default ones, or the call's."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

from codi_lens.errors import InterventionError, InterventionWarning, shown
from codi_lens.interventions.donors import Donors
from codi_lens.loading.sources import learnt_family
from codi_lens.problems.words import word_problems
from codi_lens.thinking.hooks import Intervention
from codi_lens.thinking.plan import Context, Planned, as_interventions

_REFERENCES = 32


def donors_of(context: Context, given: Donors | None, seed: int) -> Donors:
    """The given donors, the default ones drawn with this seed, or the problems of this call.

    A call of one problem has no other: built-in ones stand in, as an `InterventionWarning` says.

    Raises:
        InterventionError: the donors were made with another model, or run in another way.
    """
    if given is not None:
        given.check_model(context.model)
        return given
    if context.default_donors is not None:
        context.default_donors.check_model(context.model)
        return context.default_donors.with_seed(seed)
    key = ("donors", seed)
    if key not in context.shared:
        several = len(set(context.batch)) > 1
        context.shared[key] = (
            Donors.of_call(context, seed) if several else _reference(context, seed)
        )
    return context.shared[key]


def _reference(context: Context, seed: int) -> Donors:
    """Built-in problems, where a call holds no other problem that could be a donor."""
    problems = word_problems(_REFERENCES, family=learnt_family(context.config.source))
    warnings.warn(
        f"The call holds no other problem, so donors are {_REFERENCES} built-in word problems; "
        "give donors=Donors(model, problems) for others.",
        InterventionWarning,
        stacklevel=2,
    )
    return Donors(context.model, problems, seed=seed)


def check_donors(donors: Any) -> None:
    """Refuse donors that are none: problems, say, that have not become donors yet.

    Raises:
        InterventionError: neither `Donors` nor None.
    """
    if donors is not None and not isinstance(donors, Donors):
        raise InterventionError(
            f"donors= takes Donors(model, problems) or None, not {shown(donors)}."
        )


def with_donors(intervention: Intervention | Planned, donors: Donors) -> Intervention | Planned:
    """The same intervention, with donors where it names none itself.

    Whatever runs a corpus in batches gives its donors so, that they do not depend on batching.

    Fixed hooks need none and are returned as they are.
    """
    (intervention,) = as_interventions(intervention)
    if isinstance(intervention, Intervention):
        return intervention

    check_donors(donors)

    def build(context: Context) -> list[Intervention]:
        return intervention.plan(replace(context, default_donors=donors))

    details = f"{intervention.details} {donors.identity}"
    return replace(intervention, build=build, details=details)
