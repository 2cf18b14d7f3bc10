"""Stop every command at its file operations, run it again, and compare all that it wrote.

A stop is SIGKILL, SIGINT, SIGHUP or a full disk at one file operation (an audit hook counts them),
or SIGKILL at a random moment. Each runs in a forked process, so that nothing is imported twice.
After it the same command runs undisturbed and must leave, byte for byte, what it leaves if never
stopped.
"""

from __future__ import annotations

import argparse
import errno
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from saving import save

from codi_lens import CodiModel, extract
from codi_lens.errors import CodiLensError
from codi_lens.problems import word_problems
from codi_lens.reports.ablate import ablate_all, ablate_set, ablate_top
from codi_lens.reports.analyze import analyze
from codi_lens.reports.patch import patch_positions
from codi_lens.reports.study import report_study

WRITES = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree"}
SIGNALS = {"kill": signal.SIGKILL, "interrupt": signal.SIGINT, "hangup": signal.SIGHUP}
KINDS = (*SIGNALS, "full disk")
STOPPED, REFUSED, FAILED = 130, 3, 4
SETTINGS: dict[str, Any] = {"problems_at_once": 2, "max_new_tokens": 8, "progress": False}
Command = Callable[[Path], object]


@dataclass(frozen=True)
class Trial:
    """Where a command is stopped, and how; without a point at a moment, in seconds."""

    kind: str
    point: int | None = None
    moment: float = 0.0


def commands(model: CodiModel) -> dict[str, Command]:
    """Every command that writes a folder, on few problems."""
    some = word_problems(4, seed=0)
    quick: dict[str, Any] = {"batch_size": 2, "max_new_tokens": 8, "progress": False}
    return {
        "extract": lambda out: extract(model, some, out, **quick),
        "analyze": partial(analyze, model, some, **quick),
        "study": partial(report_study, [model], some, n_probe=60, **quick),
        "ablate --heads": partial(ablate_set, model, some, [(1, 7), (2, 0)], **SETTINGS),
        "ablate --top": partial(ablate_top, model, some, 1, n_random=2, **SETTINGS),
        "ablate --all": partial(ablate_all, model, some, **SETTINGS),
        "patch": partial(
            patch_positions, model, some, questions=["restoration", "edges"], at="bot", **SETTINGS
        ),
        "save_pretrained": model.save_pretrained,
    }


def run(command: Command, out: Path, trial: Trial | None = None) -> int:
    """Run a command in a process of its own; its exit status, -9 if it was killed."""
    pid = os.fork()
    if pid == 0:
        status = FAILED
        try:
            torch.set_num_threads(1)
            if trial is not None and trial.point is not None:
                count_operations(out.parent, partial(stop, trial.kind, trial.point))
            command(out)
            status = 0
        except KeyboardInterrupt:
            status = STOPPED
        except CodiLensError as error:
            print(f"refused: {error}", file=sys.stderr)
            status = REFUSED
        except OSError as error:
            status = STOPPED if error.errno == errno.ENOSPC else FAILED
            if status == FAILED:
                traceback.print_exc()
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    if trial is not None and trial.point is None:
        time.sleep(trial.moment)
        os.kill(pid, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def count_operations(place: Path, at: Callable[[int], None]) -> None:
    """Call `at` with the number of each operation that changes files under a place, before it."""
    done = 0

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal done
        writes = event in WRITES or (event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR))
        if writes and str(place) in str(arguments[0]):
            done += 1
            at(done)

    sys.addaudithook(hook)


def stop(kind: str, point: int, number: int) -> None:
    """Stop at one operation; a disk stays full after it."""
    if kind == "full disk" and number >= point:
        raise OSError(errno.ENOSPC, "No space left on device", "a file")
    if number == point:
        os.kill(os.getpid(), SIGNALS[kind])


def note(file: int, number: int) -> None:
    os.pwrite(file, b"%9d" % number, 0)


def operations(command: Command, out: Path) -> int:
    """How many file operations a command takes, counted in a process of its own."""
    pid = os.fork()
    if pid == 0:
        try:
            file = os.open(out.parent.parent / "operations", os.O_CREAT | os.O_WRONLY)
            count_operations(out.parent, partial(note, file))
            command(out)
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    return int((out.parent.parent / "operations").read_text())


def held_by(place: Path) -> dict[str, bytes]:
    """Every file under a place, by its path."""
    return {
        str(path.relative_to(place)): path.read_bytes()
        for path in sorted(place.rglob("*"))
        if path.is_file()
    }


def outcome(command: Command, trial: Trial, expected: dict[str, bytes]) -> str:
    """What becomes of a command that is stopped and run again."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "place" / "out"
        out.parent.mkdir()
        run(command, out, trial)
        status = run(command, out)
        found = held_by(out.parent)
    whole = all(found.get(name) == text for name, text in expected.items())
    if status == REFUSED:  # a saved model that is whole is not written again
        return "resumed" if whole else "refused"
    if status != 0 or expected.keys() - found.keys():
        return "lost"
    if found != expected:
        differing = {name for name in found if found[name] != expected.get(name)}
        print(f"differ after {trial}: {sorted(differing)[:5]}", file=sys.stderr)
        return "mixed"
    return "resumed"


def trials(n: int, points: int, kills: int, seconds: float, seed: int) -> Iterator[Trial]:
    """Points spread over all operations of a command, each with one kind of stop; and moments."""
    chosen = np.linspace(1, n, min(n, points)).round().astype(int).tolist()
    for i, point in enumerate(chosen):
        yield Trial(KINDS[i % len(KINDS)], point)
    draw = random.Random(seed)
    for _ in range(kills):
        yield Trial("random kill", None, draw.uniform(0.0, seconds))


def measure(
    some: dict[str, Command], points: int, kills: int
) -> dict[str, tuple[int, Counter[str]]]:
    """The outcomes of all stops, by command, with its number of file operations."""
    found: dict[str, tuple[int, Counter[str]]] = {}
    for i, (name, command) in enumerate(some.items()):
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "place" / "out"
            out.parent.mkdir()
            n = operations(command, out)
            expected = held_by(out.parent)
        with tempfile.TemporaryDirectory() as folder:
            start = time.monotonic()
            assert run(command, Path(folder) / "out") == 0, name
            seconds = time.monotonic() - start
        stops = trials(n, points, kills, seconds, i)
        found[name] = n, Counter(outcome(command, trial, expected) for trial in stops)
    return found


def table(found: dict[str, tuple[int, Counter[str]]]) -> str:
    """The page: one row per command."""
    names = ("resumed", "lost", "mixed", "refused")
    lines = ["| command | file operations | stops | " + " | ".join(names) + " |"]
    lines.append("|---" * (3 + len(names)) + "|")
    rows = [(f"`{name}`", str(n), outcomes) for name, (n, outcomes) in found.items()]
    together = sum((outcomes for *_, outcomes in rows), Counter())
    for name, n, outcomes in [*rows, ("all", "", together)]:
        cells = [name, n, str(outcomes.total()), *(str(outcomes[each]) for each in names)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, default=12, help="stops per command at operations")
    parser.add_argument("--kills", type=int, default=3, help="kills per command at random moments")
    parser.add_argument("--only", nargs="+", help="these commands")
    given = parser.parse_args()
    torch.set_num_threads(1)
    some = commands(CodiModel.from_pretrained("tiny-gpt2"))
    some = {name: each for name, each in some.items() if not given.only or name in given.only}
    found = measure(some, given.points, given.kills)
    page = table(found)
    print(page)
    save("faults", page)
    if any(set(outcomes) - {"resumed"} for _, outcomes in found.values()):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
