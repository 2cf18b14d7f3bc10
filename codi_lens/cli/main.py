"""The entry point: which command, and one line for a mistake.

No library is imported before `main` runs, so that ^C is one line from the first moment.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
import traceback
from collections.abc import Sequence
from typing import NoReturn

from codi_lens import __version__
from codi_lens.cli.interrupts import one_line_on_interrupt
from codi_lens.cli.streams import leave_quietly, one_line, spell_what_cannot_be_printed
from codi_lens.errors import CodiLensError

DESCRIPTION = """\
A microscope for continuous thought: which attention heads of a CODI model matter, and why.

codi-lens inspect tiny-gpt2

codi-lens verify tiny-gpt2

codi-lens analyze tiny-gpt2 --out analysis

codi-lens extract tiny-gpt2 --out extraction

codi-lens explore analysis --open

codi-lens read tiny-gpt2 --out reading

codi-lens study tiny-gpt2 tiny-llama --out study

codi-lens ablate tiny-gpt2 --all --out ablation

codi-lens patch tiny-gpt2 --out patching

codi-lens grade tiny-recall --control tiny-recall-control --out grades

codi-lens generalise tiny-recall --corpora hub,skip,sequential --out corpora

codi-lens --version"""
UNEXPECTED = 70
"""The exit code after a fault of codi_lens itself, as `sysexits.h` has it."""
_CLOSED_PIPE = 141
_MOST_SHOWN = 200


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; mistakes of the caller end with one sentence and exit code 2.

    So does what the system refuses, such as a full disk. Whatever else goes wrong is one line too,
    and exit code 70; its traceback is in a file that the line names.
    """
    given = sys.argv[1:] if arguments is None else list(arguments)
    spell_what_cannot_be_printed()
    # Threads that wait spinning stop each other where the cores are shared; torch reads this when
    # it is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        with one_line_on_interrupt():
            if given == ["--version"]:
                print(f"codi-lens {__version__}")
            else:
                _run(given)
            sys.stdout.flush()
    except CodiLensError as error:
        _stop(str(error), 2)
    except BrokenPipeError:
        leave_quietly()
        raise SystemExit(_CLOSED_PIPE) from None
    except OSError as error:
        _stop(_refusal(error), 2)
    except Exception as error:
        what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        _stop(f"an unexpected error, {_short(what)}; {_keep_traceback(error)}", UNEXPECTED)


def _stop(sentence: str, code: int) -> NoReturn:
    # What was given may be a name of thousands of characters.
    told = re.sub(r"\S{1000,}", lambda word: _short(word[0]), one_line(sentence))
    print(f"codi-lens: {told}", file=sys.stderr)
    raise SystemExit(code) from None


def _refusal(error: OSError) -> str:
    """What the system refused, and for which files, where it says so."""
    names = [os.fsdecode(name) for name in (error.filename, error.filename2) if name is not None]
    what = error.strerror or str(error) or type(error).__name__
    return f"{what}: {' -> '.join(map(_short, names))}" if names else f"{what}."


def _short(text: str) -> str:
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}…"


def _keep_traceback(error: Exception) -> str:
    """Write it where it does not scroll away; where that is, or why it is nowhere."""
    text = "".join(traceback.format_exception(error))
    try:
        with tempfile.NamedTemporaryFile(
            "w",
            encoding="utf-8",
            errors="backslashreplace",
            prefix="codi-lens-",
            suffix=".txt",
            delete=False,
        ) as file:
            file.write(text)
    except OSError as refused:
        return f"the traceback could not be written ({_refusal(refused)})"
    return f"the traceback is in {file.name}"


def _run(arguments: list[str]) -> None:
    if any("\0" in argument for argument in arguments):
        raise CodiLensError("An argument holds a NUL character, which no name or path can hold.")
    import tyro

    from codi_lens.cli import commands, comparisons, extraction, folders

    tyro.extras.subcommand_cli_from_dict(
        {
            "ablate": commands.ablate,
            "analyze": commands.analyze,
            "explore": folders.explore,
            "extract": extraction.extract,
            "generalise": comparisons.generalise,
            "grade": comparisons.grade,
            "inspect": folders.inspect,
            "patch": commands.patch,
            "read": commands.read,
            "study": comparisons.study,
            "verify": commands.verify,
        },
        prog="codi-lens",
        description=DESCRIPTION,
        args=arguments,
        config=(tyro.conf.OmitSubcommandPrefixes,),
    )
