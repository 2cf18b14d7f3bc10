"""Options that commands share: how to load the model, which problems, how to run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

import tyro

from codi_lens.cli.threads import cores, default_threads
from codi_lens.errors import CodiLensError, ProblemError, shown
from codi_lens.loading.sources import check_source, learnt_family, shipped_models
from codi_lens.problems.corpora import gsm8k, load_problems, sample_indices
from codi_lens.problems.kinds import Kind
from codi_lens.problems.problem import Problem
from codi_lens.problems.stories import Family
from codi_lens.problems.words import word_problems
from codi_lens.workers.spread import Workers, spread_of

if TYPE_CHECKING:
    from rich.console import Console

    from codi_lens.model import CodiModel

Model = Annotated[
    str,
    tyro.conf.Positional,
    tyro.conf.arg(
        metavar="MODEL",
        help="Folder or file of a CODI checkpoint, a model that codi_lens ships "
        f"({', '.join(shipped_models())}), or a hub name such as zen-E/CODI-gpt2.",
    ),
]
Folder = Annotated[
    Path, tyro.conf.arg(metavar="DIR", help="Folder for the results; open index.html in it.")
]
ResumedFolder = Annotated[
    Path,
    tyro.conf.arg(metavar="DIR", help="Folder for the results; the same command resumes."),
]
From = Annotated[
    Path | None,
    tyro.conf.arg(
        name="from",
        metavar="DIR",
        help="Folder of extract, or of a command that keeps attention: taken instead of thinking.",
    ),
]
Count = Annotated[int | None, tyro.conf.arg(metavar="N")]
MinEffect = Annotated[
    float,
    tyro.conf.arg(
        metavar="NATS",
        help="Least effect of interest: what is not shown to be more does not matter.",
    ),
]
_MOST_THREADS = 1024
Flat = tyro.conf.arg(name="")
"""The fields of a dataclass as options without a prefix."""


@dataclass(frozen=True)
class Loading:
    """How to load the model; what its files do not say has to be given.

    Attributes:
        base: Folder or hub name of the base model, for its config and tokenizer, and for weights
            that an adapter alone leaves out.
        lora_alpha: LoRA scaling, where the checkpoint does not say it.
        n_thoughts: Number of thoughts, where the checkpoint does not say it.
        remove_eos: Whether no EOS follows the question, where the checkpoint does not say it.
        bot: Token or id that opens thinking, where the tokenizer has its own.
        eot: Token or id that closes thinking, where the tokenizer has its own.
        revision: Branch, tag or commit of the hub repository.
        cache_dir: Where files from the hub are kept; by default its usual cache.
        device: Where to run, such as cpu or cuda; auto takes cuda where it is there.
        dtype: Of weights and activations.
        backend: TransformerLens' HookedTransformer or TransformerBridge; by default the first that
            is installed.
        threads: CPU threads; by default OMP_NUM_THREADS or, where that is not set, every core that
            the process may use, but one for models of less than 50 million parameters, whose
            threads would wait for each other.
    """

    base: Annotated[str | None, tyro.conf.arg(metavar="MODEL")] = None
    lora_alpha: Annotated[float | None, tyro.conf.arg(metavar="ALPHA")] = None
    n_thoughts: Count = None
    remove_eos: Annotated[Literal["yes", "no"] | None, tyro.conf.arg(metavar="{yes,no}")] = None
    bot: Annotated[str | None, tyro.conf.arg(metavar="TOKEN")] = None
    eot: Annotated[str | None, tyro.conf.arg(metavar="TOKEN")] = None
    revision: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    cache_dir: Annotated[str | None, tyro.conf.arg(metavar="DIR")] = None
    device: Annotated[str, tyro.conf.arg(metavar="DEVICE")] = "cpu"
    dtype: Literal["float32", "bfloat16", "float16", "float64"] = "float32"
    backend: Literal["hooked", "bridge"] | None = None
    threads: Count = None

    def check(self, *models: str) -> None:
        """Refuse what is wrong without loading anything.

        Raises:
            CodiLensError: fewer than one thread or more than 1024, or no such model.
        """
        for model in models:
            check_source(model)
        if self.threads is not None and not 1 <= self.threads <= _MOST_THREADS:
            raise CodiLensError(
                f"threads must be at least 1 and at most {_MOST_THREADS}, not "
                f"{shown(self.threads)}."
            )

    @property
    def settings(self) -> dict[str, Any]:
        """What the files do not say, as `from_pretrained` and `inspect_checkpoint` take it."""
        return {
            "base": self.base,
            "lora_alpha": self.lora_alpha,
            "n_thoughts": self.n_thoughts,
            "remove_eos": None if self.remove_eos is None else self.remove_eos == "yes",
            "bot": _token(self.bot),
            "eot": _token(self.eot),
            "backend": self.backend,
        }

    def load(self, model: str, console: Console, *beside: CodiModel) -> CodiModel:
        """Load a checkpoint, with a spinner, and set the number of threads.

        Args:
            model: its name.
            console: where the spinner goes.
            beside: models that are loaded already; threads are those of the largest.

        Raises:
            CheckpointError: it cannot be loaded exactly.
        """
        with console.status("loading the model"):
            import torch

            from codi_lens.model import CodiModel

            torch.set_num_threads(self.threads or cores())
            loaded = CodiModel.from_pretrained(
                model,
                **self.settings,
                revision=self.revision,
                cache_dir=self.cache_dir,
                device=self.device,
                dtype=self.dtype,
            )
            largest = max(_n_parameters(each) for each in (loaded, *beside))
            torch.set_num_threads(self.threads or default_threads(largest))
            return loaded

    def of_another(self) -> Loading:
        """For a second model: where and how to run; what files do not say is the first one's."""
        running = {"device": self.device, "dtype": self.dtype, "threads": self.threads}
        return Loading(cache_dir=self.cache_dir, **running)


@dataclass(frozen=True)
class LoadingInWay(Loading):
    """How to load the model, and how it answers.

    Attributes:
        way: In thoughts (think), at once without them (skip), or in written words (explain), for
            which --max-new-tokens has to hold the whole chain. What is about thoughts needs think.
    """

    way: Literal["think", "skip", "explain"] = "think"

    def load(self, model: str, console: Console, *beside: CodiModel) -> CodiModel:
        """As `Loading.load`, in the way that was asked for."""
        return super().load(model, console, *beside).in_way(self.way)


@dataclass(frozen=True)
class Corpus:
    """Which problems to think about.

    Attributes:
        problems: "builtin" (word problems of the family that the model learnt), a family of them
            ("plain", "hub", "skip", "sequential", "mixed"), "gsm8k", or a file in a format of the
            field: JSON, JSON lines, CSV, TSV, parquet, lines of GSM8K-Aug.
        n: How many problems: 100 by default (to verify and to grade, up to 200), or all of a
            smaller file.
        seed: Draws the problems, and whatever else is drawn; 42 gives the study's own 100 problems
            of gsm8k.
        question_field: Of a file: the field that holds the question, or several, with commas.
        answer_field: Of a file: the field that holds the answer.
        kind: Of a file: what its answers are, where its fields do not say it.
    """

    problems: Annotated[str, tyro.conf.arg(metavar="builtin|FAMILY|gsm8k|FILE")] = "builtin"
    n: Count = None
    seed: int = 42
    question_field: Annotated[str | None, tyro.conf.arg(metavar="NAME,…")] = None
    answer_field: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    kind: Annotated[Kind | None, tyro.conf.arg(metavar="{number,choice,boolean,text}")] = None

    def choose(self, *models: str, default: int = 100) -> tuple[list[Problem], str]:
        """The problems, `default` of them if no number is given, and what to call them.

        Args:
            models: what is to think about them.
            default: how many.

        Raises:
            ProblemError: an unknown corpus, a bad file, fields or a kind of what is no file, `n`
                outside the corpus, or models that learnt different families of built-in problems.
        """
        self._check_fields()
        n = default if self.n is None else self.n
        family = self._family(models)
        if family is not None:
            named = "" if family == "plain" else f"{family}, "
            problems = word_problems(n, seed=self.seed, family=family)
            return list(problems), f"built-in, {named}test split"
        if self.problems == "gsm8k":
            return list(gsm8k(n, seed=self.seed)), "GSM8K train"
        path = Path(self.problems)
        if not path.exists():
            raise ProblemError(
                f"There is no problem file {path}; give a file, or one of builtin, gsm8k, "
                f"{', '.join(get_args(Family))}."
            )
        asked = None if self.question_field is None else split_names(self.question_field)
        loaded = load_problems(path, asked, self.answer_field, self.kind)
        n = min(default, len(loaded)) if self.n is None else self.n
        return [loaded[i] for i in sample_indices(len(loaded), n, seed=self.seed)], path.name

    def _check_fields(self) -> None:
        """Refuse to name fields where there are none."""
        named = ("question_field", "answer_field", "kind")
        given = [name for name in named if getattr(self, name) is not None]
        if given and self.problems in ("builtin", "gsm8k", *get_args(Family)):
            raise ProblemError(
                f"--{given[0].replace('_', '-')} is of a problem file; {self.problems} has no "
                "fields to name."
            )

    def donor_candidates(self, chosen: Sequence[Problem], *models: str) -> list[Problem]:
        """Problems of the same corpus among which donors with the same answer are looked for."""
        family = self._family(models)
        if family is None:
            return list(chosen)
        return list(word_problems(20 * len(chosen), seed=self.seed + 1, family=family))

    def _family(self, models: Sequence[str]) -> Family | None:
        """Which built-in problems; None of another corpus."""
        families: dict[str, Family] = {name: name for name in get_args(Family)}
        if self.problems in families:
            return families[self.problems]
        if self.problems != "builtin":
            return None
        learnt: list[Family] = sorted({learnt_family(model) for model in models})
        if len(learnt) > 1:
            raise ProblemError(
                f"The models learnt different built-in problems ({' and '.join(learnt)}); name the "
                f"family with --problems, for example --problems {learnt[0]}."
            )
        return learnt[0] if learnt else "plain"


DryRun = Annotated[
    bool,
    tyro.conf.FlagCreatePairsOff,
    tyro.conf.arg(help="Only run a sample, and say what the command would come to."),
]
"""Whether a command is planned, not done."""


@dataclass(frozen=True)
class Running:
    """How to run the model.

    Attributes:
        max_new_tokens: Longest answer, in tokens.
    """

    max_new_tokens: int = 64


@dataclass(frozen=True)
class Spread(Running):
    """How to run the model on many problems, here or by workers.

    Attributes:
        workers: How many workers of Ray do it (codi_lens[ray]); auto is one for each GPU or, on the
            CPU, for each core; by default none, and it is done here.
        ray_address: A running Ray cluster, auto or HOST:PORT; by default Ray starts here.
    """

    workers: Annotated[Workers | None, tyro.conf.arg(metavar="N|auto")] = None
    ray_address: Annotated[str | None, tyro.conf.arg(metavar="HOST:PORT|auto")] = None

    def __post_init__(self) -> None:
        """Refuse what cannot be, before anything is loaded."""
        spread_of(self.workers, self.ray_address)


@dataclass(frozen=True)
class Batches(Spread):
    """How to run the model on every problem once.

    Attributes:
        batch_size: Problems of median length per forward pass; more of short, fewer of long ones.
    """

    batch_size: int = 32


@dataclass(frozen=True)
class Rows(Spread):
    """How to run the model on every problem many times.

    Attributes:
        rows_at_once: Runs per forward pass.
    """

    rows_at_once: int = 128


def scope(text: str) -> str | list[str]:
    """Positions by name, as an intervention takes them."""
    return split_names(text) if "," in text else text.strip()


def split_names(text: str) -> list[str]:
    """Names with commas between them.

    Raises:
        CodiLensError: one is empty.
    """
    names = [name.strip() for name in text.split(",")]
    if not all(names):
        raise CodiLensError(f"One of the names in {text!r} is empty; give NAME,NAME.")
    return names


def _token(text: str | None) -> str | int | None:
    # A number of more digits is no id, and Python does not read one of thousands.
    return int(text) if text is not None and text.isdecimal() and len(text) < 10 else text


def _n_parameters(model: CodiModel) -> int:
    return sum(parameter.numel() for parameter in model.lens.parameters())
