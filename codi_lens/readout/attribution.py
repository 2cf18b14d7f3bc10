"""Who writes the answer's number: the logit at the anchor as a sum of what every part adds.

The logits at the anchor give the number's first token. They are a linear function of the residual
stream once the scale of the final norm is taken as it was in the run, and the residual stream is a
sum: embeddings, what each head writes, biases, MLPs. A head writes a sum over the columns that it
attends to, so that what comes from the thoughts can be told from what comes from the question.
That a part writes a logit does not say that the answer needs it: ablation says that.

Source: nostalgebraist 2020, Elhage et al. 2021, "A Mathematical Framework for Transformer
Circuits"; computed with TransformerLens' `ActivationCache`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np
import pandas as pd
import torch
import xarray as xr
from einops import einsum, rearrange, repeat
from jaxtyping import Float, Int
from torch import Tensor

from codi_lens.errors import CheckpointError, ProblemError, check_choice, needs
from codi_lens.loading.architectures import supported
from codi_lens.loading.language_model import output_bias
from codi_lens.loading.loaded import Loaded
from codi_lens.model import CodiModel
from codi_lens.positions import key_names
from codi_lens.problems.problem import Problems, check_problems
from codi_lens.readout.batches import itself, read_batches
from codi_lens.stats import mean_interval
from codi_lens.thinking.given import problems_for
from codi_lens.thinking.run import Cache, ThoughtRun

Against = Literal["runner-up", "nothing"]


def answer_attribution(
    model: CodiModel,
    problems: Problems,
    *,
    against: Against = "runner-up",
    batch_size: int = 8,
    max_new_tokens: int = 64,
    progress: bool = True,
) -> xr.Dataset:
    """What heads, thoughts, MLPs, embeddings and biases add to the logit of the answer's number.

    The number is the one that the model gives, by its first token. The model is not folded: the
    weights of the final norm count into the direction of the token, its scale is the run's own.

    Args:
        model: the model.
        problems: what to think about.
        against: "runner-up" attributes the logit minus that of the second likeliest token, in which
            what every token gains alike cancels; "nothing" the logit itself.
        batch_size: problems of median length per forward pass.
        max_new_tokens: longest answer.
        progress: show a progress bar.

    Returns:
        In logits, NaN for an answer without a number. The parts: `by_source` [problem, layer, head,
        source], what each head takes from each group of columns ("question", …, "ct2", …,
        "answer"); `mlp` and `attention_bias` [problem, layer]; [problem] `embedding`, `position`
        (0 where positions are rotated), `norm_bias` (of the final norm and the unembedding) and
        `remainder`, what rounding leaves. They sum to `total` [problem].
        Beside them `by_head` [problem, layer, head], its sum over sources; `accumulated` [problem,
        depth], what is written by the embedding and up to the end of each layer ("embedding",
        "L0", …), without `norm_bias`; `token` and `runner_up` [problem], texts, or "".

    Raises:
        ProblemError: no problems, or another `against`.

    >>> from codi_lens.problems import word_problems
    >>> model = CodiModel.from_pretrained("checkpoints/tiny-gpt2")
    >>> table = answer_attribution(model, word_problems(2), progress=False)
    >>> parts = answer_parts(table).groupby("kind", sort=False)["mean"].sum()
    >>> list(parts.index)
    ['embedding', 'attention', 'MLP', 'bias']
    >>> abs(float(parts.sum() - table["total"].mean())) < 1e-3
    True
    """
    check_choice("against", against, Against, ProblemError)
    if model.backbone.model_type not in supported():
        raise CheckpointError(
            f"What the layers of {model.backbone.model_type} models write is not taken apart, as "
            "norms or scales may come between them and the answer's logit; that of "
            f"{', '.join(supported())} models is."
        )
    problems = problems_for(model, problems, "attribute")
    ids = check_problems(problems, "attribute", batch_size=batch_size)
    parts: list[xr.Dataset] = []
    for batch, run in read_batches(
        itself,
        model,
        problems,
        _kept,
        "attributing",
        batch_size=batch_size,
        max_new_tokens=max_new_tokens,
        progress=progress,
    ):
        found = _attribute(model, run, against)
        parts.append(found.assign_coords(problem=[ids[i] for i in batch]))
    table = xr.concat(parts, dim="problem").sel(problem=ids)
    table.attrs = {"model": model.config.source, "against": against}
    return table


@dataclass(frozen=True, eq=False)
class _Anchors:
    """The anchors of a batch: what is cached there, and what a direction reads of it.

    Attributes:
        run: of the batch.
        whole: activations at every column.
        cache: those at the anchor alone, [problem, 1, …].
        columns: of the anchors; of `eot` where there is none, which is thrown away later.
        direction: in the residual stream, after the scale of the final norm.
    """

    run: ThoughtRun
    whole: Cache
    cache: Cache
    columns: Int[Tensor, " problem"]
    direction: Float[Tensor, "problem d_model"]

    def written(
        self, stack: Float[Tensor, "part problem 1 d_model"]
    ) -> Float[Tensor, "problem part"]:
        """What vectors in the residual stream add to the logit."""
        scaled = self.cache.apply_ln_to_stack(stack)[:, :, 0].float()
        return einsum(scaled, self.direction, "part problem d, problem d -> problem part")


@torch.no_grad()
def _attribute(model: Loaded, run: ThoughtRun, against: Against) -> xr.Dataset:
    """The parts of one batch; NaN where an answer has no anchor."""
    lens, anchors = model.lens, run.layout.anchors
    whole = run.cache()
    columns = torch.tensor([run.layout.eot + (anchor or 0) for anchor in anchors])
    cache = Cache({name: _at(whole[name], name, columns) for name in whole}, lens)
    logits = lens.unembed(lens.ln_final(cache[f"blocks.{lens.cfg.n_layers - 1}.hook_resid_post"]))
    logits = logits[:, 0].float()
    pairs = zip(run.answer_tokens, anchors, strict=True)
    given = [0 if anchor is None else tokens[anchor] for tokens, anchor in pairs]
    token = torch.tensor(given, device=logits.device)
    other = _runner_up(model, logits, token)
    total = logits.gather(1, token[:, None])[:, 0]
    direction, bias = _direction(model, token)
    if against == "runner-up":
        less, bias_less = _direction(model, other)
        direction, bias = direction - less, bias - bias_less
        total = total - logits.gather(1, other[:, None])[:, 0]
    at = _Anchors(run, whole, cache, columns, direction)
    values = _parts(model, at)
    values["norm_bias"] = bias
    summed = sum(value.reshape(len(anchors), -1).sum(1) for value in values.values())
    values |= {"remainder": total - summed, "total": total}
    heads = at.written(cast(Tensor, cache.stack_head_results()))
    values["by_head"] = rearrange(heads, "p (l h) -> p l h", h=lens.cfg.n_heads)
    values["accumulated"] = at.written(cast(Tensor, cache.accumulated_resid(layer=-1)))
    known = xr.DataArray([anchor is not None for anchor in anchors], dims="problem")
    data: dict[str, Any] = {
        name: xr.DataArray(value.cpu().numpy(), dims=_DIMS.get(name, ("problem",))).where(known)
        for name, value in values.items()
    }
    for name, tokens in (("token", token), ("runner_up", other)):
        texts = [str(model.tokenizer.decode([int(each)])) for each in tokens]
        data[name] = xr.DataArray(np.array(texts, dtype=object), dims="problem").where(known, "")
    sources = list(key_names(run.layout.n_thoughts, written=run.layout.written))
    layers = range(lens.cfg.n_layers)
    depths = ["embedding", *(f"L{layer}" for layer in layers)]
    axes = {"layer": layers, "head": range(lens.cfg.n_heads), "source": sources, "depth": depths}
    return xr.Dataset(data, axes)


_KEPT = ("embed", "scale", "resid_pre", "resid_post", "pattern", "v", "z", "mlp_out")


def _kept(name: str) -> bool:
    return name.rpartition("hook_")[2] in (*_KEPT, "pos_embed")


_DIMS: dict[str, tuple[str, ...]] = {
    "by_source": ("problem", "layer", "head", "source"),
    "by_head": ("problem", "layer", "head"),
    "mlp": ("problem", "layer"),
    "attention_bias": ("problem", "layer"),
    "accumulated": ("problem", "depth"),
}
"""Of each quantity of the table; others have one number per problem."""


def _parts(model: Loaded, at: _Anchors) -> dict[str, Tensor]:
    """All that is written into the residual stream, by the names of the table."""
    n_layers, n_problems = model.lens.cfg.n_layers, len(at.columns)
    written = at.written(cast(Tensor, at.cache.decompose_resid(mode="mlp")))
    n_embeddings = written.shape[1] - n_layers
    biases = torch.stack([output_bias(model.lens, layer) for layer in range(n_layers)])
    return {
        "by_source": torch.stack([_sources(model, at, layer) for layer in range(n_layers)], 1),
        "mlp": written[:, n_embeddings:],
        "attention_bias": at.written(repeat(biases, "layer d -> layer p 1 d", p=n_problems)),
        "embedding": written[:, 0],
        "position": written[:, 1:n_embeddings].sum(1),
    }


def _sources(model: Loaded, at: _Anchors, layer: int) -> Float[Tensor, "problem head source"]:
    """What each head of a layer takes from each group of columns."""
    attention = model.lens.blocks[layer].attn
    pattern = at.cache[f"blocks.{layer}.attn.hook_pattern"]
    values = at.whole[f"blocks.{layer}.attn.hook_v"]
    n_heads, n_columns = pattern.shape[1], values.shape[1]
    values = repeat(values, "p key v d -> p key (v group) d", group=n_heads // values.shape[2])
    sources = key_names(at.run.layout.n_thoughts, written=at.run.layout.written)
    names = at.run.layout.names(n_columns)
    member = torch.tensor([[name == source for name in names] for source in sources])
    z = einsum(
        pattern[:, :, 0, :n_columns],
        member.to(values),
        values,
        "p head key, source key, p key head d -> source p head d",
    )
    stack = einsum(z, attention.W_O, "source p head d, head d m -> head source p m")
    written = at.written(rearrange(stack, "head source p m -> (head source) p 1 m"))
    return rearrange(written, "p (head source) -> p head source", head=n_heads)


def _at(
    activation: Float[Tensor, "problem ..."], name: str, columns: Int[Tensor, " problem"]
) -> Float[Tensor, "problem ..."]:
    """An activation at one column of each problem; patterns are queries by keys."""
    rows = torch.arange(len(columns))
    if name.endswith("hook_pattern"):
        return activation[rows, :, columns][:, :, None]
    return activation[rows, columns][:, None]


def _runner_up(
    model: Loaded, logits: Float[Tensor, "problem vocab"], token: Int[Tensor, " problem"]
) -> Int[Tensor, " problem"]:
    """The likeliest token that could have been decoded, other than the one that was."""
    never = torch.tensor(model.config.never_decoded(logits.shape[-1]), device=logits.device)
    others = logits.index_fill(-1, never, -torch.inf).scatter(1, token[:, None], -torch.inf)
    return others.argmax(-1)


def _direction(
    model: Loaded, token: Int[Tensor, " problem"]
) -> tuple[Float[Tensor, "problem d_model"], Float[Tensor, " problem"]]:
    """Direction and constant that give a token's logit from a scaled residual stream."""
    norm: Any = model.lens.ln_final
    unembed = model.lens.unembed
    columns = unembed.W_U[:, token].T.float()
    bias = unembed.b_U[token].float()
    if getattr(norm, "b", None) is not None:
        bias = bias + columns @ norm.b.float()
    return columns * norm.w.float(), bias


def answer_parts(
    table: xr.Dataset, *, level: float = 0.95, n_resamples: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """The parts of the answer's logit, added up over heads: their means over problems.

    Args:
        table: of `answer_attribution`.
        level: of the bootstrap intervals.
        n_resamples: of the problems.
        seed: of the bootstrap.

    Returns:
        One row per part: `kind` ("embedding", "attention", "MLP", "bias"), `part` ("token",
        "position"; the columns that heads take it from; "L0" …; "attention", "final norm"), `mean`
        with `low` and `high` in logits, `n` problems. The means sum to that of `total`, but for
        rounding.

    Raises:
        ProblemError: no table of `answer_attribution`.
    """
    needs(table, "by_source", advice="give what answer_attribution returns", error=ProblemError)
    heads = table["by_source"].sum(["layer", "head"], skipna=False)
    columns = {("embedding", "token"): table["embedding"]}
    columns |= {("embedding", "position"): table["position"]}
    columns |= {("attention", str(s)): heads.sel(source=s) for s in table["source"].values}
    columns |= {("MLP", f"L{i}"): table["mlp"].sel(layer=i) for i in table["layer"].values}
    columns["bias", "attention"] = table["attention_bias"].sum("layer", skipna=False)
    columns["bias", "final norm"] = table["norm_bias"]
    values = np.stack([column.values for column in columns.values()], axis=1)
    mean, low, high = mean_interval(values, n_resamples=n_resamples, level=level, seed=seed)
    n = int(np.isfinite(table["total"].values).sum())
    found = pd.DataFrame(list(columns), columns=["kind", "part"])
    return found.assign(mean=mean, low=low, high=high, n=n)
