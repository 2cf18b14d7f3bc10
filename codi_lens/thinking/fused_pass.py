"""A pass through the blocks in which nobody looks at the attention of question tokens.

TransformerLens computes every attention pattern, so that hooks can see it. Of a question only the
rows of named positions are kept: those are computed as TransformerLens does, and all others go
through PyTorch's fused attention, which never holds them. Norms and activations that nobody listens
to are fused as well. In float32 values are equal to rounding (1e-6); in half precision they are as
far apart as that precision is, and nearer to float32. All hooks but those of scores and patterns
fire as they do there; whoever listens to one of these, or changes a module, gets TransformerLens'
own pass.

Where nobody listens to anything, the questions of a batch go through a CPU in portions of like
length: less of them is padding, and what they need at a time stays in its caches, while problems
share all the short passes that follow, each of which reads all weights.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
import torch.nn.functional as F
from einops import einsum, rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformer_lens import HookedTransformer
from transformer_lens.cache.key_value_cache_entry import TransformerLensKeyValueCacheEntry
from transformer_lens.components.attention import Attention
from transformer_lens.components.grouped_query_attention import GroupedQueryAttention
from transformer_lens.components.layer_norm import LayerNorm
from transformer_lens.components.mlps.mlp import MLP
from transformer_lens.components.rms_norm import RMSNorm
from transformer_lens.components.transformer_block import TransformerBlock
from transformer_lens.hook_points import HookPoint

from codi_lens.memory import tidy

_NEEDS_EVERY_ROW = (".attn.hook_attn_scores", ".attn.hook_pattern")
_OFF = (
    "use_attn_in",
    "use_attn_result",
    "use_split_qkv_input",
    "use_hook_mlp_in",
    "use_attention_sinks",
    "use_logn_attn",
    "use_normalization_before_and_after",
    "ungroup_grouped_query_attention",
    "load_in_4bit",
    "attn_only",
)
"""Settings of a TransformerLens config that change what a block computes."""
_PARTS = (TransformerBlock, Attention, GroupedQueryAttention, LayerNorm, RMSNorm)
_PORTION = 512
"""Tokens of questions that go through a CPU together: `make bench` is slower with 1,024."""


def can_fuse(lens: HookedTransformer, hooked: Collection[str]) -> bool:
    """Whether a pass can go this way: nobody needs what it leaves out.

    Args:
        lens: the model.
        hooked: the hooks that somebody listens to, beside the loop's own.
    """
    cfg = lens.cfg
    if any(name.endswith(_NEEDS_EVERY_ROW) or ".ln1." in name for name in hooked):
        return False  # TransformerLens' ln1 fires three times, for queries, keys and values
    if any(getattr(cfg, name, False) for name in _OFF) or cfg.clip_qkv is not None:
        return False
    if cfg.attn_scores_soft_cap > 0 or cfg.positional_embedding_type not in ("standard", "rotary"):
        return False
    if any(point.bwd_hooks for point in lens.hook_dict.values()):
        return False
    parts: list[nn.Module] = [lens.ln_final]
    parts += [part for each in lens.blocks for part in (each, each.attn, each.ln1, each.ln2)]
    if any(type(part) not in _PARTS or _local(part) for part in parts):
        return False
    modules = [*lens.blocks.modules(), *lens.ln_final.modules()]
    return not any(_is_changed(each) for each in modules if not isinstance(each, HookPoint))


def run_blocks(
    lens: HookedTransformer,
    residual: Float[Tensor, "problem pos d_model"],
    mask: Int[Tensor, "problem key"],
    entries: Sequence[TransformerLensKeyValueCacheEntry],
    queries: Int[Tensor, "problem row"],
) -> tuple[Float[Tensor, "problem pos d_model"], list[Float[Tensor, "problem row head key"]]]:
    """The residual stream after the last block, and per layer the patterns of some queries.

    At padding of a pass that goes in portions the stream is 0.

    Args:
        lens: the model, its hooks alive.
        residual: before the first block.
        mask: 1 where a key is real, of past and new positions.
        entries: keys and values of each layer, which the new ones are appended to.
        queries: whose patterns are given: columns of this pass.
    """
    shape = (*queries.shape, lens.cfg.n_heads, mask.shape[1])
    patterns = [residual.new_zeros(shape) for _ in entries]
    portions = _portions(lens, mask, residual)
    if len(portions) == 1:
        return _run_blocks(lens, residual, mask, entries, queries, patterns), patterns
    for entry in entries:
        nothing = entry.past_keys.new_zeros(1).expand(*mask.shape, *entry.past_keys.shape[2:])
        entry.append(nothing, nothing)
    after = torch.zeros_like(residual)
    for rows in portions:
        start = int(mask[rows].argmax(dim=1).min())  # before it all of them are padding
        own = [_Portion(entry, rows, start) for entry in entries]
        into = [each[..., start:] for each in patterns]
        inputs = (residual[rows, start:], mask[rows, start:], own, queries[rows] - start)
        after[rows, start:] = _run_blocks(lens, *inputs, into, rows)
    return after, patterns


def fused_norm(
    norm: nn.Module, inputs: Float[Tensor, "problem pos d_model"]
) -> Float[Tensor, "problem pos d_model"]:
    """A norm of the stream, at once where nobody listens to its steps."""
    assert isinstance(norm, LayerNorm | RMSNorm)
    heard = norm.hook_scale.fwd_hooks or norm.hook_normalized.fwd_hooks
    if heard or inputs.dtype not in (torch.float32, torch.float64):
        return norm(inputs)
    if isinstance(norm, RMSNorm):
        return F.rms_norm(inputs, norm.w.shape, norm.w, norm.eps)
    return F.layer_norm(inputs, norm.w.shape, norm.w, norm.b, norm.eps)


class _Portion(TransformerLensKeyValueCacheEntry):
    """Where a portion puts its keys and values: into those of all problems."""

    def __init__(
        self, whole: TransformerLensKeyValueCacheEntry, rows: Int[Tensor, " row"], start: int
    ) -> None:
        super().__init__(whole.past_keys[rows, :0], whole.past_values[rows, :0])
        self._whole, self._place = whole, (rows, slice(start, None))

    def append(self, new_keys: Tensor, new_values: Tensor) -> tuple[Tensor, Tensor]:
        self._whole.past_keys[self._place] = new_keys
        self._whole.past_values[self._place] = new_values
        return new_keys, new_values


def _portions(
    lens: HookedTransformer,
    mask: Int[Tensor, "problem key"],
    residual: Float[Tensor, "problem pos d_model"],
) -> list[Int[Tensor, " row"]]:
    """The problems that go through together, long questions first."""
    own = ".hook_pattern"  # whose hooks are the loop's, and do not fire
    if (
        mask.shape[1] > residual.shape[1]  # not the first pass
        or residual.device.type != "cpu"
        or any(p.fwd_hooks for name, p in lens.hook_dict.items() if not name.endswith(own))
    ):
        return [torch.arange(len(mask), device=mask.device)]
    lengths, order = mask.sum(dim=1).sort(descending=True, stable=True)
    found, start = list[Tensor](), 0
    while start < len(order):
        end = start + max(1, _PORTION // int(lengths[start]))
        found.append(order[start:end])
        start = end
    return found


def _run_blocks(
    lens: HookedTransformer,
    residual: Float[Tensor, "problem pos d_model"],
    mask: Int[Tensor, "problem key"],
    entries: Sequence[TransformerLensKeyValueCacheEntry],
    queries: Int[Tensor, "problem row"],
    patterns: Sequence[Float[Tensor, "all row head key"]],
    rows: Int[Tensor, " problem"] | slice = slice(None),
) -> Float[Tensor, "problem pos d_model"]:
    """The stream after the last block; each layer's patterns go into those `rows` of `patterns`.

    What outlives a layer would leave holes where the next ones' tensors were.
    """
    tidy("pass")
    size, length = residual.shape[1], mask.shape[1]
    real = rearrange(mask.bool(), "problem key -> problem 1 1 key")
    reach = torch.ones(size, length, dtype=torch.bool, device=mask.device)
    visible = reach.tril(diagonal=length - size) & real
    for block, entry, kept in zip(lens.blocks, entries, patterns, strict=True):
        residual = block.hook_resid_pre(residual)
        normalised = fused_norm(block.ln1, residual)
        attended, kept[rows] = _attend(block.attn, normalised, entry, mask, visible, queries)
        attended = block.hook_attn_out(attended)
        if lens.cfg.parallel_attn_mlp:
            written = block.hook_mlp_out(_mlp(block.mlp, fused_norm(block.ln2, residual)))
            residual = block.hook_resid_post(residual + attended + written)
        else:
            residual = block.hook_resid_mid(residual + attended)
            written = block.hook_mlp_out(_mlp(block.mlp, fused_norm(block.ln2, residual)))
            residual = block.hook_resid_post(residual + written)
    return residual


def _attend(
    attn: Attention | GroupedQueryAttention,
    inputs: Float[Tensor, "problem pos d_model"],
    entry: TransformerLensKeyValueCacheEntry,
    mask: Int[Tensor, "problem key"],
    visible: Bool[Tensor, "problem 1 pos key"],
    queries: Int[Tensor, "problem row"],
) -> tuple[Float[Tensor, "problem pos d_model"], Float[Tensor, "problem row head key"]]:
    """What an attention layer adds, and the patterns of some queries."""
    q, k, v = attn.calculate_qkv_matrices(inputs, inputs, inputs)
    past = entry.past_keys.shape[1]
    k, v = entry.append(k, v)
    if attn.cfg.positional_embedding_type == "rotary":
        q = attn.hook_rot_q(attn.apply_rotary(q, past, mask))
        k = attn.hook_rot_k(attn.apply_rotary(k, 0, mask))
    problems = torch.arange(len(q), device=q.device)[:, None]
    rows = visible.expand(len(q), -1, -1, -1)[problems, 0, queries]
    split = "problem row (group head) d -> problem row group head d"
    grouped = rearrange(q[problems, queries], split, group=k.shape[2])
    scores = einsum(grouped, k, "problem row g h d, problem key g d -> problem row g h key")
    scores = rearrange(scores / attn.attn_scale, "problem row g h key -> problem row (g h) key")
    pattern = scores.masked_fill(~rows[:, :, None], -torch.inf).softmax(dim=-1)
    pattern = pattern.nan_to_num(nan=0.0)  # as there, where every key is masked
    z = F.scaled_dot_product_attention(
        *(rearrange(each, "problem pos head d -> problem head pos d") for each in (q, k, v)),
        attn_mask=visible,
        scale=1 / attn.attn_scale,
        enable_gqa=q.shape[2] != k.shape[2],
    )
    z = attn.hook_z(rearrange(z, "problem head pos d -> problem pos head d"))
    weight = rearrange(attn.W_O, "head d m -> m (head d)")
    out = F.linear(rearrange(z, "problem pos head d -> problem pos (head d)"), weight, attn.b_O)
    return out, pattern


def _mlp(
    mlp: nn.Module, inputs: Float[Tensor, "problem pos d_model"]
) -> Float[Tensor, "problem pos d_model"]:
    if type(mlp) is not MLP or mlp.cfg.act_fn != "gelu_new":
        return mlp(inputs)
    before = mlp.hook_pre(F.linear(inputs, mlp.W_in.T, mlp.b_in))
    heard = mlp.hook_pre._forward_hooks  # who listens may keep what comes
    gelu = F.gelu if heard else torch.ops.aten.gelu_
    after = mlp.hook_post(gelu(before, approximate="tanh"))
    return F.linear(after, mlp.W_out.T, mlp.b_out)


def _local(part: nn.Module) -> bool:
    return getattr(part, "attn_type", "global") != "global"


def _is_changed(module: nn.Module) -> bool:
    """Whether somebody put hooks of PyTorch on a module, or another forward pass into it."""
    hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks)
    return any(map(bool, hooks)) or "forward" in vars(module)
