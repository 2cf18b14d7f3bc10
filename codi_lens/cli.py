"""The command line: `codi-lens analyze MODEL`, `codi-lens study MODEL_A MODEL_B`."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from codi_lens.errors import CodiLensError, ProblemError
from codi_lens.study import StudyThresholds

DEFAULT_N = 100


def analyze(
    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")],
    /,
    out: Annotated[Path, tyro.conf.arg(metavar="DIR")],
    problems: Annotated[str, tyro.conf.arg(metavar="builtin|gsm8k|FILE")] = "builtin",
    n: Annotated[int | None, tyro.conf.arg(metavar="N")] = None,
    seed: int = 42,
    view: Literal["position", "generation"] = "position",
    batch_size: int = 32,
    max_new_tokens: int = 64,
    base: Annotated[str | None, tyro.conf.arg(metavar="MODEL")] = None,
    lora_alpha: Annotated[float | None, tyro.conf.arg(metavar="ALPHA")] = None,
    n_thoughts: Annotated[int | None, tyro.conf.arg(metavar="N")] = None,
    remove_eos: Annotated[Literal["yes", "no"] | None, tyro.conf.arg(metavar="{yes,no}")] = None,
    device: Annotated[str, tyro.conf.arg(metavar="DEVICE")] = "cpu",
    threads: Annotated[int | None, tyro.conf.arg(metavar="N")] = None,
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
        base: Folder or hub name of the base model, for its config and tokenizer.
        lora_alpha: LoRA scaling, where the checkpoint does not say it.
        n_thoughts: Number of thoughts, where the checkpoint does not say it.
        remove_eos: Whether no EOS surrounds the question, where the checkpoint does not say it.
        device: Where to run, such as cpu or cuda.
        threads: CPU threads; all cores by default.
    """
    from codi_lens.outputs import check_output
    from codi_lens.report import analyze as run_analysis

    check_output(out)
    chosen, corpus = choose_problems(problems, n, seed)
    console = Console()
    settings = _settings(base, lora_alpha, n_thoughts, remove_eos, device)
    loaded = _load([model], settings, threads, console)[0]
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


def study(
    models: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")],
    /,
    out: Annotated[Path, tyro.conf.arg(metavar="DIR")],
    problems: Annotated[str, tyro.conf.arg(metavar="builtin|gsm8k|FILE")] = "builtin",
    n: Annotated[int | None, tyro.conf.arg(metavar="N")] = None,
    seed: int = 42,
    png: bool = False,
    thresholds: StudyThresholds = StudyThresholds(),  # noqa: B008  (frozen)
    batch_size: int = 32,
    max_new_tokens: int = 64,
    base: Annotated[str | None, tyro.conf.arg(metavar="MODEL")] = None,
    lora_alpha: Annotated[float | None, tyro.conf.arg(metavar="ALPHA")] = None,
    n_thoughts: Annotated[int | None, tyro.conf.arg(metavar="N")] = None,
    remove_eos: Annotated[Literal["yes", "no"] | None, tyro.conf.arg(metavar="{yes,no}")] = None,
    device: Annotated[str, tyro.conf.arg(metavar="DEVICE")] = "cpu",
    threads: Annotated[int | None, tyro.conf.arg(metavar="N")] = None,
) -> None:
    """Repeat the published study on one or two models, each quantity beside the corrected one.

    Args:
        models: One model, or two to compare: folders of CODI checkpoints, or hub names.
        out: Folder for the results; open index.html in it.
        problems: "builtin" (word problems), "gsm8k", or a JSON or JSON-lines file.
        n: How many problems: 100 by default, or all that a smaller file holds.
        seed: Draws the problems; 42 gives the study's own 100 problems of gsm8k.
        png: Also write static images, where kaleido and a browser are there.
        thresholds: The study's thresholds.
        batch_size: Problems per forward pass.
        max_new_tokens: Longest answer, in tokens.
        base: Folder or hub name of the base model, for its config and tokenizer.
        lora_alpha: LoRA scaling, where a checkpoint does not say it.
        n_thoughts: Number of thoughts, where a checkpoint does not say it.
        remove_eos: Whether no EOS surrounds the question, where a checkpoint does not say it.
        device: Where to run, such as cpu or cuda.
        threads: CPU threads; all cores by default.
    """
    from codi_lens.outputs import check_output
    from codi_lens.study_report import check_models, report_study

    check_models(models)
    check_output(out, "results")
    chosen, corpus = choose_problems(problems, n, seed)
    console = Console()
    settings = _settings(base, lora_alpha, n_thoughts, remove_eos, device)
    report = report_study(
        _load(models, settings, threads, console),
        chosen,
        out,
        thresholds=thresholds,
        corpus=corpus,
        batch_size=batch_size,
        max_new_tokens=max_new_tokens,
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


def choose_problems(problems: str, n: int | None, seed: int) -> tuple[list[Any], str]:
    """The problems that the command line names, and what to call them.

    Raises:
        ProblemError: an unknown corpus, a bad file, or `n` outside the corpus.
    """
    from codi_lens.problems import gsm8k, load_problems, sample_indices, word_problems

    if problems == "builtin":
        return list(word_problems(DEFAULT_N if n is None else n, seed=seed)), "built-in, test split"
    if problems == "gsm8k":
        return list(gsm8k(DEFAULT_N if n is None else n, seed=seed)), "GSM8K train"
    if not Path(problems).is_file():
        raise ProblemError(
            f"There is no problem file {problems}; give a file, or one of builtin and gsm8k."
        )
    loaded = load_problems(problems)
    n = min(DEFAULT_N, len(loaded)) if n is None else n
    return [loaded[i] for i in sample_indices(len(loaded), n, seed=seed)], Path(problems).name


def _settings(
    base: str | None,
    lora_alpha: float | None,
    n_thoughts: int | None,
    remove_eos: str | None,
    device: str,
) -> dict[str, Any]:
    return {
        "base": base,
        "lora_alpha": lora_alpha,
        "n_thoughts": n_thoughts,
        "remove_eos": None if remove_eos is None else remove_eos == "yes",
        "device": device,
    }


def _load(
    models: Sequence[str], settings: dict[str, Any], threads: int | None, console: Console
) -> list[Any]:
    if threads is not None and threads < 1:
        raise CodiLensError(f"threads must be at least 1, not {threads}.")
    with console.status("loading"):
        import torch

        from codi_lens.model import CodiModel

        torch.set_num_threads(threads or os.cpu_count() or 1)
        return [CodiModel.from_pretrained(model, **settings) for model in models]


COMMANDS: dict[str, Callable[..., None]] = {"analyze": analyze, "study": study}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; mistakes of the caller end with one sentence and exit code 2."""
    try:
        tyro.extras.subcommand_cli_from_dict(
            COMMANDS,
            prog="codi-lens",
            description=(
                "A microscope for continuous thought: which attention heads of a CODI model "
                "matter, and why.\n\n"
                "codi-lens analyze checkpoints/tiny-gpt2 --out analysis\n\n"
                "codi-lens study checkpoints/tiny-gpt2 checkpoints/tiny-llama --out study"
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
