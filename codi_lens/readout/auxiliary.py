"""What SIM-CoT's auxiliary decoder writes of each thought.

Source: Wei et al. 2025, "SIM-CoT", and `CODI/src/model.py` of its code; see
`codi_lens.loading.auxiliary`.
"""

from __future__ import annotations

import pandas as pd
import torch
from einops import rearrange
from transformers import DynamicCache

from codi_lens.errors import CheckpointError, ProblemError, whole_number
from codi_lens.loading.releases import cached
from codi_lens.model import CodiModel
from codi_lens.positions import thought_names
from codi_lens.thinking.given import check_model
from codi_lens.thinking.run import ThoughtRun


@torch.no_grad()
def decode_with_auxiliary(
    model: CodiModel, run: ThoughtRun, *, max_new_tokens: int = 32
) -> pd.DataFrame:
    """The step of reasoning that the auxiliary decoder writes for each thought, greedily.

    The decoder reads the thought as it was fed, then the model's embeddings of what it has written.
    It was trained beside the model to write the i-th step from the i-th thought, and EOS where the
    chain has fewer: it shows what can be written from a thought, not what the answer uses.

    Args:
        model: loaded with `auxiliary="keep"`.
        run: of that model.
        max_new_tokens: writing stops at EOS, here, or at the end of the decoder's context.

    Returns:
        One row per problem and thought: `problem` (its number in the run), `thought`, `text`.

    Raises:
        CheckpointError: the model has no auxiliary decoder.
        ProblemError: `max_new_tokens` is no count.

    >>> model = CodiModel.from_pretrained("tiny-gpt2")
    >>> run = model.think(["Zoe has 14 coins. How many coins does she have?"])
    >>> decode_with_auxiliary(model, run)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    codi_lens.errors.CheckpointError: tiny-gpt2 was loaded without an auxiliary decoder; load a ...
    """
    check_model(model)
    if model.auxiliary is None:
        raise CheckpointError(
            f"{model.config.source} was loaded without an auxiliary decoder; load a SIM-CoT "
            'checkpoint with auxiliary="keep".'
        )
    decoder, embedding = model.auxiliary.decoder, model.lens.embed.W_E
    place = next(decoder.parameters())
    longest: int = decoder.config.max_position_embeddings
    room = min(whole_number("max_new_tokens", max_new_tokens, error=ProblemError), longest)
    thoughts = rearrange(run.thoughts, "problem thought d_model -> (problem thought) 1 d_model")
    fed = thoughts.to(place)
    written: list[list[int]] = [[] for _ in fed]
    alive, cache = set(range(len(fed))), cached(decoder, DynamicCache())
    for _ in range(room):
        if not alive:
            break
        out = decoder(inputs_embeds=model.auxiliary.enter(fed), use_cache=True, **cache)
        best = model.auxiliary.leave(out.logits[:, -1]).argmax(-1)
        alive -= {row for row in alive if int(best[row]) == model.config.eos}
        for row in alive:
            written[row].append(int(best[row]))
        fed = embedding[best.to(embedding.device)][:, None].to(place)
    names = thought_names(run.thoughts.shape[1])
    places = [(problem, name) for problem in range(len(run.thoughts)) for name in names]
    texts = [str(model.tokenizer.decode(tokens, skip_special_tokens=True)) for tokens in written]
    rows = [(*place, text) for place, text in zip(places, texts, strict=True)]
    return pd.DataFrame(rows, columns=["problem", "thought", "text"])
