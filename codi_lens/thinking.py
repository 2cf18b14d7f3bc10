"""The thought loop: question, six continuous thoughts, answer, with every hook alive.

Problems run as one left-padded batch through a key-value cache. TransformerLens recomputes
positions and masks from the attention mask, so the *full* mask goes into every pass: with it,
padding changes nothing beyond float rounding; without it errors are of order 1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import xarray as xr
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformer_lens import ActivationCache, HookedTransformer
from transformer_lens.cache.key_value_cache import TransformerLensKeyValueCache
from transformers import PreTrainedTokenizerBase

from codi_lens.checkpoint import CodiConfig
from codi_lens.errors import InterventionError, PositionError, ProblemError
from codi_lens.interventions import HookFunction, Intervention, position_axis, scoped
from codi_lens.positions import Layout, key_names, query_names, resolve
from codi_lens.problems import answer_span

NamesFilter = str | Sequence[str] | Callable[[str], bool] | None


@dataclass(frozen=True, eq=False)
class ThoughtRun:
    """What one pass of question → thoughts → answer gave, for a batch of problems.

    Attributes:
        thoughts: `ct0` … `ct{n-1}` as they were fed.
        predicted_thoughts: the projection's outputs; equal to `thoughts` unless those were forced.
        attention: attention probabilities, labelled; queries `bot`, `ct0` …, `eot`, `anchor`, keys
            `question` (summed), `bot`, `ct0` …, `eot`, `answer` (summed). Rows sum to 1; cells that
            causality forbids are 0; the `anchor` row is NaN where the answer holds no number.
        logits: at the last position of `eot`: they give the answer's first token.
        answers: the decoded answers.
        answer_tokens: their tokens, cut at EOS.
        layout: where the named positions lie in the batch.
    """

    thoughts: Float[Tensor, "problem thought d_model"]
    predicted_thoughts: Float[Tensor, "problem thought d_model"]
    attention: xr.DataArray
    logits: Float[Tensor, "problem vocab"]
    answers: list[str]
    answer_tokens: list[list[int]]
    layout: Layout
    _cache: Callable[[], ActivationCache]

    def index(self, name: str) -> Int[Tensor, "problem"]:
        """Where `bot`, a thought, `eot` or `anchor` lies in the tensors of `cache()`, per problem.

        Raises:
            PositionError: not a single position of this run; or "anchor" without a number.
        """
        return self.layout.index(name)

    def span(self, name: str) -> list[slice]:
        """Where a position or a group ("question", "answer") lies in `cache()`, per problem."""
        return self.layout.span(name)

    def cache(self) -> ActivationCache:
        """One ordinary TransformerLens cache over the whole run, question to answer.

        Positions are left-padded and end with the last answer token that was fed. If `think` was
        given `names_filter`, these are the activations of the run itself; otherwise the run is
        replayed in one forward pass over the same vectors, with all hooks.

        Raises:
            InterventionError: the run had interventions and kept no activations.
        """
        return self._cache()


def think(
    lens: HookedTransformer,
    projection: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    config: CodiConfig,
    questions: Sequence[str] | Sequence[Sequence[int]],
    *,
    thoughts: Float[Tensor, "problem thought d_model"] | None = None,
    max_new_tokens: int = 64,
    names_filter: NamesFilter = None,
    interventions: Sequence[Intervention] = (),
) -> ThoughtRun:
    """Run a batch of questions through thoughts to answers; see `CodiModel.think`."""
    prompts = prepare(questions, lens, tokenizer, config)
    layout = Layout(
        tuple(len(prompt) - 1 for prompt in prompts), config.n_thoughts, len(config.closing)
    )
    if max_new_tokens < 1:
        raise ProblemError(f"max_new_tokens must be at least 1, not {max_new_tokens}.")
    expected = (len(prompts), config.n_thoughts, lens.cfg.d_model)
    if thoughts is not None and tuple(thoughts.shape) != expected:
        raise PositionError(
            f"thoughts has shape {tuple(thoughts.shape)}; expected [problem, thought, d_model] = "
            f"{expected}."
        )
    hooked = bool(hooked_names(lens))
    loop = _Loop(lens, layout, names_filter, interventions)
    with loop.hooks():
        ids, mask = _left_pad(prompts, config.pad, lens.cfg.device)
        hidden = loop.feed(loop.embed(ids), mask)
        fed, predicted = [], []
        for i in range(config.n_thoughts):
            predicted.append(projection(hidden[:, -1:]))
            vector = predicted[-1] if thoughts is None else thoughts[:, i : i + 1]
            hidden = loop.feed(vector.to(ids.device, lens.cfg.dtype))
            fed.append(loop.fed[-1])
        closing = torch.tensor(config.closing, device=ids.device).expand(len(prompts), -1)
        hidden = loop.feed(loop.embed(closing))
        logits = loop.logits(hidden)
        tokens = _decode(loop, logits, config, max_new_tokens)
    loop.check_fired()
    texts = [_text(row, tokenizer) for row in tokens]
    layout = replace(
        layout,
        answer_lengths=tuple(len(row) for row in tokens),
        anchors=tuple(_anchor(row, tokenizer) for row in tokens),
    )

    def cache() -> ActivationCache:
        if names_filter is None and (interventions or hooked):
            raise InterventionError(
                "A run with interventions or hooks is not replayed; pass names_filter= to think, "
                "for example names_filter=lambda name: True, and it keeps those activations."
            )
        kept = loop.stitched() if names_filter is not None else _replay(lens, loop)
        return ActivationCache(kept, lens)

    return ThoughtRun(
        thoughts=torch.cat(fed, dim=1),
        predicted_thoughts=torch.cat(predicted, dim=1),
        attention=_attention(loop, layout, config.source),
        logits=logits,
        answers=texts,
        answer_tokens=tokens,
        layout=layout,
        _cache=cache,
    )


def prepare(
    questions: Sequence[str] | Sequence[Sequence[int]],
    lens: HookedTransformer,
    tokenizer: PreTrainedTokenizerBase,
    config: CodiConfig,
    *,
    names: Sequence[str] | None = None,
) -> list[list[int]]:
    """Prompts as token ids: each question, then the tokens that open thinking.

    Text is stripped, double spaces become one, and BOS is added by the tokenizer's own rule.

    Args:
        questions: texts or token lists.
        names: what errors call the questions; their numbers by default.

    Raises:
        ProblemError: no question, an empty one, a bare string, an id outside the vocabulary, or a
            question that does not fit into the context with its thoughts.
    """
    if isinstance(questions, str):
        raise ProblemError("think takes a list of questions; put the single question in a list.")
    if len(questions) == 0:
        raise ProblemError("think was given no question; give at least one.")
    room = lens.cfg.n_ctx - config.n_thoughts - len(config.opening) - len(config.closing)
    prompts: list[list[int]] = []
    for number, question in enumerate(questions):
        name = names[number] if names is not None else str(number)
        if isinstance(question, str):
            text = question.strip().replace("  ", " ")
            tokens = list(tokenizer(text)["input_ids"]) if text else []
        else:
            tokens = [int(token) for token in question]
        if not tokens:
            raise ProblemError(f"Question {name} is empty.")
        outside = [token for token in tokens if not 0 <= token < lens.cfg.d_vocab]
        if outside:
            raise ProblemError(
                f"Question {name} holds the token id {outside[0]}; the vocabulary is "
                f"0..{lens.cfg.d_vocab - 1}."
            )
        if len(tokens) > room:
            raise ProblemError(
                f"Question {name} has {len(tokens)} tokens; with {config.n_thoughts} thoughts the "
                f"context of {lens.cfg.n_ctx} has room for {room}."
            )
        prompts.append([*tokens, *config.opening])
    return prompts


def hooked_names(lens: HookedTransformer) -> list[str]:
    """The hook points that carry forward hooks right now, set by `model.lens.hooks(...)`."""
    return sorted(name for name, point in lens.hook_dict.items() if point.fwd_hooks)


class _Loop:
    """One batch on its way through the model: key-value cache, mask, and what the hooks keep."""

    def __init__(
        self,
        lens: HookedTransformer,
        layout: Layout,
        names_filter: NamesFilter = None,
        interventions: Sequence[Intervention] = (),
    ) -> None:
        n_problems = len(layout.question_lengths)
        self.lens = lens
        self.layout = layout
        self.cache = TransformerLensKeyValueCache.init_cache(lens.cfg, lens.cfg.device, n_problems)
        self.mask = torch.zeros(n_problems, 0, dtype=torch.int64, device=lens.cfg.device)
        self.names: list[str] = []
        self.fed: list[Tensor] = []  # per pass, what entered the first block before positions
        self.rows: list[Tensor] = []  # per pass, [problem, layer, head, key] of its last query
        self._patterns: dict[int, Tensor] = {}
        self._kept: dict[str, list[Tensor]] = {}
        # ln1 fires three times a pass (for Q, K and V): the last activation counts.
        self._pass_kept: dict[str, Tensor] = {}
        self._pass_fired: set[int] = set()
        self._kept_names = _matching(lens, names_filter)
        self._interventions = [
            (name, function, resolve(intervention.at, layout.n_thoughts))
            for intervention in interventions
            for name, function in intervention.hooks
        ]
        for name, _, _ in self._interventions:
            _check_hook_name(lens, name)
        hooked = [*self._kept_names, *(name for name, _, _ in self._interventions)]
        self._unembeds_all = any(name.startswith("unembed.") for name in hooked)
        self._logits = torch.empty(0)
        self._expected = [0] * len(self._interventions)
        self._fired = [0] * len(self._interventions)

    @contextmanager
    def hooks(self) -> Iterator[None]:
        """Interventions first, so that everything kept is what the model went on with."""
        hooks: list[tuple[str, HookFunction]] = [
            (name, self._scoped_hook(number, function, positions))
            for number, (name, function, positions) in enumerate(self._interventions)
        ]
        may_mask = bool(hooks) or bool(hooked_names(self.lens))
        for layer in range(self.lens.cfg.n_layers):
            hooks.append((f"blocks.{layer}.attn.hook_pattern", self._pattern_hook(layer)))
            if may_mask:
                hooks.append((f"blocks.{layer}.attn.hook_attn_scores", self._refuse_masked_rows))
        hooks += [(name, self._keep) for name in self._kept_names]
        with self.lens.hooks(fwd_hooks=hooks):  # type: ignore[arg-type]
            yield

    def embed(self, tokens: Int[Tensor, "problem pos"]) -> Float[Tensor, "problem pos d_model"]:
        return self.lens.embed(tokens)

    def feed(
        self,
        vectors: Float[Tensor, "problem pos d_model"],
        mask: Int[Tensor, "problem pos"] | None = None,
    ) -> Float[Tensor, "problem pos d_model"]:
        """Append vectors to the run; returns the hidden states after the final norm."""
        lens = self.lens
        past = self.mask.shape[1]
        length = past + vectors.shape[1]
        added = torch.ones_like(vectors[..., 0], dtype=torch.int64) if mask is None else mask
        self.mask = torch.cat([self.mask, added], dim=1)
        self.cache.append_attention_mask(added)
        self.names = self.layout.names(length)
        for number, (_, _, positions) in enumerate(self._interventions):
            self._expected[number] += not positions.isdisjoint(self.names[past:])
        embedded = lens.hook_embed(vectors)
        self.fed.append(embedded)
        residual, _ = lens.get_residual(embedded, past, attention_mask=self.mask)
        residual = lens(
            residual,
            start_at_layer=0,
            stop_at_layer=lens.cfg.n_layers,
            attention_mask=self.mask,
            past_kv_cache=self.cache,
        )
        self.rows.append(self._named_row(length))
        hidden = lens.ln_final(residual)
        if self._unembeds_all:
            self._logits = lens.unembed(hidden)[:, -1]
        for name, activation in self._pass_kept.items():
            self._kept.setdefault(name, []).append(activation)
        self._pass_kept.clear()
        for number in self._pass_fired:
            self._fired[number] += 1
        self._pass_fired.clear()
        return hidden

    def logits(
        self, hidden: Float[Tensor, "problem pos d_model"]
    ) -> Float[Tensor, "problem vocab"]:
        """Next-token logits at the last position of the latest pass."""
        return self._logits if self._unembeds_all else self.lens.unembed(hidden[:, -1:])[:, 0]

    def stitched(self) -> dict[str, Tensor]:
        """The kept activations of all passes, joined along positions."""
        length = self.mask.shape[1]
        joined: dict[str, Tensor] = {}
        for name, parts in self._kept.items():
            if name.endswith("hook_rot_k"):  # every pass rotates all keys again
                joined[name] = parts[-1]
                continue
            if position_axis(name) == 2:
                fill = 0.0 if name.endswith("hook_pattern") else -torch.inf
                parts = [F.pad(part, (0, length - part.shape[-1]), value=fill) for part in parts]
            joined[name] = torch.cat(parts, dim=position_axis(name))
        return joined

    def check_fired(self) -> None:
        for (name, _, positions), expected, fired in zip(
            self._interventions, self._expected, self._fired, strict=True
        ):
            if fired == 0 or fired < expected:
                reason = (
                    f"fired in {fired} of the {expected} passes that hold its positions"
                    if expected
                    else "never fired: the run holds none of its positions"
                )
                raise InterventionError(f"The hook at {name} (at {sorted(positions)}) {reason}.")
        silent = [name for name in self._kept_names if name not in self._kept]
        if silent:
            raise InterventionError(
                f"names_filter asks for {silent[0]}, a hook that never fired in this run."
            )

    def _scoped_hook(
        self, number: int, function: HookFunction, positions: frozenset[str]
    ) -> HookFunction:
        def hook_function(activation: Tensor, hook: Any) -> Tensor | None:
            size = activation.shape[position_axis(hook.name)]
            names = self.names[-size:]
            columns = [i for i, name in enumerate(names) if name in positions]
            if not columns:
                return None
            self._pass_fired.add(number)
            return scoped(function, columns, activation, hook)

        return hook_function

    def _pattern_hook(self, layer: int) -> HookFunction:
        def keep_last_query(pattern: Tensor, hook: Any) -> None:
            self._patterns[layer] = pattern[:, :, -1]

        return keep_last_query

    def _refuse_masked_rows(self, scores: Tensor, hook: Any) -> None:
        """A hook cut every key of a query, which TransformerLens would turn into zeros silently."""
        size = scores.shape[2]
        real = self.mask[:, None, -size:].bool()
        masked = (torch.isneginf(scores).all(dim=-1) & real).nonzero()
        if len(masked):
            problem, head, query = masked[0].tolist()
            raise InterventionError(
                f"At {hook.name} every key of head {head} is masked for the query "
                f"{self.names[-size:][query]!r} of problem {problem}; leave it at least one."
            )

    def _keep(self, activation: Tensor, hook: Any) -> None:
        self._pass_kept[hook.name] = activation.detach()

    def _named_row(self, length: int) -> Float[Tensor, "problem layer head key"]:
        """The last query's attention, summed over the positions of each key's name."""
        layers = [self._patterns.pop(layer) for layer in range(self.lens.cfg.n_layers)]
        row = torch.stack(layers, dim=1).detach().float()
        keys = key_names(self.layout.n_thoughts)
        index = torch.tensor([keys.index(name) for name in self.names], device=row.device)
        summed = row.new_zeros(*row.shape[:-1], len(keys))
        return summed.index_add_(-1, index, row[..., :length]).cpu()


def _decode(
    loop: _Loop, logits: Tensor, config: CodiConfig, max_new_tokens: int
) -> list[list[int]]:
    """Greedy decoding; every row stops at EOS, at `max_new_tokens` or at the context's end.

    Like the original, any token but `eot` may come (pad and bot included).
    """
    tokens: list[list[int]] = [[] for _ in range(len(logits))]
    alive = torch.ones(len(logits), dtype=torch.bool, device=logits.device)
    forbidden = torch.tensor([config.eot], device=logits.device)
    for step in range(max_new_tokens):
        best = logits.index_fill(-1, forbidden, -torch.inf).argmax(dim=-1)
        alive = alive & (best != config.eos)
        for row in alive.nonzero()[:, 0].tolist():
            tokens[row].append(int(best[row]))
        alive = alive & (loop.mask.sum(dim=1) < loop.lens.cfg.n_ctx)
        if step == max_new_tokens - 1 or not alive.any():
            break
        hidden = loop.feed(loop.embed(best[:, None]), alive[:, None].long())
        logits = loop.logits(hidden)
    return tokens


def _replay(lens: HookedTransformer, loop: _Loop) -> dict[str, Tensor]:
    """All activations of one full forward pass over the vectors of a finished run."""
    again = _Loop(lens, loop.layout, names_filter=lambda _: True)
    with again.hooks():
        again.feed(torch.cat(loop.fed, dim=1), loop.mask)
    return again.stitched()


def _attention(loop: _Loop, layout: Layout, source: str) -> xr.DataArray:
    n_problems = len(layout.question_lengths)
    n = layout.n_thoughts
    fixed = loop.rows[: n + 2]  # bot, the thoughts, eot; then one row per answer token fed
    anchor = torch.full_like(fixed[0], torch.nan)
    for problem, before in enumerate(layout.anchors):
        if before is not None:
            anchor[problem] = loop.rows[n + 1 + before][problem]
    values = torch.stack([*fixed, anchor], dim=3).numpy()
    return xr.DataArray(
        values,
        dims=("problem", "layer", "head", "query", "key"),
        coords={
            "problem": np.arange(n_problems),
            "layer": np.arange(values.shape[1]),
            "head": np.arange(values.shape[2]),
            "query": list(query_names(n)),
            "key": list(key_names(n)),
        },
        name="attention",
        attrs={"model": source},
    )


def _text(tokens: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> str:
    return str(tokenizer.decode(list(tokens), skip_special_tokens=True))


def _anchor(tokens: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> int | None:
    """How many answer tokens come before the first token of the answer's number."""
    span = answer_span(_text(tokens, tokenizer))
    if span is None:
        return None
    for count in range(1, len(tokens) + 1):
        if len(_text(tokens[:count], tokenizer)) > span[0]:
            return count - 1
    return None


def _left_pad(
    prompts: Sequence[Sequence[int]], pad: int, device: Any
) -> tuple[Int[Tensor, "problem pos"], Int[Tensor, "problem pos"]]:
    width = max(map(len, prompts))
    ids = [[pad] * (width - len(prompt)) + list(prompt) for prompt in prompts]
    mask = [[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts]
    return torch.tensor(ids, device=device), torch.tensor(mask, device=device)


def _check_hook_name(lens: HookedTransformer, name: str) -> None:
    if name not in lens.hook_dict:
        raise InterventionError(
            f"There is no hook {name!r} in this model (layers 0..{lens.cfg.n_layers - 1}); "
            "`model.lens.hook_dict` lists them all."
        )


def _matching(lens: HookedTransformer, names_filter: NamesFilter) -> list[str]:
    """The hook names to keep; a filter function takes those that can fire in this model."""
    if names_filter is None:
        return []
    if callable(names_filter):
        names = [name for name in lens.hook_dict if names_filter(name) and _can_fire(lens, name)]
        if not names:
            raise InterventionError("names_filter selects no hook of this model.")
        return names
    names = [names_filter] if isinstance(names_filter, str) else list(names_filter)
    for name in names:
        _check_hook_name(lens, name)
    return names


def _can_fire(lens: HookedTransformer, name: str) -> bool:
    """Hook points that TransformerLens has switched off do not fire."""
    switches = {
        "hook_result": lens.cfg.use_attn_result,
        "hook_q_input": lens.cfg.use_split_qkv_input,
        "hook_k_input": lens.cfg.use_split_qkv_input,
        "hook_v_input": lens.cfg.use_split_qkv_input,
        "hook_attn_in": lens.cfg.use_attn_in,
        "hook_mlp_in": lens.cfg.use_hook_mlp_in,
    }
    return switches.get(name.rsplit(".", 1)[-1], True)
