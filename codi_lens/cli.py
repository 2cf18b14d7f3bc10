"""The command line: `codi-lens verify`, `analyze`, `study`, `ablate` and `patch`."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from codi_lens.errors import CodiLensError, ProblemError
from codi_lens.study import StudyThresholds

if TYPE_CHECKING:
    from codi_lens.causal_report import CausalReport
    from codi_lens.model import CodiModel

DEFAULT_N = 100


@dataclass(frozen=True)
class Loading:
    """How to load the model; what its files do not say has to be given.

    Attributes:
        base: Folder or hub name of the base model, for its config and tokenizer.
        lora_alpha: LoRA scaling, where the checkpoint does not say it.
        n_thoughts: Number of thoughts, where the checkpoint does not say it.
        remove_eos: Whether no EOS follows the question, where the checkpoint does not say it.
        bot: Token or id that opens thinking, where the tokenizer has its own.
        eot: Token or id that closes thinking, where the tokenizer has its own.
        revision: Branch, tag or commit of the hub repository.
        device: Where to run, such as cpu or cuda.
        dtype: Of weights and activations.
        threads: CPU threads; all cores by default.
    """

    base: Annotated[str | None, tyro.conf.arg(metavar="MODEL")] = None
    lora_alpha: Annotated[float | None, tyro.conf.arg(metavar="ALPHA")] = None
    n_thoughts: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    remove_eos: Annotated[Literal["yes", "no"] | None, tyro.conf.arg(metavar="{yes,no}")] = None
    bot: Annotated[str | None, tyro.conf.arg(metavar="TOKEN")] = None
    eot: Annotated[str | None, tyro.conf.arg(metavar="TOKEN")] = None
    revision: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    device: Annotated[str, tyro.conf.arg(metavar="DEVICE")] = "cpu"
    dtype: Literal["float32", "bfloat16", "float16", "float64"] = "float32"
    threads: Annotated[int | None, tyro.conf.arg(metavar="N")] = None

    def load(self, model: str, console: Console) -> CodiModel:
        """Load a checkpoint, with a spinner.

        Raises:
            CheckpointError: it cannot be loaded exactly.
        """
        self.check()
        with console.status("loading the model"):
            import torch

            from codi_lens.model import CodiModel

            torch.set_num_threads(self.threads or os.cpu_count() or 1)
            return CodiModel.from_pretrained(
                model,
                self.base,
                lora_alpha=self.lora_alpha,
                n_thoughts=self.n_thoughts,
                remove_eos=None if self.remove_eos is None else self.remove_eos == "yes",
                bot=_token(self.bot),
                eot=_token(self.eot),
                revision=self.revision,
                device=self.device,
                dtype=getattr(torch, self.dtype),
            )

    def check(self) -> None:
        """Refuse what is wrong without loading anything.

        Raises:
            CodiLensError: fewer than one thread.
        """
        if self.threads is not None and self.threads < 1:
            raise CodiLensError(f"threads must be at least 1, not {self.threads}.")


def _token(text: str | None) -> str | int | None:
    return int(text) if text is not None and text.isdecimal() else text


Model = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
Corpus = Annotated[str, tyro.conf.arg(metavar="builtin|gsm8k|FILE")]
Count = Annotated[int | None, tyro.conf.arg(metavar="N")]
LoadingOptions = Annotated[Loading, tyro.conf.arg(name="")]


def analyze(
    model: Model,
    /,
    out: Annotated[Path, tyro.conf.arg(metavar="DIR")],
    problems: Corpus = "builtin",
    n: Count = None,
    seed: int = 42,
    view: Literal["position", "generation"] = "position",
    batch_size: int = 32,
    max_new_tokens: int = 64,
    loading: LoadingOptions = Loading(),
) -> None:
    """Find the attention heads that matter in a CODI model, and write a page that shows them.

    Args:
        model: Folder of a CODI checkpoint, or a hub name such as zen-E/CODI-gpt2.
        out: Folder for the results; open index.html in it.
        problems: "builtin" (word problems), "gsm8k", or a JSON or JSON-lines file.
        n: How many problems: 100 by default, or all that a smaller file holds.
        seed: Draws the problems.
        view: Rows are the thoughts that attend (position), or the study's loop steps (generation).
        batch_size: Problems per forward pass.
        max_new_tokens: Longest answer, in tokens.
        loading: How to load the model.
    """
    from codi_lens.outputs import check_output
    from codi_lens.report import analyze as run_analysis

    loading.check()
    check_output(out)
    chosen, corpus = choose_problems(problems, n, seed)
    console = Console()
    loaded = loading.load(model, console)
    analysis = run_analysis(
        loaded,
        chosen,
        out,
        view=view,
        corpus=corpus,
        batch_size=batch_size,
        max_new_tokens=max_new_tokens,
    )
    heads = analysis.heads[view]
    table = Table(title=f"Top heads, {view} view", box=SIMPLE_HEAD, title_style="bold")
    for column in ("head", "band", "type", "composite [95 %]", "strongest attention"):
        table.add_column(column, no_wrap=True)
    for row in heads.head(10).to_dict("records"):
        composite = f"{row['composite']:.2f}"
        if len(chosen) > 1:
            composite += f" [{row['composite_low']:.2f}, {row['composite_high']:.2f}]"
        looks = f"{row['max_query']} → {row['max_key']}  {row['max_attention']:.2f}"
        table.add_row(row["name"], row["band"], row["type"], Text(composite), looks)
    console.print(table)
    for sentence in analysis.findings:
        console.print(f"• {sentence}", highlight=False, markup=False)
    console.print(
        f"\nOpen [bold]{(analysis.folder / 'index.html').resolve()}[/bold]", soft_wrap=True
    )


def verify(
    model: Model,
    /,
    problems: Corpus = "builtin",
    n: Count = None,
    seed: int = 42,
    settings: bool = True,
    official_batch: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
    max_new_tokens: int = 64,
    loading: LoadingOptions = Loading(),
) -> None:
    """Check that a CODI checkpoint loads right: exit code 0 if it does, 1 if not.

    Thoughts, attention, logits and answers of the loaded model are compared with an independent
    implementation (transformers alone, LoRA unmerged, one problem at a time). Settings that no file
    proves are compared with their neighbours, on problems with known answers.

    Args:
        model: Folder of a CODI checkpoint, or a hub name such as zen-E/CODI-gpt2.
        problems: "builtin" (word problems), "gsm8k", or a JSON or JSON-lines file.
        n: How many problems: 8 by default, or all that a smaller file holds.
        seed: Draws the problems.
        settings: Compare lora_alpha, remove_eos, bot and eot, and n_thoughts with other values.
        official_batch: Also run the original evaluation's batched loop, with its padding leak.
        max_new_tokens: Longest answer, in tokens.
        loading: How to load the model.
    """
    chosen, _ = choose_problems(problems, n, seed, default=8)
    console = Console()
    verification = loading.load(model, console).verify(
        chosen, settings=settings, official_batch=official_batch, max_new_tokens=max_new_tokens
    )
    console.print(verification)
    if not verification.passed:
        raise SystemExit(1)


def study(
    models: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")],
    /,
    out: Annotated[Path, tyro.conf.arg(metavar="DIR")],
    problems: Corpus = "builtin",
    n: Count = None,
    seed: int = 42,
    n_probe: int = 600,
    png: bool = False,
    thresholds: StudyThresholds = StudyThresholds(),  # noqa: B008  (frozen)
    batch_size: int = 32,
    max_new_tokens: int = 64,
    loading: LoadingOptions = Loading(),
) -> None:
    """Repeat the published study on one or two models, each quantity beside the corrected one.

    Args:
        models: One model, or two to compare: folders of CODI checkpoints, or hub names.
        out: Folder for the results; open index.html in it.
        problems: "builtin" (word problems), "gsm8k", or a JSON or JSON-lines file.
        n: How many problems: 100 by default, or all that a smaller file holds.
        seed: Draws the problems; 42 gives the study's own 100 problems of gsm8k.
        n_probe: Further built-in problems for probing the thoughts (builtin only); 0 for none.
        png: Also write static images, where kaleido and a browser are there.
        thresholds: The study's thresholds.
        batch_size: Problems per forward pass.
        max_new_tokens: Longest answer, in tokens.
        loading: How to load the models.
    """
    from codi_lens.outputs import check_output
    from codi_lens.study_report import check_models, report_study

    loading.check()
    check_models(models)
    check_output(out, "results")
    chosen, corpus = choose_problems(problems, n, seed)
    console = Console()
    report = report_study(
        [loading.load(model, console) for model in models],
        chosen,
        out,
        thresholds=thresholds,
        corpus=corpus,
        batch_size=batch_size,
        max_new_tokens=max_new_tokens,
        n_probe=n_probe,
        png=png,
    )
    for each in report.studies:
        table = Table(title=each.model, box=SIMPLE_HEAD, title_style="bold", show_lines=True)
        for column in ("question", "the study's answer", "what answers it"):
            table.add_column(column, overflow="fold")
        for row in report.measured[each.model]:
            table.add_row(Text(row.question), Text(row.study), Text(row.corrected))
        console.print(table)
        failed = [check for check in each.checks if not check.passed]
        text = f"{len(each.checks) - len(failed)} of the study's {len(each.checks)} checks pass"
        text += "".join(f"; {check.name}: {check.detail}" for check in failed)
        console.print(f"• {text}.", highlight=False, markup=False)
    if report.without_png:
        console.print(f"• {report.without_png}", highlight=False, markup=False)
    console.print(f"\nOpen [bold]{(report.folder / 'index.html').resolve()}[/bold]", soft_wrap=True)


def ablate(
    model: Model,
    /,
    out: Annotated[Path, tyro.conf.arg(metavar="DIR")],
    heads: Annotated[str | None, tyro.conf.arg(metavar="L0H3,L5H3")] = None,
    top: Annotated[int | None, tyro.conf.arg(metavar="K")] = None,
    transplant_from: Annotated[str | None, tyro.conf.arg(metavar="MODEL")] = None,
    all: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
    mode: Literal["resample", "mean", "zero"] = "resample",
    at: Annotated[str, tyro.conf.arg(metavar="POSITIONS")] = "thinking",
    problems: Corpus = "builtin",
    n: Count = None,
    seed: int = 42,
    rows_at_once: int = 128,
    max_new_tokens: int = 64,
    loading: LoadingOptions = Loading(),
) -> None:
    """Ablate attention heads, and say what the answers lose; give one of heads, top and all.

    Args:
        model: Folder of a CODI checkpoint, or a hub name such as zen-E/CODI-gpt2.
        out: Folder for the results; the same command resumes.
        heads: These heads together, beside random heads of their layers, donors matched by answer
            and a placebo; and in pairs.
        top: The K highest by composite score, ranked on one half of the problems and ablated on
            the other: together, in growing numbers against random heads, kept alone, in pairs; and
            their attention patterns transplanted.
        transplant_from: With top, another model whose top heads give their patterns too.
        all: Every head alone, on one half of the problems, against the scores of the other half.
        mode: A head's output comes from another problem, is the mean, or zero (off-distribution).
        at: Positions by name, with commas: thinking, thoughts, question, bot, ct2, eot, answer.
        problems: "builtin" (word problems), "gsm8k", or a JSON or JSON-lines file.
        n: How many problems: 100 by default, or all that a smaller file holds.
        seed: Draws problems, halves, donors and random heads.
        rows_at_once: Runs per forward pass.
        max_new_tokens: Longest answer, in tokens.
        loading: How to load the model.
    """
    from codi_lens.ablation import ablate_all, ablate_set, ablate_top
    from codi_lens.experiments import parse_heads
    from codi_lens.outputs import check_output

    if (heads is not None) + (top is not None) + all != 1:
        raise CodiLensError("ablate needs exactly one of --heads, --top and --all.")
    if transplant_from is not None and top is None:
        raise CodiLensError("--transplant-from goes with --top.")
    loading.check()
    check_output(out, "outcomes")
    chosen, _ = choose_problems(problems, n, seed)
    console = Console()
    loaded = loading.load(model, console)
    settings: dict[str, Any] = {
        "mode": mode,
        "at": _scope(at),
        "seed": seed,
        "rows_at_once": rows_at_once,
        "max_new_tokens": max_new_tokens,
    }
    if all:
        report = ablate_all(loaded, chosen, out, **settings)
        _print_report(report, console, "heads", "name")
        return
    settings["candidates"] = _donor_candidates(problems, chosen, seed)
    if top is not None:
        other = None
        if transplant_from is not None:  # what its files do not say belongs to the first model
            shared = Loading(device=loading.device, dtype=loading.dtype, threads=loading.threads)
            other = shared.load(transplant_from, console)
        report = ablate_top(loaded, chosen, top, out, other=other, **settings)
    else:
        cfg = loaded.lens.cfg
        names = parse_heads(heads or "", cfg.n_layers, cfg.n_heads)
        report = ablate_set(loaded, chosen, names, out, **settings)
    _print_report(report, console, "controls", "arm")


def patch(
    model: Model,
    /,
    out: Annotated[Path, tyro.conf.arg(metavar="DIR")],
    questions: Annotated[str | None, tyro.conf.arg(metavar="thoughts,totals,…")] = None,
    at: Annotated[str, tyro.conf.arg(metavar="POSITIONS")] = "question,bot,thoughts,eot",
    components: Annotated[str, tyro.conf.arg(metavar="POINTS")] = "resid_pre,mlp_out",
    problems: Corpus = "builtin",
    n: Count = None,
    n_pairs: Count = None,
    seed: int = 42,
    rows_at_once: int = 128,
    max_new_tokens: int = 64,
    loading: LoadingOptions = Loading(),
) -> None:
    """Patch thoughts, attention between positions and the residual stream, and say what carries.

    Args:
        model: Folder of a CODI checkpoint, or a hub name such as zen-E/CODI-gpt2.
        out: Folder for the results; the same command resumes.
        questions: Some of thoughts, totals, restoration, edges, hub; by default all (totals of
            built-in problems only).
        at: Positions that restoration patches, by name, with commas.
        components: What restoration patches, with commas: resid_pre, resid_post, mlp_out, attn_out.
        problems: "builtin" (word problems), "gsm8k", or a JSON or JSON-lines file.
        n: How many problems: 100 by default, or all that a smaller file holds.
        n_pairs: How many pairs of problems for totals and restoration; by default as many.
        seed: Draws problems, pairs, halves and donors.
        rows_at_once: Runs per forward pass.
        max_new_tokens: Longest answer, in tokens.
        loading: How to load the model.
    """
    from codi_lens.outputs import check_output
    from codi_lens.patching import patch_positions

    loading.check()
    check_output(out, "outcomes")
    chosen, _ = choose_problems(problems, n, seed)
    console = Console()
    asked = None if questions is None else _names(questions)
    points: Any = _names(components)
    report = patch_positions(
        loading.load(model, console),
        chosen,
        out,
        questions=asked,
        at=_scope(at),
        components=points,
        n_pairs=n_pairs,
        seed=seed,
        rows_at_once=rows_at_once,
        max_new_tokens=max_new_tokens,
    )
    _print_report(report, console)


def _scope(text: str) -> str | list[str]:
    return _names(text) if "," in text else text.strip()


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",")]


def _donor_candidates(problems: str, chosen: Sequence[Any], seed: int) -> list[Any]:
    """Problems of the same corpus among which donors with the same answer are looked for."""
    from codi_lens.problems import word_problems

    if problems == "builtin":
        return list(word_problems(20 * len(chosen), seed=seed + 1))
    return list(chosen)


def _print_report(report: CausalReport, console: Console, main: str = "", label: str = "") -> None:
    """The sentences of a causal report, after the first rows of its main table."""
    from codi_lens.outputs import with_interval

    if main:
        table = Table(title="Effect of ablation", box=SIMPLE_HEAD, title_style="bold")
        table.add_column("heads", overflow="fold")
        for column in ("effect, nats [95 %]", "q", "accuracy", "changed"):
            table.add_column(column, no_wrap=True)
        for row in report.tables[main].head(15).to_dict("records"):
            shares = (
                "" if row[name] != row[name] else f"{100 * row[name]:.0f} %"  # NaN
                for name in ("accuracy", "changed")
            )
            effect, q = with_interval(row, "effect"), f"{row['q']:.4f}"
            table.add_row(Text(row[label]), Text(effect), q, *shares)
        console.print(table)
    for section in report.sections:
        console.print(f"\n[bold]{section.title}[/bold]")
        for sentence in section.findings:
            console.print(f"• {sentence}", highlight=False, markup=False)
    console.print(f"\nOpen [bold]{(report.folder / 'index.html').resolve()}[/bold]", soft_wrap=True)


def choose_problems(
    problems: str, n: int | None, seed: int, default: int = DEFAULT_N
) -> tuple[list[Any], str]:
    """The problems that the command line names, and what to call them; `default` of them.

    Raises:
        ProblemError: an unknown corpus, a bad file, or `n` outside the corpus.
    """
    from codi_lens.problems import gsm8k, load_problems, sample_indices, word_problems

    if problems == "builtin":
        return list(word_problems(default if n is None else n, seed=seed)), "built-in, test split"
    if problems == "gsm8k":
        return list(gsm8k(default if n is None else n, seed=seed)), "GSM8K train"
    if not Path(problems).is_file():
        raise ProblemError(
            f"There is no problem file {problems}; give a file, or one of builtin and gsm8k."
        )
    loaded = load_problems(problems)
    n = min(default, len(loaded)) if n is None else n
    return [loaded[i] for i in sample_indices(len(loaded), n, seed=seed)], Path(problems).name


COMMANDS: dict[str, Callable[..., None]] = {
    "ablate": ablate,
    "analyze": analyze,
    "patch": patch,
    "study": study,
    "verify": verify,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; mistakes of the caller end with one sentence and exit code 2."""
    try:
        tyro.extras.subcommand_cli_from_dict(
            COMMANDS,
            prog="codi-lens",
            description=(
                "A microscope for continuous thought: which attention heads of a CODI model "
                "matter, and why.\n\n"
                "codi-lens verify checkpoints/tiny-gpt2\n\n"
                "codi-lens analyze checkpoints/tiny-gpt2 --out analysis\n\n"
                "codi-lens study checkpoints/tiny-gpt2 checkpoints/tiny-llama --out study\n\n"
                "codi-lens ablate checkpoints/tiny-gpt2 --all --out ablation\n\n"
                "codi-lens patch checkpoints/tiny-gpt2 --out patching"
            ),
            args=arguments,
            config=(tyro.conf.OmitSubcommandPrefixes,),
        )
    except CodiLensError as error:
        print(f"codi-lens: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except OSError as error:
        print(f"codi-lens: {error.strerror}: {error.filename}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print("codi-lens: stopped; the same command resumes.", file=sys.stderr)
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
