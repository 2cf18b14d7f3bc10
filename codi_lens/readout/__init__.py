"""What a thought says: the lens, the authors' probe, and where known values show up."""

from codi_lens import _lazy_names

__getattr__, __dir__, __all__ = _lazy_names(__name__, __file__)
