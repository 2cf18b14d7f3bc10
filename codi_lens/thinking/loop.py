"""The passes of a run: key-value cache, attention mask, hooks, and what they keep."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from codi_lens.errors import InterventionError
from codi_lens.loading.backends import Lens
from codi_lens.plans import note_pass
from codi_lens.positions import Layout, key_names, resolve
from codi_lens.thinking.engine import engine_of
from codi_lens.thinking.finite import first_broken
from codi_lens.thinking.hook_names import NamesFilter, check_hook_name, hooked_names, matching
from codi_lens.thinking.hooks import HookFunction, Intervention, position_axis, scoped
from codi_lens.thinking.lock import locked


class Loop:
    """One batch on its way through the model, pass by pass.

    Attributes:
        mask: 1 where a column holds a position of the problem, 0 where it is padding.
        fed: per pass, what entered the first block before positions were added.
        rows: per pass, the attention of the queries that it was asked for, summed over the
            positions of each key's name; of a written run, over the question alone.
    """

    mask: Int[Tensor, "problem pos"]
    fed: list[Float[Tensor, "problem pos d_model"]]
    rows: list[Float[Tensor, "problem row layer head key"]]

    def __init__(
        self,
        lens: Lens,
        layout: Layout,
        names_filter: NamesFilter = None,
        interventions: Sequence[Intervention] = (),
        *,
        fused: bool = False,
    ) -> None:
        n_problems = len(layout.question_lengths)
        device = lens.cfg.device
        self.lens, self.engine = lens, engine_of(lens)
        self.layout = layout
        self.mask = torch.zeros(n_problems, 0, dtype=torch.int64, device=device)
        self.fed, self.rows = [], []
        self._added: list[Tensor] = []  # the mask of each pass
        self._start = self._checked = 0  # columns that came with it; passes that were looked at
        self._state = self.engine.state(n_problems)
        self._problems = torch.arange(n_problems, device=device)[:, None]
        self._columns = torch.empty(n_problems, 0, dtype=torch.int64, device=device)
        self._names: list[str] = []
        self._hidden = self._logits = torch.empty(0)
        self._patterns: dict[int, Tensor] = {}
        self._may_mask, self._fused = False, fused  # `hooks` says whether
        self._peaks: dict[str, Tensor] = {}  # per layer, the largest score of each query
        self._kept: dict[str, list[Tensor]] = {}
        # ln1 fires three times a pass (for Q, K and V): the last activation counts.
        self._pass_kept, self._pass_fired = dict[str, Tensor](), set[int]()
        self._kept_names = matching(lens, names_filter)
        self._interventions = [
            (name, function, resolve(intervention.at, layout.n_thoughts, written=layout.written))
            for intervention in interventions
            for name, function in intervention.hooks
        ]
        hooked = [name for name, _, _ in self._interventions]
        for name in hooked:
            check_hook_name(lens, name)
        self._unembeds_all = any(n.startswith("unembed.") for n in [*hooked, *self._kept_names])
        self._expected, self._fired = ([0] * len(self._interventions) for _ in range(2))

    @contextmanager
    def hooks(self) -> Iterator[None]:
        """Interventions first, so that everything kept is what the model went on with.

        The model is locked meanwhile: another thread's passes would set the hooks off.
        """
        hooks: list[tuple[str, HookFunction]] = [
            (name, partial(self._act, number, function, positions))
            for number, (name, function, positions) in enumerate(self._interventions)
        ]
        with locked(self.lens):
            heard = [*hooked_names(self.lens), *(name for name, _ in hooks)]
            self._fused = self._fused and self.engine.can_fuse([*heard, *self._kept_names])
            self._may_mask = bool(heard)
            with self.engine.hooks([*hooks, *self._own_hooks()]):
                yield

    def _own_hooks(self) -> Iterator[tuple[str, HookFunction]]:
        for layer in range(self.lens.cfg.n_layers):
            yield f"blocks.{layer}.attn.hook_pattern", partial(self._keep_queries, layer)
            if self._may_mask:
                yield f"blocks.{layer}.attn.hook_attn_scores", self._note_masked_rows
        yield from ((name, self._keep) for name in self._kept_names)

    def embed(self, tokens: Int[Tensor, "problem pos"]) -> Float[Tensor, "problem pos d_model"]:
        """The embeddings of tokens, ready to be fed."""
        return self.engine.embed(tokens)

    def feed(
        self,
        vectors: Float[Tensor, "problem pos d_model"],
        mask: Int[Tensor, "problem pos"] | None = None,
        queries: Int[Tensor, "problem row"] | None = None,
    ) -> Float[Tensor, "problem pos d_model"]:
        """Append vectors to the run; returns the hidden states after the final norm.

        Args:
            vectors: what enters the first block, before positions are added.
            mask: which of them are real; all by default.
            queries: those of them whose attention `rows` keeps; the last by default.
        """
        past, size = self.mask.shape[1], vectors.shape[1]
        note_pass(vectors.shape[0] * size)
        added = torch.ones_like(vectors[..., 0], dtype=torch.int64) if mask is None else mask
        self.mask = torch.cat([self.mask, added], dim=1)
        self._columns = torch.full_like(self._problems, size - 1) if queries is None else queries
        self._names = self.layout.names(past + size)
        for number, (_, _, positions) in enumerate(self._interventions):
            self._expected[number] += not positions.isdisjoint(self._names[past:])
        embedded = self.engine.enter(vectors)
        self.fed.append(embedded)
        self._added.append(added)
        asked = self._columns if self._fused else None
        self._hidden, patterns = self.engine.run(embedded, self.mask, self._state, asked)
        if patterns is not None:
            self._patterns = {i: each.detach() for i, each in enumerate(patterns)}
        self._refuse_rows_without_a_peak()
        self.rows.append(self._named_rows())
        if self._unembeds_all:
            self._logits = self.engine.unembed(self._hidden)
        for name, activation in self._pass_kept.items():
            self._kept.setdefault(name, []).append(activation)
        self._pass_kept.clear()
        for number in self._pass_fired:
            self._fired[number] += 1
        self._pass_fired.clear()
        return self._hidden

    def logits(self) -> Float[Tensor, "problem vocab"]:
        """Next-token logits at the last position of the latest pass."""
        if self._unembeds_all:
            return self._logits[:, -1]
        return self.engine.unembed(self._hidden[:, -1:])[:, 0]

    def logits_at(
        self, problems: Int[Tensor, " row"], columns: Int[Tensor, " row"]
    ) -> Float[Tensor, "row vocab"]:
        """Next-token logits at chosen positions of the latest pass."""
        if self._unembeds_all:
            return self._logits[problems, columns]
        return self.engine.unembed(self._hidden[problems, columns][None])[0]

    def fork(
        self,
        rows: Sequence[int],
        length: int,
        interventions: Sequence[Intervention] = (),
    ) -> Loop:
        """A new loop that goes on from the first `length` columns of this one.

        Keys and values are copied, not computed again: this is how many interventions share what
        none of them can change.

        Args:
            rows: which problems of this batch; one may come many times. Padding that none of them
                needs is dropped.
            length: how many columns, padding included, the new loop starts with.
            interventions: those of the new loop.
        """
        lengths = self.layout.question_lengths
        kept = tuple(lengths[row] for row in rows)
        start = self.layout.bot - max(kept)
        layout = replace(self.layout, question_lengths=kept, answer_lengths=(), anchors=())
        other = Loop(self.lens, layout, None, interventions)
        index = torch.tensor(list(rows), device=self.mask.device)
        other.mask, other._start = self.mask[index, start:length], length - start
        other._state = self._state.select(index, start, length)
        return other

    def forget(self, hidden: Bool[Tensor, "problem pos"]) -> None:
        """Let later passes not see these positions: they become padding."""
        self.mask = self.mask.masked_fill(hidden, 0)

    def check_finite(self, good: Bool[Tensor, "..."]) -> None:
        """Refuse a run that gave NaN or infinity; called while its hooks are alive.

        Without hooks, a query whose attention sums to 0 had such scores, which TransformerLens
        turns into zeros.

        Args:
            good: which of the values that were looked at are finite.

        Raises:
            ActivationError: says in which layer and at which position it began.
        """
        good = good.all()
        if self.rows[self._checked :] and not self._may_mask:
            sums = [row.sum(dim=-1) for row in self.rows[self._checked :]]
            good = good & (torch.cat(sums, dim=1) > 0).all()
            self._checked = len(self.rows)
        if not good:
            raise first_broken(self.lens, self._again, lambda: self._names)

    @torch.no_grad()
    def _again(self) -> None:
        """Run all passes a second time, as they were."""
        self._fused = False  # where it began, every hook has to see
        passes = list(zip(self.fed, self._added, strict=True))
        self.mask = self.mask[:, : self._start]
        self._state = self._state.select(None, 0, self._start)
        self.fed, self.rows, self._added = [], [], []
        self._peaks.clear()
        for vectors, added in passes:
            self.feed(vectors, added)

    def stitched(self) -> dict[str, Tensor]:
        """The kept activations of all passes, joined along positions."""
        length = self.mask.shape[1]
        joined: dict[str, Tensor] = {}
        for name, parts in self._kept.items():
            if name.endswith("hook_rot_k") and self.engine.rotates_all_keys:
                joined[name] = parts[-1]
                continue
            if position_axis(name) == 2:
                fill = 0.0 if name.endswith("hook_pattern") else -torch.inf
                parts = [F.pad(part, (0, length - part.shape[-1]), value=fill) for part in parts]
            joined[name] = torch.cat(parts, dim=position_axis(name))
        return joined

    def check_fired(self) -> None:
        """Every intervention fired in each pass that holds its positions, or it is an error.

        Raises:
            InterventionError: a hook, or an activation to keep, that never came.
        """
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
        if silent := [name for name in self._kept_names if name not in self._kept]:
            raise InterventionError(
                f"names_filter asks for {silent[0]}, a hook that never fired in this run."
            )

    def _act(
        self,
        number: int,
        function: HookFunction,
        positions: frozenset[str],
        activation: Tensor,
        hook: Any,
    ) -> Tensor | None:
        """Apply an intervention to the columns of its positions, if the pass holds any."""
        size = activation.shape[position_axis(hook.name)]
        names = self._names[-size:]
        columns = [i for i, name in enumerate(names) if name in positions]
        if not columns:
            return None
        self._pass_fired.add(number)
        return scoped(function, columns, activation, hook)

    def _keep_queries(self, layer: int, pattern: Tensor, hook: Any) -> None:
        # Indexing by tensors copies, so that the pattern itself is not kept alive.
        self._patterns[layer] = pattern.detach()[self._problems, :, self._columns]

    def _note_masked_rows(self, scores: Tensor, hook: Any) -> None:
        padding = self.mask[:, None, -scores.shape[2] :] == 0
        self._peaks[hook.name] = scores.detach().amax(dim=-1).masked_fill(padding, 0)

    def _refuse_rows_without_a_peak(self) -> None:
        """A hook cut every key of a query, which TransformerLens would turn into zeros silently.

        So it does with scores that are NaN or infinite.
        """
        broken = {name: ~torch.isfinite(peaks) for name, peaks in self._peaks.items()}
        if not broken or not torch.stack([each.any() for each in broken.values()]).any():
            return
        name, masked = next((name, each) for name, each in broken.items() if each.any())
        problem, head, query = masked.nonzero()[0].tolist()
        if not torch.isneginf(self._peaks[name][problem, head, query]):
            raise first_broken(self.lens, self._again, lambda: self._names)
        raise InterventionError(
            f"At {name} every key of head {head} is masked for the query "
            f"{self._names[-masked.shape[2] :][query]!r} of problem {problem}; leave it at least "
            "one."
        )

    def _keep(self, activation: Tensor, hook: Any) -> None:
        self._pass_kept[hook.name] = activation.detach()

    def _named_rows(self) -> Float[Tensor, "problem row layer head key"]:
        """The asked queries' attention, summed over the positions of each key's name."""
        layers = [self._patterns.pop(layer) for layer in range(self.lens.cfg.n_layers)]
        rows = torch.stack(layers, dim=2).float()
        if self.layout.written:  # which tokens give results is known once all are written
            rest = range(1, len(self._names) - self.layout.bot + 1)
            columns = [0] * self.layout.bot + list(rest)
            n_keys = 1 + len(rest)
        else:
            keys = {name: i for i, name in enumerate(key_names(self.layout.n_thoughts))}
            columns, n_keys = [keys[name] for name in self._names], len(keys)
        index = torch.tensor(columns, device=rows.device)
        return rows.new_zeros(*rows.shape[:-1], n_keys).index_add_(-1, index, rows)
