"""What workers of Ray cost and save: `make bench-workers`.

Built-in problems through tiny-gpt2, one thread a process: extraction against problems, sweeps
against heads, both here and by one and two workers that are already there, which takes its own
time. Every size is done several times, and the fastest counts, since other processes may share the
machine. What workers write is checked to be what is written here.
"""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
import torch
from saving import save

from codi_lens import CodiModel, extract
from codi_lens.causal.sweeps import sweep_heads
from codi_lens.head_names import all_heads
from codi_lens.problems import word_problems
from codi_lens.workers.packing import pack

QUIET: dict[str, Any] = {"progress": False}
WAYS: dict[str, dict[str, Any]] = {
    "here": {},
    "1 worker": {"workers": 1},
    "2 workers": {"workers": 2},
}
Work = Callable[[Path, dict[str, Any]], object]


def ours() -> list[psutil.Process]:
    """The worker processes of this one."""
    found = psutil.Process().children(recursive=True)
    return [each for each in found if "ray::_Worker" in "".join(each.cmdline()[:1])]


def cpu() -> tuple[float, float]:
    """CPU seconds until now, of this process and of its workers."""
    return time.process_time(), sum(sum(each.cpu_times()[:2]) for each in ours())


def bytes_in(folder: Path) -> dict[str, bytes]:
    """The files of a folder."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def measured(work: Work, asked: dict[str, Any], repeats: int) -> dict[str, Any]:
    """Seconds of work: of the clock (the least), and of CPUs (of that time); what it writes."""
    found: list[dict[str, Any]] = []
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as folder:
            out, begin, (own, theirs) = Path(folder) / "out", time.perf_counter(), cpu()
            work(out, asked)
            wall, (own_now, theirs_now) = time.perf_counter() - begin, cpu()
            found.append({"wall": wall, "own": own_now - own, "theirs": theirs_now - theirs})
            found[-1]["written"] = bytes_in(out)
    assert all(each["written"] == found[0]["written"] for each in found)
    return min(found, key=lambda each: each["wall"])


def started(model: CodiModel) -> list[str]:
    """What it takes to have two workers, and what a job carries to them."""
    begin = time.perf_counter()
    extract(model, word_problems(2), workers=2, **QUIET)
    first = time.perf_counter() - begin
    weights = sum(p.numel() * p.element_size() for p in model.lens.parameters()) / 1e6
    lines = [f"Ray and two workers: {first:.0f} s until the first result, once a process."]
    unique = [each.memory_full_info().uss / 1e6 for each in ours()]
    lines.append(f"A worker's own memory: {max(unique):.0f} MB, of {weights:.1f} MB of weights.")
    sizes = {}
    for n in (1000, 3000):
        problems = list(word_problems(n))
        pickled, _ = pack([problems, [model.tokenizer(p.question) for p in problems]])
        sizes[n] = len(pickled)
    each = (sizes[3000] - sizes[1000]) / 2000
    lines.append(f"A job carries {each:.0f} bytes more for each problem, to every worker.")
    return lines


def table(title: str, works: dict[str, tuple[int, Work]], unit: str, repeats: int) -> list[str]:
    """One row a size and way; `works` are the sizes by name, how many units each is, and what."""
    found = {
        (way, size): measured(work, asked, repeats)
        for way, asked in WAYS.items()  # so that workers are stopped and started once a way
        for size, (_, work) in works.items()
    }
    lines = [f"## {title}", ""]
    lines += [
        f"| | | clock, s | against here | CPU of the caller, s | of workers, s | ms a {unit} |"
    ]
    lines += ["|---|---|---|---|---|---|---|"]
    for size, (n, _) in works.items():
        here = found["here", size]
        for way in WAYS:
            each = found[way, size]
            assert each["written"] == here["written"], (way, size)
            ratio, cost = each["wall"] / here["wall"], 1000 * (each["own"] + each["theirs"]) / n
            numbers = f"{each['wall']:.1f} | {ratio:.2f} | {each['own']:.1f} | {each['theirs']:.1f}"
            lines.append(f"| {size} | {way} | {numbers} | {cost:.2f} |")
    return [*lines, ""]


def page(problems: Sequence[int], heads: Sequence[int], swept: int, repeats: int) -> str:
    """The page of all that was measured."""
    torch.set_num_threads(1)
    model = CodiModel.from_pretrained("tiny-gpt2")
    corpus, every = list(word_problems(max(*problems, swept), seed=42)), all_heads(model.lens.cfg)
    extract(model, corpus[:4], **QUIET)  # the first run of a process imports and compiles
    extractions: dict[str, tuple[int, Work]] = {
        f"{n} problems": (
            n,
            lambda out, asked, n=n: extract(model, corpus[:n], out, **asked, **QUIET),
        )
        for n in problems
    }
    some = corpus[:swept]
    sweeps: dict[str, tuple[int, Work]] = {
        f"{swept} problems × {n} heads": (
            swept * (n + 1),
            lambda out, asked, n=n: sweep_heads(model, some, every[:n], out, **asked, **QUIET),
        )
        for n in heads
    }
    with tempfile.TemporaryDirectory() as folder:
        sweep_heads(model, some, every, Path(folder) / "out", **QUIET)
        size = (Path(folder) / "out" / "outcomes.parquet").stat().st_size
    lines = [
        "# Workers of Ray",
        "",
        f"`make bench-workers`. tiny-gpt2, one thread a process, the fastest of {repeats}. ray "
        f"{version('ray')}, torch {torch.__version__}, {platform.machine()}, {os.cpu_count()} "
        f"cores, with a load of {os.getloadavg()[0]:.1f} from all processes when it began. Where "
        "that is more than the cores, the clock says little about workers, and CPU seconds do.",
        "",
        *(f"- {line}" for line in started(model)),
        f"- An outcome takes {size / (swept * (len(every) + 1)):.0f} bytes of parquet.",
        "",
        *table("Extraction", extractions, "problem", repeats),
        *table("Sweeps of heads", sweeps, "run", repeats),
        "What workers write is what is written here, byte for byte: checked for every row.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--problems", type=int, nargs="+", default=[1280, 2560])
    parser.add_argument("--heads", type=int, nargs="+", default=[6, 24])
    parser.add_argument("--swept", type=int, default=128, help="problems of a sweep")
    parser.add_argument("--repeats", type=int, default=2)
    given = parser.parse_args()
    text = page(given.problems, given.heads, given.swept, given.repeats)
    print(text)
    save("workers", text)


if __name__ == "__main__":
    main()
