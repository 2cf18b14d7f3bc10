"""codi_lens: a microscope for continuous thought.

CODI models reason in a few continuous vectors instead of words. codi_lens turns a checkpoint into
a TransformerLens model, runs its thoughts with every hook alive, and ranks its attention heads.
"""

from codi_lens.faces import lazy_names

__version__ = "0.2.0"
__getattr__, __dir__, __all__ = lazy_names(__name__, __file__)
