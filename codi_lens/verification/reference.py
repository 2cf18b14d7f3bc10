"""The thought loop once more, with transformers alone: what a loaded model has to match.

Nothing here comes from `convert` or `thinking`: the Hugging Face model runs with eager attention
and its own cache, one problem at a time without padding. Slow and plain on purpose;
`codi_lens.verify` compares models with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.cache_utils import DynamicCache

from codi_lens.errors import PositionError
from codi_lens.loading.checkpoint import Checkpoint
from codi_lens.loading.releases import cached
from codi_lens.verification.reference_model import (
    SpecialTokens,
    build_language_model,
    build_projection,
)


@dataclass(frozen=True, eq=False)
class ReferenceRun:
    """What the reference computes for one problem.

    Attributes:
        prompt: the tokens before thinking, `bot` included.
        hidden: the final-norm hidden states that the projection reads, at `bot`, `ct0` … `ct{n-2}`.
        thoughts: the projection's outputs; what was fed, unless thoughts were forced.
        attention: rows `bot`, `ct0` … `ct{n-1}`, and the last token that closes thinking; keys are
            all positions up to there, 0 where a row cannot see them.
        logits: after the last token that closes thinking.
        tokens: the answer, greedily decoded, cut at EOS.
        margins: logit of each token chosen (EOS included) minus that of the runner-up.
        answer: the decoded answer.
    """

    prompt: list[int]
    hidden: Float[Tensor, "thought d_model"]
    thoughts: Float[Tensor, "thought d_model"]
    attention: Float[Tensor, "layer head query key"]
    logits: Float[Tensor, "vocab"]
    tokens: list[int]
    margins: list[float]
    answer: str


@dataclass(frozen=True, eq=False)
class BatchedRun:
    """What the original evaluation's batched loop computes, its padding leak included.

    Attributes:
        thoughts: the projection's outputs.
        attention: per thought, the attention of the thought over all columns of the batch.
        logits: after the last token that closes thinking.
        tokens: answers cut at EOS.
        answers: the decoded answers.
    """

    thoughts: Float[Tensor, "problem thought d_model"]
    attention: list[Float[Tensor, "problem layer head _"]]
    logits: Float[Tensor, "problem vocab"]
    tokens: list[list[int]]
    answers: list[str]


@dataclass(frozen=True, eq=False)
class Reference:
    """A CODI checkpoint as transformers runs it.

    Attributes:
        language_model: the Hugging Face model, its LoRA modules wrapped, never merged.
        projection: Linear, GELU (erf), Linear, optional LayerNorm; or the identity.
        tokenizer: the base model's tokenizer.
        special: CODI's token ids.
        n_thoughts: how many thoughts are fed.
        remove_eos: True if no EOS stands before `bot`.
        eos_after_eot: True if one follows `eot`.
        question_end: ends the text of every question.
    """

    language_model: PreTrainedModel
    projection: nn.Module
    tokenizer: PreTrainedTokenizerBase
    special: SpecialTokens
    n_thoughts: int
    remove_eos: bool
    eos_after_eot: bool
    question_end: str = ""

    @classmethod
    def from_checkpoint(
        cls,
        checkpoint: Checkpoint,
        *,
        special: SpecialTokens | None = None,
        dtype: torch.dtype = torch.float32,
        device: str | torch.device = "cpu",
    ) -> Reference:
        """Build the Hugging Face model and fill it with the checkpoint's tensors.

        transformers computes rotary angles, RMS norms and the softmax in float32 whatever the
        dtype, so a float64 reference is more precise in everything but these.

        Args:
            checkpoint: as read from its files, LoRA unmerged.
            special: its special tokens; by default worked out from its files.
            dtype: of weights and activations.
            device: where it runs.

        Raises:
            CheckpointError: a tensor is missing or left over, or has the wrong shape.

        >>> from codi_lens.loading.checkpoint import read_checkpoint
        >>> reference = Reference.from_checkpoint(read_checkpoint("checkpoints/tiny-gpt2"))
        >>> run = reference.think("Zoe has 14 coins. How many coins does she have?")
        >>> tuple(run.thoughts.shape)
        (6, 96)
        """
        config = checkpoint.config
        language_model = build_language_model(checkpoint, dtype)
        for module in (language_model, projection := build_projection(checkpoint.projection)):
            module.requires_grad_(False).eval()
        return cls(
            language_model.to(device),  # type: ignore[arg-type]
            projection.to(device=device, dtype=dtype),
            checkpoint.tokenizer,
            special or SpecialTokens.from_checkpoint(checkpoint),
            config.n_thoughts,
            config.remove_eos,
            not config.remove_eos if config.eos_after_eot is None else config.eos_after_eot,
            config.question_end,
        )

    @property
    def dtype(self) -> str:
        """What it computes in, as in "float32"."""
        return str(self.language_model.dtype).removeprefix("torch.")

    def think(
        self,
        question: str | Sequence[int],
        *,
        thoughts: Float[Tensor, "thought d_model"] | None = None,
        max_new_tokens: int = 64,
    ) -> ReferenceRun:
        """Run one problem: question, thoughts, answer.

        Args:
            question: its text, or its token ids (BOS included where the model uses it).
            thoughts: feed these instead of the projection's outputs.
            max_new_tokens: decoding stops at EOS, here, or at the end of the context.

        Raises:
            PositionError: `thoughts` has the wrong shape.
        """
        d_model = self.language_model.config.hidden_size
        if thoughts is not None and tuple(thoughts.shape) != (self.n_thoughts, d_model):
            raise PositionError(
                f"thoughts has shape {tuple(thoughts.shape)}; expected [thought, d_model] = "
                f"{(self.n_thoughts, d_model)}."
            )
        prompt = self._prompt(question)
        passes = _Passes(self.language_model)
        hidden = passes.feed(self._embed([prompt]))
        read, predicted = [], []
        for i in range(self.n_thoughts):
            read.append(hidden)
            predicted.append(self.projection(hidden))
            vector = predicted[-1] if thoughts is None else thoughts[i][None].to(predicted[-1])
            hidden = passes.feed(vector[:, None])
        hidden = passes.feed(self._embed([self._closing()]))
        rows = passes.rows
        logits = self._logits(hidden)[0]
        tokens, margins = self._decode(passes, logits, max_new_tokens)
        return ReferenceRun(
            prompt=prompt,
            hidden=torch.cat(read),
            thoughts=torch.cat(predicted),
            attention=_stacked([row[0] for row in rows[: self.n_thoughts + 2]]),
            logits=logits,
            tokens=tokens,
            margins=margins,
            answer=str(self.tokenizer.decode(tokens, skip_special_tokens=True)),
        )

    def think_batched(
        self, questions: Sequence[str] | Sequence[Sequence[int]], *, max_new_tokens: int = 64
    ) -> BatchedRun:
        """Run one left-padded batch as the original evaluation does.

        The attention mask covers the prompt pass only and no pass gets position ids, so thoughts
        and answers attend to the padding (and GPT-2's positions are shifted by it): answers depend
        on what else is in the batch. Kept to explain accuracies that were measured this way.
        """
        prompts = [self._prompt(question) for question in questions]
        width = max(map(len, prompts))
        padding = [width - len(prompt) for prompt in prompts]
        ids = [[self.special.pad] * n + p for n, p in zip(padding, prompts, strict=True)]
        mask = [[0] * n + [1] * len(p) for n, p in zip(padding, prompts, strict=True)]
        passes = _Passes(self.language_model)
        hidden = passes.feed(
            self._embed(ids), torch.tensor(mask, device=self.language_model.device)
        )
        predicted = []
        for _ in range(self.n_thoughts):
            predicted.append(self.projection(hidden))
            hidden = passes.feed(predicted[-1][:, None])
        hidden = passes.feed(self._embed([self._closing()] * len(prompts)))
        first = logits = self._logits(hidden)
        tokens: list[list[int]] = [[] for _ in prompts]
        alive = set(range(len(prompts)))
        for step in range(max_new_tokens):
            best = self._allowed(logits).argmax(dim=-1).tolist()
            alive -= {row for row in alive if best[row] == self.special.eos}
            for row in alive:
                tokens[row].append(best[row])
            if not alive or step == max_new_tokens - 1 or passes.length == self._context():
                break
            hidden = passes.feed(self._embed([[token] for token in best]))
            logits = self._logits(hidden)
        return BatchedRun(
            thoughts=torch.stack(predicted, dim=1),
            attention=passes.rows[1 : self.n_thoughts + 1],
            logits=first,
            tokens=tokens,
            answers=[str(self.tokenizer.decode(row, skip_special_tokens=True)) for row in tokens],
        )

    def _prompt(self, question: str | Sequence[int]) -> list[int]:
        if isinstance(question, str):
            text = question.strip().replace("  ", " ") + self.question_end
            tokens = list(self.tokenizer(text)["input_ids"])
        else:
            tokens = [int(token) for token in question]
        return [*tokens, *([] if self.remove_eos else [self.special.eos]), self.special.bot]

    def _closing(self) -> list[int]:
        return [self.special.eot, *([self.special.eos] if self.eos_after_eot else [])]

    def _embed(self, ids: list[list[int]]) -> Float[Tensor, "problem pos d_model"]:
        device = self.language_model.device
        return self.language_model.get_input_embeddings()(torch.tensor(ids, device=device))

    def _logits(self, hidden: Float[Tensor, "problem d_model"]) -> Float[Tensor, "problem vocab"]:
        return self.language_model.get_output_embeddings()(hidden)  # type: ignore[misc]

    def _allowed(self, logits: Float[Tensor, "*problem vocab"]) -> Float[Tensor, "*problem vocab"]:
        """Any token but eot and padding rows; pad and bot are allowed."""
        ids = torch.arange(logits.shape[-1], device=logits.device)
        return logits.masked_fill(
            (ids == self.special.eot) | (ids >= self.special.n_tokens), -torch.inf
        )

    def _context(self) -> int:
        return self.language_model.config.max_position_embeddings

    def _decode(
        self, passes: _Passes, logits: Float[Tensor, "vocab"], max_new_tokens: int
    ) -> tuple[list[int], list[float]]:
        tokens: list[int] = []
        margins: list[float] = []
        for step in range(max_new_tokens):
            best = self._allowed(logits).topk(2)
            margins.append(float(best.values[0] - best.values[1]))
            token = int(best.indices[0])
            if token == self.special.eos:
                break
            tokens.append(token)
            if step == max_new_tokens - 1 or passes.length == self._context():
                break
            hidden = passes.feed(self._embed([[token]]))
            logits = self._logits(hidden)[0]
        return tokens, margins


class _Passes:
    """Forward passes through one transformers cache, and the last query's attention of each."""

    def __init__(self, language_model: PreTrainedModel) -> None:
        self.language_model = language_model
        # Without the config no layer forgets: a sliding window then shows in the mask alone, and
        # every row of attention has all keys.
        self.cache = DynamicCache()
        self.rows: list[Float[Tensor, "problem layer head key"]] = []

    @property
    def length(self) -> int:
        return self.cache.get_seq_length()

    @torch.no_grad()
    def feed(
        self, vectors: Float[Tensor, "problem pos d_model"], mask: Tensor | None = None
    ) -> Float[Tensor, "problem d_model"]:
        """The final-norm hidden state at the last of these positions."""
        out = self.language_model.base_model(
            inputs_embeds=vectors,
            attention_mask=mask,
            **cached(self.language_model.base_model, self.cache),
            use_cache=True,
            output_attentions=True,
        )
        self.rows.append(torch.stack([layer[:, :, -1] for layer in out.attentions], dim=1))
        return out.last_hidden_state[:, -1]


def _stacked(
    rows: Sequence[Float[Tensor, "layer head _"]],
) -> Float[Tensor, "layer head query key"]:
    width = rows[-1].shape[-1]
    return torch.stack([F.pad(row, (0, width - row.shape[-1])) for row in rows], dim=2)
