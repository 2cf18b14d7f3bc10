"""codi_lens: a microscope for continuous thought.

CODI models reason in a few continuous vectors instead of words. codi_lens turns a checkpoint into
a TransformerLens model, runs its thoughts with every hook alive, and ranks its attention heads.
"""

from codi_lens import metrics, problems
from codi_lens.attribution import attribute_heads, attribute_thoughts, compare_with_exact
from codi_lens.config import CodiConfig
from codi_lens.dose import dose_response, score_vs_effect
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
from codi_lens.experiments import compare_interventions
from codi_lens.extract import extract, open_attention
from codi_lens.heads import ConstantMetricWarning, rank_heads
from codi_lens.interventions import (
    Donors,
    Intervention,
    Planned,
    ablate_heads,
    check_untouched,
    for_rows,
    force_hub,
    fraction_recovered,
    freeze_patterns,
    keep_heads,
    knock_out,
    patch_residual,
    patch_thoughts,
    reorder_thoughts,
    scale_heads,
    set_pattern,
    steer_thoughts,
    swap_columns,
    swap_thoughts,
    transplant_pattern,
    truncate_thoughts,
    with_donors,
)
from codi_lens.model import CodiModel
from codi_lens.pairs import Pair, operand_pairs
from codi_lens.restoration import restore
from codi_lens.running_totals import operand_swaps, total_swaps
from codi_lens.study import StudyThresholds, run_study
from codi_lens.sweeps import sweep_edges, sweep_heads, sweep_layers, sweep_thoughts
from codi_lens.thinking import ThoughtRun
from codi_lens.verify import Verification, verify
from codi_lens.views import generation_view, thought_view

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
