"""The command that thinks and keeps, for others to start from."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro
from rich.console import Console

from codi_lens.cli.options import Batches, Corpus, DryRun, Flat, From, LoadingInWay, Model
from codi_lens.cli.planning import print_plan
from codi_lens.cli.printing import print_table
from codi_lens.errors import CodiLensError
from codi_lens.outputs import check_output, open_report
from codi_lens.wording import count, percent

if TYPE_CHECKING:
    import xarray as xr


def extract(
    model: Model,
    /,
    out: Annotated[
        Path, tyro.conf.arg(metavar="DIR", help="Folder for the store; the same command resumes.")
    ],
    corpus: Annotated[Corpus, Flat] = Corpus(),  # noqa: B008  (frozen)
    scores_only: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
    value_weighted: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
    strips: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
    half: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
    source: From = None,
    dry_run: DryRun = False,
    running: Annotated[Batches, Flat] = Batches(),  # noqa: B008  (frozen)
    loading: Annotated[LoadingInWay, Flat] = LoadingInWay(),  # noqa: B008  (frozen)
) -> None:
    """Think about problems once, and keep the attention for other commands (--from DIR).

    Args:
        scores_only: Keep every head's scores on every problem, mean and spread, and no attention.
        value_weighted: Also keep what each key writes, which ablate --top, --all and grade need.
        strips: Also keep the attention to every single token of each question.
        half: Keep float16, half the room: attention is off by at most 0.00025.
    """
    if scores_only and (value_weighted or strips or half):
        raise CodiLensError(
            "--scores-only keeps no attention, so it goes without --value-weighted, --strips and "
            "--half."
        )
    loading.check(model)
    command = "extract --scores-only" if scores_only else "extract"
    check_output(out, command)
    chosen, _ = corpus.choose(model)
    console = Console()
    loaded = loading.load(model, console)
    from codi_lens.attention.extract import extract as extract_attention
    from codi_lens.attention.opening import ATTENTION
    from codi_lens.attention.ranking import ranked_heads
    from codi_lens.attention.reduced import SCORES, extract_scores

    options: dict[str, Any] = {"source": source, **vars(running)}
    if not scores_only:
        options |= {
            "value_weighted": value_weighted,
            "strips": strips,
            "dtype": "float16" if half else None,
        }
    way, name = (extract_scores, SCORES) if scores_only else (extract_attention, ATTENTION)
    if dry_run:
        print_plan(console, len(chosen), partial(way, loaded, chosen, **options))
        return
    with open_report(out, command) as folder:
        place = folder / name
        found = way(loaded, chosen, place, **options)
    if scores_only:
        columns = ("name", "band", "type", "composite")
        rows = [
            (row["name"], row["band"], row["type"], f"{row['composite']:.2f}")
            for row in ranked_heads(found).head(10).to_dict("records")
        ]
        print_table(console, "Top heads, position view", columns, rows)
    reads = ["open_scores" if scores_only else "open_attention"] + ["open_strips"] * strips
    for sentence in _sentences(out, place, found, len(chosen), reads):  # names are not broken
        console.print(f"• {sentence}", highlight=False, markup=False, soft_wrap=True)


def _sentences(
    out: Path, place: Path, found: xr.DataArray | xr.Dataset, n: int, reads: Sequence[str]
) -> list[str]:
    """What is kept, and what reads it."""
    from codi_lens.attention.extract import accuracy

    files = [path for path in place.rglob("*") if path.is_file()]
    megabytes = sum(path.stat().st_size for path in files) / 1e6
    holds = f"{place} holds {count(n, 'problem')}: "
    sentences = [f"{holds}{megabytes:.1f} MB in {count(len(files), 'file')}."]
    if score := accuracy(found):
        sentences.append(
            f"The model answers {score['correct']} of {score['n']} correctly "
            f"({percent(score['accuracy'])})."
        )
    calls = [f"codi_lens.{name}({str(out)!r})" for name in reads]
    verb = "reads" if len(calls) == 1 else "read"
    return [*sentences, f"In Python, {' and '.join(calls)} {verb} it."]
