"""Interventions whose values depend on the problems: planned once these are known, before a run."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from codi_lens.errors import InterventionError, listed, shown, whole_number
from codi_lens.loading.config import CodiConfig
from codi_lens.loading.loaded import Lens, Loaded
from codi_lens.positions import Layout, Scope
from codi_lens.thinking.hooks import Intervention, on_rows
from codi_lens.thinking.prompts import layout_of, positions_in, questions_of
from codi_lens.thinking.run import ThoughtRun


@runtime_checkable
class DonorCorpus(Protocol):
    """What a context knows of the donors that it hands on."""

    def check_model(self, model: Loaded) -> None:
        """Refuse donors of another model."""

    def with_seed(self, seed: int) -> Any:
        """The same corpus, drawn from with another seed."""


@dataclass(frozen=True)
class Context:
    """What an intervention may know about the run it is planned for.

    Attributes:
        model: the model.
        prompts: question tokens of each problem, with the tokens that open thinking.
        ids: a stable id of each problem; donors are drawn from it.
        bot: the column of `bot` in the batch, question tokens being left-padded up to it.
        think: a clean run of given token lists.
        batch: the prompts of the whole batch, of which `prompts` may be a part.
        batch_ids: the ids of the whole batch.
        default_donors: for interventions that name none; by default the problems of the batch.
        shared: what was computed for this batch, for whatever is planned next.
    """

    model: Loaded
    prompts: tuple[tuple[int, ...], ...]
    ids: tuple[str, ...]
    bot: int
    think: Callable[..., ThoughtRun]
    batch: tuple[tuple[int, ...], ...] = ()
    batch_ids: tuple[str, ...] = ()
    default_donors: DonorCorpus | None = None
    _rows: tuple[int, ...] = ()
    shared: dict[Any, Any] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        model: Loaded,
        prompts: Sequence[Sequence[int]],
        ids: Sequence[str],
        think: Callable[..., ThoughtRun],
    ) -> Context:
        """The context of one batch."""
        fixed = tuple(map(tuple, prompts))
        bot = layout_of(model, fixed).bot
        rows = tuple(range(len(fixed)))
        names = tuple(ids)
        return cls(model, fixed, names, bot, think, fixed, names, _rows=rows)

    @property
    def lens(self) -> Lens:
        """The language model."""
        return self.model.lens

    @property
    def config(self) -> CodiConfig:
        """The model's settings."""
        return self.model.config

    @property
    def device(self) -> torch.device:
        """Where the run's activations live."""
        return self.model.device

    @property
    def n_thoughts(self) -> int:
        """The number of thoughts of the run."""
        return self.config.n_thoughts

    def select(self, rows: Sequence[int]) -> Context:
        """The context of some problems of the batch.

        Raises:
            InterventionError: a row twice, none, or one that the batch does not have.
        """
        outside = [row for row in rows if not 0 <= row < len(self.prompts)]
        if outside or not rows or len(set(rows)) < len(rows):
            raise InterventionError(
                f"for_rows was given the rows {list(rows)}; give each row of the batch "
                f"(0..{len(self.prompts) - 1}) at most once, and at least one."
            )
        return replace(
            self,
            prompts=tuple(self.prompts[row] for row in rows),
            ids=tuple(self.ids[row] for row in rows),
            _rows=tuple(self._rows[row] for row in rows),
        )

    def resolve(self, at: Scope) -> frozenset[str]:
        """The single positions of the run that a scope stands for; see `positions.resolve`."""
        return frozenset(positions_in(self.model, at))

    def names(self, length: int) -> list[str]:
        """The position that each of the first `length` columns of the batch belongs to."""
        return Layout((self.bot,), self.n_thoughts, len(self.config.closing)).names(length)

    def question_mask(self) -> Bool[Tensor, "problem pos"]:
        """Which columns before `bot` hold the question, not padding."""
        lengths = torch.tensor(
            layout_of(self.model, self.prompts).question_lengths, device=self.device
        )
        columns = torch.arange(self.bot, device=self.device)
        return columns >= self.bot - lengths[:, None]

    def clean(self, hook_names: Sequence[str]) -> dict[str, Tensor]:
        """Activations of a clean run of this very batch, for the selected problems.

        The batch is composed as in the run itself, so that equal values are equal bit for bit.
        """
        missing = [name for name in hook_names if name not in self.shared]
        if missing:
            run = self.think(
                questions_of(self.model, self.batch), max_new_tokens=1, names_filter=missing
            )
            cache = run.cache()
            self.shared.update({name: cache[name] for name in missing})
            self.shared["thoughts"] = run.thoughts
        return {name: self.shared[name][list(self._rows)] for name in hook_names}

    def clean_thoughts(self) -> Float[Tensor, "problem thought d_model"]:
        """The thoughts of a clean run of this very batch."""
        if "thoughts" not in self.shared:
            self.clean(["hook_embed"])
        return self.shared["thoughts"][list(self._rows)]


@dataclass(frozen=True)
class Planned:
    """An intervention that works out its hooks once the problems are known.

    Attributes:
        name: short, for tables: "L1H5 resample at thinking".
        first: the first named position it can touch.
        build: gives the interventions for a context.
        details: what else decides its values (seed, donors, given vectors), so that a resumed
            measurement never goes on with other ones.
    """

    name: str
    first: str
    build: Callable[[Context], list[Intervention]]
    details: str = ""

    def plan(self, context: Context) -> list[Intervention]:
        """The hooks for the problems of `context`; `think` calls it before the run.

        Raises:
            InterventionError, PositionError: it does not fit the model or the problems.
        """
        return [
            intervention if intervention.name else replace(intervention, name=self.name)
            for intervention in self.build(context)
        ]


def for_rows(intervention: Intervention | Planned, rows: Sequence[int]) -> Intervention | Planned:
    """The same intervention on these rows of a batch; the others are as if it were not there.

    Args:
        intervention: fixed or planned. It sees only these rows, and is planned for them alone.
        rows: indices into the batch that `think` is given.

    >>> keep_one = Intervention([], at="thoughts", keeps=1)
    >>> for_rows(keep_one, [0, 2]).rows
    (0, 2)
    """
    (intervention,) = as_interventions(intervention)
    rows = [
        whole_number("A row of for_rows", row)
        for row in listed("for_rows", rows, "rows", InterventionError)
    ]
    if isinstance(intervention, Intervention):
        return on_rows(intervention, rows)

    def build(context: Context) -> list[Intervention]:
        return [on_rows(part, rows) for part in intervention.plan(context.select(rows))]

    return replace(intervention, build=build)


def as_interventions(
    given: Intervention | Planned | Iterable[Intervention | Planned],
) -> list[Intervention | Planned]:
    """Interventions as a list; a single one may come without.

    Raises:
        InterventionError: something that is no intervention.

    >>> [each.first for each in as_interventions(Intervention([], at="ct1"))]
    ['ct1']
    """
    if isinstance(given, Intervention | Planned):
        return [given]
    each = listed("interventions=", given, "interventions", InterventionError)
    for wrong in (one for one in each if not isinstance(one, Intervention | Planned)):
        raise InterventionError(
            f"{shown(wrong)} is no intervention; hooks become one by "
            "Intervention([(name, function)], at=...)."
        )
    return each


def plan_all(
    interventions: Intervention | Planned | Iterable[Intervention | Planned], context: Context
) -> list[Intervention]:
    """Fixed interventions for a batch, in the given order.

    Raises:
        InterventionError, PositionError: one that does not fit the model or the problems.
    """
    planned: list[Intervention] = []
    for intervention in as_interventions(interventions):
        if isinstance(intervention, Planned):
            planned += intervention.plan(context)
        else:
            planned.append(intervention)
    for intervention in planned:
        context.resolve(intervention.at)
    return planned


def kept_thoughts(
    interventions: Sequence[Intervention], n_problems: int, n_thoughts: int
) -> list[int]:
    """How many thoughts each problem of a batch keeps."""
    kept = [n_thoughts] * n_problems
    for intervention in interventions:
        if intervention.keeps is not None:
            for row in range(n_problems) if intervention.rows is None else intervention.rows:
                kept[row] = min(kept[row], intervention.keeps)
    return kept


def digest(*what: Any) -> str:
    """A short text that differs where these values differ: arrays and tensors by their bytes.

    >>> digest(torch.zeros(2)) == digest(torch.zeros(2)), digest("a", 1) == digest("a", 2)
    (True, False)
    """
    parts = hashlib.blake2b(digest_size=6)
    for each in what:
        if isinstance(each, Tensor):
            each = each.detach().cpu().double().numpy()
        if isinstance(each, np.ndarray):
            parts.update(repr(each.shape).encode() + np.ascontiguousarray(each).tobytes())
        else:
            parts.update(repr(each).encode())
    return parts.hexdigest()
