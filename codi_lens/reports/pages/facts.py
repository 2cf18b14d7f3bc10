"""The short facts of a page's row of cards."""

from __future__ import annotations

import xarray as xr

from codi_lens.attention.extract import accuracy
from codi_lens.attention.views import n_thoughts_of
from codi_lens.model import CodiModel
from codi_lens.outputs import model_names
from codi_lens.thinking.ways import Way, way_of
from codi_lens.wording import percent

_ANSWERS: dict[Way, str] = {"skip": "at once, without thoughts", "explain": "in words"}


def name_of(model: CodiModel) -> str:
    """The short name of a model."""
    return model_names([model.config.source])[0]


def model_facts(model: CodiModel) -> dict[str, str]:
    """What a page on interventions says of its model."""
    cfg = model.lens.cfg
    facts = {"Model": name_of(model), "Heads": f"{cfg.n_layers} layers × {cfg.n_heads}"}
    way = way_of(model)
    return facts | ({"Answers": _ANSWERS[way]} if way in _ANSWERS else {})


def attention_facts(name: str, attention: xr.DataArray, corpus: str) -> dict[str, str]:
    """What a page on attention says of its model and problems.

    Args:
        name: of the model.
        attention: labelled attention [problem, layer, head, query, key], with answers.
        corpus: what to call the problems.
    """
    sizes = attention.sizes
    facts = {
        "Model": name,
        "Heads": f"{sizes['layer']} layers × {sizes['head']}",
        "Thoughts": str(n_thoughts_of(attention)),
        "Problems": f"{sizes['problem']} ({corpus})",
    }
    if score := accuracy(attention):
        bounds = f"[{percent(score['low'])}, {percent(score['high'])}]"
        facts["Accuracy"] = f"{percent(score['accuracy'])} {bounds}"
    return facts
