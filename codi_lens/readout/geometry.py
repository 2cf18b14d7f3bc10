"""Where thoughts lie: how long they are, how alike, and the way they take from the first on.

Thoughts are fed in the place of token embeddings, so their norms stand beside those of tokens.
Cosines say whether a thought still depends on the problem: where those of all problems point the
same way, thoughts have collapsed, and what differs between problems is little. All of it is about
thoughts as they are fed, after the projection.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from codi_lens.errors import ProblemError
from codi_lens.model import CodiModel
from codi_lens.positions import thought_names
from codi_lens.problems.problem import Problem, Problems, check_problems
from codi_lens.problems.words import WordProblem
from codi_lens.readout.batches import itself, read_batches
from codi_lens.stats import mean_interval
from codi_lens.thinking.given import problems_for
from codi_lens.thinking.ways import check_thoughts

TOKENS = "token embeddings"
"""What the tables call the vectors that thoughts are compared with."""


@dataclass(frozen=True, eq=False)
class ThoughtGeometry:
    """Tables of `thought_geometry`.

    Attributes:
        norms: one row per thought and one of the token embeddings (`of`): `mean`, `low`, `median`
            and `high` (5 and 95 % of problems or tokens), `n`.
        cosines: `kind` "successive" (`of` "ct0 to ct1": of one problem) or "between problems" (`of`
            a thought, or the token embeddings, between tokens): `mean` and its bootstrap interval
            `low`, `high` over problems (none for tokens); `dimensions`, how many directions the
            vectors of different problems spread over: (Σλ)² / Σλ² of their covariance; `n`.
        trajectories: one row per problem and thought: `problem`, `thought`, `pc1`, `pc2`, `total`
            (of ct{i} that after operation i + 1; NaN where there is none), `answer`.
        explained: the shares of the variance that `pc1` and `pc2` explain.
    """

    norms: pd.DataFrame
    cosines: pd.DataFrame
    trajectories: pd.DataFrame
    explained: tuple[float, float]


def thought_geometry(
    model: CodiModel,
    problems: Problems,
    *,
    level: float = 0.95,
    n_resamples: int = 1000,
    seed: int = 0,
    batch_size: int = 16,
    progress: bool = True,
) -> ThoughtGeometry:
    """Norms, cosines and principal components of the thoughts of some problems.

    Args:
        model: the model.
        problems: at least two.
        level: of the intervals of cosines.
        n_resamples: bootstrap resamples of problems.
        seed: of the bootstrap.
        batch_size: problems of median length per forward pass.
        progress: show a progress bar.

    Raises:
        ProblemError: fewer than two problems, or a model without thoughts.

    >>> from codi_lens.problems import word_problems
    >>> model = CodiModel.from_pretrained("checkpoints/tiny-gpt2")
    >>> found = thought_geometry(model, word_problems(8), progress=False)
    >>> found.norms["of"].tolist()[-2:], found.cosines["kind"].unique().tolist()
    (['ct5', 'token embeddings'], ['successive', 'between problems'])
    """
    check_thoughts(model, "thought_geometry")
    problems = problems_for(model, problems, "measure")
    check_problems(problems, "measure", batch_size=batch_size)
    names = thought_names(model.config.n_thoughts)
    if len(problems) < 2 or not names:
        raise ProblemError("The geometry of thoughts takes two problems or more, and thoughts.")
    thoughts = np.zeros((len(problems), len(names), model.lens.cfg.d_model))
    for batch, run in read_batches(
        itself,
        model,
        problems,
        None,
        "thinking",
        batch_size=batch_size,
        max_new_tokens=1,
        progress=progress,
    ):
        thoughts[batch] = run.thoughts.detach().double().cpu().numpy()
    n_tokens = model.config.n_tokens or model.lens.cfg.d_vocab
    tokens = model.lens.W_E[:n_tokens].detach().double().cpu().numpy()
    vectors = {name: thoughts[:, i] for i, name in enumerate(names)} | {TOKENS: tokens}
    drawn: dict[str, Any] = {"level": level, "n_resamples": n_resamples, "seed": seed}
    places, explained = _components(thoughts)
    return ThoughtGeometry(
        norms=pd.DataFrame([_norms(name, some) for name, some in vectors.items()]),
        cosines=pd.DataFrame(
            [_successive(names, i, thoughts, drawn) for i in range(len(names) - 1)]
            + [_between(name, some, drawn) for name, some in vectors.items()]
        ),
        trajectories=_trajectories(problems, names, places),
        explained=explained,
    )


def _norms(name: str, vectors: Float[np.ndarray, "row d_model"]) -> dict[str, Any]:
    norms = np.linalg.norm(vectors, axis=1)
    low, median, high = np.quantile(norms, [0.05, 0.5, 0.95])
    found = {"of": name, "mean": norms.mean(), "low": low, "median": median, "high": high}
    return found | {"n": len(norms)}


def _successive(
    names: Sequence[str],
    place: int,
    thoughts: Float[np.ndarray, "problem thought d_model"],
    drawn: dict[str, Any],
) -> dict[str, Any]:
    """How alike a thought and the next one of the same problem are."""
    first, second = (_unit(thoughts[:, i]) for i in (place, place + 1))
    row: dict[str, Any] = {"kind": "successive", "of": f"{names[place]} to {names[place + 1]}"}
    mean, low, high = mean_interval((first * second).sum(axis=1), **drawn)
    row |= {"mean": float(mean), "low": float(low), "high": float(high)}
    return row | {"dimensions": np.nan, "n": len(first)}


def _between(
    name: str, vectors: Float[np.ndarray, "row d_model"], drawn: dict[str, Any]
) -> dict[str, Any]:
    """How alike the vectors of different problems, or of different tokens, are."""
    unit, n = _unit(vectors), len(vectors)
    # The mean cosine of each with the others, without a matrix of all pairs.
    own = (unit * unit).sum(axis=1)
    cosines = (unit @ unit.sum(axis=0) - own) / (n - 1)
    mean, low, high = mean_interval(cosines, **drawn) if name != TOKENS else (cosines.mean(),) * 3
    row: dict[str, Any] = {"kind": "between problems", "of": name, "mean": float(mean)}
    row |= {"low": float(low), "high": float(high)} if name != TOKENS else _UNKNOWN
    centred = vectors - vectors.mean(axis=0)
    spread = np.linalg.eigvalsh(centred.T @ centred)
    squares = float((spread**2).sum())
    return row | {"dimensions": spread.sum() ** 2 / squares if squares else 0.0, "n": n}


_UNKNOWN = {"low": np.nan, "high": np.nan}


def _unit(vectors: Float[np.ndarray, "row d_model"]) -> Float[np.ndarray, "row d_model"]:
    """Vectors of length 1; one of length 0, such as the row of an unused token, stays 0."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(norms > 0, norms, 1)


def _components(
    thoughts: Float[np.ndarray, "problem thought d_model"],
) -> tuple[Float[np.ndarray, "problem thought 2"], tuple[float, float]]:
    """Two principal components of all thoughts of all problems, and the variance they explain."""
    flat = thoughts.reshape(-1, thoughts.shape[-1])
    flat = flat - flat.mean(axis=0)
    _, sizes, axes = np.linalg.svd(flat, full_matrices=False)
    axes, shares = axes[:2], sizes**2 / max(float((sizes**2).sum()), 1e-300)
    # A component's sign is arbitrary; its largest entry is made positive, so that it is the same.
    axes = axes * np.sign(axes[np.arange(2), np.abs(axes).argmax(axis=1)])[:, None]
    return (flat @ axes.T).reshape(*thoughts.shape[:2], 2), (float(shares[0]), float(shares[1]))


def _trajectories(
    problems: Sequence[Problem],
    names: Sequence[str],
    places: Float[np.ndarray, "problem thought 2"],
) -> pd.DataFrame:
    rows: list[dict[str, Any]] = []
    for problem, own in zip(problems, places, strict=True):
        totals = problem.totals if isinstance(problem, WordProblem) else ()
        for i, (name, (pc1, pc2)) in enumerate(zip(names, own, strict=True)):
            row = {"problem": problem.id, "thought": name, "pc1": float(pc1), "pc2": float(pc2)}
            total = float(totals[i]) if i < len(totals) else np.nan
            known = problem.answer
            answer = np.nan if known is None or isinstance(known, str) else float(known)
            rows.append(row | {"total": total, "answer": answer})
    return pd.DataFrame(rows)
