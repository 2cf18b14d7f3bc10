"""What the lens reads in each problem, as the page takes it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from codi_lens.errors import AttentionError, needs
from codi_lens.explorer.packing import deflated, to_bytes

_COLUMNS = ("problem", "layer", "position", "rank", "token", "probability")
_AXES = ("position", "layer", "rank")
_MOST = 5
_TEXTS = 2**16


def lens_rows(readout: xr.Dataset | pd.DataFrame) -> pd.DataFrame:
    """The likeliest tokens as rows of a table: what `lens.csv` of `codi-lens read` holds.

    Raises:
        AttentionError: neither what `logit_lens` returns nor such a table.
    """
    if isinstance(readout, xr.Dataset):
        if not {"token", "probability"} <= set(readout):
            raise AttentionError(
                "The readout must be what logit_lens returns, with token and probability, not a "
                f"dataset of {', '.join(map(str, readout)) or 'nothing'}."
            )
        rows = readout[["token", "probability"]].to_dataframe().reset_index()
    else:
        needs(readout, *_COLUMNS, advice="give what logit_lens returns", error=AttentionError)
        rows = readout
    rows = rows.loc[rows["token"].astype(str) != "", list(_COLUMNS)]
    return rows.assign(problem=rows["problem"].astype(str), position=rows["position"].astype(str))


def pack_lens(
    rows: pd.DataFrame, ids: Sequence[str], positions: Sequence[str]
) -> tuple[dict[str, Any] | None, dict[str, bytes]]:
    """What the payload says of the lens, and a block for each problem that it reads.

    Args:
        rows: of `lens_rows`.
        ids: of the problems that the page shows one by one.
        positions: in the order of the page; others are left out.
    """
    rows = rows[rows["problem"].isin(list(ids)) & rows["position"].isin(list(positions))]
    if rows.empty:
        return None, {}
    layers = sorted({int(layer) for layer in rows["layer"]})
    ranks = sorted({int(rank) for rank in rows["rank"]})[:_MOST]
    rows = rows[rows["rank"].isin(ranks)]
    shown = [name for name in positions if name in set(rows["position"])]
    texts = ["", *sorted({str(token) for token in rows["token"]})]
    if len(texts) > _TEXTS:
        raise AttentionError(
            f"The lens shows {len(texts)} different tokens and the page takes {_TEXTS}; give a "
            "readout of fewer problems, or of a smaller k."
        )
    places = {
        "position": {name: i for i, name in enumerate(shown)},
        "layer": {layer: i for i, layer in enumerate(layers)},
        "rank": {rank: i for i, rank in enumerate(ranks)},
        "token": {text: i for i, text in enumerate(texts)},
    }
    blocks = {}
    shape = (len(shown), len(layers), len(ranks))
    for id, part in rows.groupby("problem", sort=False):
        where = tuple(
            part[name].map(places[name]).to_numpy() for name in ("position", "layer", "rank")
        )
        tokens, likely = np.zeros(shape, np.uint16), np.zeros(shape)
        tokens[where] = part["token"].astype(str).map(places["token"]).to_numpy()
        likely[where] = part["probability"].to_numpy(dtype=float)
        packed = np.concatenate(
            [tokens.astype("<u2").view(np.uint8).ravel(), to_bytes(likely).ravel()]
        )
        blocks[f"l{list(ids).index(str(id))}"] = deflated(packed)
    return {"positions": shown, "layers": layers, "k": len(ranks), "texts": texts}, blocks
