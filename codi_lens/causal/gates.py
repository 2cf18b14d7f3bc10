"""What attributions open from 0, where the run is clean, to 1, where something is taken away."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, Protocol, runtime_checkable

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from codi_lens.interventions.donors import Donors
from codi_lens.interventions.edges import Pattern, columns
from codi_lens.interventions.replacements import Mode, replacements
from codi_lens.loading.loaded import Lens
from codi_lens.positions import rank, thought_names
from codi_lens.thinking.hooks import Intervention
from codi_lens.thinking.plan import Context

Opened = Float[Tensor, "row position hook unit"]


@runtime_checkable
class Gates(Protocol):
    """Units of these hooks, each with a gate at every position."""

    @property
    def hook_names(self) -> Sequence[str]:
        """Where the gates are."""
        ...

    @property
    def identity(self) -> list[object]:
        """What decides on the results, for resuming."""
        ...

    def n_units(self, lens: Lens) -> int:
        """Gates at each hook and position."""
        ...

    def interventions(
        self, context: Context, positions: Sequence[str], gates: Opened
    ) -> list[Intervention]:
        """What a run goes through with the gates so far open; differentiable in them."""
        ...


@dataclass(frozen=True, eq=False)
class Replacing:
    """Activations move towards what an intervention puts in: one gate per head or thought."""

    hook_names: Sequence[str]
    mode: Mode
    donors: Donors | None
    seed: int

    @property
    def identity(self) -> list[object]:
        """Hooks, mode, donors and seed."""
        donors = "" if self.donors is None else self.donors.identity
        return [list(self.hook_names), self.mode, donors, self.seed]

    def n_units(self, lens: Lens) -> int:
        """One for a thought, one for each head otherwise."""
        return 1 if self.hook_names == ["hook_embed"] else lens.cfg.n_heads

    def interventions(
        self, context: Context, positions: Sequence[str], gates: Opened
    ) -> list[Intervention]:
        """Each activation x becomes x + gate (replacement - x)."""
        edits = replacements(context, self.hook_names, positions, self.mode, self.donors, self.seed)
        places = {
            (hook_name, position): gates[:, i, j]
            for i, position in enumerate(positions)
            for j, hook_name in enumerate(self.hook_names)
        }
        return [
            Intervention([(hook_name, partial(_mix, replace=put, gate=gate))], position)
            for (hook_name, position), gate in places.items()
            for put in [edits[hook_name, position]]
        ]


@dataclass(frozen=True, eq=False)
class Weakening:
    """Attention to each earlier thought shrinks: one gate per head and thought attended to.

    Attributes:
        n_layers: of the model.
        n_thoughts: of its runs.
        goes: where the weight of a key goes, in proportion to what is there: to all "other" keys,
            as where this edge alone is knocked out; to the "rest", which is no earlier thought, so
            that all gates together come to cutting every edge; or "nowhere".
    """

    n_layers: int
    n_thoughts: int
    goes: Literal["other", "rest", "nowhere"]

    @property
    def hook_names(self) -> list[str]:
        """The pattern of every layer."""
        return [f"blocks.{layer}.attn.hook_pattern" for layer in range(self.n_layers)]

    @property
    def identity(self) -> list[object]:
        """Where the weight goes."""
        return ["edges", self.goes]

    def n_units(self, lens: Lens) -> int:
        """Heads times thoughts."""
        return lens.cfg.n_heads * self.n_thoughts

    def interventions(
        self, context: Context, positions: Sequence[str], gates: Opened
    ) -> list[Intervention]:
        """The share `gate` of each weight goes; no query loses itself."""
        found: list[Intervention] = []
        for i, position in enumerate(positions):
            keys = [key for key in thought_names(self.n_thoughts) if rank(key) < rank(position)]
            wide = rearrange(gates[:, i], "row hook (h key) -> row h key hook", key=self.n_thoughts)
            hooks = [
                (hook_name, partial(self._weaken, context, keys, wide[..., : len(keys), j]))
                for j, hook_name in enumerate(self.hook_names)
            ]
            found.append(Intervention(hooks, position))
        return found

    def _weaken(
        self,
        context: Context,
        keys: Sequence[str],
        gates: Float[Tensor, "row head thought"],
        pattern: Pattern,
        hook: object,
    ) -> Pattern:
        seen = [columns(context, pattern, frozenset([key])) for key in keys]
        rest = pattern.masked_fill(torch.stack(seen).any(dim=0), 0)
        moved = torch.zeros_like(pattern)
        for place, here in enumerate(seen):
            lost = (gates[:, :, place, None, None] * pattern).masked_fill(~here, 0)
            moved = moved - lost
            if self.goes != "nowhere":
                goes = rest if self.goes == "rest" else pattern.masked_fill(here, 0)
                total = goes.sum(dim=-1, keepdim=True)
                shares = goes / total.clamp_min(torch.finfo(total.dtype).tiny)
                moved = moved + lost.sum(dim=-1, keepdim=True) * shares
        return pattern + moved


def _mix(
    activation: Tensor,
    hook: object,
    replace: Callable[[Tensor], Tensor],
    gate: Float[Tensor, "row unit"],
) -> Tensor:
    wide = rearrange(gate, "row unit -> row 1 unit")
    if activation.ndim == 4:
        wide = rearrange(wide, "row 1 unit -> row 1 unit 1")
    return activation + wide * (replace(activation).to(activation) - activation)
