"""Interventions whose values depend on the problems: planned once these are known, before a run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from transformer_lens import HookedTransformer

from codi_lens.errors import InterventionError
from codi_lens.interventions.donors import Donors
from codi_lens.loading.config import CodiConfig
from codi_lens.positions import Layout, resolve
from codi_lens.thinking.hooks import Intervention, on_rows

if TYPE_CHECKING:
    import codi_lens.thinking.run


@dataclass(frozen=True)
class Context:
    """What an intervention may know about the run it is planned for.

    Attributes:
        lens: the language model.
        config: the model's settings.
        prompts: question tokens of each problem, with the tokens that open thinking.
        ids: a stable id of each problem; donors are drawn from it.
        bot: the column of `bot` in the batch, question tokens being left-padded up to it.
        think: a clean run of given token lists.
        batch: the prompts of the whole batch, of which `prompts` may be a part.
        batch_ids: the ids of the whole batch.
        default_donors: for interventions that name none; by default the problems of the batch.
    """

    lens: HookedTransformer
    config: CodiConfig
    prompts: tuple[tuple[int, ...], ...]
    ids: tuple[str, ...]
    bot: int
    think: Callable[..., codi_lens.thinking.run.ThoughtRun]
    batch: tuple[tuple[int, ...], ...] = ()
    batch_ids: tuple[str, ...] = ()
    default_donors: Donors | None = None
    _rows: tuple[int, ...] = ()
    _shared: dict[Any, Any] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        lens: HookedTransformer,
        config: CodiConfig,
        prompts: Sequence[Sequence[int]],
        ids: Sequence[str],
        think: Callable[..., codi_lens.thinking.run.ThoughtRun],
    ) -> Context:
        """The context of one batch."""
        fixed = tuple(map(tuple, prompts))
        bot = max(map(len, fixed)) - 1
        rows = tuple(range(len(fixed)))
        names = tuple(ids)
        return cls(lens, config, fixed, names, bot, think, fixed, names, _rows=rows)

    @property
    def device(self) -> torch.device:
        """Where the run's activations live."""
        return torch.device(str(self.lens.cfg.device))

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

    def names(self, length: int) -> list[str]:
        """The position that each of the first `length` columns of the batch belongs to."""
        return Layout((self.bot,), self.n_thoughts, len(self.config.closing)).names(length)

    def question_mask(self) -> Bool[Tensor, "problem pos"]:
        """Which columns before `bot` hold the question, not padding."""
        lengths = torch.tensor([len(prompt) - 1 for prompt in self.prompts], device=self.device)
        columns = torch.arange(self.bot, device=self.device)
        return columns >= self.bot - lengths[:, None]

    def clean(self, hook_names: Sequence[str]) -> dict[str, Tensor]:
        """Activations of a clean run of this very batch, for the selected problems.

        The batch is composed as in the run itself, so that equal values are equal bit for bit.
        """
        missing = [name for name in hook_names if name not in self._shared]
        if missing:
            questions = [list(prompt[: -len(self.config.opening)]) for prompt in self.batch]
            run = self.think(questions, max_new_tokens=1, names_filter=missing)
            cache = run.cache()
            self._shared.update({name: cache[name] for name in missing})
            self._shared["thoughts"] = run.thoughts
        return {name: self._shared[name][list(self._rows)] for name in hook_names}

    def clean_thoughts(self) -> Float[Tensor, "problem thought d_model"]:
        """The thoughts of a clean run of this very batch."""
        if "thoughts" not in self._shared:
            self.clean(["hook_embed"])
        return self._shared["thoughts"][list(self._rows)]

    def donors(self, given: Donors | None, seed: int) -> Donors:
        """The given donors, the default ones drawn with this seed, or the problems of this call."""
        if given is not None:
            given.check_model(self.lens)
            return given
        if self.default_donors is not None:
            self.default_donors.check_model(self.lens)
            return self.default_donors.with_seed(seed)
        key = ("donors", seed)
        if key not in self._shared:
            self._shared[key] = Donors.of_call(self, seed)
        return self._shared[key]


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
    if isinstance(intervention, Intervention):
        return on_rows(intervention, rows)

    def build(context: Context) -> list[Intervention]:
        return [on_rows(part, rows) for part in intervention.plan(context.select(rows))]

    return replace(intervention, build=build)


def with_donors(intervention: Intervention | Planned, donors: Donors) -> Intervention | Planned:
    """The same intervention, with donors where it names none itself.

    Whatever runs a corpus in batches gives its donors so, that they do not depend on batching.

    Fixed hooks need none and are returned as they are.
    """
    if isinstance(intervention, Intervention):
        return intervention

    def build(context: Context) -> list[Intervention]:
        return intervention.plan(replace(context, default_donors=donors))

    details = f"{intervention.details} {donors.identity}"
    return replace(intervention, build=build, details=details)


def plan_all(
    interventions: Sequence[Intervention | Planned], context: Context
) -> list[Intervention]:
    """Fixed interventions for a batch, in the given order.

    Raises:
        InterventionError, PositionError: one that does not fit the model or the problems.
    """
    planned: list[Intervention] = []
    for intervention in interventions:
        if isinstance(intervention, Planned):
            planned += intervention.plan(context)
        else:
            planned.append(intervention)
    for intervention in planned:
        resolve(intervention.at, context.n_thoughts)
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
