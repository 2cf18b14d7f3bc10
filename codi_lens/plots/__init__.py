"""Figures of attention and heads as plotly values, and the explorer page.

Every function returns a `plotly.graph_objects.Figure` and shows nothing; `explorer_page` returns
one self-contained HTML page. Figures of a table have the name of the function that makes it, so
they read well with their module: `plots.hub_ratios(hubs.hub_ratios(attention))`.
"""

from codi_lens import _lazy_names

__getattr__, __dir__, __all__ = _lazy_names(__name__, __file__)
