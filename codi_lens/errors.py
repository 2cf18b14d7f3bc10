"""The exceptions of codi_lens. Each message is one sentence: what was given, what is valid."""

from __future__ import annotations


class CodiLensError(Exception):
    """Base class of every error that codi_lens raises for a caller's mistake."""


class CheckpointError(CodiLensError):
    """A folder, file or hub repository that is not a CODI checkpoint codi_lens can load."""


class PositionError(CodiLensError):
    """A position, layer or head that does not exist in the model or in the run."""


class ProblemError(CodiLensError):
    """A problem file, corpus or question that cannot be used."""


class AttentionError(CodiLensError):
    """Attention that is missing, malformed or in the wrong view."""


class InterventionError(CodiLensError):
    """An intervention that cannot be applied, or one whose hook never fired."""


class OutputError(CodiLensError):
    """An output folder or file that must not be overwritten or cannot be resumed."""


class CheckpointWarning(UserWarning):
    """Something in a checkpoint was left out on purpose, and says so."""
