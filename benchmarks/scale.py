"""All of GSM8K through `extract`: `make bench-scale`, or `python benchmarks/scale.py --help`.

Three parts, each measured in processes of its own, so that their peak memory can be told:
built-in problems through tiny-gpt2, GSM8K's questions through random weights of GPT-2's size (with
a tokenizer trained on the questions), and what is computed from attention of 512 heads: rankings
with intervals, and the explorer. Time is CPU time of one thread.
"""

from __future__ import annotations

import argparse
import multiprocessing
import re
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
import ways
from saving import save
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoConfig, PreTrainedTokenizerFast

from codi_lens import CodiModel, explore, extract, extract_scores, open_attention
from codi_lens.attention.blocks import BLOCK, Kept
from codi_lens.attention.hubs import hub_ratios
from codi_lens.attention.opening import DIMS
from codi_lens.attention.ranking import ranked_heads
from codi_lens.attention.store import open_store
from codi_lens.attention.views import VIEWS
from codi_lens.positions import key_names, possible_cells, query_names
from codi_lens.problems import Problem, load_problems, word_problems

CORPUS = Path("../shared/data/corpora/gsm8k_train.jsonl")
VOCABULARY, N_THOUGHTS = 8000, 6
QUIET: dict[str, Any] = {"progress": False}
Found = dict[str, float]


def alone(work: Callable[..., Found], *given: Any) -> Found:
    """What work returns, done in a process of its own."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(work, *given).result()


def measured(work: Callable[[], object]) -> Found:
    """CPU seconds of work on one thread, and the peak of the process' memory meanwhile, in MB."""
    torch.set_num_threads(1)
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak before (Linux)
    begin = time.process_time()
    work()
    seconds = time.process_time() - begin
    (peak,) = re.findall(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())
    return {"s": seconds, "peak": int(peak) / 1024}


def of_tiny(n: int, out: Path, scores_only: bool) -> Found:
    """Built-in problems through tiny-gpt2."""
    model = CodiModel.from_pretrained("tiny-gpt2")
    return extracted(model, list(word_problems(n, seed=42)), out, scores_only, 64)


def of_gpt2_size(n: int, out: Path, scores_only: bool, corpus: Path) -> Found:
    """Questions of the corpus through random weights of GPT-2's size, answers of 4 tokens.

    They are spread evenly over the lengths, so that the longest are always among them.
    """
    problems = load_problems(corpus)
    backbone = AutoConfig.for_model("gpt2", vocab_size=VOCABULARY + 3)
    weights = ways.merged(ways.random_lora(backbone))
    with tempfile.TemporaryDirectory() as folder:
        trained(problems).save_pretrained(folder)
        model = ways.codi_model(backbone, weights, folder, torch.float32)
    del weights
    by_length = sorted(range(len(problems)), key=lambda i: -len(problems[i].question))
    spread = sorted(by_length[i * len(problems) // n] for i in range(n))
    return extracted(model, [problems[i] for i in spread], out, scores_only, 4)


def trained(problems: Sequence[Problem]) -> PreTrainedTokenizerFast:
    """Byte-level BPE, as GPT-2's, trained on the questions themselves."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator((each.question for each in problems), trainer)
    end = "<|endoftext|>"
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=end, bos_token=end)


def extracted(
    model: CodiModel, problems: list[Problem], out: Path, scores_only: bool, max_new_tokens: int
) -> Found:
    """Time, disk and files of one extraction."""
    options: dict[str, Any] = {"max_new_tokens": max_new_tokens, **QUIET}
    extract(model, problems[:4], **options)  # the first run of a process imports and compiles
    way = extract_scores if scores_only else extract
    found = measured(lambda: way(model, problems, out, **options))
    files = [path for path in out.rglob("*") if path.is_file()]
    disk = sum(path.stat().st_size for path in files) / 1e6
    return found | {"n": len(problems), "disk": disk, "files": len(files)}


def stored(n: int, n_layers: int, n_heads: int, out: Path) -> Found:
    """Random attention of n problems, written block by block as `extract` writes it."""
    draw, cells = np.random.default_rng(0), possible_cells(N_THOUGHTS)
    shape = (n, n_layers, n_heads, *cells.shape)
    kept = {"attention": Kept(DIMS, shape), "answer": Kept(DIMS[:1], (n,), "str")}
    names = [f"p{i}" for i in range(n)]
    labels = {"problem": names, "layer": range(n_layers), "head": range(n_heads)}
    labels |= {"query": query_names(N_THOUGHTS), "key": key_names(N_THOUGHTS)}
    settings: dict[str, Any] = {"model": "random", "fingerprint": "random", "hooks": []}
    settings |= {"interventions": [], "n_thoughts": N_THOUGHTS}
    settings["questions"] = [[name, f"How many? {name}", 1] for name in names]
    leaning = draw.random((1, n_layers, n_heads, *cells.shape), dtype=np.float32) ** 4 * cells
    with open_store(out, settings, kept, labels) as blocks:
        for block in blocks.unfinished():
            places = np.arange(block * BLOCK, min((block + 1) * BLOCK, n))
            values = draw.random((len(places), *shape[1:]), dtype=np.float32)
            values *= leaning
            values /= values.sum(axis=-1, keepdims=True)
            with blocks.filling(block) as take:
                take(places, {"attention": values, "answer": ["The answer is: 1"] * len(places)})
    return {"n": n}


def ranked(store: Path) -> Found:
    """Both rankings with their intervals and hubs, from the store."""

    def work() -> None:
        attention = open_attention(store)
        for view in VIEWS:
            ranked_heads(attention, view)
        hub_ratios(attention)

    return measured(work)


def shown(store: Path) -> Found:
    """The explorer, which ranks too, saved as a page."""
    return measured(lambda: explore(open_attention(store)).save(store.parent / "explorer.html"))


def rows(name: str, work: Callable[..., Found], n: int, place: Path, *more: Any) -> list[str]:
    """A table of extractions of 100 and n problems, and of scores alone."""
    lines = [f"## {name}", ""]
    lines += ["| problems | CPU s | ms per problem | MB on disk | files | peak MB |"]
    lines += ["|---|---|---|---|---|---|"]
    found: list[Found] = []
    for size, scores_only in ((min(100, n), False), (n, False), (n, True)):
        out = place / f"{work.__name__}-{size}-{scores_only}"
        each = alone(work, size, out, scores_only, *more)
        title = f"{size:,}{', scores only' if scores_only else ''}"
        print(f"{name}: {title}, {each['s']:.0f} s", file=sys.stderr)  # it takes an hour
        lines += [
            f"| {title} | {each['s']:.1f} | {1000 * each['s'] / size:.1f} | {each['disk']:.1f} | "
            f"{each['files']} | {each['peak']:.0f} |"
        ]
        found.append(each)
    few, many, _ = found
    times = many["s"] / many["n"] / (few["s"] / few["n"])
    return [
        *lines,
        "",
        f"From {few['n']:,} to {many['n']:,} problems: {times:.2f} times the cost per problem, and "
        f"{many['peak'] - few['peak']:.0f} MB more at the peak.",
        "",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=7473, help="built-in problems, and of 512 heads")
    parser.add_argument("--n-gpt2", type=int, default=7473, help="through GPT-2's size; 0: none")
    parser.add_argument("--corpus", type=Path, default=CORPUS, help="JSON lines of questions")
    parser.add_argument("--layers", type=int, default=16)
    parser.add_argument("--heads", type=int, default=32)
    given = parser.parse_args()
    lines = [f"# {given.n:,} problems", ""]
    lines += [f"`{' '.join(['python benchmarks/scale.py', *sys.argv[1:]])}`, one thread. The peak"]
    lines += ["is that of the process while it works, libraries and model included.", ""]
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        lines += rows("Built-in problems, tiny-gpt2 (24 heads)", of_tiny, given.n, place)
        title = "GSM8K's questions, random weights of GPT-2's size (144 heads)"
        if given.n_gpt2 and not given.corpus.is_file():
            lines += [f"There is no {given.corpus}: no questions for GPT-2's size.", ""]
        elif given.n_gpt2:
            lines += rows(title, of_gpt2_size, given.n_gpt2, place, given.corpus)
        store = place / "large.zarr"
        alone(stored, given.n, given.layers, given.heads, store)
        size = sum(path.stat().st_size for path in store.rglob("*") if path.is_file()) / 1e6
        lines += [f"## From attention of {given.n:,} problems × {given.layers * given.heads} heads"]
        lines += ["", f"{size:.0f} MB on disk.", ""]
        lines += ["| computed | CPU s | peak MB |", "|---|---|---|"]
        for title, work in (
            ("both rankings with intervals, and hubs", ranked),
            ("the explorer's page, both rankings included", shown),
        ):
            each = alone(work, store)
            lines += [f"| {title} | {each['s']:.0f} | {each['peak']:.0f} |"]
    page = "\n".join(lines) + "\n"
    print(page)
    save("scale", page)


if __name__ == "__main__":
    main()
