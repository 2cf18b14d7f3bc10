"""Interventions: scoped by the names of positions, composable, usable in `think` and `extract`.

An `Intervention` holds ordinary TransformerLens hooks; a `Planned` one works out its hooks once
the problems are known, because its values come from donors or from a clean run of them.
"""

from codi_lens.interventions.checks import check_untouched
from codi_lens.interventions.donors import Donors, with_donors
from codi_lens.interventions.edges import force_hub, knock_out, swap_columns
from codi_lens.interventions.heads import ablate_heads, keep_heads, scale_heads
from codi_lens.interventions.patterns import freeze_patterns, set_pattern, transplant_pattern
from codi_lens.interventions.residual import fraction_recovered, patch_residual
from codi_lens.interventions.thoughts import (
    patch_thoughts,
    reorder_thoughts,
    steer_thoughts,
    swap_thoughts,
    truncate_thoughts,
)
from codi_lens.thinking.hooks import HookFunction, Intervention, position_axis, scoped
from codi_lens.thinking.plan import Context, Planned, for_rows, plan_all

__all__ = [
    "Context",
    "Donors",
    "HookFunction",
    "Intervention",
    "Planned",
    "ablate_heads",
    "check_untouched",
    "for_rows",
    "force_hub",
    "fraction_recovered",
    "freeze_patterns",
    "keep_heads",
    "knock_out",
    "patch_residual",
    "patch_thoughts",
    "plan_all",
    "position_axis",
    "reorder_thoughts",
    "scale_heads",
    "scoped",
    "set_pattern",
    "steer_thoughts",
    "swap_columns",
    "swap_thoughts",
    "transplant_pattern",
    "truncate_thoughts",
    "with_donors",
]
