"""Commands that load no model: on checkpoints, and on what other commands left in folders."""

from __future__ import annotations

import webbrowser
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from codi_lens.cli.options import Flat, Loading, Model
from codi_lens.cli.printing import print_findings, print_page, print_table
from codi_lens.errors import CodiLensError
from codi_lens.outputs import check_folder

Folders = Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="DIR")]


def explore(
    folders: Folders,
    /,
    out: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None,
    open: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
) -> None:
    """Gather what commands left in their folders into one explorer of all heads.

    Attention comes from the first folder that holds any (of analyze, ablate, patch, or
    results/MODEL of study), causal effects and what the lens read from all.

    Args:
        folders: Folders of one model.
        out: The page; by default explorer.html in the first folder.
        open: Open it in a browser.
    """
    if not folders:
        raise CodiLensError("explore needs the folder of a command: codi-lens explore analysis.")
    for folder in folders:
        check_folder(folder)
    from codi_lens.explorer.folder import PAGE, gather

    console = Console()
    with console.status("gathering"):
        page = gather(*folders).save(folders[0] / PAGE if out is None else out)
    print_page(console, page)
    if open:
        webbrowser.open(page.resolve().as_uri())


def inspect(
    model: Model,
    /,
    loading: Annotated[Loading, Flat] = Loading(),  # noqa: B008  (frozen)
) -> None:
    """Say what a checkpoint holds, and whether it would load with the same options.

    Weights are mapped, not loaded. Exit code 0: it would load. 1: it would not, and a sentence says
    why. 2: there is nothing of that name, or the command line cannot be read.
    """
    loading.check(model)
    console = Console()
    with console.status("inspecting"):
        from codi_lens.loading.hub import Hub
        from codi_lens.loading.inspection import inspect_checkpoint

        hub = Hub(loading.revision, cache_dir=loading.cache_dir)
        found = inspect_checkpoint(model, **loading.settings, hub=hub)
    shapes = ", ".join(f"{key} {value}" for key, value in found.architecture.items())
    about = [("family", found.family or "unknown"), ("architecture", shapes or "unknown")]
    sizes = (f"{name} ({_size(size)})" for name, size in found.files.items())
    print_table(console, model, ("", ""), [*about, ("files", ", ".join(sizes))], folded=("", ""))
    rows = [
        (each.name, str(each.tensors), f"{each.parameters:,}", ", ".join(each.dtypes), each.first)
        for each in found.groups
    ]
    columns = ("tensors of", "count", "numbers", "dtype", "the first")
    print_table(console, "Tensors", columns, rows, folded=columns[4:])
    rows = [(key, repr(value), who) for key, (value, who) in sorted(found.settings.items())]
    rows += [(key, "missing", f"pass {_option(how)}") for key, how in found.missing.items()]
    print_table(console, "Settings", ("setting", "value", "from"), rows, folded=("value", "from"))
    print_findings(console, found.notes)
    print_findings(console, [found.problem or f"{model} would load."])
    if not found.loadable:
        raise SystemExit(1)


def _option(argument: str) -> str:
    """An argument of Python as an option of the command line."""
    key, _, value = argument.partition("=")
    return f"--{key.replace('_', '-')} {'yes' if value == 'True' else value}"


def _size(bytes: int) -> str:
    return f"{bytes / 1e6:.1f} MB" if bytes >= 1e5 else f"{bytes / 1e3:.1f} kB"
