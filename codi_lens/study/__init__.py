"""The published study of attention between thoughts, reproduced to its last figure.

Everything here is the study's: the generation view (row i = the loop step that generates thought
i), the mean matrix over problems, its formulas, its thresholds and the names of its JSON fields.
Positions are its integers 0 … n-1, which stand for `ct0` … `ct{n-1}`. What these numbers do and do
not say is the business of `codi_lens.study.measured`.
"""

from codi_lens.study.checks import Check, study_checks
from codi_lens.study.heads import (
    BANDS,
    N_TOP,
    StudyThresholds,
    counts,
    mean_and_std,
    rank_by,
    study_heads,
)
from codi_lens.study.run import Study, run_study
from codi_lens.study.summary import attention_stats, attention_summary, findings_text

__all__ = [
    "BANDS",
    "N_TOP",
    "Check",
    "Study",
    "StudyThresholds",
    "attention_stats",
    "attention_summary",
    "counts",
    "findings_text",
    "mean_and_std",
    "rank_by",
    "run_study",
    "study_checks",
    "study_heads",
]
