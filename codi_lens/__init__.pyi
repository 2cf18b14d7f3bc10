from codi_lens import interventions as interventions
from codi_lens import metrics as metrics
from codi_lens import plots as plots
from codi_lens import problems as problems
from codi_lens import readout as readout
from codi_lens.attention.extract import extract as extract
from codi_lens.attention.extract import open_attention as open_attention
from codi_lens.attention.ranking import ConstantMetricWarning as ConstantMetricWarning
from codi_lens.attention.ranking import rank_heads as rank_heads
from codi_lens.attention.reading import reading_scores as reading_scores
from codi_lens.attention.views import generation_view as generation_view
from codi_lens.attention.views import thought_view as thought_view
from codi_lens.causal.agreement import compare_with_exact as compare_with_exact
from codi_lens.causal.attribution import (
    IncompleteAttributionWarning as IncompleteAttributionWarning,
)
from codi_lens.causal.attribution import attribute_heads as attribute_heads
from codi_lens.causal.attribution import attribute_thoughts as attribute_thoughts
from codi_lens.causal.dose import dose_response as dose_response
from codi_lens.causal.effects import compare_interventions as compare_interventions
from codi_lens.causal.output_changes import output_changes as output_changes
from codi_lens.causal.restoration import restore as restore
from codi_lens.causal.running_totals import operand_swaps as operand_swaps
from codi_lens.causal.running_totals import total_swaps as total_swaps
from codi_lens.causal.scores_vs_effects import rankings_vs_effect as rankings_vs_effect
from codi_lens.causal.scores_vs_effects import score_vs_effect as score_vs_effect
from codi_lens.causal.sweeps import sweep_edges as sweep_edges
from codi_lens.causal.sweeps import sweep_heads as sweep_heads
from codi_lens.causal.sweeps import sweep_layers as sweep_layers
from codi_lens.causal.sweeps import sweep_thoughts as sweep_thoughts
from codi_lens.errors import ActivationError as ActivationError
from codi_lens.errors import AttentionError as AttentionError
from codi_lens.errors import CheckpointError as CheckpointError
from codi_lens.errors import CheckpointWarning as CheckpointWarning
from codi_lens.errors import CodiLensError as CodiLensError
from codi_lens.errors import InterventionError as InterventionError
from codi_lens.errors import OutputError as OutputError
from codi_lens.errors import PositionError as PositionError
from codi_lens.errors import ProblemError as ProblemError
from codi_lens.errors import ProblemWarning as ProblemWarning
from codi_lens.interventions.checks import check_untouched as check_untouched
from codi_lens.interventions.donors import Donors as Donors
from codi_lens.interventions.edges import force_hub as force_hub
from codi_lens.interventions.edges import knock_out as knock_out
from codi_lens.interventions.edges import swap_columns as swap_columns
from codi_lens.interventions.giving import with_donors as with_donors
from codi_lens.interventions.heads import ablate_heads as ablate_heads
from codi_lens.interventions.heads import keep_heads as keep_heads
from codi_lens.interventions.heads import scale_heads as scale_heads
from codi_lens.interventions.patterns import freeze_patterns as freeze_patterns
from codi_lens.interventions.patterns import set_pattern as set_pattern
from codi_lens.interventions.patterns import transplant_pattern as transplant_pattern
from codi_lens.interventions.residual import fraction_recovered as fraction_recovered
from codi_lens.interventions.residual import patch_residual as patch_residual
from codi_lens.interventions.thoughts import patch_thoughts as patch_thoughts
from codi_lens.interventions.thoughts import reorder_thoughts as reorder_thoughts
from codi_lens.interventions.thoughts import steer_thoughts as steer_thoughts
from codi_lens.interventions.thoughts import swap_thoughts as swap_thoughts
from codi_lens.interventions.thoughts import truncate_thoughts as truncate_thoughts
from codi_lens.loading.config import CodiConfig as CodiConfig
from codi_lens.model import CodiModel as CodiModel
from codi_lens.positions import each_position as each_position
from codi_lens.problems.pairs import Pair as Pair
from codi_lens.problems.pairs import operand_pairs as operand_pairs
from codi_lens.readout.decode import decode_thoughts as decode_thoughts
from codi_lens.readout.reading import logit_lens as logit_lens
from codi_lens.study.run import run_study as run_study
from codi_lens.study.settings import StudyThresholds as StudyThresholds
from codi_lens.thinking.hooks import Intervention as Intervention
from codi_lens.thinking.plan import Planned as Planned
from codi_lens.thinking.plan import for_rows as for_rows
from codi_lens.thinking.run import ThoughtRun as ThoughtRun
from codi_lens.verification.verify import Verification as Verification
from codi_lens.verification.verify import verify as verify

__version__: str

def _lazy_names(package: str, file: str) -> tuple: ...
