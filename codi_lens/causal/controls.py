"""What an effect has to beat: donors, random heads, placebo, disjoint halves."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import get_args

from codi_lens.causal.arms import Arm
from codi_lens.errors import ProblemError, check_choice
from codi_lens.head_names import Head
from codi_lens.interventions.donors import Donors
from codi_lens.interventions.heads import ablate_heads
from codi_lens.interventions.replacements import Mode
from codi_lens.model import CodiModel
from codi_lens.positions import Scope, thought_names
from codi_lens.problems.arguments import check_seed
from codi_lens.problems.kinds import alike
from codi_lens.problems.problem import Problem, Problems, problem_list
from codi_lens.thinking.given import problems_for
from codi_lens.thinking.prompts import positions_in


def donors_for(
    model: CodiModel,
    problems: Sequence[Problem],
    *,
    mode: Mode,
    donors: Donors | None = None,
    seed: int = 0,
    hook_names: Sequence[str] | None = None,
) -> Donors | None:
    """The given donors, or the problems themselves, where a mode takes values from any.

    Args:
        model: the model.
        problems: donors by default.
        mode: of the replacement.
        donors: to use instead.
        seed: of the draws by default.
        hook_names: whose values are computed together, once any is asked for; by default those of
            all heads.
    """
    check_choice("mode", mode, Mode)
    if mode == "zero":
        return donors
    donors = Donors(model, problems, seed=seed) if donors is None else donors
    if hook_names is None:
        hook_names = head_hooks(model.lens.cfg.n_layers)
    if hook_names:
        donors.prepare(hook_names, later=True)
    return donors


def head_hooks(n_layers: int) -> list[str]:
    """Where the outputs of a model's heads are read and replaced."""
    return [f"blocks.{layer}.attn.hook_z" for layer in range(n_layers)]


def head_controls(
    model: CodiModel,
    problems: Problems,
    heads: Sequence[Head],
    *,
    mode: Mode = "resample",
    at: Scope = "thinking",
    n_random: int = 5,
    donors: Donors | None = None,
    candidates: Problems = (),
    seed: int = 0,
) -> dict[str, Arm]:
    """A set of heads ablated in every mode, with the controls that the effect has to beat.

    Random sets have as many heads in every layer as the set itself, and none of its heads where the
    layer has enough others. The placebo ablates the same heads at the last thought, which generates
    no thought: only `eot` and the answer can read what it changes. It is left out where `at` holds
    that thought, and of runs without thoughts. Donors whose correct
    answer is the same, and donors whose answer is another, tell what a head says about the
    answer from what any foreign value breaks; see `answer_donors`.

    Args:
        model: the model.
        problems: what to think about; donors by default.
        heads: the set.
        mode: of the controls, and first of the modes.
        at: where, by name.
        n_random: how many random sets, all different; fewer where there are no more.
        donors: whose values replace the heads'.
        candidates: among which donors with the same and with other answers are looked for; none
            leaves these two arms out, and so does a problem whose answer no candidate has.
        seed: of donors and random sets.

    Raises:
        PositionError: a head or position that does not exist.
    """
    check_seed(seed)
    problems = problems_for(model, problems)
    prepared = donors_for(model, problems, mode="resample", donors=donors, seed=seed)
    modes = [mode, *(other for other in get_args(Mode) if other != mode)]
    arms: dict[str, Arm] = {
        f"heads, {each}": ablate_heads(heads, each, at, prepared, seed) for each in modes
    }
    matched = matched_sets(heads, model.lens.cfg.n_heads, n_random, seed=seed)
    for i, chosen in enumerate(matched):
        arms[f"random {i + 1}, {mode}"] = ablate_heads(chosen, mode, at, prepared, seed)
    last = thought_names(model.config.n_thoughts)[-1:]
    for name in set(last) - set(positions_in(model, at)):
        arms[f"heads at {name}, {mode}"] = ablate_heads(heads, mode, name, prepared, seed)
    by_answer = answer_donors(problems, candidates, seed=seed)
    if by_answer is not None:
        for name, pairs in by_answer.items():
            corpus = list({donor.id: donor for donor in pairs.values()}.values())
            matching = donors_for(model, corpus, mode="resample", seed=seed)
            assert matching is not None
            matching = matching.paired({id: donor.id for id, donor in pairs.items()})
            arms[f"heads, {name}"] = ablate_heads(heads, "resample", at, matching, seed)
    return arms


SAME_ANSWER, OTHER_ANSWER = "donors with the same answer", "donors with another answer"


def answer_donors(
    problems: Problems, candidates: Problems, *, seed: int = 0
) -> dict[str, dict[str, Problem]] | None:
    """For each problem a donor with the same correct answer, and one with another.

    Args:
        problems: that need donors.
        candidates: that may be donors; never for their own question.
        seed: of the draws.

    Returns:
        By kind (`SAME_ANSWER`, `OTHER_ANSWER`) and problem id, the donor; None if a problem has no
        known answer, or none of the candidates has the same one.

    >>> from codi_lens.problems import word_problems
    >>> some = word_problems(5)
    >>> found = answer_donors(some, word_problems(600, split="train"))
    >>> all(found[SAME_ANSWER][each.id].answer == each.answer for each in some)
    True
    >>> answer_donors(some, []) is None
    True
    """
    problems, candidates = (problem_list(each, "pair") for each in (problems, candidates))
    found: dict[str, dict[str, Problem]] = {SAME_ANSWER: {}, OTHER_ANSWER: {}}
    for problem in problems:
        draw = random.Random(f"{seed} {problem.id}")
        order = draw.sample(candidates, len(candidates))
        for name, same in ((SAME_ANSWER, True), (OTHER_ANSWER, False)):
            donor = next(
                (
                    each
                    for each in order
                    if each.question != problem.question
                    and each.answer is not None
                    and (each.kind == problem.kind and alike(each.answer, problem.answer)) == same
                ),
                None,
            )
            if donor is None or problem.answer is None:
                return None
            found[name][problem.id] = donor
    return found


def matched_heads(heads: Sequence[Head], n_heads: int, *, seed: int = 0) -> list[Head]:
    """Random heads, as many in each layer as in the set, none of the set where others suffice.

    >>> matched = matched_heads([(0, 1), (2, 5), (2, 6)], 8, seed=1)
    >>> [layer for layer, _ in matched], set(matched) & {(0, 1), (2, 5), (2, 6)}
    ([0, 2, 2], set())
    """
    draw = random.Random(seed)
    chosen: list[Head] = []
    for layer in sorted({layer for layer, _ in heads}):
        own = {head for at, head in heads if at == layer}
        others = [head for head in range(n_heads) if head not in own]
        some = draw.sample(others, min(len(own), len(others)))
        some += draw.sample(sorted(own), len(own) - len(some))
        chosen += [(layer, head) for head in sorted(some)]
    return chosen


def matched_sets(heads: Sequence[Head], n_heads: int, n: int, *, seed: int = 0) -> list[list[Head]]:
    """Different sets of `matched_heads`, none of them the set itself; fewer if so few exist.

    >>> len(matched_sets([(0, 1)], 8, 5)), matched_sets([(0, 0), (0, 1)], 2, 5)
    (5, [])
    """
    found: list[list[Head]] = []
    for i in range(50 * n):
        chosen = matched_heads(heads, n_heads, seed=seed + i)
        if chosen not in found and set(chosen) != set(heads):
            found.append(chosen)
        if len(found) == n:
            break
    return found


def halves(problems: Problems, *, seed: int = 0) -> tuple[list[Problem], list[Problem]]:
    """Two disjoint random halves: one to rank heads on, the other to ablate them on.

    Raises:
        ProblemError: fewer than two problems.

    >>> from codi_lens.problems import word_problems
    >>> first, second = halves(word_problems(5))
    >>> len(first), len(second), {p.id for p in first} & {p.id for p in second}
    (2, 3, set())
    """
    check_seed(seed)
    problems = problem_list(problems, "halve")
    if len(problems) < 2:
        raise ProblemError(f"Two halves need at least 2 problems; there are {len(problems)}.")
    order = random.Random(seed).sample(range(len(problems)), len(problems))
    middle = len(problems) // 2
    return (
        [problems[i] for i in sorted(order[:middle])],
        [problems[i] for i in sorted(order[middle:])],
    )
