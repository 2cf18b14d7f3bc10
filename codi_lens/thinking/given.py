"""What people give to a run, checked at the border: vectors, questions, words."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from codi_lens.errors import CodiLensError, ProblemError, ProblemWarning, shown, whole_number
from codi_lens.loading.loaded import Loaded
from codi_lens.problems.kinds import Form, Kind, form_of
from codi_lens.problems.problem import Problem, Problems, problem_list

Vectors = Tensor | np.ndarray | Sequence[Any]
"""Numbers as people have them: a tensor, an array, nested lists."""
if TYPE_CHECKING:
    Kinds = Kind | Form | Sequence[Kind | Form]
else:  # refused by `forms_for`, in a sentence, and not by a type checker at run time
    Kinds = object
_MOST_WORDS = 5


def check_model(model: Any) -> None:
    """Refuse what is no loaded CODI model: its folder or name, say.

    Raises:
        CodiLensError: not a `CodiModel`.
    """
    if not isinstance(model, Loaded):
        raise CodiLensError(
            f"{shown(model)} is no CODI model; load one with CodiModel.from_pretrained."
        )


def problems_for(model: Any, problems: Problems, doing: str = "run") -> list[Problem]:
    """Problems as a list, where a model is there to do something with them.

    Raises:
        CodiLensError: not a `CodiModel`.
        ProblemError: not problems; see `problem_list`.
    """
    check_model(model)
    return problem_list(problems, doing)


def forms_for(kind: Kinds, n: int) -> list[Form]:
    """The form of the answer to each of `n` questions.

    Args:
        kind: of every answer, or one for each; a form also has the labels of choices.
        n: how many.

    Raises:
        ProblemError: no kind of answer, or not one for each question.

    >>> forms_for("boolean", 2) == forms_for([Form("boolean"), "boolean"], 2)
    True
    """
    if isinstance(kind, str | Form) or not isinstance(kind, Iterable):
        kinds: list[Any] = [kind] * n
    else:
        kinds = list(kind)
    if len(kinds) != n:
        raise ProblemError(
            f"think was given {len(kinds)} kinds for {n} questions; give one for each, or one for "
            "all."
        )
    return [each if isinstance(each, Form) else form_of(each) for each in kinds]


def as_tensor(what: str, given: Any, error: type[CodiLensError]) -> Tensor:
    """Vectors as a dense tensor of real numbers; a tensor keeps its dtype, device and graph.

    Raises:
        CodiLensError: of the class `error`; anything else.

    >>> as_tensor("The direction", np.zeros(3), ProblemError).shape
    torch.Size([3])
    """
    try:
        made = given if isinstance(given, Tensor) else torch.tensor(np.asarray(given))
    except (TypeError, ValueError, RuntimeError):
        made = None
    usable = made is not None and made.layout == torch.strided
    if made is None or not usable or made.is_meta or made.is_quantized or made.is_complex():
        raise error(f"{what} must be a dense tensor or array of numbers, not {shown(given)}.")
    return made


def token_ids(
    what: str, given: Any, tokenizer: PreTrainedTokenizerBase, *, special: bool
) -> tuple[list[int], list[str]]:
    """The token ids of a text, or given ones; and the words that the tokenizer does not know.

    Args:
        what: names it in messages: "Question 0".
        given: a text, or integers.
        tokenizer: of the model.
        special: whether the tokenizer adds its own tokens, such as BOS, to a text.

    Raises:
        ProblemError: neither a text nor integers, or a text that no file could hold.
    """
    if isinstance(given, str):
        try:
            given.encode()
        except UnicodeEncodeError as error:
            raise ProblemError(
                f"{what} holds {shown(given[error.start])}, half a character, at {error.start}."
            ) from None
        tokens = list(tokenizer(given, add_special_tokens=special)["input_ids"])
        return tokens, _unknown_words(given, tokens, tokenizer)
    if not isinstance(given, Iterable) or isinstance(given, (bytes, Mapping)):
        advice = "its text (problem.question)" if hasattr(given, "question") else "a text"
        raise ProblemError(f"{what} is {shown(given)}; give {advice}, or a list of token ids.")
    raw = given.tolist() if isinstance(given, (Tensor, np.ndarray)) else list(given)
    raw = raw if isinstance(raw, list) else [raw]
    name = f"A token of {what[:1].lower()}{what[1:]}"
    return [whole_number(name, token, -(2**63), error=ProblemError) for token in raw], []


def warn_of_unknown(words: Iterable[str], tokenizer: PreTrainedTokenizerBase, so: str) -> None:
    """Say which words the model does not get to read, and what follows; once for a call."""
    every = list(dict.fromkeys(words))
    if every:
        more = f" and {len(every) - _MOST_WORDS} more" if len(every) > _MOST_WORDS else ""
        warnings.warn(
            f"The tokenizer has no token for {', '.join(map(shown, every[:_MOST_WORDS]))}{more}; "
            f"the model reads {tokenizer.unk_token} instead, so {so}.",
            ProblemWarning,
            stacklevel=2,
        )


def _unknown_words(
    text: str, tokens: Sequence[int], tokenizer: PreTrainedTokenizerBase
) -> list[str]:
    unknown = tokenizer.unk_token_id
    if unknown is None or unknown not in tokens:
        return []
    if not tokenizer.is_fast:  # without offsets, word by word
        words = text.split()
        return [w for w in words if unknown in tokenizer(w, add_special_tokens=False)["input_ids"]]
    spans = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    pairs = zip(spans["input_ids"], spans["offset_mapping"], strict=True)
    found = [text[start:end].strip() for token, (start, end) in pairs if token == unknown]
    return [word for word in found if word and word != tokenizer.unk_token]
