"""The entry point: which command, and one line for a mistake."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

import tyro

from codi_lens.cli.commands import ablate, analyze, patch, study, verify
from codi_lens.errors import CodiLensError

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
