"""Scores of all heads over many problems, in one vectorised pass whose memory is bounded.

Attention is read some problems at a time, so that it may be larger than memory. In the position
view every score is taken per problem and averaged; in the generation view, as in the study, it is
taken on the mean matrix. `HeadScores.reweighted` gives the scores under any weights of the
problems, which is all that the bootstrap, disjoint halves and subsamples need.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from einops import einsum, rearrange
from jaxtyping import Float, Int

from codi_lens import metrics
from codi_lens.attention.labels import heads_in, labelled, model_layers
from codi_lens.attention.views import View, select_view
from codi_lens.errors import AttentionError
from codi_lens.head_names import Head, head_name

STUDY_SCORES: dict[str, Callable[..., Any]] = {
    "flow": metrics.flow_score,
    "hub": metrics.hub_score,
    "skip": metrics.skip_score,
}
POSITION_SCORES: dict[str, Callable[..., Any]] = {
    "flow": metrics.flow_score,
    "hub": metrics.hub_excess_score,
    "skip": metrics.skip_excess_score,
    "sequential": metrics.sequential_score,
    "sequential_excess": metrics.sequential_excess_score,
    "self": metrics.self_score,
}

CHUNK_BYTES = 4_000_000
"""Attention handled at once, as float64. Larger than a processor's cache is slower, not faster."""
_MEANS_BYTES = 24_000_000
"""Resampled means held at once: each further part is one more time through the problems."""


@dataclass(frozen=True, eq=False)
class HeadScores:
    """The scores of every head in one view; heads stand layer by layer, ascending.

    Attributes:
        view: "position" or "generation".
        heads: the heads that were scored, by their labels; a selection has those it holds.
        n_layers: of the model (`labels.model_layers`).
        n_problems: how many problems were averaged.
        names: the labels of the queries and keys of the view.
        mean: the mean matrix over problems.
        values: each score, `composite` last.
        constant: the scores that are equal for all heads.
    """

    view: View
    heads: list[Head]
    n_layers: int
    n_problems: int
    names: dict[str, list[str]]
    mean: Float[np.ndarray, "head query key"]
    values: dict[str, Float[np.ndarray, " head"]]
    constant: list[str]
    _attention: xr.DataArray | None
    _per_problem: dict[str, Float[np.ndarray, "problem head"]]

    @classmethod
    def of(cls, attention: xr.DataArray, view: View = "position") -> HeadScores:
        """Score labelled attention [problem, layer, head, query, key], in memory or on disk.

        Raises:
            AttentionError: not labelled attention, no problems, or NaN in it.
        """
        attention = labelled(attention)
        selected = _selected(attention, view)
        n_problems, _, _, *square = selected.shape
        heads = heads_in(selected)
        total = np.zeros((len(heads), *square))
        per_problem: dict[str, np.ndarray] = {}
        if view == "position":
            shape = (n_problems, len(heads))
            per_problem = {name: np.empty(shape) for name in POSITION_SCORES}
        for some, blocks in problem_blocks(attention, view):
            total += blocks.sum(axis=0)
            if view == "position":
                for name, values in position_scores(blocks).items():
                    per_problem[name][some] = values
        mean = (total / n_problems).reshape(selected.shape[1:])
        return cls._from(selected[0].copy(data=mean), view, per_problem, n_problems, attention)

    @classmethod
    def of_scores(cls, scores: xr.Dataset, view: View = "position") -> HeadScores:
        """What `extract_scores` gave, in place of the attention.

        Raises:
            AttentionError: not such scores.
        """
        if missing := [name for name in ("mean", *POSITION_SCORES) if name not in scores]:
            raise AttentionError(
                f"These are no scores of extract_scores, since they lack {missing[0]}; give those, "
                "or attention."
            )
        selected = select_view(scores["mean"], view)
        order = {dim: selected[dim] for dim in ("layer", "head")}
        per_problem = {
            name: rearrange(
                scores[name].sel(order).transpose("problem", "layer", "head").values.astype(float),
                "problem layer head -> problem (layer head)",
            )
            for name in POSITION_SCORES
        }
        n_problems = scores.sizes["problem"]
        return cls._from(selected, view, per_problem, n_problems, None)

    @classmethod
    def _from(
        cls,
        selected: xr.DataArray,
        view: View,
        per_problem: dict[str, np.ndarray],
        n_problems: int,
        attention: xr.DataArray | None,
    ) -> HeadScores:
        mean = rearrange(selected.values, "layer head q k -> (layer head) q k")
        if view == "position":
            values = {name: each.mean(axis=0) for name, each in per_problem.items()}
        else:
            values = {name: function(mean) for name, function in STUDY_SCORES.items()}
        constant = [name for name, each in values.items() if metrics.is_constant(each)]
        values["composite"] = _composite(values, constant if view == "position" else [])
        names = {dim: [str(name) for name in selected[dim].values] for dim in ("query", "key")}
        layers = model_layers(selected if attention is None else attention)
        known = (mean, values, constant, attention, per_problem)
        return cls(view, heads_in(selected), layers, n_problems, names, *known)

    @property
    def can_resample(self) -> bool:
        """Whether there are intervals: of several problems, and in the generation view of all."""
        return self.n_problems > 1 and (self.view == "position" or self._attention is not None)

    @property
    def head_names(self) -> list[str]:
        """`L0H0`, `L0H1`, …, in the order of every array here."""
        return [head_name(head) for head in self.heads]

    def reweighted(
        self, weights: Float[np.ndarray, "resample problem"]
    ) -> dict[str, Float[np.ndarray, "resample head"]]:
        """Every score as it would be if the problems had these weights (each row sums to 1).

        The composite leaves out the same scores as `values["composite"]` does.
        """
        if self.view == "position":
            samples = {name: weights @ values for name, values in self._per_problem.items()}
        else:
            parts = [
                {name: function(means) for name, function in STUDY_SCORES.items()}
                for _, means in self._means(weights)
            ]
            samples = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        leave_out = self.constant if self.view == "position" else []
        samples["composite"] = _composite(samples, leave_out)
        return samples

    def hub_positions(
        self, mean: Float[np.ndarray, "*resample head query key"]
    ) -> Int[np.ndarray, "*resample head"]:
        """The key that gets most, in the generation view; most for its place, in the position view.

        There always is one: it is not thereby a hub.
        """
        if self.view == "generation":
            return np.asarray(metrics.hub_position(mean))
        return np.asarray(metrics.hub_excess(mean)).argmax(-1)

    def hub_position_shares(
        self, weights: Float[np.ndarray, "resample problem"]
    ) -> Float[np.ndarray, " head"]:
        """In what share of the resamples each head's hub position is the same.

        NaN where the attention was not kept.
        """
        own, same = self.hub_positions(self.mean), np.zeros(len(self.mean))
        if self._attention is None:
            return np.full(len(own), np.nan)
        size = max(1, CHUNK_BYTES // (8 * self.mean.size))
        for n, means in self._means(weights):
            for start in range(0, n, size):
                same += (self.hub_positions(means[start : start + size]) == own).sum(axis=0)
        return same / len(weights)

    def _means(
        self, weights: Float[np.ndarray, "resample problem"]
    ) -> Iterator[tuple[int, Float[np.ndarray, "resample head query key"]]]:
        """`mean_under` of as many resamples as memory takes, each time through all problems."""
        size = max(1, _MEANS_BYTES // (8 * self.mean.size))
        for start in range(0, len(weights), size):
            some = weights[start : start + size]
            yield len(some), self.mean_under(some)

    def mean_under(
        self, weights: Float[np.ndarray, "resample problem"]
    ) -> Float[np.ndarray, "resample head query key"]:
        """The mean matrix as it would be if the problems had these weights."""
        assert self._attention is not None
        means = np.zeros((len(weights), self.mean.size))
        for some, blocks in problem_blocks(self._attention, self.view):
            means += weights[:, some] @ rearrange(blocks, "problem h q k -> problem (h q k)")
        return means.reshape(len(weights), *self.mean.shape)


def score_problems(attention: xr.DataArray) -> xr.Dataset:
    """Every position-view score of every head on every problem: (problem, layer, head).

    Layers and heads ascend, whatever order they were selected in.

    Raises:
        AttentionError: not labelled attention, no problems, or NaN in it.
    """
    attention = labelled(attention)
    scores = HeadScores.of(attention, "position")
    split, n_layers = "problem (layer head) -> problem layer head", attention.sizes["layer"]
    dims = ("problem", "layer", "head")
    return xr.Dataset(
        {
            name: (dims, rearrange(values, split, layer=n_layers))
            for name, values in scores._per_problem.items()
        },
        coords={dim: attention[dim] for dim in dims if dim in attention.coords},
    )


def position_scores(
    blocks: Float[np.ndarray, "*batch query key"],
) -> dict[str, Float[np.ndarray, "*batch"]]:
    """`POSITION_SCORES` of many patterns at once, by one matrix product.

    All but two of the scores are linear in the pattern, so that their values on the unit patterns
    (one cell 1, all others 0) are the weights of a single product; flow is a quotient of linear
    scores, and hub the variance of the hub excess, whose mean is 0.
    """
    n = blocks.shape[-1]
    units = np.eye(n * n).reshape(n * n, n, n)
    linear = [name for name in POSITION_SCORES if name not in ("flow", "hub")]
    weights = [np.asarray(POSITION_SCORES[name](units))[:, None] for name in linear]
    weights += [np.asarray(metrics.attention_to_earlier(units)).sum(axis=-1, keepdims=True)]
    weights += [np.asarray(metrics.hub_excess(units))]
    flat = rearrange(blocks, "... query key -> ... (query key)") @ np.concatenate(weights, axis=-1)
    scores = {name: flat[..., place] for place, name in enumerate(linear)}
    earlier, excess = flat[..., len(linear)], flat[..., len(linear) + 1 :]
    visible = earlier + n * scores["self"]
    scores["flow"] = earlier / (visible + (visible == 0))
    scores["hub"] = einsum(excess, excess, "... key, ... key -> ...") / n
    return {name: scores[name] for name in POSITION_SCORES}


def problem_blocks(
    attention: xr.DataArray, view: View
) -> Iterator[tuple[slice, Float[np.ndarray, "problem head query key"]]]:
    """The thought blocks of all heads, some problems at a time, as float64.

    Raises:
        AttentionError: not labelled attention, no problems, or NaN in it.
    """
    selected = _selected(attention, view)
    n_problems = selected.sizes["problem"]
    size = max(1, CHUNK_BYTES // max(1, 8 * selected[0].size))
    for start in range(0, n_problems, size):
        some = slice(start, min(start + size, n_problems))
        values = np.asarray(selected[some].values, dtype=np.float64)
        if np.isnan(values.min()):  # the least number is NaN if any is
            first = np.isnan(values).any(axis=(1, 2, 3, 4)).argmax()
            bad = selected["problem"].values[some][first]
            raise AttentionError(
                f"The attention of problem {bad} holds NaN; extract it again before ranking heads."
            )
        yield some, rearrange(values, "problem layer head q k -> problem (layer head) q k")


def _selected(attention: xr.DataArray, view: View) -> xr.DataArray:
    selected = select_view(attention, view)
    if "problem" not in selected.dims:
        raise AttentionError("Attention needs a problem dimension; average only afterwards.")
    if selected.sizes["problem"] == 0:
        raise AttentionError("Attention holds no problem, so heads cannot be ranked.")
    dims = ("problem", "layer", "head", "query", "key")
    further = [str(dim) for dim in selected.dims if dim not in dims]
    if further:
        raise AttentionError(
            f"Attention has the dimensions {', '.join(dims)}; select one of {further[0]} first."
        )
    return selected.transpose(*dims)


def _composite(scores: dict[str, Any], leave_out: Collection[str]) -> Any:
    return metrics.composite_score(
        scores["flow"], scores["hub"], scores["skip"], leave_out=leave_out, by_row=True
    )
