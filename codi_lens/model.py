"""`CodiModel`: a CODI checkpoint as a TransformerLens model that can think."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Never, Unpack

import torch
from jaxtyping import Float
from torch import Tensor

from codi_lens.loading.backends import Backend, usable_backend
from codi_lens.loading.building import move, parts_of
from codi_lens.loading.checkpoint import AuxiliaryChoice, read_checkpoint
from codi_lens.loading.elsewhere import not_offered
from codi_lens.loading.fingerprint import fingerprint
from codi_lens.loading.hub import Hub
from codi_lens.loading.loaded import Loaded
from codi_lens.loading.placement import usable_device, usable_dtype, usable_placement
from codi_lens.loading.save import save_model
from codi_lens.problems.problem import Problem
from codi_lens.thinking.asked import Asked, Scored, Thinking
from codi_lens.thinking.given import Kinds, Vectors
from codi_lens.thinking.hook_names import NamesFilter
from codi_lens.thinking.hooks import Intervention
from codi_lens.thinking.plan import Planned
from codi_lens.thinking.run import Cache, ThoughtRun
from codi_lens.thinking.think import think
from codi_lens.thinking.ways import Way, in_way
from codi_lens.verification.verify import Verification, verify


@dataclass(frozen=True, eq=False, repr=False)
class CodiModel(Loaded):
    """A CODI model that can think, verify itself and be saved.

    Attributes:
        lens: the language model; every TransformerLens tool works on it. Weights are raw: nothing
            is folded or centred, since a thought is the hidden state after the final norm.
        projection: from the final-norm hidden state to the next thought, both of size d_model.
        tokenizer: the base model's tokenizer.
        config: special tokens, number of thoughts, and the settings the model was loaded with.
        backbone: the Hugging Face configuration of the language model.
        auxiliary: the decoder that only training uses, where it was kept.
    """

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path,
        base: str | Path | None = None,
        *,
        lora_alpha: int | float | None = None,
        n_thoughts: int | None = None,
        remove_eos: bool | None = None,
        bot: str | int | None = None,
        eot: str | int | None = None,
        device: str | torch.device = "cpu",
        dtype: torch.dtype | str = torch.float32,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        auxiliary: AuxiliaryChoice = "drop",
        backend: Backend | None = None,
    ) -> CodiModel:
        """Load a CODI checkpoint from a folder, a file or a Hugging Face hub repository.

        Arguments left None come from `codi_config.json`, the adapter config, the table of known
        checkpoints or the code of the family; if none says, it is an error that names the argument.

        Args:
            source: a folder, a file of weights, a shipped model ("tiny-gpt2", "tiny-recall"), or a
                hub name such as "zen-E/CODI-gpt2".
            base: folder or hub name of the base model, for its config and tokenizer, and for the
                weights that an adapter alone leaves out.
            lora_alpha: LoRA scaling; accepted and unused for a file without LoRA.
            n_thoughts: how many thoughts to think.
            remove_eos: whether the model was trained without EOS between question and thoughts.
            bot, eot: tokens (or ids) that open and close thinking; by default the tokenizer's own
                (`<|bocot|>`, `<|start-latent|>`) or those that its code adds to the vocabulary.
            device: where the model runs; "auto" takes CUDA where it is there, else the CPU.
            dtype: of weights and activations, such as torch.bfloat16 or "bfloat16".
            revision: branch, tag or commit of the hub repository.
            token: opens gated and private repositories; by default that of `hf auth login`.
            cache_dir: where files from the hub are kept; by default its usual cache.
            auxiliary: "keep" keeps SIM-CoT's decoder, for `readout.decode_with_auxiliary`.
            backend: what `model.lens` is, "hooked" (a `HookedTransformer`) or "bridge" (a
                `TransformerBridge`); by default the first that the installed TransformerLens has.

        Raises:
            CheckpointError: the source cannot be loaded exactly; says why and what is needed.

        >>> model = CodiModel.from_pretrained("checkpoints/tiny-gpt2")
        >>> model.lens.cfg.n_layers, model.lens.cfg.n_heads, model.config.n_thoughts
        (3, 8, 6)
        """
        device, dtype, backend = usable_device(device), usable_dtype(dtype), usable_backend(backend)
        checkpoint = read_checkpoint(
            source,
            base=base,
            lora_alpha=lora_alpha,
            n_thoughts=n_thoughts,
            remove_eos=remove_eos,
            bot=bot,
            eot=eot,
            auxiliary=auxiliary,
            backend=backend,
            hub=Hub(revision, token, cache_dir),
        )
        return cls(**parts_of(checkpoint, backend, device, dtype))

    def think(
        self,
        questions: Iterable[str] | Iterable[Sequence[int]],
        *,
        thoughts: Float[Tensor, "problem thought d_model"] | Vectors | None = None,
        answers: Iterable[str] | Iterable[Sequence[int]] | None = None,
        kind: Kinds = "number",
        max_new_tokens: int = 64,
        names_filter: NamesFilter = None,
        interventions: Intervention | Planned | Iterable[Intervention | Planned] = (),
        ids: Sequence[str] | None = None,
        fused: bool = False,
    ) -> ThoughtRun:
        """Run questions through continuous thoughts to answers, as one batch.

        Args:
            questions: texts, or lists of token ids (the question's tokens only, BOS included where
                the model uses it). Words that the tokenizer lacks become its unknown token, with
                a `ProblemWarning`.
            thoughts: feed these instead of the model's own; a tensor or an array.
            answers: score these instead of decoding: texts, tokenised without special tokens, or
                lists of token ids. EOS follows each; `run.answer_log_probs` holds the scores.
            kind: of the answers, "number", "choice", "boolean" or "text", or one for each; it
                decides where `anchor` is. `problem.form` also says which labels choices have.
            max_new_tokens: greedy decoding stops at EOS, here, or at the end of the context.
            names_filter: which activations `run.cache()` keeps from the run: a hook name, a list
                of them or a predicate. None keeps none; `run.cache()` then replays a clean run.
            interventions: scoped hooks (one, or several), alive in every forward pass, applied in
                the given order. Hooks set with plain `model.lens.hooks(...)` are alive too, and see
                each pass as it comes.
            ids: stable ids of the problems, from which donors are drawn; by default digests of
                their tokens.
            fused: let questions go through PyTorch's fused attention where no hook looks at their
                scores or patterns: faster, and equal to rounding in the model's precision, but not
                bit for bit, as runs under interventions are otherwise where these change nothing.

        Returns:
            The run, in the order of the questions.

        Raises:
            ActivationError: NaN or infinite activations; says where they began.
            ProblemError: an empty question or answer, one that does not fit into the context, an
                unknown token id, or not one answer per question.
            PositionError: `thoughts` has the wrong shape, or a scope names no position.
            InterventionError: a hook does not exist, never fired, or masked every key of a query.

        >>> model = CodiModel.from_pretrained("checkpoints/tiny-gpt2")
        >>> question = "Zoe has 14 coins. Then she finds 7 more. How many coins does she have?"
        >>> run = model.think([question])
        >>> run.answers
        ['The answer is: 21']
        >>> tuple(run.thoughts.shape)
        (1, 6, 96)
        """
        return think(
            self,
            questions,
            thoughts=thoughts,
            answers=answers,
            kind=kind,
            max_new_tokens=max_new_tokens,
            names_filter=names_filter,
            interventions=interventions,
            ids=ids,
            fused=fused,
        )

    __call__ = think

    def run_with_cache(
        self,
        questions: Iterable[str] | Iterable[Sequence[int]],
        **asked: Unpack[Thinking],
    ) -> tuple[ThoughtRun, Cache]:
        """A run, and its `run.cache()`: all activations, or those that `names_filter` selects.

        Arguments and errors as of `think`.

        >>> model = CodiModel.from_pretrained("checkpoints/tiny-gpt2")
        >>> question = "Zoe has 14 coins. Then she finds 7 more. How many coins does she have?"
        >>> run, cache = model.run_with_cache([question])
        >>> tuple(cache["pattern", 1][0, 7, int(run.index("ct2"))].shape)
        (31,)
        """
        if asked.get("names_filter") is None:
            asked["names_filter"] = lambda name: True
        run = self.think(questions, **asked)
        return run, run.cache()

    def to(self, *targets: str | torch.device | torch.dtype) -> CodiModel:
        """Move the model, in place, to a device, a dtype or both; returns the model itself.

        Weights that were rounded stay so when they are cast back.

        Raises:
            CheckpointError: no such device or dtype.

        >>> model = CodiModel.from_pretrained("tiny-gpt2").to("cpu", "bfloat16")
        >>> model.lens.cfg.dtype, model.projection[1].weight.dtype
        (torch.bfloat16, torch.bfloat16)
        """
        move(self, *usable_placement(targets))
        return self

    if not TYPE_CHECKING:  # so that checkers still see what is misspelt

        def __getattr__(self, name: str) -> Never:
            """Say how that is done here."""
            raise not_offered(name, dir(type(self)), vars(self).get("lens"))

    def in_way(self, way: Way) -> CodiModel:
        """The same weights as a model whose every run is of one way, for whatever takes a model.

        Experiments, lens and donors then run so, and `think` itself; what is about thoughts
        refuses. `model.lens` is shared. Results on disk of one way are not resumed in another.

        Args:
            way: "think"; "skip", see `skip`; or "explain", see `explain`.

        Raises:
            ProblemError: no such way.

        >>> model = CodiModel.from_pretrained("checkpoints/tiny-gpt2")
        >>> question = "Zoe has 14 coins. Then she finds 7 more. How many coins does she have?"
        >>> model.in_way("skip").think([question]).answers == model.skip([question]).answers
        True
        """
        return in_way(self, way)

    def skip(
        self,
        questions: Iterable[str] | Iterable[Sequence[int]],
        **asked: Unpack[Scored],
    ) -> ThoughtRun:
        """Answer with no thoughts: question, `bot`, `eot`, answer.

        CODI trains no model to do this, the shipped ones included, so what comes is what the answer
        owes to something other than thoughts. It equals `truncate_thoughts(0)`, without the cost of
        thinking first.

        Arguments and errors as of `think`, without `thoughts`. The attention has the rows `bot`,
        `eot`, `anchor`; interventions act at "question", "bot", "eot", "answer" or "all".

        >>> model = CodiModel.from_pretrained("checkpoints/tiny-gpt2")
        >>> question = "Zoe has 14 coins. Then she finds 7 more. How many coins does she have?"
        >>> model.skip([question]).attention["query"].values.tolist()
        ['bot', 'eot', 'anchor']
        """
        return think(in_way(self, "skip"), questions, **asked)

    def explain(
        self,
        questions: Iterable[str] | Iterable[Sequence[int]],
        **asked: Unpack[Asked],
    ) -> ThoughtRun:
        """Write the explicit chain of thought, greedily: CODI's teacher, in the same weights.

        The teacher's prompt is the question alone, with EOS where the model keeps it; a model that
        does has a second EOS between chain and answer, which is fed too. All that is written is
        `run.answers`: the chain, then the answer. As in `think`, `eot` is never decoded.

        CODI trains teacher and student together, so a model trained by its code can do this; one
        whose teacher was another model, or that was trained on answers only, writes whatever its
        base model makes of a bare question, often the answer at once.

        Arguments and errors as of `think`, without `thoughts` and `answers`; up to 128 new tokens
        by default. `step0`, `step1` … are the results of the chain, numbers
        behind "=", before the answer; see `ThoughtRun.attention`. Interventions act at
        "question", "answer" (all that is written) or "all".

        >>> model = CodiModel.from_pretrained("checkpoints/tiny-gpt2")
        >>> question = "Zoe has 14 coins. Then she finds 7 more. Then she loses 2. "
        >>> run = model.explain([question + "How many coins does she have?"])
        >>> run.answers, run.attention["query"].values.tolist()
        (['<< 14 + 7 = 21 >>The answer is: 19'], ['step0', 'anchor'])
        """
        return think(in_way(self, "explain"), questions, **{"max_new_tokens": 128, **asked})

    def save_pretrained(self, folder: str | Path) -> Path:
        """Write the model as a folder that `from_pretrained` loads back identically.

        The language model goes into `model.safetensors` (or shards of 5 GB) under its Hugging
        Face names, LoRA merged, in the model's dtype, so that plain `transformers` opens the
        folder too; the projection into `projection.safetensors`; the settings into
        `codi_config.json`; config and tokenizer beside them. A model of `in_way` is saved as it
        thinks. An auxiliary decoder is not saved,
        which a `CheckpointWarning` says.

        Raises:
            OutputError: the folder exists and is not empty.
            CheckpointError: weights were changed into something the architecture cannot hold.

        >>> import tempfile
        >>> model = CodiModel.from_pretrained("checkpoints/tiny-gpt2")
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     saved = CodiModel.from_pretrained(model.save_pretrained(f"{folder}/merged"))
        >>> saved.fingerprint() == model.fingerprint()
        True
        """
        return save_model(in_way(self, "think"), folder)

    def verify(
        self,
        problems: Sequence[Problem] | None = None,
        n: int | None = None,
        *,
        settings: bool = True,
        expect_accuracy: float | int | None = None,
        official_batch: bool = False,
        max_new_tokens: int = 64,
    ) -> Verification:
        """Check that the model loaded right, against an independent implementation of CODI.

        Arguments and errors as of `codi_lens.verify`, which says the rule; `rich.print` shows the
        result.

        >>> model = CodiModel.from_pretrained("checkpoints/tiny-gpt2")
        >>> model.verify(n=1, settings=False).passed
        True
        """
        return verify(
            self,
            problems,
            n,
            settings=settings,
            expect_accuracy=expect_accuracy,
            official_batch=official_batch,
            max_new_tokens=max_new_tokens,
        )

    def fingerprint(self) -> str:
        """A digest of everything that decides a result: results of one model carry the same.

        Weights, architecture, settings, tokenizer and dtype count; where the model came from and
        how it was stored do not: a copy and a merged save have the same digest.
        """
        return fingerprint(self)
