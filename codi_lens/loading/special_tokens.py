"""Which token ids open and close thinking, end an answer, and are tokens at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from codi_lens.errors import CheckpointError, shown

N_SPECIAL_TOKENS = 3
"""So many are appended to the base model's vocabulary."""
THOUGHT_TOKENS = (
    ("<|bocot|>", "<|eocot|>"),
    ("<|start-latent|>", "<|end-latent|>"),
    ("<|bot|>", "<|eot|>"),
)
"""Tokens that open and close thinking where a tokenizer has its own."""
_GIVE = "give bot= and eot=, the tokens that open and close thinking, or their ids"
_PADDING = 256  # so many rows of padding are compared with
_SAME = 1e-3  # rows that differ by less, relative to their largest entry, were never trained apart


def special_tokens(
    settings: Mapping[str, Any],
    tokenizer: PreTrainedTokenizerBase,
    base_vocabulary: int,
    embedding: Tensor,
    name: str,
    appended: Sequence[str] = ("pad", "bot", "eot"),
) -> dict[str, int]:
    """The ids of pad, bot, eot and eos, and how many ids are tokens rather than padding.

    Args:
        settings: what the checkpoint or the caller says.
        tokenizer: the checkpoint's own, or the base model's.
        base_vocabulary: as the base model's config says.
        embedding: [token, d_model], as the checkpoint holds it.
        name: what errors call the checkpoint.
        appended: which tokens its code appends to the base model's vocabulary, in order.

    Raises:
        CheckpointError: a token that does not exist, or nothing proves which ones they are.
    """
    rows = embedding.shape[0]
    given = {key: settings[key] for key in ("bot", "eot") if key in settings}
    if len(given) == 1:
        raise CheckpointError(f"{name} says {next(iter(given))} alone; give both bot and eot.")
    if not given:
        own = tokenizer.get_vocab()
        pairs = [pair for pair in THOUGHT_TOKENS if own.keys() >= set(pair)]
        given = dict(zip(("bot", "eot"), pairs[0], strict=True)) if len(pairs) == 1 else {}
    if given:
        ids = {key: _token_id(token, tokenizer, name) for key, token in given.items()}
        pad = settings.get("pad", tokenizer.pad_token_id)
        ids["pad"] = ids["bot"] if pad is None else _token_id(pad, tokenizer, name)
        n_tokens = min(max(len(tokenizer), *(id + 1 for id in ids.values())), rows)
        if ids["bot"] == ids["eot"]:
            raise CheckpointError(f"{name} opens and closes thinking with the same token.")
    else:
        ids = {key: base_vocabulary + i for i, key in enumerate(appended)}
        n_tokens = base_vocabulary + N_SPECIAL_TOKENS
        _check_appended(ids, base_vocabulary, tokenizer, embedding, name)
        ids = {"pad": ids.get("pad", ids["bot"]), "bot": ids["bot"], "eot": ids["eot"]}
    ids["eos"] = _eos(tokenizer, name)
    outside = {key: id for key, id in ids.items() if not 0 <= id < rows}
    if outside:
        key, id = next(iter(outside.items()))
        raise CheckpointError(
            f"The token {key} of {name} has the id {id}, but its embedding has {rows} rows."
        )
    if ids["eos"] in (ids["bot"], ids["eot"]) or (not given and ids["eos"] >= base_vocabulary):
        eos = shown(tokenizer.eos_token)
        raise CheckpointError(
            f"The EOS of {name}, {eos}, has the id {ids['eos']}, which is not "
            "that of a token of its base model; correct eos_token in its tokenizer_config.json."
        )
    n_tokens = settings.get("n_tokens", n_tokens)
    if not ids["eos"] < n_tokens <= rows:
        raise CheckpointError(
            f"{name} says n_tokens = {n_tokens}; it must be at most the {rows} rows of the "
            f"embedding, and more than the id of EOS, {ids['eos']}."
        )
    return {**ids, "n_tokens": n_tokens}


def _check_appended(
    ids: Mapping[str, int],
    base: int,
    tokenizer: PreTrainedTokenizerBase,
    embedding: Tensor,
    name: str,
) -> None:
    """That the rows behind the base vocabulary are the appended tokens, not padding or others'."""
    rows, expected = embedding.shape[0], base + N_SPECIAL_TOKENS
    if rows < expected:
        raise CheckpointError(
            f"The embedding of {name} has {rows} rows; the base vocabulary of {base} with "
            f"{', '.join(ids)} makes {expected} (pass bot= and eot= where the vocabulary has "
            "tokens of its own for them)."
        )
    thinking = (ids["bot"], ids["eot"])
    taken = sorted((id, t) for t, id in tokenizer.get_vocab().items() if id in thinking)
    used = [f"{id} for {t!r}" for id, t in taken]
    pair = embedding[list(thinking)].float()
    rest = embedding[expected : expected + _PADDING].float()
    reasons = {
        f"its tokenizer uses the id {' and '.join(used)}": bool(used),
        "its embedding has more rows, and its config's vocabulary already counts three more tokens "
        "than its tokenizer": rows > expected and base == len(tokenizer) + N_SPECIAL_TOKENS,
        "their rows of the embedding are zero": not pair.any(1).all(),
        "their rows of the embedding are the same": torch.equal(pair[0], pair[1])
        or (len(rest) > 0 and _alike(pair[:1], pair[1:])),
        "their rows of the embedding are like those of padding": _alike(pair, rest),
    }
    for reason, holds in reasons.items():
        if holds:
            raise CheckpointError(
                f"{name} does not say which tokens open and close thinking: {thinking[0]} and "
                f"{thinking[1]}, the ids behind its config's vocabulary of {base}, are not surely "
                f"they ({reason}); {_GIVE}."
            )


def _alike(some: Tensor, others: Tensor) -> bool:
    """Whether any row of the first is nearly one of the others."""
    size = some.abs().amax(1, keepdim=True)
    return bool(((some[:, None] - others[None]).abs().amax(2) <= _SAME * size).any())


def _token_id(token: str | int, tokenizer: PreTrainedTokenizerBase, name: str) -> int:
    if isinstance(token, int):
        return token
    if token not in tokenizer.get_vocab():
        raise CheckpointError(f"The tokenizer of {name} has no token {shown(token)}.")
    return int(tokenizer.get_vocab()[token])


def _eos(tokenizer: PreTrainedTokenizerBase, name: str) -> int:
    eos: Any = tokenizer.eos_token_id
    if eos is None:
        raise CheckpointError(f"The tokenizer of {name} has no EOS token, at which answers end.")
    return int(eos)
