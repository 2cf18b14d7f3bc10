"""codi_lens: a microscope for continuous thought.

CODI models reason in a few continuous vectors instead of words. codi_lens turns a checkpoint into
a TransformerLens model, runs its thoughts with every hook alive, and ranks its attention heads.
"""

from codi_lens import metrics, problems
from codi_lens.attention.extract import extract, open_attention
from codi_lens.attention.ranking import ConstantMetricWarning, rank_heads
from codi_lens.attention.views import generation_view, thought_view
from codi_lens.causal.agreement import compare_with_exact
from codi_lens.causal.attribution import attribute_heads, attribute_thoughts
from codi_lens.causal.dose import dose_response
from codi_lens.causal.effects import compare_interventions
from codi_lens.causal.restoration import restore
from codi_lens.causal.running_totals import operand_swaps, total_swaps
from codi_lens.causal.scores_vs_effects import score_vs_effect
from codi_lens.causal.sweeps import sweep_edges, sweep_heads, sweep_layers, sweep_thoughts
from codi_lens.errors import (
    AttentionError,
    CheckpointError,
    CheckpointWarning,
    CodiLensError,
    InterventionError,
    OutputError,
    PositionError,
    ProblemError,
)
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
from codi_lens.loading.config import CodiConfig
from codi_lens.model import CodiModel
from codi_lens.problems.pairs import Pair, operand_pairs
from codi_lens.study import run_study
from codi_lens.study.heads import StudyThresholds
from codi_lens.thinking.hooks import Intervention
from codi_lens.thinking.plan import Planned, for_rows
from codi_lens.thinking.run import ThoughtRun
from codi_lens.verification.verify import Verification, verify

__version__ = "0.1.0"

__all__ = [
    "AttentionError",
    "CheckpointError",
    "CheckpointWarning",
    "CodiConfig",
    "CodiLensError",
    "CodiModel",
    "ConstantMetricWarning",
    "Donors",
    "Intervention",
    "InterventionError",
    "OutputError",
    "Pair",
    "Planned",
    "PositionError",
    "ProblemError",
    "StudyThresholds",
    "ThoughtRun",
    "Verification",
    "ablate_heads",
    "attribute_heads",
    "attribute_thoughts",
    "check_untouched",
    "compare_interventions",
    "compare_with_exact",
    "dose_response",
    "extract",
    "for_rows",
    "force_hub",
    "fraction_recovered",
    "freeze_patterns",
    "generation_view",
    "keep_heads",
    "knock_out",
    "metrics",
    "open_attention",
    "operand_pairs",
    "operand_swaps",
    "patch_residual",
    "patch_thoughts",
    "problems",
    "rank_heads",
    "reorder_thoughts",
    "restore",
    "run_study",
    "scale_heads",
    "score_vs_effect",
    "set_pattern",
    "steer_thoughts",
    "swap_columns",
    "swap_thoughts",
    "sweep_edges",
    "sweep_heads",
    "sweep_layers",
    "sweep_thoughts",
    "thought_view",
    "total_swaps",
    "transplant_pattern",
    "truncate_thoughts",
    "verify",
    "with_donors",
]
