"""Commands on what other commands left in their folders; they load no model."""

from __future__ import annotations

import webbrowser
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from codi_lens.cli.printing import print_page
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
