"""Interventions on thoughts, where they enter the model: at `hook_embed`, before positions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from codi_lens.errors import (
    InterventionError,
    PositionError,
    check_choice,
    check_seed,
    finite_number,
    listed,
    whole_number,
)
from codi_lens.head_names import all_heads
from codi_lens.interventions.donors import Donors
from codi_lens.interventions.edges import columns, edge_hooks
from codi_lens.interventions.replacements import Mode, replaced, source_details
from codi_lens.positions import (
    Scope,
    first_position,
    rank,
    resolve,
    scope_name,
    thought_names,
)
from codi_lens.stats import seeded
from codi_lens.thinking.given import Vectors, as_tensor
from codi_lens.thinking.hooks import Intervention
from codi_lens.thinking.plan import Context, Planned, digest

ThoughtMode = Literal[Mode, "noise"]
"""What replaces a thought; noise is a random direction at the norm of the thought."""
_ENTRY = "hook_embed"


def patch_thoughts(
    which: Scope = "thoughts",
    mode: ThoughtMode = "resample",
    donors: Donors | None = None,
    seed: int = 0,
) -> Planned:
    """Replace thoughts as they are fed: by a donor's, the mean thought, zero, or noise.

    Noise is a Gaussian direction at the norm of the thought that it replaces.

    Args:
        which: thoughts, by name: "thoughts", "ct2", ["ct1", "ct3"].
        mode: "resample", "mean", "zero" or "noise".
        donors: whose thoughts; by default the other problems of the call, run clean first, or
            built-in ones (see `ablate_heads`).
        seed: of the noise, and of draws among the problems of the call.

    Raises:
        InterventionError: an unknown mode, or (in `think`) no donor.
        PositionError: not a thought of this model.

    >>> patch_thoughts("ct0", "mean").name
    'ct0 mean'
    """
    check_choice("mode of thoughts", mode, ThoughtMode)

    def build(context: Context) -> list[Intervention]:
        names = thoughts_of(which, context.n_thoughts)
        if mode == "noise":
            return [_noise(context, name, seed) for name in names]
        return replaced(context, _ENTRY, names, mode, donors, seed)

    source = source_details("zero" if mode == "noise" else mode, donors, seed)
    details = f"seed {seed}" if mode == "noise" else source
    return Planned(f"{scope_name(which)} {mode}", first_position(which), build, details)


def swap_thoughts(
    which: Scope, source: Donors | Vectors, seed: int = 0, name: str = "swap"
) -> Planned:
    """Feed the thoughts of other problems, or given vectors.

    Args:
        which: thoughts, by name.
        source: `Donors`, whose draw (or `paired`) says which problem gives to which; or vectors
            [problem, thought, d_model], for the named thoughts in order or for all thoughts.
        seed: of draws.
        name: what tables call it.

    Raises:
        InterventionError: no donor, or vectors of the wrong shape.
        PositionError: not a thought of this model.

    >>> swap_thoughts(["ct2", "ct4"], torch.zeros(1, 2, 96)).name
    'ct2+ct4 swap'
    """
    check_seed(seed)
    if not isinstance(source, Donors):
        source = as_tensor("The source (Donors, or vectors)", source, InterventionError)

    def build(context: Context) -> list[Intervention]:
        names = thoughts_of(which, context.n_thoughts)
        if isinstance(source, Donors):
            return replaced(context, _ENTRY, names, "resample", source, seed)
        return _given(context, names, source)

    details = source.identity if isinstance(source, Donors) else digest(source)
    return Planned(f"{scope_name(which)} {name}", first_position(which), build, details)


def reorder_thoughts(order: Sequence[str]) -> Planned:
    """Feed the thoughts of the problem's own clean run in another order.

    Args:
        order: all thoughts by name; the first is fed in the place of `ct0`. A thought that keeps
            its place is fed as in the clean run.

    Raises:
        PositionError: not each thought of the model once.

    >>> reorder_thoughts(["ct1", "ct0", "ct2"]).first
    'ct0'
    """
    order = listed("reorder_thoughts", order, "thoughts by name", PositionError)
    scope_name(order)
    moved = (f"ct{i}" for i, name in enumerate(order) if name != f"ct{i}")
    first = next(moved, "ct0")

    def build(context: Context) -> list[Intervention]:
        names = tuple(thoughts_of("thoughts", context.n_thoughts))
        if sorted(order, key=rank) != list(names):
            raise PositionError(
                f"reorder_thoughts was given {', '.join(order)}; give each of {', '.join(names)} "
                "once."
            )
        clean = context.clean_thoughts()[:, [names.index(n) for n in order]]
        return _given(context, list(names[names.index(first) :]), clean)

    # Every thought from the first moved one on is given: later ones would follow the moved ones.
    return Planned(f"order {' '.join(order)}", first, build)


def steer_thoughts(
    direction: Float[Tensor, " d_model"] | Vectors,
    scale: float | int = 1.0,
    which: Scope = "thoughts",
) -> Planned:
    """Add a direction to thoughts as they are fed.

    Args:
        direction: added as it is, not normalised.
        scale: how many times.
        which: thoughts, by name.

    Raises:
        InterventionError: a direction of another size than d_model.
        PositionError: not a thought of this model.

    >>> steer_thoughts(torch.ones(96), 2.0, "ct1").name
    'ct1 steered x 2'
    """
    direction = as_tensor("The direction", direction, InterventionError)
    scale = finite_number("scale", scale)

    def build(context: Context) -> list[Intervention]:
        names = thoughts_of(which, context.n_thoughts)
        if tuple(direction.shape) != (context.lens.cfg.d_model,):
            size = direction.shape[0] if direction.ndim == 1 else tuple(direction.shape)
            raise InterventionError(
                f"The direction has size {size}; d_model is {context.lens.cfg.d_model}."
            )

        def steer(embed: Tensor, hook: object) -> Tensor:
            return embed + scale * direction.to(embed)

        return [Intervention([(_ENTRY, steer)], names)]

    name = f"{scope_name(which)} steered x {scale:g}"
    return Planned(name, first_position(which), build, digest(direction))


def truncate_thoughts(k: int) -> Planned:
    """End thinking after the first k thoughts: `eot` follows `ct{k-1}`.

    The later thoughts are masked and take up no position, which equals a model that thinks k
    thoughts. That nothing after them attends to them is checked in every layer.

    Args:
        k: how many thoughts remain, from 0.

    Raises:
        PositionError: more thoughts than the model thinks, or fewer than 0.

    >>> truncate_thoughts(2).name
    'first 2 thoughts'
    """
    k = whole_number("The number of thoughts that remain", k, -(2**63), error=PositionError)

    def build(context: Context) -> list[Intervention]:
        n = context.n_thoughts
        if not 0 <= k <= n:
            raise PositionError(f"The model thinks {n} thoughts; truncate to 0..{n}, not {k}.")
        gone = frozenset(thought_names(n)[k:])

        def check(pattern: Tensor, chosen: list[int]) -> None:
            if pattern[..., columns(context, pattern, gone)].any():
                raise InterventionError(f"A position after {k} thoughts attends to a later one.")

        hooks = edge_hooks("hook_pattern", all_heads(context.lens.cfg), check)
        return [Intervention(hooks, "eot", keeps=k)]

    # From `ct{k}` on nothing that counts is thought; `eot` is the first position that differs.
    return Planned(f"first {k} thoughts", "eot", build)


def thoughts_of(which: Scope, n_thoughts: int) -> list[str]:
    """The thoughts that a scope names, in their order.

    Raises:
        PositionError: a name that no position has, or one that is not of a thought.

    >>> thoughts_of(["ct2", "ct0"], 6)
    ['ct0', 'ct2']
    """
    names = sorted(resolve(which, n_thoughts), key=rank)
    others = [name for name in names if name not in thought_names(n_thoughts)]
    if others:
        raise PositionError(
            f"{others[0]!r} is not a thought; give names from ct0 on, up to ct{n_thoughts - 1}, "
            "or 'thoughts' for all."
        )
    return names


def _given(context: Context, names: list[str], vectors: Tensor) -> list[Intervention]:
    """Feed given vectors [problem, thought, d_model] as the named thoughts."""
    every = thought_names(context.n_thoughts)
    problems, d_model = len(context.prompts), context.lens.cfg.d_model
    if vectors.shape == (problems, len(every), d_model):
        vectors = vectors[:, [every.index(name) for name in names]]
    if vectors.shape != (problems, len(names), d_model):
        raise InterventionError(
            f"The vectors have shape {tuple(vectors.shape)}; expected [problem, thought, d_model] "
            f"= {(problems, len(names), d_model)}."
        )

    def feed(i: int) -> Intervention:
        vector = vectors[:, i : i + 1]
        return Intervention([(_ENTRY, lambda embed, hook: vector.to(embed))], names[i])

    return [feed(i) for i in range(len(names))]


def _noise(context: Context, name: str, seed: int) -> Intervention:
    drawn = [
        torch.randn(
            context.lens.cfg.d_model,
            generator=torch.Generator().manual_seed(seeded(seed, "noise", name, problem)),
        )
        for problem in context.ids
    ]
    directions = torch.stack([vector / vector.norm() for vector in drawn])[:, None]

    def replace(embed: Tensor, hook: object) -> Tensor:
        return directions.to(embed) * embed.norm(dim=-1, keepdim=True)

    return Intervention([(_ENTRY, replace)], name)
