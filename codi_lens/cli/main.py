"""The entry point: which command, and one line for a mistake.

No library is imported before `main` runs, so that ^C is one line from the first moment.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from codi_lens import __version__
from codi_lens.cli.interrupts import one_line_on_interrupt
from codi_lens.errors import CodiLensError

DESCRIPTION = """\
A microscope for continuous thought: which attention heads of a CODI model matter, and why.

codi-lens verify tiny-gpt2

codi-lens analyze tiny-gpt2 --out analysis

codi-lens study tiny-gpt2 tiny-llama --out study

codi-lens ablate tiny-gpt2 --all --out ablation

codi-lens patch tiny-gpt2 --out patching

codi-lens --version"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; mistakes of the caller end with one sentence and exit code 2."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    try:
        with one_line_on_interrupt():
            if given == ["--version"]:
                print(f"codi-lens {__version__}")
            else:
                _run(given)
    except CodiLensError as error:
        print(f"codi-lens: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except OSError as error:
        print(f"codi-lens: {error.strerror}: {error.filename}", file=sys.stderr)
        raise SystemExit(2) from None


def _run(arguments: list[str]) -> None:
    import tyro

    from codi_lens.cli import commands

    tyro.extras.subcommand_cli_from_dict(
        {
            "ablate": commands.ablate,
            "analyze": commands.analyze,
            "patch": commands.patch,
            "study": commands.study,
            "verify": commands.verify,
        },
        prog="codi-lens",
        description=DESCRIPTION,
        args=arguments,
        config=(tyro.conf.OmitSubcommandPrefixes,),
    )
