"""The tokens that a lens reads, and a head over the tokens of a run."""

from __future__ import annotations

import textwrap
from typing import Any

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from codi_lens.errors import PositionError, shown
from codi_lens.head_names import Head, head_name, parse_heads
from codi_lens.plots.drawing import style
from codi_lens.plots.drawing.panels import cell_labels
from codi_lens.thinking.run import ThoughtRun

_LONGEST = 12


def visible(token: str) -> str:
    """A token with its spaces shown, and what cannot be seen spelled out.

    >>> visible(" 12"), visible("\\n"), visible("")
    ('␣12', '⏎', '∅')
    """
    text = token.replace(" ", "␣").replace("\n", "⏎").replace("\t", "⇥") or "∅"
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def top_tokens(table: xr.Dataset, problem: str | None = None) -> go.Figure:
    """The likeliest token at every layer and position of one problem, coloured by its probability.

    The row "thought" is what the thoughts say as they are fed, after the projection; the others are
    states. A run without thoughts has no such row. All of a cell's tokens are in its hover text.

    Args:
        table: of `logit_lens`; of its positions those of thinking and `anchor` are drawn.
        problem: its id; the first by default.

    Raises:
        PositionError: the table has no such problem, or none of these positions.

    >>> from codi_lens import CodiModel, logit_lens
    >>> from codi_lens.problems import word_problems
    >>> model = CodiModel.from_pretrained("checkpoints/tiny-gpt2")
    >>> figure = top_tokens(logit_lens(model, word_problems(1), at="thinking", progress=False))
    >>> figure.data[0].y
    ('layer 0', 'layer 1', 'layer 2', 'thought')
    """
    ids = [str(each) for each in table["problem"].values]
    if problem is not None and problem not in ids:
        raise PositionError(f"The table holds no problem {shown(problem)}.")
    own = table.sel(problem=ids[0] if problem is None else problem)
    columns = [str(p) for p in own["position"].values if " " not in str(p)]
    if not columns:
        raise PositionError(
            "The table holds no position of thinking, no step and no anchor; read at='all', or let "
            "answers be longer."
        )
    rows, texts, values = _cells(own, columns)
    hover = [
        [_hover(cell, p, row, column) for cell, p, column in zip(cells, ps, columns, strict=True)]
        for cells, ps, row in zip(texts, values, rows, strict=True)
    ]
    last = "; last row: the thoughts as fed, after the projection" if own["thought"].size else ""
    best = values[:, :, 0]
    labels = np.array([[visible(cell[0]) if cell[0] else "" for cell in row] for row in texts])
    figure = go.Figure(
        go.Heatmap(
            z=best,
            x=columns,
            y=rows,
            customdata=np.array(hover, dtype=object),
            hovertemplate="%{customdata}<extra></extra>",
            colorscale=style.SCORE_SCALE,
            zmin=0,
            zmax=1,
            xgap=1,
            ygap=1,
            colorbar=style.colorbar_of("probability"),
        ),
        layout=style.base_layout(
            f"What the lens reads: {own['problem'].item()}",
            f"{_escaped(_wrapped(str(own['question'].item())))}<br>likeliest token after each "
            "layer, ␣ is a space" + last,
            xaxis=style.cell_axis("position"),
            yaxis=style.cell_axis("", rows=True),
            width=860,
            height=240 + 46 * len(rows),
        ),
    )
    figure.add_trace(cell_labels(labels, best, rows, columns, style.SCORE_SCALE, 0.0, 1.0))
    return figure


def _cells(own: xr.Dataset, columns: list[str]) -> tuple[list[str], list[Any], np.ndarray]:
    """The names of a problem's rows, and texts and probabilities [row, column, rank]."""
    rows = [f"layer {layer}" for layer in own["layer"].values]
    chosen = own.sel(position=columns)
    texts = chosen["token"].values.tolist()
    values = chosen["probability"].values
    fed = {str(name): i for i, name in enumerate(own["thought"].values)}
    nothing = [""] * len(own["rank"])
    places = [fed.get(column) for column in columns]
    if fed:
        texts.append(
            [nothing if i is None else own["thought_token"].values[i].tolist() for i in places]
        )
        thoughts = own["thought_probability"].values
        empty = np.full(thoughts.shape[1], np.nan)
        values = np.concatenate(
            [values, [[empty if i is None else thoughts[i] for i in places]]], axis=0
        )
        rows.append("thought")
    return rows, texts, values


def _hover(tokens: list[str], probabilities: Any, row: str, column: str) -> str:
    lines = [
        f"{visible(token)} {p:.3f}"
        for token, p in zip(tokens, probabilities, strict=True)
        if token and np.isfinite(p)
    ]
    return "<br>".join([f"<b>{column}, {row}</b>", *(_escaped(line) for line in lines)])


def _escaped(text: str) -> str:
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return text.replace("\n", "<br>")


def _wrapped(question: str) -> str:
    """The first lines of a question."""
    return "\n".join(textwrap.wrap(question, 110, max_lines=3, placeholder=" …"))


def run_attention(run: ThoughtRun, head: str | Head, problem: int = 0) -> go.Figure:
    """One head over the real tokens of a run: question, thoughts and answer.

    Rows are the positions from `bot` on; cells that causality forbids are grey.

    Args:
        run: of `think`.
        head: its name, "L1H7", or a pair of layer and head.
        problem: the row of the batch.

    Raises:
        PositionError: no such problem in the run.
        InterventionError: a head that the model does not have; or the run keeps no patterns and
            cannot be replayed.

    >>> from codi_lens import CodiModel
    >>> model = CodiModel.from_pretrained("checkpoints/tiny-gpt2")
    >>> run = model.think(["Zoe has 14 coins. Then she finds 3. How many coins does she have?"])
    >>> run_attention(run, "L1H7").data[0].y[:2]
    ('bot', 'ct0')
    """
    if not 0 <= problem < len(run.answers):
        raise PositionError(f"The run has problems 0..{len(run.answers) - 1}, not {problem}.")
    sizes = run.attention.sizes
    named = head if isinstance(head, str) else head_name(head)
    ((layer, number),) = parse_heads(named, sizes["layer"], sizes["head"])
    pattern = (
        run.cache()[f"blocks.{layer}.attn.hook_pattern"][problem, number].float().cpu().numpy()
    )
    texts = run.tokens[problem]
    start = run.span("question")[problem].start
    answer = run.span("answer")[problem]
    stop = min(answer.stop, pattern.shape[0])
    bot = run.layout.bot
    names = run.layout.names(stop)
    rows = [_row(name, texts[i]) for i, name in enumerate(names)][bot:stop]
    rows = _unique(rows)
    columns = _unique([visible(texts[i]) for i in range(start, stop)])
    values = pattern[bot:stop, start:stop].copy()
    later = np.arange(start, stop)[None, :] > np.arange(bot, stop)[:, None]
    values[later] = np.nan
    n_keys = len(columns)
    figure = go.Figure(
        go.Heatmap(
            z=values,
            x=columns,
            y=rows,
            hovertemplate="%{y} → %{x}: %{z:.3f}<extra></extra>",
            coloraxis="coloraxis",
            xgap=1,
            ygap=1,
        ),
        layout=style.base_layout(
            f"{head_name((layer, number))} over the tokens of one run",
            "␣ is a space; grey: the key is later than the query",
            coloraxis=style.attention_axis(),
            xaxis=style.cell_axis(style.KEY_TITLE, tick_size=style.SMALL_FONT_SIZE)
            | {"tickangle": -60},
            yaxis=style.cell_axis(style.QUERY_TITLE, rows=True),
            width=max(700, 200 + 19 * n_keys),
            height=230 + 26 * len(rows),
        ),
    )
    return figure.update_layout(plot_bgcolor=style.IMPOSSIBLE_COLOUR)


def _row(name: str, text: str) -> str:
    return visible(text) if name == "answer" else name


def _unique(labels: list[str]) -> list[str]:
    """Labels of a category axis must differ: later ones get marks that cannot be seen."""
    seen: dict[str, int] = {}
    made: list[str] = []
    for label in labels:
        seen[label] = seen.get(label, 0) + 1
        made.append(label + "\u200b" * (seen[label] - 1))
    return made
