"""Which donors an intervention takes its values from: its own, default ones, or the call's."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from codi_lens.errors import InterventionError, shown
from codi_lens.interventions.donors import Donors
from codi_lens.thinking.hooks import Intervention
from codi_lens.thinking.plan import Context, Planned, as_interventions


def donors_of(context: Context, given: Donors | None, seed: int) -> Donors:
    """The given donors, the default ones drawn with this seed, or the problems of this call.

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
        context.shared[key] = Donors.of_call(context, seed)
    return context.shared[key]


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
