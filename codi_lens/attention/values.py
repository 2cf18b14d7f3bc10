"""Value-weighted attention: how much each key writes, because weight is not influence.

A head adds A[q, k] · v_k · W_O to the residual stream for every key k, and a key with much
attention and a small value vector adds little: the first token of a question, above all. The
value-weighted attention of a cell is the norm of that vector (Kobayashi et al. 2020,
"Attention is Not Only a Weight").

Over a named group of keys (the question, say) the *norms are summed*. The norm of the summed
vectors would count cancellation too, but it is not additive: m_i, hub ratio, shares and the causal
null are all sums over keys, and hold for summed norms without change. Rows are then divided by
their sum, so that both kinds of attention are shares of a row.
"""

from __future__ import annotations

from typing import Any

import torch
import xarray as xr
from einops import einsum, rearrange, repeat
from jaxtyping import Float
from torch import Tensor

from codi_lens.errors import AttentionError
from codi_lens.loading.loaded import Lens
from codi_lens.metrics import strongest_attention
from codi_lens.positions import key_names, query_names
from codi_lens.thinking.run import ThoughtRun


def value_weighted(
    pattern: Float[Tensor, "*batch head query key"],
    values: Float[Tensor, "*batch key value_head d_head"],
    W_O: Float[Tensor, "head d_head d_model"],  # noqa: N803 (TransformerLens' name)
) -> Float[Tensor, "*batch head query key"]:
    """The norm of what each key adds to the residual stream through each head: ‖A · v · W_O‖.

    Args:
        pattern: attention probabilities (`hook_pattern`).
        values: value vectors (`hook_v`); with grouped-query attention fewer than heads, each
            serving `head / value_head` consecutive heads.
        W_O: output weights of the layer (`blocks.{l}.attn.W_O`); its bias belongs to no key.

    Raises:
        AttentionError: the number of heads is no multiple of the number of value heads.

    >>> pattern = torch.tensor([[[1.0, 0.0], [0.5, 0.5]]])
    >>> values = torch.tensor([[[1.0]], [[4.0]]])
    >>> value_weighted(pattern, values, torch.ones(1, 1, 1))
    tensor([[[1.0000, 0.0000],
             [0.5000, 2.0000]]])
    """
    return pattern * rearrange(value_norms(values, W_O), "... key head -> ... head 1 key")


def value_norms(
    values: Float[Tensor, "*batch key value_head d_head"],
    W_O: Float[Tensor, "head d_head d_model"],  # noqa: N803
) -> Float[Tensor, "*batch key head"]:
    """The norm of v · W_O for every key and head: what a weight of 1 would add.

    Raises:
        AttentionError: the number of heads is no multiple of the number of value heads.
    """
    n_heads, n_values = W_O.shape[0], values.shape[-2]
    if n_heads % n_values:
        raise AttentionError(
            f"{n_values} value heads cannot serve {n_heads} heads evenly; W_O and values must come "
            "from the same layer."
        )
    shared = repeat(values, "... v d -> ... (v group) d", group=n_heads // n_values)
    # ‖v W_O‖ = ‖R v‖ with W_Oᵀ = Q R: d_head numbers per key instead of d_model.
    factors = torch.linalg.qr(rearrange(W_O, "head d m -> head m d"), mode="r").R
    return einsum(shared, factors, "... head d, head r d -> ... head r").norm(dim=-1)


def value_weighted_attention(lens: Lens, run: ThoughtRun) -> xr.DataArray:
    """`run.attention` with every cell weighted by its key's value: same labels, rows sum to 1.

    A row that writes nothing (all values 0) and the anchor row of an answer without a number are
    NaN. Reads `run.cache()`, so it replays the run or needs the patterns and values in it.

    Args:
        lens: the model of the run (`model.lens`), for its output weights.
        run: what `model.think` returned.

    Raises:
        AttentionError: the run's cache lacks `hook_pattern` or `hook_v` of some layer.
        InterventionError: the run had interventions and kept no activations.
    """
    rows = _rows(lens, run, weighted=True)
    spans = [run.span(name) for name in key_names(run.layout.n_thoughts)]
    member = torch.zeros(len(rows), len(spans), rows.shape[-1])
    for key, slices in enumerate(spans):
        for problem, positions in enumerate(slices):
            member[problem, key, positions] = 1
    grouped = einsum(
        rows,
        member,
        "problem layer head query position, problem key position -> problem layer head query key",
    )
    return run.attention.copy(data=grouped.numpy())


def question_tokens(
    lens: Lens, run: ThoughtRun, *, weighted: bool = False
) -> tuple[xr.DataArray, xr.DataArray]:
    """Attention of each query to single tokens of the question: the first, and its strongest.

    The first is the attention sink; the strongest is `metrics.strongest_attention`.

    Args:
        lens: the model of the run (`model.lens`).
        run: what `model.think` returned.
        weighted: value-weighted, as a share of its row, instead of plain.

    Returns:
        Each (problem, layer, head, query): for `profiles.destinations`, and for `reading_scores`.

    Raises:
        AttentionError, InterventionError: as `value_weighted_attention`.
    """
    rows = _rows(lens, run, weighted=weighted)
    first = torch.tensor([positions.start for positions in run.span("question")])
    sink = rows[torch.arange(len(rows)), ..., first]
    strongest: Any = strongest_attention(rows[..., : run.layout.bot])  # padding gets none
    like = run.attention.isel(key=0, drop=True)
    return like.copy(data=sink.numpy()), like.copy(data=strongest.numpy())


def _rows(
    lens: Lens, run: ThoughtRun, *, weighted: bool
) -> Float[Tensor, "problem layer head query position"]:
    """The rows of `run.attention` over all positions; NaN for the anchor of a numberless answer."""
    cache, layout = run.cache(), run.layout
    columns = [layout.index(name) for name in query_names(layout.n_thoughts)[:-1]]
    known = torch.tensor([anchor is not None for anchor in layout.anchors])
    columns.append(layout.eot + torch.tensor([anchor or 0 for anchor in layout.anchors]))
    queries = torch.stack(columns, dim=1)
    layers = []
    for layer in range(lens.cfg.n_layers):
        names = [f"blocks.{layer}.attn.{point}" for point in ("hook_pattern", "hook_v")]
        missing = [name for name in names[: 1 + weighted] if name not in cache]
        if missing:
            raise AttentionError(
                f"The run kept no {missing[0]}; let think keep hook_pattern and hook_v, or "
                "everything."
            )
        pattern = cache[names[0]].detach().float()
        if weighted:
            values = cache[names[1]].detach().float()
            weights: Any = lens.blocks[layer].attn.W_O
            pattern = value_weighted(pattern, values, weights.detach().float())
            total = pattern.sum(dim=-1, keepdim=True)
            pattern = torch.where(total > 0, pattern / total, torch.nan)
        problems = torch.arange(len(queries), device=pattern.device)[:, None]
        rows = pattern[problems, :, queries.to(pattern.device)].cpu()
        layers.append(rearrange(rows, "problem query head position -> problem head query position"))
    stacked = torch.stack(layers, dim=1)
    stacked[~known, :, :, -1] = torch.nan
    return stacked
