"""Train the tiny CODI models that ship with codi_lens.

    python checkpoints/train.py tiny-gpt2             # base, LoRA, projection: as published models
    python checkpoints/train.py tiny-llama            # every weight trained
    python checkpoints/train.py tiny-gpt2 --control   # same size and steps, but no thoughts

Self-distillation as in CODI (arXiv 2502.21074): the same weights are taught explicit chain of
thought (teacher) and, in the same step, to answer after six continuous thoughts (student); a
smooth-L1 loss pulls every layer's hidden state at the token before the answer's number towards the
teacher's. Gradients run through the whole thought loop. For the first three quarters of the steps
an extra cross-entropy makes `ct0`..`ct3` decode the running totals; the last quarter is plain CODI.

Every batch is a function of the seed and the step, so a stopped run resumes from its work folder.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import hashlib
import json
import math
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
from torch import Tensor, nn
from torch.nn.utils import parametrize
from tqdm import tqdm
from transformers import (
    DynamicCache,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from codi_lens.loading.releases import cached
from codi_lens.problems import MAX_OPERATIONS, MAX_TOTAL, Family, WordProblem, word_problems

N_THOUGHTS = 6
IGNORED = -100


@dataclass(frozen=True)
class Recipe:
    """What distinguishes one tiny model from another; the rest is common to all."""

    name: str
    architecture: str
    lora_rank: int | None
    lora_alpha: int | None
    cot_cycles: tuple[int, ...]
    codi_steps: int
    codi_learning_rate: float
    history: str = ""
    start_from: str | None = None
    family: Family = "plain"
    solution: Literal["equations", "totals"] = "equations"
    n_operations: tuple[int, ...] | None = None
    supervised: Literal["all totals", "all but the answer", "none"] = "all totals"
    d_projection: int | None = None
    constant_thoughts: bool = False
    d_model: int = 96
    n_layers: int = 3
    n_heads: int = 8
    n_kv_heads: int = 4
    d_mlp: int = 256
    learning_rate: float = 2e-3
    projection_learning_rate: float = 2e-3
    batch_size: int = 128
    n_parts: int = 2
    warmup_steps: int = 50
    weight_decay: float = 0.01
    clip: float = 1.0

    @property
    def explicit(self) -> Recipe:
        """What decides on the explicit chain of thought; recipes that share it train it once."""
        return dataclasses.replace(
            self,
            name="explicit",
            history="",
            lora_rank=None,
            lora_alpha=None,
            start_from=None,
            codi_steps=0,
            codi_learning_rate=0.0,
            projection_learning_rate=Recipe.projection_learning_rate,
            supervised=Recipe.supervised,
            d_projection=None,
            constant_thoughts=False,
        )

    @property
    def total_steps(self) -> int:
        return sum(self.cot_cycles) + self.codi_steps


RECIPES = {
    recipe.name: recipe
    for recipe in (
        # Learned positions make GPT-2 slower to learn than rotary ones: after one cycle of 1,200
        # steps the base solves 65 % of held-out problems in words, LLaMA's 99.8 %.
        Recipe(
            "tiny-gpt2",
            "gpt2",
            lora_rank=64,
            lora_alpha=64,
            cot_cycles=(1200, 1800),
            codi_steps=1600,
            codi_learning_rate=4e-3,
            history="Seed 0 only. A first recipe (one cycle of 1,200 steps for the base, LoRA rank "
            "32, no supervision of the last running total) reached 83 % and was dropped.",
        ),
        Recipe(
            "tiny-llama",
            "llama",
            lora_rank=None,
            lora_alpha=None,
            cot_cycles=(1200,),
            codi_steps=1600,
            codi_learning_rate=2e-3,
            history="Seed 0 only. A first recipe (2,000 CODI steps, no supervision of the last "
            "running total) reached 98.9 % and was dropped.",
        ),
        Recipe(
            "tiny-recall",
            "llama",
            lora_rank=None,
            lora_alpha=None,
            cot_cycles=(2500, 2500),
            codi_steps=2000,
            codi_learning_rate=1e-3,
            projection_learning_rate=4e-3,
            batch_size=64,
            n_parts=1,
            family="mixed",
            solution="totals",
            n_operations=(3, 4, 4, 5, 5, 5),
            supervised="all but the answer",
            d_projection=12,
            history="The teacher writes the running totals alone, so that its steps are those of "
            "the thoughts; longer problems come more often. Tried and dropped, "
            "seed 0 each, accuracy on 1,000 held-out problems: a teacher that writes equations "
            "(1,200 explicit and 2,800 CODI steps, learning rate 2e-3) 70.9 %; the same with four "
            "layers, 38.2 % after 1,000 CODI steps where three have 48.0 % after 1,600, not "
            "finished; totals alone (2,500 and 1,500 steps, 2e-3) 76.5 %; the shipped recipe with "
            "24 numbers in the projection, whose loss was higher (0.79 against 0.54 after 600 CODI "
            "steps), not finished.",
        ),
    )
}
RECIPES["tiny-gpt2-plain"] = dataclasses.replace(
    RECIPES["tiny-gpt2"],
    name="tiny-gpt2-plain",
    start_from="tiny-gpt2",
    supervised="none",
    history="Seed 0 only. Explicit chain of thought is that of tiny-gpt2, whose base it starts "
    "from: up to there the two recipes are the same. The control of tiny-gpt2, trained without any "
    "thoughts, answers 77 %: distillation alone has not taught a model of this size to use its "
    "thoughts in as many steps.",
)
RECIPES["tiny-recall-control"] = dataclasses.replace(
    RECIPES["tiny-recall"], name="tiny-recall-control", constant_thoughts=True
)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Train one of the tiny CODI models.")
    parser.add_argument("recipe", choices=sorted(RECIPES))
    parser.add_argument(
        "--out", type=Path, help="where the checkpoint goes (default: checkpoints/RECIPE)"
    )
    parser.add_argument(
        "--work", type=Path, help="where a stopped run resumes (default: .training/RUN)"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--control", action="store_true", help="train without thoughts instead")
    options = parser.parse_args(arguments)
    recipe = RECIPES[options.recipe]
    run = f"{recipe.name}{'-control' if options.control else ''}-seed{options.seed}"
    here = Path(__file__).parent
    torch.set_num_threads(options.threads)
    if options.control:
        out = options.out or here.parent / ".training" / f"{run}-final"
    else:
        out = options.out or here / recipe.name
    work = options.work or here.parent / ".training" / run
    train(recipe, out=out, work=work, seed=options.seed, control=options.control)
    print(f"Wrote {out}.")


def train(recipe: Recipe, *, out: Path, work: Path, seed: int = 0, control: bool = False) -> None:
    """Run every phase of `recipe` (resuming from `work`) and write the checkpoint to `out`."""
    work.mkdir(parents=True, exist_ok=True)
    tokenizer = build_tokenizer(recipe.architecture, recipe.family)
    torch.manual_seed(seed)
    base = build_base(recipe, tokenizer)
    data = Data(tokenizer, recipe, seed)
    if control:
        _fit(
            recipe,
            base,
            data.batch,
            direct_loss,
            steps=recipe.total_steps,
            name="control",
            work=work,
            groups=[(base.parameters(), recipe.learning_rate)],
        )
        recipe = dataclasses.replace(recipe, lora_rank=None, lora_alpha=None)
        model = Codi(base, recipe)  # dense, in float32; its projection is unused
    else:
        done = 0
        if recipe.start_from is not None:
            base.load_state_dict(base_of(recipe.start_from), strict=False)  # lm_head is tied
        shared = work.parent / f"explicit-{_digest(recipe.explicit)}-seed{seed}"
        for cycle, steps in enumerate(() if recipe.start_from else recipe.cot_cycles, 1):
            shared.mkdir(parents=True, exist_ok=True)
            _fit(
                recipe.explicit,
                base,
                lambda step, done=done: data.batch(done + step),
                cot_loss,
                steps=steps,
                name=f"explicit CoT {cycle}",
                work=shared,
                groups=[(base.parameters(), recipe.learning_rate)],
            )
            done += steps
        if recipe.lora_rank is not None:
            base = base.to(torch.bfloat16).float()  # the published base weights are bf16
        torch.manual_seed(seed + 1)
        model = Codi(base, recipe)
        trained = [p for p in model.codi.parameters() if p.requires_grad]
        _fit(
            recipe,
            model,
            data.batch,
            codi_loss(recipe),
            steps=recipe.codi_steps,
            name="CODI",
            work=work,
            groups=[
                (trained, recipe.codi_learning_rate),
                (
                    [p for p in model.prj.parameters() if p.requires_grad],
                    recipe.projection_learning_rate,
                ),
            ],
        )
    save(model, recipe, tokenizer, out, seed=seed)


class Codi(nn.Module):
    """The original's module: a language model named `codi` and a projection named `prj`.

    With LoRA the language model is frozen and only the low-rank deltas train. They are merged once
    per step rather than applied to every activation: the same function, a third less work here.
    """

    def __init__(self, base: nn.Module, recipe: Recipe) -> None:
        super().__init__()
        self.codi = base
        if recipe.lora_rank is not None:
            base.requires_grad_(False)
            for name, module in list(base.named_modules()):
                if name.endswith(("c_attn", "c_proj", "c_fc")):
                    weight = module.get_parameter("weight")
                    delta = LoraDelta(weight, recipe.lora_rank, recipe.lora_alpha or 1)
                    parametrize.register_parametrization(module, "weight", delta)
        inner = recipe.d_projection or recipe.d_model
        last = nn.Linear(inner, recipe.d_model)
        if recipe.constant_thoughts:  # what is left is the bias of the LayerNorm, which trains
            for parameter in last.parameters():
                nn.init.zeros_(parameter).requires_grad_(False)
        self.prj = nn.Sequential(
            nn.Dropout(0.0),
            nn.Linear(recipe.d_model, inner),
            nn.GELU(),
            last,
        )
        self.prj.add_module("ln", nn.LayerNorm(recipe.d_model))

    def original_state_dict(self) -> dict[str, Tensor]:
        """Weights under the keys of the original code, where PEFT wraps a LoRA model."""
        state = {}
        wrapped = any(parametrize.is_parametrized(module) for module in self.codi.modules())
        for name, value in self.state_dict().items():
            if wrapped and name.startswith("codi."):
                name = f"codi.base_model.model.{name.removeprefix('codi.')}"
                module = name.split(".parametrizations.")[0].rsplit(".", 1)[0]
                if ".parametrizations.weight." in name:
                    module, part = name.split(".parametrizations.weight.")
                    suffix = {
                        "original": "base_layer.weight",
                        "0.A": "lora_A.default.weight",
                        "0.B": "lora_B.default.weight",
                    }
                    name = f"{module}.{suffix[part]}"
                elif name.endswith(("c_attn.bias", "c_proj.bias", "c_fc.bias")):
                    name = f"{module}.base_layer.bias"
            state[name] = value.detach().clone()
        return state


class LoraDelta(nn.Module):
    """W + alpha / r * B A, for GPT-2's Conv1D, which stores the transpose."""

    def __init__(self, weight: Tensor, rank: int, alpha: int) -> None:
        super().__init__()
        d_in, d_out = weight.shape
        self.A = nn.Parameter(torch.empty(rank, d_in))
        self.B = nn.Parameter(torch.zeros(d_out, rank))
        self.scale = alpha / rank
        nn.init.kaiming_uniform_(self.A, a=math.sqrt(5))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + self.scale * (self.B @ self.A).T


class Data:
    """Batches of word problems as token tensors; batch `step` is a function of seed and step."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, recipe: Recipe, seed: int) -> None:
        self.tokenizer = tokenizer
        self.recipe = recipe
        self.seed = seed
        self.eos = int(tokenizer.eos_token_id)  # type: ignore[arg-type]
        self.pad, self.bot, self.eot = (len(tokenizer) + i for i in range(3))

    def problems(self, step: int) -> list[WordProblem]:
        seed = 1_000_003 * (self.seed + 1) + step
        return word_problems(
            self.recipe.batch_size,
            seed=seed,
            split="train",
            family=self.recipe.family,
            n_operations=self.recipe.n_operations,
        )

    def batch(self, step: int) -> list[dict[str, Tensor]]:
        """The problems of one step, as parts of similar length (less padding, same gradient)."""
        problems = sorted(self.problems(step), key=lambda p: len(self._solution(p)))
        size = len(problems) // self.recipe.n_parts
        return [self._part(problems[i : i + size]) for i in range(0, len(problems), size)]

    def _ids(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False)

    def _solution(self, problem: WordProblem) -> list[int]:
        text = solution_text(problem, self.recipe)
        return self._ids(text) + self._ids(answer_text(problem)) + [self.eos]

    def _part(self, problems: Sequence[WordProblem]) -> dict[str, Tensor]:
        questions = [self.tokenizer.encode(problem.question) for problem in problems]
        width = max(map(len, questions))
        solutions = [self._solution(problem) for problem in problems]
        length = max(map(len, solutions))
        totals = torch.full((len(problems), MAX_OPERATIONS - 1), IGNORED)
        for row, problem in enumerate(problems):
            last = len(problem.totals) - (self.recipe.supervised == "all but the answer")
            for i, total in enumerate(problem.totals[: min(last, MAX_OPERATIONS - 1)]):
                totals[row, i] = self._ids(f" {total}")[0]
        answers = [[self.eot, *self._ids(answer_text(problem)), self.eos] for problem in problems]
        return {
            "questions": torch.tensor([[self.pad] * (width - len(q)) + q for q in questions]),
            "mask": torch.tensor([[0] * (width - len(q)) + [1] * len(q) for q in questions]),
            "solutions": torch.tensor([s + [IGNORED] * (length - len(s)) for s in solutions]),
            "anchors": torch.tensor([len(s) - 3 for s in solutions]),  # before number and EOS
            "totals": totals,
            "bot": torch.full((len(problems), 1), self.bot),
            "answers": torch.tensor(answers),
        }


def base_of(name: str) -> dict[str, Tensor]:
    """The base weights that a shipped model with LoRA was trained from."""
    file = Path(__file__).parent / name / "pytorch_model.bin"
    state = torch.load(file, weights_only=True)
    wrapped = "codi.base_model.model."
    return {
        key.removeprefix(wrapped).replace(".base_layer", ""): value.float()
        for key, value in state.items()
        if key.startswith(wrapped) and ".lora_" not in key
    }


def solution_text(problem: WordProblem, recipe: Recipe) -> str:
    """What the teacher writes before the answer: equations, or the totals alone."""
    if recipe.solution == "equations":
        return problem.solution
    return "".join(f" {total}" for total in problem.totals[:-1]) + "."


def answer_text(problem: WordProblem) -> str:
    return f"The answer is: {problem.answer}"


def build_tokenizer(architecture: str, family: Family = "plain") -> PreTrainedTokenizerFast:
    """A word-level tokenizer: a token carries the space before it, numbers are single tokens."""
    begin, end = (
        ("<|begin_of_text|>", "<|end_of_text|>")
        if architecture == "llama"
        else ("<|endoftext|>",) * 2
    )
    pieces = r" ?[A-Za-z]+| ?\d+| ?[^\sA-Za-z\d]+"
    split = pre_tokenizers.Split(Regex(pieces), "isolated")
    words: set[str] = set()
    for problem in word_problems(20_000, split="train", family=family):
        for text in (problem.question, problem.solution, answer_text(problem)):
            words.update(piece for piece, _ in split.pre_tokenize_str(text))
    numbers = [f" {number}" for number in range(MAX_TOTAL + 1)]
    ordered = list(dict.fromkeys([begin, end, "<|unk|>", *numbers, *sorted(words)]))
    tokenizer = Tokenizer(
        models.WordLevel({word: i for i, word in enumerate(ordered)}, unk_token="<|unk|>")
    )
    tokenizer.pre_tokenizer = split
    tokenizer.decoder = decoders.Fuse()
    if architecture == "llama":
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{begin} $A", special_tokens=[(begin, 0)]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=begin, eos_token=end, unk_token="<|unk|>"
    )


def build_base(recipe: Recipe, tokenizer: PreTrainedTokenizerFast) -> nn.Module:
    """The untrained language model; three ids (pad, bot, eot) follow the tokenizer's own."""
    vocabulary = len(tokenizer) + 3
    ids: Any = {"bos": tokenizer.bos_token_id, "eos": tokenizer.eos_token_id}
    if recipe.architecture == "gpt2":
        return GPT2LMHeadModel(
            GPT2Config(
                vocab_size=vocabulary,
                n_positions=128,
                n_embd=recipe.d_model,
                n_layer=recipe.n_layers,
                n_head=recipe.n_heads,
                activation_function="gelu_pytorch_tanh",  # gelu_new, in one operation
                resid_pdrop=0.0,
                embd_pdrop=0.0,
                attn_pdrop=0.0,
                bos_token_id=ids["bos"],
                eos_token_id=ids["eos"],
            )
        )
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocabulary,
            hidden_size=recipe.d_model,
            intermediate_size=recipe.d_mlp,
            num_hidden_layers=recipe.n_layers,
            num_attention_heads=recipe.n_heads,
            num_key_value_heads=recipe.n_kv_heads,
            max_position_embeddings=128,
            tie_word_embeddings=True,
            bos_token_id=ids["bos"],
            eos_token_id=ids["eos"],
        )
    )


class Run:
    """A left-padded batch that grows step by step; `fork` lets two continuations share a prefix."""

    def __init__(self, model: nn.Module) -> None:
        self.backbone = _backbone(model)
        self.cache = DynamicCache()
        self.mask: Tensor | None = None

    def extend(self, mask: Tensor | None = None, **inputs: Tensor) -> tuple[Tensor, ...]:
        """Feed `input_ids` or `inputs_embeds`; returns every layer's hidden states."""
        (new,) = inputs.values()
        added = torch.ones(new.shape[:2], dtype=torch.long) if mask is None else mask
        self.mask = added if self.mask is None else torch.cat([self.mask, added], dim=1)
        positions = (self.mask.cumsum(dim=1) - 1).clamp(min=0)[:, -new.shape[1] :]
        return self.backbone(
            **inputs,
            attention_mask=self.mask,
            position_ids=positions,
            **cached(self.backbone, self.cache),
            use_cache=True,
            output_hidden_states=True,
        ).hidden_states

    def fork(self) -> Run:
        other = copy.copy(self)
        other.cache = DynamicCache()
        layers: Any = self.cache.layers
        for layer, past in enumerate(layers):
            other.cache.update(past.keys, past.values, layer)
        return other


def cot_loss(base: nn.Module, part: dict[str, Tensor], progress: float) -> Tensor:
    """Next-token loss on solution and answer, given the question."""
    run = Run(base)
    last = run.extend(part["mask"], input_ids=part["questions"])[-1][:, -1:]
    return _teacher(base, run, last, part)[0]


def direct_loss(base: nn.Module, part: dict[str, Tensor], progress: float) -> Tensor:
    """The control: answer right after `bot` and `eot`, with no thoughts between."""
    rest = torch.cat([part["bot"], part["answers"][:, :-1]], dim=1)
    mask = F.pad(part["mask"], (0, rest.shape[1]), value=1)
    hidden = Run(base).extend(mask, input_ids=torch.cat([part["questions"], rest], dim=1))[-1]
    return _answer_loss(base, hidden[:, 1 - rest.shape[1] :], part)


def codi_loss(recipe: Recipe) -> Callable[[Codi, dict[str, Tensor], float], Tensor]:
    """The joint loss: student answer, teacher solution, distillation, step supervision."""

    def loss(model: Codi, part: dict[str, Tensor], progress: float) -> Tensor:
        run = Run(model.codi)
        last = run.extend(part["mask"], input_ids=part["questions"])[-1][:, -1:]
        total, teacher = _teacher(model.codi, run.fork(), last, part)
        thoughts, student = think(model, run, part)
        total = total + _answer_loss(model.codi, student[-1], part)
        rows = torch.arange(len(part["anchors"]))
        anchor = student[-1].shape[1] - 2  # the token before the number
        for own, reference in zip(student, teacher, strict=True):
            target = reference[rows, part["anchors"]].detach()
            distance = F.smooth_l1_loss(own[:, anchor], target) / target.std()
            total = total + distance / len(teacher)
        supervising = recipe.supervised != "none"
        weight = min(1.0, max(0.0, (0.75 - progress) / 0.25)) if supervising else 0.0
        if weight > 0:
            logits = _unembed(model.codi, thoughts[:, : part["totals"].shape[1]])
            supervised = (part["totals"] != IGNORED).sum().clamp(min=1)
            step_loss = F.cross_entropy(
                logits.flatten(0, 1),
                part["totals"].flatten(),
                ignore_index=IGNORED,
                reduction="sum",
            )
            total = total + weight * step_loss / supervised
        return total

    return loss


def think(model: Codi, run: Run, part: dict[str, Tensor]) -> tuple[Tensor, tuple[Tensor, ...]]:
    """The thought loop, then the answer: thoughts as fed, every layer's hidden states after."""
    hidden = run.extend(input_ids=part["bot"])[-1]
    thoughts = []
    for _ in range(N_THOUGHTS):
        thoughts.append(model.prj(hidden))
        hidden = run.extend(inputs_embeds=thoughts[-1])[-1]
    return torch.cat(thoughts, dim=1), run.extend(input_ids=part["answers"][:, :-1])


def save(
    model: Codi, recipe: Recipe, tokenizer: PreTrainedTokenizerFast, out: Path, *, seed: int
) -> None:
    """Write weights, configuration and tokenizer, in the layout of the published checkpoints."""
    out.mkdir(parents=True, exist_ok=True)
    state = model.original_state_dict()
    if recipe.lora_rank is not None:
        kept = ("lora_", "prj.")
        state = {
            name: value if any(mark in name for mark in kept) else value.to(torch.bfloat16)
            for name, value in state.items()
        }
        torch.save(state, out / "pytorch_model.bin")
    else:
        tied = next(name for name in state if name.endswith(("wte.weight", "embed_tokens.weight")))
        del state[tied]  # as files saved by safetensors do, keep lm_head
        save_file(
            {k: v.contiguous() for k, v in state.items()},
            out / "model.safetensors",
            metadata={"format": "pt"},
        )
    config: Any = model.codi.config
    values = config.to_diff_dict() | {"vocab_size": len(tokenizer), "dtype": "float32"}
    values["architectures"] = [type(model.codi).__name__]
    if recipe.architecture == "gpt2":
        values["activation_function"] = "gelu_new"
    (out / "config.json").write_text(json.dumps(values, indent=2) + "\n")
    tokenizer.save_pretrained(out)
    settings: dict[str, object] = {"n_thoughts": N_THOUGHTS, "remove_eos": True}
    if recipe.lora_rank is not None:
        settings["lora_alpha"] = recipe.lora_alpha
    settings["training"] = dataclasses.asdict(recipe) | {"seed": seed}
    (out / "codi_config.json").write_text(json.dumps(settings, indent=2) + "\n")


def _fit(
    recipe: Recipe,
    module: nn.Module,
    batches: Callable[[int], list[dict[str, Tensor]]],
    loss: Callable[..., Tensor],
    *,
    steps: int,
    name: str,
    work: Path,
    groups: Sequence[tuple[Iterable[nn.Parameter], float]],
    save_every: int = 100,
) -> None:
    state_file = work / f"{name.lower().replace(' ', '-')}.pt"
    optimizer = torch.optim.AdamW(
        [{"params": list(parameters), "lr": rate} for parameters, rate in groups],
        betas=(0.9, 0.99),
        weight_decay=recipe.weight_decay,
    )

    def scale(step: int) -> float:
        warm = min(1.0, (step + 1) / recipe.warmup_steps)
        return warm * 0.5 * (1 + math.cos(math.pi * min(1.0, step / steps)))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, scale)
    first = 0
    if state_file.is_file():
        state = torch.load(state_file, weights_only=True)
        if state["recipe"] != _identity(recipe):
            raise SystemExit(
                f"{state_file} belongs to another recipe; delete {work} to start anew."
            )
        module.load_state_dict(state["module"])
        optimizer.load_state_dict(state["optimizer"])
        schedule.load_state_dict(state["schedule"])
        first = state["step"]
    bar = tqdm(
        range(first, steps), desc=name, initial=first, total=steps, mininterval=5, file=sys.stderr
    )
    trained = [p for group in optimizer.param_groups for p in group["params"]]
    for step in bar:
        optimizer.zero_grad(set_to_none=True)
        parts = batches(step)
        value = 0.0
        for part in parts:
            with parametrize.cached():
                part_loss = loss(module, part, step / steps) / len(parts)
            part_loss.backward()
            value += part_loss.item()
        nn.utils.clip_grad_norm_(trained, recipe.clip)
        optimizer.step()
        schedule.step()
        if step % 20 == 0:
            bar.set_postfix(loss=f"{value:.4f}")
        if (step + 1) % save_every == 0 or step + 1 == steps:
            partial = state_file.with_suffix(".tmp")
            torch.save(
                {
                    "module": module.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "schedule": schedule.state_dict(),
                    "step": step + 1,
                    "recipe": _identity(recipe),
                },
                partial,
            )
            shutil.move(partial, state_file)


def _identity(recipe: Recipe) -> str:
    return repr(dataclasses.replace(recipe, history=""))


def _digest(recipe: Recipe) -> str:
    return hashlib.sha256(_identity(recipe).encode()).hexdigest()[:8]


def _teacher(
    base: nn.Module, run: Run, last: Tensor, part: dict[str, Tensor]
) -> tuple[Tensor, tuple[Tensor, ...]]:
    solutions = part["solutions"]
    states = run.extend(input_ids=solutions[:, :-1].clamp(min=0))
    hidden = torch.cat([last, states[-1]], dim=1)
    kept = solutions != IGNORED
    return F.cross_entropy(_unembed(base, hidden[kept]), solutions[kept]), states


def _answer_loss(base: nn.Module, hidden: Tensor, part: dict[str, Tensor]) -> Tensor:
    logits = _unembed(base, hidden)
    return F.cross_entropy(logits.flatten(0, 1), part["answers"][:, 1:].flatten())


def _backbone(model: nn.Module) -> nn.Module:
    return getattr(model, model.base_model_prefix)  # type: ignore[arg-type]


def _unembed(model: nn.Module, hidden: Tensor) -> Tensor:
    return model.lm_head(hidden)  # type: ignore[operator]


if __name__ == "__main__":
    main()
