"""Give codi_lens 10,000 odd inputs: `make fuzz` prints what became of them.

Problem files, checkpoint folders, command lines (in this process) and Python calls are drawn from
one seed, each input from its own number, so that `--only NUMBER` repeats one and shows its
traceback. An input is taken, or refused in one sentence; a bare traceback (of whatever class but
`CodiLensError`, exit code 70 on the command line) or an input that runs into the time limit is a
fault, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import io
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

os.environ |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}

import torch
from fuzz_calls import Calls
from fuzz_files import checkpoint_folder, problem_file

from codi_lens import CodiModel
from codi_lens.cli.main import main as command_line
from codi_lens.errors import CodiLensError
from codi_lens.loading.inspection import inspect_checkpoint
from codi_lens.problems import load_problems

KINDS = ("problem file", "checkpoint", "command line", "Python call")
SHARES = (35, 15, 25, 25)
LONGEST_SENTENCE = 1500
MEMORY = 24 << 30
TINY = {name: str(Path(__file__).parents[1] / "checkpoints" / name) for name in ("tiny-gpt2",)}


class Hang(BaseException):
    """The time limit of one input has passed."""


class Reached(BaseException):
    """A command has accepted its arguments and begun to run the model."""


@dataclass
class Count:
    """What became of the inputs of one kind."""

    outcomes: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0


@dataclass
class Fuzz:
    """All inputs of one seed.

    Attributes:
        seed: from which every input is drawn.
        limit: seconds for each input.
        scratch: a folder, emptied after every input.
    """

    seed: int
    limit: float
    scratch: Path
    calls: Calls = field(default_factory=Calls)

    def act(self, number: int) -> tuple[str, Callable[[], object], str]:
        """The kind of input `number`, what tries it, and how to show it."""
        rng = random.Random(f"{self.seed}-{number}")
        kind = rng.choices(KINDS, SHARES)[0]
        if kind == "problem file":
            path, told = problem_file(rng, self.scratch)
            return kind, lambda: load_problems(path), told
        if kind == "checkpoint":
            folder, told = checkpoint_folder(rng, self.scratch)
            return kind, lambda: load_and_think(folder), told
        if kind == "command line":
            arguments = command(rng, self.scratch)
            return kind, lambda: run_command(arguments), repr([a[:60] for a in arguments])
        call, told = self.calls.draw(rng, self.scratch)
        return kind, call, told

    def judge(self, act: Callable[[], object]) -> tuple[str, BaseException | None]:
        """Try one input: "taken", "refused", "traceback" or "hang", and what it raised."""
        faulthandler.dump_traceback_later(20 * self.limit, exit=True)  # what no signal interrupts
        signal.setitimer(signal.ITIMER_REAL, self.limit)
        try:
            with warnings.catch_warnings(), quiet():
                warnings.simplefilter("ignore")
                act()
        except Reached:
            return "taken", None
        except Hang as error:
            return "hang", error
        except CodiLensError as error:
            text = str(error)
            plain = text.strip() and "\n" not in text and len(text) < LONGEST_SENTENCE
            return ("refused" if plain else "traceback"), error
        except SystemExit as stop:
            told = {0: "taken", None: "taken", 1: "taken", 2: "refused"}
            return told.get(stop.code, "traceback"), stop  # type: ignore[arg-type]
        except Exception as error:
            return "traceback", error
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            faulthandler.cancel_dump_traceback_later()
        return "taken", None


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No output; what a command said of a fault stands in the traceback's file."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


def load_and_think(folder: Path) -> None:
    """Load a checkpoint and run it; `inspect_checkpoint` must have said whether it loads."""
    base = folder / "base" if (folder / "base").is_dir() else None
    found = inspect_checkpoint(folder, base, n_thoughts=2)
    try:
        model = CodiModel.from_pretrained(folder, base, n_thoughts=2)
    except CodiLensError as error:
        if found.problem != str(error) and "NaN" not in str(error):
            raise AssertionError(f"inspected: {found.problem}; loading: {error}") from error
        raise
    if not found.loadable:
        raise AssertionError(f"it loads, but inspected: {found.problem}")
    model.think(["Zoe has 14 coins."], max_new_tokens=2)


def run_command(arguments: list[str]) -> None:
    """A command up to the first pass through the model."""

    def reached(module: torch.nn.Module, given: object) -> None:
        raise Reached

    hook = torch.nn.modules.module.register_module_forward_pre_hook(reached)
    try:
        command_line(arguments)
    finally:
        hook.remove()


_VALUES = (
    *("0", "1", "2", "-1", "99", "1e3", "0.5", "nan", "inf", "9" * 5000, "1" * 30, "", " ", "\0"),
    *(
        "[bold]x[/red]",
        "é→…",
        "\udcff",
        "a" * 5000,
        "../..",
        "/",
        "/dev/null",
        "/proc/1",
        "--",
        "-",
    ),
    *("yes", "no", "None", "True", "mean", "zero", "thinking", "ct0", "ct0,ct0", "ct99", "answer"),
    *("thoughts,totals", "edges", "resid_pre", "L0H3", "L0H3,L0H3", "L9H9", "l0h1", "L0", "LH"),
    *("cuda", "mps", "meta", "cuda:99", "float16", "gsm9k", "builtin", "tiny-gpt2", "x/y", "$(id)"),
)
_OPTIONS = (
    *("--n", "--seed", "--problems", "--threads", "--device", "--dtype", "--base", "--lora-alpha"),
    *(
        "--n-thoughts",
        "--remove-eos",
        "--bot",
        "--eot",
        "--revision",
        "--cache-dir",
        "--max-new-tokens",
    ),
    *("--batch-size", "--rows-at-once", "--heads", "--top", "--all", "--mode", "--at"),
    *("--transplant-from", "--view", "--questions", "--components", "--n-pairs", "--n-probe"),
    *("--png", "--thresholds.skip", "--no-settings", "--official-batch", "--nonsense", "--out"),
)


def command(rng: random.Random, scratch: Path) -> list[str]:
    """Arguments: a command with a model and a folder, of which some are missing or odd."""
    name = rng.choice(("analyze", "verify", "study", "ablate", "patch", "inspect"))
    arguments = [name, *(TINY.values() if rng.random() < 0.9 else [rng.choice(_VALUES)])]
    if name not in ("verify", "inspect"):
        out = scratch / rng.choice(("new", "[bold]new", "n\udcffw", "é", "a/b/c"))
        arguments += ["--out", str(out) if rng.random() < 0.9 else rng.choice(_VALUES)]
    if name == "ablate":
        arguments += rng.choice((["--all"], ["--top", "2"], ["--heads", "L0H3"], []))
    if name != "inspect" and rng.random() < 0.5:
        arguments += ["--n", rng.choice(("4", "2"))]
    for _ in range(rng.choice((0, 1, 1, 1, 2, 3))):
        option = rng.choice(_OPTIONS)
        arguments += [option] if rng.random() < 0.1 else [option, rng.choice(_VALUES)]
    if rng.random() < 0.2:
        path, _ = problem_file(rng, scratch)
        arguments += ["--problems", str(path)]
    if rng.random() < 0.05:
        rng.shuffle(arguments)
    # One thread, whatever the options say: this is about sentences.
    return arguments if "--threads" in arguments else [*arguments, "--threads", "1"]


def where(error: BaseException | None) -> str:
    """The class of what was raised and the last line of codi_lens that it went through."""
    frames = traceback.extract_tb(error.__traceback__) if error is not None else []
    ours = [f"{Path(f.filename).name}:{f.lineno}" for f in frames if "codi_lens" in f.filename]
    return f"{type(error).__name__} at {ours[-1] if ours else '?'}"


def report(counts: dict[str, Count], faults: dict[str, list[tuple[int, str]]]) -> str:
    head = ["inputs", "taken", "refused in one sentence", "bare traceback", "hang", "seconds"]
    lines = [f"| | {' | '.join(head)} |", "|---|" + "---|" * len(head)]
    total = Count()
    for each in counts.values():
        total.outcomes += each.outcomes
        total.seconds += each.seconds
    for kind, count in (counts | {"all": total}).items():
        found = [count.outcomes[name] for name in ("taken", "refused", "traceback", "hang")]
        lines.append(f"| {kind} | {sum(found)} | " + " | ".join(map(str, found)) + " | "
                     f"{count.seconds:.0f} |")  # fmt: skip
    for place, inputs in sorted(faults.items(), key=lambda item: -len(item[1])):
        number, told = inputs[0]
        lines.append(f"\n{len(inputs)} x {place}; --only {number}: {told[:300]}")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=float, default=20, help="seconds for each input")
    parser.add_argument("--only", type=int, help="repeat one input, and show what it raises")
    options = parser.parse_args()

    def hang(number: int, frame: object) -> None:
        raise Hang

    signal.signal(signal.SIGALRM, hang)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    counts = {kind: Count() for kind in KINDS}
    faults: dict[str, list[tuple[int, str]]] = {}
    with tempfile.TemporaryDirectory(prefix="fuzz-") as scratch:
        # Tracebacks of commands go there too.
        tempfile.tempdir = scratch
        os.chdir(scratch)
        fuzz = Fuzz(options.seed, options.limit, Path(scratch) / "input")
        for number in range(options.n) if options.only is None else [options.only]:
            fuzz.scratch.mkdir()
            started = time.process_time()
            kind, act, told = fuzz.act(number)
            outcome, error = fuzz.judge(act)
            counts[kind].outcomes[outcome] += 1
            counts[kind].seconds += time.process_time() - started
            kept = list(Path(scratch).glob("codi-lens-*.txt"))
            if outcome in ("traceback", "hang"):
                said = kept[0].read_text().splitlines()[-1] if kept else ""
                faults.setdefault(f"{kind}: {said or where(error)}", []).append((number, told))
            if options.only is not None:
                print(kind, told, outcome, *(path.read_text() for path in kept), sep="\n")
                traceback.print_exception(error)
            for path in kept:
                path.unlink()
            shutil.rmtree(fuzz.scratch)
    print(report(counts, faults))
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
