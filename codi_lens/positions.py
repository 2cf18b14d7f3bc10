"""Names of the positions of a run, the scopes made of them, and where they lie in a batch.

A run is question → `bot` → `ct0` … `ct{n-1}` → `eot` → answer; a written run (`CodiModel.explain`)
is question → answer, in which `step0`, `step1` … are the results that it writes before its answer.
Everything public speaks of positions by these names; `Layout` turns them into indices where a
tensor needs one.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from codi_lens.errors import PositionError, shown

Scope = str | Sequence[str]


def thought_names(n_thoughts: int) -> tuple[str, ...]:
    """The names of the thoughts.

    >>> thought_names(3)
    ('ct0', 'ct1', 'ct2')
    """
    return tuple(f"ct{i}" for i in range(n_thoughts))


def query_names(n_thoughts: int) -> tuple[str, ...]:
    """The rows of `run.attention`: positions whose attention is kept.

    >>> query_names(2)
    ('bot', 'ct0', 'ct1', 'eot', 'anchor')
    """
    return ("bot", *thought_names(n_thoughts), "eot", "anchor")


def row_of(query: str) -> str:
    """The row of attention that shows what a position reads: the answer reads in row `anchor`.

    >>> row_of("answer"), row_of("ct1")
    ('anchor', 'ct1')
    """
    return "anchor" if query == "answer" else query


def key_names(n_thoughts: int, *, written: bool = False) -> tuple[str, ...]:
    """The columns of `run.attention`: a position, or the summed mass on a group of them.

    Those of a written run are further split into its steps.

    >>> key_names(2)
    ('question', 'bot', 'ct0', 'ct1', 'eot', 'answer')
    """
    thinking = () if written else ("bot", *thought_names(n_thoughts), "eot")
    return ("question", *thinking, "answer")


def possible_cells(n_thoughts: int) -> Bool[np.ndarray, "query key"]:
    """Which cells of `run.attention` causality allows; the others are 0 in the data.

    >>> possible_cells(1).astype(int)
    array([[1, 1, 0, 0, 0],
           [1, 1, 1, 0, 0],
           [1, 1, 1, 1, 0],
           [1, 1, 1, 1, 1]])
    """
    queries, keys = query_names(n_thoughts), key_names(n_thoughts)
    order = {name: rank for rank, name in enumerate((*keys, "anchor"))}
    return np.array([[order[key] <= order[query] for key in keys] for query in queries])


def step_names(n_steps: int) -> tuple[str, ...]:
    """The names of the results that a written run gives before its answer.

    >>> step_names(2)
    ('step0', 'step1')
    """
    return tuple(f"step{i}" for i in range(n_steps))


def is_step(name: object) -> bool:
    """Whether a name is one of `step_names`.

    >>> is_step("step12"), is_step("steps")
    (True, False)
    """
    return isinstance(name, str) and name[:4] == "step" and name[4:].isdecimal() and len(name) < 10


def resolve(at: Scope, n_thoughts: int, *, written: bool = False) -> frozenset[str]:
    """The single positions that a scope stands for.

    "thinking" is `bot` and every thought but the last: the queries that generate thoughts which
    are consumed. "thoughts" is `ct0` … `ct{n-1}`. "all" is the whole run.

    Args:
        at: names of positions or scopes.
        n_thoughts: how many thoughts the run has.
        written: whether it is a written run, without `bot` and `eot`.

    Raises:
        PositionError: a name that no position or scope has, or a scope that is empty in the run.

    >>> sorted(resolve("thinking", 3)), sorted(resolve(["ct2", "eot"], 3))
    (['bot', 'ct0', 'ct1'], ['ct2', 'eot'])
    >>> sorted(resolve("all", 0, written=True))
    ['answer', 'question']
    """
    thoughts = thought_names(n_thoughts)
    scopes: dict[str, tuple[str, ...]] = {
        "thinking": ("bot", *thoughts[:-1]) if thoughts else (),
        "thoughts": thoughts,
        "all": key_names(n_thoughts, written=written),
    }
    names: set[str] = set()
    for name in _names_of(at):
        if name in scopes:
            names.update(scopes[name])
        elif name in scopes["all"]:
            names.add(name)
        elif name == "anchor" or (written and is_step(name)):
            raise PositionError(
                f"{name!r} is known only once the answer is decoded; use 'answer', which holds it."
            )
        else:
            there = [scope for scope, inside in scopes.items() if inside]
            raise PositionError(
                f"There is no position {shown(name)} in a run with {n_thoughts} thoughts; "
                f"there are {', '.join((*there, *scopes['all']))}."
            )
    if not names:
        where = f" of a run without thoughts: {scope_name(at)!r}" if _names_of(at) else ""
        raise PositionError(
            f"The scope names no position{where}; give at least one of {', '.join(scopes['all'])}."
        )
    return frozenset(names)


def scope_name(at: Scope) -> str:
    """What tables call a scope.

    >>> scope_name(["ct1", "ct3"])
    'ct1+ct3'
    """
    return "+".join(_names_of(at))


def each_position(n_thoughts: int, *, written: bool = False) -> dict[str, Scope]:
    """Every single position of a run as a scope by itself, for sweeps that take several.

    Args:
        n_thoughts: how many thoughts the run has.
        written: whether it is a written run.

    >>> list(each_position(2))
    ['question', 'bot', 'ct0', 'ct1', 'eot', 'answer']
    """
    return {name: name for name in key_names(n_thoughts, written=written)}


def scopes_of(
    at: Scope | Mapping[str, Scope], n_thoughts: int, *, written: bool = False
) -> dict[str, Scope]:
    """One scope, or several by name, as a table calls them.

    Raises:
        PositionError: no scope, or a name that no position or scope has.

    >>> scopes_of(["ct1", "ct3"], 4), scopes_of({"early": ["bot", "ct0"], "late": "ct3"}, 4)
    ({'ct1+ct3': ['ct1', 'ct3']}, {'early': ['bot', 'ct0'], 'late': 'ct3'})
    """
    scopes = dict(at) if isinstance(at, Mapping) else {scope_name(at): at}
    if not scopes:
        raise PositionError("There is no scope; give at least one.")
    for name, scope in scopes.items():
        resolve(scope, n_thoughts, written=written)
        if not isinstance(name, str):
            raise PositionError(f"The name of a scope is text, not {shown(name)}.")
    return scopes


def first_position(at: Scope) -> str:
    """The first position of a scope, in the order of a run.

    Raises:
        PositionError: a name that no run can have.

    >>> first_position("thinking"), first_position(["eot", "ct3"])
    ('bot', 'ct3')
    """
    starts = {"thinking": "bot", "thoughts": "ct0", "all": "question"}
    names = [starts.get(name, name) for name in _names_of(at)]
    return min(names, key=rank, default="question")


def rank(name: str) -> int:
    """The rank of a single position in the order of a run.

    Raises:
        PositionError: a name that no run can have.

    >>> sorted(["answer", "ct2", "bot", "question"], key=rank)
    ['question', 'bot', 'ct2', 'answer']
    """
    ends = {"question": 0, "bot": 1, "eot": 10**6, "answer": 10**6 + 1}
    if isinstance(name, str) and name in ends:
        return ends[name]
    if isinstance(name, str) and name[:2] == "ct" and name[2:].isdecimal() and len(name) < 8:
        return 2 + int(name[2:])
    raise PositionError(
        f"There is no position {shown(name)} in a run; there are question, bot, ct0, ct1 …, eot, "
        "answer."
    )


def _names_of(at: Scope) -> list[str]:
    if isinstance(at, str):
        return [at]
    try:
        names: list[Any] = list(at) if isinstance(at, Collection) else [at]
    except TypeError:  # a tensor without dimensions
        names = [at]
    if not all(isinstance(name, str) for name in names):
        raise PositionError(
            f"Positions are given by name, as 'ct2' or ['bot', 'ct0'], not as {shown(at)}."
        )
    return names


@dataclass(frozen=True)
class Layout:
    """Where the named positions of a left-padded batch of runs lie.

    Attributes:
        question_lengths: tokens before `bot` of each problem (an EOS before `bot` included).
        n_thoughts: the number of thoughts.
        n_closing: tokens that close thinking, 1 or 2 (`eot`, or `eot` and EOS); 0 in a written run,
            where none opened it either.
        answer_lengths: answer tokens of each problem, the EOS that ends them not counted.
        anchors: for each problem how many of its tokens come before what answers it, or None.
        steps: of a written run, for each problem where the results of its steps begin and end among
            the answer tokens.
    """

    question_lengths: tuple[int, ...]
    n_thoughts: int
    n_closing: int
    answer_lengths: tuple[int, ...] = ()
    anchors: tuple[int | None, ...] = ()
    steps: tuple[tuple[tuple[int, int], ...], ...] = ()

    @property
    def written(self) -> bool:
        """Whether the run writes its chain of thought: it has neither `bot` nor `eot`."""
        return self.n_closing == 0

    @property
    def bot(self) -> int:
        """The column behind the question, the same for every problem of a left-padded batch."""
        return max(self.question_lengths)

    @property
    def eot(self) -> int:
        """The column before the answer: the last token that closes thinking."""
        return self.bot - 1 if self.written else self.bot + self.n_thoughts + self.n_closing

    def names(self, length: int) -> list[str]:
        """The position that each of the first `length` columns belongs to.

        >>> Layout((2, 1), n_thoughts=1, n_closing=1).names(6)
        ['question', 'question', 'bot', 'ct0', 'eot', 'answer']
        """
        fixed = ["question"] * self.bot
        if not self.written:
            fixed += ["bot", *thought_names(self.n_thoughts), *["eot"] * self.n_closing]
        return (fixed + ["answer"] * max(0, length - len(fixed)))[:length]

    def index(self, name: str) -> Int[Tensor, "problem"]:
        """The column of a single position, for each problem; the last token of a step's result.

        Raises:
            PositionError: `name` is a group of positions ("question", "answer") or unknown, or
                it is "anchor" and an answer holds none, or a step that an answer lacks.
        """
        n_problems = len(self.question_lengths)
        if name == "anchor":
            without = [i for i, anchor in enumerate(self.anchors) if anchor is None]
            if without or not self.anchors:
                raise PositionError(
                    f"The answers of problems {without} hold no number, or no answer of their "
                    "kind, so they have no anchor."
                )
            return torch.tensor(
                [self.eot + anchor for anchor in self.anchors if anchor is not None]
            )
        if self.written and is_step(name):
            return torch.tensor([stop - 1 for _, stop in self._step(name)])
        columns = {} if self.written else {"bot": self.bot, "eot": self.eot}
        columns |= {ct: self.bot + 1 + i for i, ct in enumerate(thought_names(self.n_thoughts))}
        if name not in columns:
            known = (*columns, *step_names(max(map(len, self.steps), default=0)), "anchor")
            raise PositionError(
                f"{name!r} is not a single position of a run; there are "
                f"{', '.join(known)} (use `span` for question and answer)."
            )
        return torch.full((n_problems,), columns[name])

    def span(self, name: str) -> list[slice]:
        """The columns of any position or group, for each problem.

        >>> Layout((2, 1), n_thoughts=1, n_closing=1).span("question")
        [slice(0, 2, None), slice(1, 2, None)]
        """
        if name == "question":
            return [slice(self.bot - length, self.bot) for length in self.question_lengths]
        if name == "answer":
            start = self.eot + 1
            return [slice(start, start + length) for length in self.answer_lengths]
        if self.written and is_step(name):
            return [slice(*columns) for columns in self._step(name)]
        if name == "eot" and not self.written:
            stop = self.eot + 1
            return [slice(stop - self.n_closing, stop) for _ in self.question_lengths]
        return [slice(int(i), int(i) + 1) for i in self.index(name)]

    def _step(self, name: str) -> list[tuple[int, int]]:
        """Where the columns of a step's result begin and end, for each problem."""
        number, start = int(name.removeprefix("step")), self.eot + 1
        without = [i for i, steps in enumerate(self.steps) if len(steps) <= number]
        if without or not self.steps:
            raise PositionError(f"The answers of problems {without} write no {name}.")
        return [(start + first, start + stop) for first, stop in (s[number] for s in self.steps)]
