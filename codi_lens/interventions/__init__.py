"""Interventions: scoped by the names of positions, composable, usable in `think` and `extract`.

An `Intervention` holds ordinary TransformerLens hooks; a `Planned` one works out its hooks once
the problems are known, because its values come from donors or from a clean run of them.
"""

from codi_lens import _lazy_names

__getattr__, __dir__, __all__ = _lazy_names(__name__, __file__)
