"""The hidden states of a run at its named positions, and the distribution that the lens reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from codi_lens.loading.loaded import Loaded
from codi_lens.positions import Scope, is_step, rank, resolve
from codi_lens.thinking.run import ThoughtRun

AT_ONCE = 2**24
"""Logits held at once: 64 MB in float32, and about three times that with their softmax."""


def position_labels(run: ThoughtRun, at: Scope, problem: int, width: int) -> dict[str, int]:
    """The labels of a problem's positions in a scope, and their columns in `run.cache()`.

    Tokens of the question and of the answer are labelled one by one, "question 0" being the first
    token; `eot` is the last token that closes thinking; `anchor` is left out where the answer holds
    no number, and answer tokens that were never fed. A written run has `step0` …, the last token
    of each result, too; all of them are "steps".

    Args:
        run: the run.
        at: names of positions or scopes, "anchor" among them or not.
        problem: its row in the batch.
        width: how many columns the cache has.

    Raises:
        PositionError: a name that no position has.
    """
    layout = run.layout
    names = [at] if isinstance(at, str) else list(at)
    late = ["anchor"]
    if layout.written:
        late += ["steps", *filter(is_step, names)]
    others = [name for name in names if name not in late]
    chosen = resolve(others, layout.n_thoughts, written=layout.written) if others else frozenset()
    labels: dict[str, int] = {}
    for name in sorted(chosen, key=rank):
        span = layout.span(name)[problem]
        if name in ("question", "answer"):
            labels |= {f"{name} {i}": span.start + i for i in range(span.stop - span.start)}
        else:
            labels[name] = span.stop - 1
    for i, (_, stop) in enumerate(layout.steps[problem] if layout.written else ()):
        if not {f"step{i}", "steps", "all"}.isdisjoint(names):
            labels[f"step{i}"] = layout.eot + stop
    anchors = layout.anchors
    if ("anchor" in names or "all" in names) and anchors and anchors[problem] is not None:
        labels["anchor"] = layout.eot + int(anchors[problem] or 0)
    return {label: column for label, column in labels.items() if column < width}


def label_rank(label: str) -> tuple[int, int]:
    """Sorts labels in the order of a run, `anchor` last."""
    kinds = {"question": 0, "bot": 1, "eot": 3, "answer": 4, "anchor": 6}
    kind, _, number = label.partition(" ")
    for start, place in (("ct", 2), ("step", 5)):
        if kind.startswith(start):
            return place, int(kind.removeprefix(start))
    return kinds[kind], int(number or 0)


@dataclass(frozen=True)
class Reading:
    """What the lens reads from a few vectors.

    Attributes:
        tokens: ids of the likeliest tokens.
        probabilities: of these.
        entropy: of the whole distribution, in nats.
        log_probs: of each target: the summed probability of the ways to write it.
        ranks: of each target's likeliest way, 1 for the likeliest token.
    """

    tokens: Int[Tensor, "row k"]
    probabilities: Float[Tensor, "row k"]
    entropy: Float[Tensor, " row"]
    log_probs: Float[Tensor, "row target"]
    ranks: Int[Tensor, "row target"]


@torch.no_grad()
def read(
    model: Loaded,
    vectors: Float[Tensor, "row d_model"],
    k: int,
    targets: Sequence[Sequence[Sequence[int]]],
) -> Reading:
    """Final norm, unembedding, softmax: of residual-stream vectors, a few rows at a time.

    Args:
        model: whose norm and unembedding.
        vectors: residual stream, before the final norm.
        k: how many of the likeliest tokens.
        targets: for each row, for each target, the token ids that write it; none for unknown.
    """
    lens = model.lens
    at_once = max(1, AT_ONCE // lens.cfg.d_vocab_out)
    n_targets = len(targets[0]) if targets else 0
    parts: list[tuple[Tensor, ...]] = []
    for start in range(0, max(1, len(vectors)), at_once):  # of no vectors, nothing in its shape
        some = vectors[start : start + at_once]
        logits = lens.unembed(lens.ln_final(some[None]))[0].float()
        log_probs = logits.log_softmax(dim=-1)
        top = log_probs.topk(k, dim=-1)
        probabilities = log_probs.exp()
        entropy = -(probabilities * log_probs.nan_to_num(neginf=0.0)).sum(dim=-1)
        found = torch.full((len(some), n_targets), torch.nan)
        ranks = torch.zeros((len(some), n_targets), dtype=torch.long)
        for row, each in enumerate(targets[start : start + at_once]):
            for column, ids in enumerate(each):
                if ids:
                    ways = log_probs[row, list(ids)]
                    found[row, column] = ways.logsumexp(dim=0)
                    ranks[row, column] = 1 + int((log_probs[row] > ways.max()).sum())
        parts.append((top.indices, top.values.exp(), entropy, found, ranks))
    joined = (torch.cat([part[i].cpu() for part in parts]) for i in range(5))
    return Reading(*joined)
