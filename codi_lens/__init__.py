"""codi_lens: a microscope for continuous thought.

CODI models reason in a few continuous vectors instead of words. codi_lens turns a checkpoint into
a TransformerLens model, runs its thoughts with every hook alive, and ranks its attention heads.
"""

from codi_lens import metrics, problems
from codi_lens.config import CodiConfig
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
from codi_lens.extract import extract, open_attention
from codi_lens.heads import ConstantMetricWarning, rank_heads
from codi_lens.interventions import Intervention
from codi_lens.model import CodiModel
from codi_lens.study import StudyThresholds, run_study
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
    "Intervention",
    "InterventionError",
    "OutputError",
    "PositionError",
    "ProblemError",
    "StudyThresholds",
    "ThoughtRun",
    "Verification",
    "extract",
    "generation_view",
    "metrics",
    "open_attention",
    "problems",
    "rank_heads",
    "run_study",
    "thought_view",
    "verify",
]
