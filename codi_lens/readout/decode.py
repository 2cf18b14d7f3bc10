"""The probe of CODI's authors: the likeliest tokens of every state that makes a thought.

Source: Shen et al. 2025, "CODI", section 5, and `probe_latent_token.py` of its code.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from einops import reduce
from jaxtyping import Float
from torch import Tensor

from codi_lens.errors import PositionError, ProblemError, needs, whole_number
from codi_lens.model import CodiModel
from codi_lens.positions import thought_names
from codi_lens.problems.parsing import is_correct
from codi_lens.problems.problem import Problem, Problems, check_problems
from codi_lens.readout.batches import Reader, read_all
from codi_lens.readout.states import read
from codi_lens.thinking.given import problems_for
from codi_lens.thinking.run import Cache, ThoughtRun
from codi_lens.thinking.ways import check_thoughts
from codi_lens.workers.spread import Workers


def decode_thoughts(
    model: CodiModel,
    problems: Problems,
    k: int = 5,
    *,
    layer: int | None = None,
    head: int | None = None,
    batch_size: int = 16,
    max_new_tokens: int = 64,
    progress: bool = True,
    workers: Workers | None = None,
    ray_address: str | None = None,
) -> pd.DataFrame:
    """The authors' rows: what each state says that makes a thought, and what it attends to.

    Row 0 is the state at `bot`, row i the one at `ct{i-1}`: the hidden state after the final norm
    and *before* the projection, unembedded. A model of six thoughts has seven rows, the last of
    which makes no thought that is fed.

    Args:
        model: the model.
        problems: what to think about.
        k: how many tokens of each row.
        layer, head: attention of one layer, one head, or one head of one layer; by default the mean
            over all, as the authors have it.
        batch_size: problems of median length per forward pass.
        max_new_tokens: longest answer.
        progress: show a progress bar.
        workers, ray_address: who runs and reads; see `codi_lens.workers.spread`.

    Returns:
        One row per problem and state: `problem`, `row`, `position`, `tokens` (the k likeliest, as
        texts), `probabilities`, `attended` (the texts of the k most attended columns, thoughts by
        name), `attention` (their shares), and `answer`, `correct` (None without a known answer) of
        the whole run.

    Raises:
        ProblemError: no problems, or `k` out of range.
        PositionError: a layer or head that the model does not have, or a model that runs without
            thoughts.

    >>> from codi_lens.problems import word_problems
    >>> model = CodiModel.from_pretrained("checkpoints/tiny-gpt2")
    >>> rows = decode_thoughts(model, word_problems(1), k=2, progress=False)
    >>> rows["position"].tolist()
    ['bot', 'ct0', 'ct1', 'ct2', 'ct3', 'ct4', 'ct5']
    """
    check_thoughts(model, "decode_thoughts")
    problems = problems_for(model, problems, "decode")
    check_problems(problems, "decode", batch_size=batch_size, k=k)
    reader = probe_reader(model, problems, k, layer, head)
    running: dict[str, Any] = {"batch_size": batch_size, "max_new_tokens": max_new_tokens}
    running |= {"progress": progress, "workers": workers, "ray_address": ray_address}
    return read_all([reader], model, problems, "decoding", **running)[0]


def probe_reader(
    model: CodiModel,
    problems: Sequence[Problem],
    k: int,
    layer: int | None = None,
    head: int | None = None,
) -> Reader:
    """What `decode_thoughts` reads in runs of the model; same arguments and errors."""
    cfg = model.lens.cfg
    k = whole_number("k", k, 1, cfg.d_vocab_out, error=ProblemError)
    for name, value, n in (("layer", layer, cfg.n_layers), ("head", head, cfg.n_heads)):
        if value is not None:
            whole_number(name, value, high=n - 1, error=PositionError)
    last = f"blocks.{cfg.n_layers - 1}.hook_resid_post"
    layers = range(cfg.n_layers) if layer is None else [layer]
    patterns = [f"blocks.{each}.attn.hook_pattern" for each in layers]

    def rows_of(batch: Sequence[int], run: ThoughtRun) -> list[list[dict[str, object]]]:
        cache, found = run.cache(), []
        for row, i in enumerate(batch):
            answer = run.answers[row]
            correct = None if problems[i].answer is None else is_correct(answer, problems[i])
            attention = _attention(run, cache, patterns, row, head)
            states = cache[last][row, run.layout.bot : run.layout.bot + len(attention)]
            found.append(
                [
                    each | {"answer": answer, "correct": correct}
                    for each in _rows(model, run.tokens[row], states, attention, k)
                ]
            )
        return found

    def table(found: Sequence[list[dict[str, object]]]) -> pd.DataFrame:
        named = zip(problems, found, strict=True)
        return pd.DataFrame([{"problem": of.id} | row for of, rows in named for row in rows])

    return Reader([last, *patterns], rows_of, table)


def _attention(
    run: ThoughtRun, cache: Cache, patterns: Sequence[str], row: int, head: int | None
) -> Float[np.ndarray, "query pos"]:
    """Attention of `bot` and every thought over all columns, mean over the layers and heads."""
    start = run.layout.bot
    stop = start + 1 + run.layout.n_thoughts
    layers = [cache[name][row, :, start:stop].float().cpu().numpy() for name in patterns]
    every = np.stack(layers)
    chosen = every if head is None else every[:, [head]]
    return np.asarray(reduce(chosen, "layer head query pos -> query pos", "mean"))


def _rows(
    model: CodiModel,
    texts: Sequence[str],
    states: Float[Tensor, "query d_model"],
    attention: Float[np.ndarray, "query pos"],
    k: int,
) -> list[dict[str, object]]:
    found = read(model, states, k, [])
    names = ("bot", *thought_names(len(states) - 1))
    rows: list[dict[str, object]] = []
    for i, name in enumerate(names):
        most = np.argsort(-attention[i], kind="stable")[:k]
        rows.append(
            {
                "row": i,
                "position": name,
                "tokens": [str(model.tokenizer.decode([int(t)])) for t in found.tokens[i]],
                "probabilities": found.probabilities[i].tolist(),
                "attended": [texts[column] for column in most],
                "attention": attention[i][most].tolist(),
            }
        )
    return rows


def authors_text(rows: pd.DataFrame, problems: Problems, chains: Sequence[str] = ()) -> str:
    """Rows of `decode_thoughts` in the authors' text format, problem by problem.

    The authors print only problems that are answered right; this prints those that it is given.

    Args:
        rows: of `decode_thoughts`.
        problems: the same problems.
        chains: a reference chain for each, "" without any; by default the problems' own steps.

    Raises:
        CodiLensError: a table of something else.
        ProblemError: not one chain per problem.

    >>> from codi_lens.problems import word_problems
    >>> model, some = CodiModel.from_pretrained("checkpoints/tiny-gpt2"), word_problems(1)
    >>> text = authors_text(decode_thoughts(model, some, progress=False), some)
    >>> text.splitlines()[4].split(" (")[0]
    'decoded 0th latent'
    """
    needs(rows, "problem", "row", "tokens", "attended", advice="give what decode_thoughts returns")
    problems = list(problems)
    if chains and len(chains) != len(problems):
        raise ProblemError(f"{len(chains)} chains for {len(problems)} problems; give one each.")
    lines: list[str] = []
    for number, problem in enumerate(problems):
        own = rows[rows["problem"] == problem.id].to_dict("records")
        if not own:
            raise ProblemError(f"The rows hold no problem {problem.id!r}.")
        chain = chains[number] if chains else " ".join(problem.steps)
        known = problem.answer
        answer = "" if known is None else known if isinstance(known, str) else float(known)
        lines += [f"Question{number}...", f"{problem.question}..."]
        lines.append(f"CoT={chain}, Answer={answer}")
        for row in own:
            k = len(row["tokens"])
            named = f"decoded {row['row']}th latent"
            lines.append(f"{named}'s attended tokens (top{k}): {row['attended']}")
            lines.append(f"{named} (top{k}): {row['tokens']}")
        lines += [f"Model Prediction: {own[0]['answer']}", "\n\n"]
    return "\n".join(lines)
