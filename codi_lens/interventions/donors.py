"""Donors: clean runs of other problems, whose activations replace those of a run."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from codi_lens.errors import (
    InterventionError,
    PositionError,
    ProblemError,
    check_seed,
    listed,
    shown,
    whole_number,
)
from codi_lens.interventions.checks import check_mapping
from codi_lens.interventions.clean_values import clean_values
from codi_lens.loading.loaded import Loaded
from codi_lens.positions import key_names, rank
from codi_lens.problems.kinds import NUMBER, Answer, alike
from codi_lens.problems.parsing import parsed
from codi_lens.problems.problem import Problems, problem_list
from codi_lens.stats import seeded
from codi_lens.thinking.given import check_model
from codi_lens.thinking.hook_names import has_hook, hooked_names
from codi_lens.thinking.hooks import position_axis
from codi_lens.thinking.plan import Context, digest
from codi_lens.thinking.prompts import prepare_problems
from codi_lens.thinking.ways import Way, in_way, way_of

_GROUPS = ("question", "answer")


class Donors:
    """Clean runs of a corpus, made once for each kind of activation that is asked for.

    A donor is never the problem itself, by id and by prompt. It is drawn from (seed, problem id),
    so that it depends neither on batching nor on the intervention: all heads of a sweep get the
    same donor for a problem.

    Attributes:
        ids: of the donor problems.
        answers: what each donor's clean run answers, None where it gives no answer.

    >>> from codi_lens import CodiModel, problems
    >>> model = CodiModel.from_pretrained("checkpoints/tiny-gpt2")
    >>> donors = Donors(model, problems.word_problems(4, seed=0))
    >>> tuple(donors.mean("blocks.1.attn.hook_z", "ct2").shape)
    (8, 12)
    """

    ids: tuple[str, ...]
    seed: int

    def __init__(
        self,
        model: Loaded,
        problems: Problems,
        *,
        seed: int = 0,
        batch_size: int = 32,
        way: Way | None = None,
    ) -> None:
        """Take the problems as donors; nothing is run yet.

        Args:
            model: the model that is intervened on.
            problems: the donor corpus.
            seed: of the draws.
            batch_size: problems per clean run.
            way: how they are run: "think", "skip" or "explain", as what is intervened on; by
                default as the model is (see `CodiModel.in_way`).

        Raises:
            InterventionError: no problem, a batch size below 1, or a seed below 0.
            ProblemError: something that is no problem, or a question that does not fit into the
                context.
        """
        check_model(model)
        problems = problem_list(listed("Donors", problems, "problems", ProblemError), "run")
        if not problems:
            raise InterventionError("Donors needs at least one problem; it was given none.")
        batch_size = whole_number("batch_size", batch_size, 1)
        model = in_way(model, way)
        self._set(model, prepare_problems(model, problems), [p.id for p in problems])
        self._forms = [problem.form for problem in problems]
        self.seed, self._batch_size = check_seed(seed), batch_size

    @classmethod
    def of_call(cls, context: Context, seed: int) -> Donors:
        """The problems of one call of `think`, each prompt once."""
        donors = cls.__new__(cls)
        call = dict(zip(context.batch, context.batch_ids, strict=True))
        donors._set(context.model, list(call), list(call.values()))
        donors.seed, donors._batch_size = seed, len(call)
        return donors

    def _set(self, model: Loaded, prompts: Sequence[Sequence[int]], ids: Sequence[str]) -> None:
        self.ids = tuple(ids)
        self._model = model
        self._forms = [NUMBER] * len(self.ids)
        self._prompts = [tuple(prompt) for prompt in prompts]
        # Shared by all views of this corpus, so that each activation is computed once.
        self._kept: dict[tuple[str, str], list[Tensor]] = {}
        self._answers: list[Answer | None] = []
        self._awaited: dict[tuple[str, str], None] = {}
        self._pairs: Mapping[str, str] = {}
        self._rule: tuple[Mapping[str, Answer | None], bool] | None = None

    def __len__(self) -> int:
        """The number of donors."""
        return len(self.ids)

    @property
    def identity(self) -> str:
        """A short text that two corpora share only if they give every problem the same values."""
        return digest(self.seed, self.ids, self._prompts, sorted(self._pairs.items()), self._rule)

    @property
    def answers(self) -> list[Answer | None]:
        """What each donor's clean run answers: numbers, or as `parse_answer` reads its kind."""
        if not self._answers:
            self._run([], ())
        return self._answers

    def with_seed(self, seed: int) -> Donors:
        """The same corpus, drawn from with another seed."""
        view = copy.copy(self)
        view.seed = check_seed(seed)
        return view

    def paired(self, pairs: Mapping[str, str]) -> Donors:
        """The same corpus, with a donor's id given for each problem's id instead of drawn.

        Raises:
            InterventionError: a donor id that the corpus does not have, or no mapping.
        """
        check_mapping("Donors.paired", pairs)
        unknown = sorted(set(pairs.values()) - set(self.ids))
        if unknown:
            raise InterventionError(f"The donors hold no problem {unknown[0]!r}.")
        view = copy.copy(self)
        view._pairs = dict(pairs)
        return view

    def matching(self, answers: Mapping[str, Answer | None], *, same: bool) -> Donors:
        """The same corpus, with donors only of the same, or only of a different, answer.

        Args:
            answers: by problem id, the answer that a donor's clean one is compared with.
            same: whether it must be equal or must differ.

        Raises:
            InterventionError: no mapping.
        """
        check_mapping("Donors.matching", answers)
        view = copy.copy(self)
        view._rule = (dict(answers), same)
        return view

    def draw(
        self,
        ids: Sequence[str],
        answers: Sequence[Answer | None] | None = None,
        same_answer: bool | None = None,
        prompts: Sequence[Sequence[int]] | None = None,
    ) -> list[int]:
        """One donor for each problem, as indices into the corpus.

        Args:
            ids: of the problems.
            answers: theirs, compared with the donors' clean answers.
            same_answer: whether the donor's answer must be the same (True), must differ (False),
                or is of no matter (None).
            prompts: their tokens as `think` prepares them; a donor never has the same.

        Raises:
            InterventionError: a problem for which no donor is left, or `same_answer` without
                answers.
        """
        ids = listed("Donors.draw", ids, "problem ids", InterventionError)
        if answers is None and self._rule is not None and same_answer is None:
            given, same_answer = self._rule
            absent = [name for name in ids if name not in given]
            if absent:
                raise InterventionError(f"Donors.matching was given no answer of {absent[0]!r}.")
            answers = [given[name] for name in ids]
        if same_answer is not None and answers is None:
            raise InterventionError("same_answer compares answers; give the problems' answers too.")
        return [
            self._draw(
                name,
                None if prompts is None else tuple(prompts[i]),
                None if answers is None else answers[i],
                same_answer,
            )
            for i, name in enumerate(ids)
        ]

    def values(
        self, hook_name: str, position: str, indices: Sequence[int]
    ) -> Float[Tensor, "row *size"]:
        """What donors have at a hook and a named position; the mean over their tokens of a group.

        Raises:
            InterventionError: no such hook, or one along which keys lie.
            PositionError: no such position.
        """
        tokens = self.tokens(hook_name, position, indices)
        return torch.stack([values.mean(dim=0) for values in tokens])

    def tokens(self, hook_name: str, position: str, indices: Sequence[int]) -> list[Tensor]:
        """What donors have at a hook, token by token of a named position: [token, ...] each."""
        self.prepare([hook_name], (position,))
        kept = self._kept[hook_name, position]
        chosen = listed("indices=", indices, "indices of donors", InterventionError)
        most = len(self) - 1
        return [kept[whole_number("The index of a donor", i, 0, most)] for i in chosen]

    def mean(self, hook_name: str, position: str) -> Float[Tensor, "*size"]:
        """The mean over all donors, and over all their tokens of a group of positions."""
        return torch.cat(self.tokens(hook_name, position, range(len(self)))).mean(dim=0)

    def prepare(
        self, hook_names: Sequence[str], positions: Sequence[str] = (), *, later: bool = False
    ) -> None:
        """Run the corpus for all these hooks at once, rather than one by one when first asked for.

        Args:
            hook_names: of the activations.
            positions: at least these, and in any case every single position.
            later: run them only once any of them is asked for.

        Raises:
            InterventionError: no such hook, or one along which keys lie.
            PositionError: no such position.
        """
        singles = self._singles()
        hook_names = listed("hook_names=", hook_names, "hook names", InterventionError)
        positions = listed("positions=", positions, "positions by name", PositionError)
        unknown = [name for name in positions if name not in (*singles, *_GROUPS)]
        if unknown:
            rank(unknown[0])
            raise PositionError(
                f"There is no position {unknown[0]!r} in the donors' runs; there are "
                f"{', '.join((*singles, *_GROUPS))}."
            )
        groups = [name for name in positions if name in _GROUPS]
        for name in hook_names:
            if not has_hook(self._model.lens, name) or position_axis(name) != 1:
                raise InterventionError(
                    f"Donors have no values at {shown(name)}; give a hook of this model whose "
                    "values have no key axis."
                )
        asked = {
            (name, position): None for name in hook_names for position in (*groups, *singles[:1])
        }
        missing = {each: None for each in asked if each not in self._kept}
        if later:
            self._awaited.update(missing)
        elif missing:
            missing |= self._awaited
            self._awaited.clear()
            names, places = (list(dict.fromkeys(each)) for each in zip(*missing, strict=True))
            self._run(names, tuple(place for place in places if place in _GROUPS))

    def check_model(self, model: Loaded) -> None:
        """Refuse donors of another model, or of the same one in another way.

        Raises:
            InterventionError: the donors were made with a different model, or way.
        """
        if model.lens is not self._model.lens:
            raise InterventionError(
                "These donors were made with another model; make Donors with the model that runs."
            )
        if way_of(model) != way_of(self._model):
            raise InterventionError(
                f"These donors {way_of(self._model)} and the run {way_of(model)}s; make Donors "
                f"with way={way_of(model)!r}."
            )

    def _singles(self) -> tuple[str, ...]:
        config = self._model.config
        return key_names(config.n_thoughts, written=config.written)[1:-1]

    def _draw(
        self, name: str, prompt: tuple[int, ...] | None, answer: Answer | None, same: bool | None
    ) -> int:
        if name in self._pairs:
            return self.ids.index(self._pairs[name])
        if self._pairs:
            raise InterventionError(f"Donors.paired was given no donor for {name!r}.")
        own = {prompt} if prompt is not None else set()
        own |= {p for p, other in zip(self._prompts, self.ids, strict=True) if other == name}
        order = np.random.default_rng(seeded(self.seed, "donor", name)).permutation(len(self))
        for index in order.tolist():
            if self.ids[index] == name or self._prompts[index] in own:
                continue
            if same is None:
                return index
            known = self.answers[index] is not None and answer is not None
            if known and alike(self.answers[index], answer) == same:
                return index
        wanted = {None: "", True: " with the same answer", False: " with another answer"}[same]
        raise InterventionError(
            f"There is no donor{wanted} for the problem {name!r} among {len(self)}; give donors= "
            "with other problems."
        )

    def _run(self, hook_names: list[str], groups: tuple[str, ...]) -> None:
        """One clean run of the corpus, of which the named positions are kept."""
        hooked = hooked_names(self._model.lens)
        if hooked:
            raise InterventionError(
                f"Donors run clean, but {hooked[0]} carries a plain hook; take donors outside it."
            )
        decode: dict[str, Any] = {"max_new_tokens": 1}
        if not self._answers or "answer" in groups:
            decode = {}
        places = (*self._singles(), *groups)
        given = self._model, self._prompts, self._batch_size
        written, found = clean_values(*given, hook_names, places, **decode)
        if not decode:
            self._answers[:] = map(parsed, written, self._forms)
        for key, values in found.items():
            if silent := [id for id, value in zip(self.ids, values, strict=True) if not len(value)]:
                raise InterventionError(
                    f"The donor {silent[0]!r} has no token at {key[1]!r}; give donors= without it, "
                    "or other positions at=."
                )
        self._kept.update(found)
