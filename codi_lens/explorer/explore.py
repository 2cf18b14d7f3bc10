"""`explore`: attention among thoughts, to look through in a notebook or as one file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import xarray as xr

from codi_lens.attention.ranking import ranked_heads
from codi_lens.attention.views import VIEWS
from codi_lens.errors import AttentionError, as_path, shown, whole_number
from codi_lens.explorer.details import (
    N_PROBLEMS,
    Edges,
    GivenStrips,
    details_of,
    strips_in_order,
    with_ids,
)
from codi_lens.explorer.packing import as_text
from codi_lens.explorer.payload import Told, make_payload
from codi_lens.explorer.widget import ExplorerWidget
from codi_lens.head_names import Head, as_heads, check_heads
from codi_lens.outputs import write_text
from codi_lens.plots.html import render, script_json
from codi_lens.problems.problem import Problem
from codi_lens.thinking.run import ThoughtRun
from codi_lens.wording import count


class Explorer:
    """An explorer that shows itself in Jupyter, and can be saved as one file.

    What is locked and pinned in the browser is `selected_heads`, the problem that is shown
    `problem`; both can be set.
    """

    def __init__(self, payload: Mapping[str, Any], blocks: Mapping[str, bytes]) -> None:
        self.payload = payload
        self.blocks = blocks

    @cached_property
    def widget(self) -> ExplorerWidget:
        """The widget itself, of anywidget."""
        return ExplorerWidget(payload=script_json(self.payload), blocks=dict(self.blocks))

    @property
    def selected_heads(self) -> list[Head]:
        """The locked head and the pinned one, ready for `ablate_heads`; setting it locks them.

        Any way in which `ablate_heads` takes heads will do: pairs, names, one name, or none.

        >>> from codi_lens.attention.example import two_heads
        >>> explorer = explore(two_heads())
        >>> explorer.selected_heads = "L0H1"
        >>> explorer.selected_heads
        [(0, 1)]
        """
        return [(int(layer), int(head)) for layer, head in self.widget.selected_heads]

    @selected_heads.setter
    def selected_heads(self, heads: Any) -> None:
        chosen = as_heads(heads)
        known = [(a, b) for a in self.payload["layers"] for b in self.payload["heads"]]
        if chosen:
            check_heads(chosen, known)
        if len(chosen) > 2:
            raise AttentionError(
                f"The explorer shows one head, and one beside it; {len(chosen)} were given."
            )
        self.widget.selected_heads = [list(head) for head in chosen]

    @property
    def problem(self) -> str | None:
        """The id of the problem that is shown, None for the mean; setting it shows it."""
        return self.widget.problem

    @problem.setter
    def problem(self, id: str | None) -> None:
        ids = [each["id"] for each in self.payload["problems"]]
        if id is not None and id not in ids:
            raise AttentionError(
                f"The explorer has no problem {shown(id)}; it has {count(len(ids), 'problem')}"
                f"{': ' if ids else ''}{', '.join(ids[:3])}{', …' if len(ids) > 3 else ''}."
            )
        self.widget.problem = id

    def page(self) -> str:
        """One self-contained HTML page, which needs no network."""
        texts = {name: as_text(block) for name, block in self.blocks.items()}
        return str(render("explorer/explorer.html", payload=self.payload, blocks=texts))

    def save(self, path: str | Path = "explorer.html") -> Path:
        """Write the page into a file, and say where.

        >>> from tempfile import TemporaryDirectory
        >>> from codi_lens.attention.example import two_heads
        >>> with TemporaryDirectory() as folder:
        ...     explore(two_heads()).save(f"{folder}/explorer.html").name
        'explorer.html'
        """
        path = as_path("path", path)
        write_text(path, self.page())
        return path

    def _repr_mimebundle_(self, **settings: Any) -> Any:
        """What Jupyter shows: the widget, and this text where there are none."""
        data, metadata = self.widget._repr_mimebundle_(**settings) or ({}, {})
        return {**data, "text/plain": repr(self)}, metadata

    def __repr__(self) -> str:
        """What it shows, in a line."""
        sizes = self.payload
        n_heads = len(sizes["layers"]) * len(sizes["heads"])
        return (
            f"Explorer: {sizes['title']}; {count(n_heads, 'head')}, "
            f"{count(len(sizes['problems']), 'problem')} one by one; .save('explorer.html')"
        )


def explore(
    attention: xr.DataArray,
    heads: pd.DataFrame | Mapping[str, pd.DataFrame] | None = None,
    runs: ThoughtRun | Sequence[ThoughtRun] | GivenStrips | None = None,
    effects: pd.DataFrame | Mapping[str, pd.DataFrame] | None = None,
    readout: xr.Dataset | pd.DataFrame | None = None,
    baseline: xr.DataArray | Mapping[str, xr.DataArray] | None = None,
    edges: Mapping[str, Edges] | Sequence[Problem] | None = None,
    *,
    title: str | None = None,
    n_problems: int = N_PROBLEMS,
) -> Explorer:
    """Look through the attention of every head: a map, a head's matrix and a problem, linked.

    Attention of single problems is kept in 8 bits, off by 1/510 at most; means are kept in full,
    with 95 % intervals over problems (Student's t).

    Args:
        attention: of `extract` or `run.attention`; one without problems, such as a mean, shows just
            that.
        heads: the table of `rank_heads`, or those of both views by name; by default both are
            ranked.
        runs: over the first of these problems in their order, for the question's real tokens; or
            what `open_strips` gives.
        effects: what interventions on each head did, of `sweep_heads` or `attribute_heads`: one
            table, or several by what to call them.
        readout: of `logit_lens`.
        baseline: attention to compare with, of a model of the same shape or of the same one under
            an intervention; or several, by what to call them.
        edges: known to be needed: (query, key) by the ids of problems, or the problems themselves,
            whose running totals are shown too.
        title: the page's heading.
        n_problems: so many problems are kept one by one; means are over all.

    Returns:
        What shows itself at the end of a notebook's cell; `.save("explorer.html")` writes a file.

    Raises:
        AttentionError: what is given does not belong together.

    >>> from codi_lens.attention.example import two_heads
    >>> explore(two_heads(), title="Two heads")
    Explorer: Two heads; 2 heads, 2 problems one by one; .save('explorer.html')
    """
    found = with_ids(attention)
    if "problem" not in found.dims and (runs is not None or edges is not None):
        raise AttentionError("Runs and edges belong to problems, and the attention has none.")
    n_problems = whole_number("n_problems", n_problems, 0, error=AttentionError)
    name = Path(str(found.attrs.get("model", ""))).name
    told = Told(title or (f"Attention among the thoughts of {name}" if name else "Attention"))
    return explorer_of(
        found,
        told,
        heads=heads_by_view(found, heads),
        details=(
            details_of(found, strips_in_order(found, runs, n_problems), edges)
            if "problem" in found.dims
            else {}
        ),
        effects={"Effect": effects} if isinstance(effects, pd.DataFrame) else effects or {},
        readout=readout,
        baselines={"baseline": baseline} if isinstance(baseline, xr.DataArray) else baseline or {},
        n_problems=n_problems,
    )


def explorer_of(attention: xr.DataArray, told: Told, **parts: Any) -> Explorer:
    """An explorer of parts that are made already; see `make_payload`."""
    heads = parts.pop("heads")
    defaults = {"details": {}, "effects": {}, "readout": None, "baselines": {}}
    return Explorer(
        *make_payload(attention, heads, told, **{**defaults, "n_problems": N_PROBLEMS, **parts})
    )


def heads_by_view(
    attention: xr.DataArray, heads: pd.DataFrame | Mapping[str, pd.DataFrame] | None
) -> dict[str, pd.DataFrame]:
    """The heads table of each view: as given, or ranked here."""
    if heads is None:
        if "problem" not in attention.dims:  # one problem has no intervals
            attention = attention.expand_dims(problem=["mean"])
        return {view: ranked_heads(attention, view) for view in VIEWS}
    if isinstance(heads, pd.DataFrame):
        return {str(heads.attrs.get("view", "position")): heads}
    return dict(heads)
