"""Problem files and checkpoint folders for `fuzz.py`: good ones, with something wrong in them."""

from __future__ import annotations

import atexit
import csv
import io
import json
import random
import shutil
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from codi_lens.problems.formats import FORMATS

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from support.checkpoint_maker import LAYOUTS, make, recipe  # noqa: E402

FOLDERS = (ROOT / "checkpoints" / "tiny-gpt2", ROOT / "checkpoints" / "tiny-llama")
LEFT_OUT = ("README.md", "evaluation.json")
ODD_JSON: tuple[Any, ...] = (
    *(None, True, 0, -1, 1, 2, 0.5, -0.0, 1e308, 10**30, 10**310, float("nan"), float("inf")),
    *(
        "",
        " ",
        "x",
        "3",
        "3/4",
        "1e3",
        "1 1/2",
        "1.234,50",
        "\\boxed{42}",
        "18 - 20",
        "\0",
        "\ud800",
    ),
    *(
        "9" * 5000,
        "##### 3",
        "#### 1,234",
        "−5",
        "٣",
        "½",
        "50%",
        "$3",
        "[bold]",
        "float32",
        "gelu",
    ),
    *([], [1], [[]], {}, {"a": 1}, [None], "../../etc/passwd", 50256, 10**9, -(10**30)),
)
_QUESTIONS = ("Zoe has 14 coins. Then she finds 7 more. How many?", "1 + 1?", "é→…", "a\u2028b")
_INSERTED = (b"\0", b"\xff", b"\xef\xbb\xbf", b"NaN", b"1e999", b'"', b"{", b"]", b",", b"\\ud800",
             b"\r\n", b"[" * 2000, b"//c", b"'", b"-", b"9" * 5000)  # fmt: skip


def problem_file(rng: random.Random, folder: Path) -> tuple[Path, str]:
    """A problem file in which a value, a record or some bytes are odd, and how to show it."""
    records: list[Any] = []
    for i in range(rng.choice((0, 1, 2, 5))):
        record = _record(rng, i)
        for _ in range(rng.choice((0, 1, 1, 2))):
            record[rng.choice((*record, *record, "id", "more", "steps", "cot"))] = rng.choice(
                ODD_JSON
            )
        records.append(record if rng.random() < 0.95 else rng.choice(ODD_JSON))
    whole = rng.choice((records, records, {"data": records}, *records[:1]))
    columns = {
        name: [each[name]] for each in records[:1] if isinstance(each, dict) for name in each
    }
    whole = columns if rng.random() < 0.1 else whole
    text = (
        rng.choice(("\n".join(map(json.dumps, records)), _as_table(rng, records)))
        if rng.random() < 0.5
        else json.dumps(whole, indent=rng.choice((None, 1)), ensure_ascii=rng.random() < 0.9)
    )
    content = text.encode(
        rng.choice(("utf-8",) * 8 + ("utf-16", "utf-8-sig", "latin-1")), "backslashreplace"
    )
    if rng.random() < 0.4:
        content = scrambled(rng, content)
    if rng.random() < 0.02:
        content = b"[" * 100_000 + content
    name = rng.choice(("own.jsonl", "own.json", "own", "o[b]w.json", "own.csv", "é.jsonl"))
    path = folder / name
    path.write_bytes(content)
    return path, f"{name}: {content[:200]!r}"


def _record(rng: random.Random, i: int) -> dict[str, Any]:
    """A record of a format of the field."""
    made = rng.choice((FORMATS[-3], *FORMATS))
    record: dict[str, Any] = {name: rng.choice(_QUESTIONS) for name in made.question}
    record[made.answer] = rng.choice((i, i, "A", "yes", False, f"<<1+1=2>> #### {i}", [i]))
    choices = ({"A": "x", "B": "y"}, ["x", "y"], {"label": ["A", "B"], "text": ["x", "y"]})
    if made.choices:
        record[made.choices] = rng.choice((*choices, [{"label": "A", "text": "x"}]))
    if made.numbers:
        record[made.numbers] = rng.choice(("3 4", "", [3, 4]))
    return record | {"id": f"p{i}"} if rng.random() < 0.8 else record


def _as_table(rng: random.Random, records: list[Any]) -> str:
    """Records as a table, or in lines of GSM8K-Aug."""
    rows = [each for each in records if isinstance(each, dict)]
    if rng.random() < 0.5:
        return "\n".join(f"{row.get('question')}||<<1+1=2>> #### {i}" for i, row in enumerate(rows))
    file = io.StringIO()
    writer = csv.writer(file, delimiter=rng.choice(",\t;"))
    writer.writerows([list(rows[0])] if rows else [])
    writer.writerows(list(row.values()) for row in rows)
    return file.getvalue()


def scrambled(rng: random.Random, content: bytes) -> bytes:
    """Bytes of which some are gone, others, repeated or new."""
    made = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 5))):
        at = rng.randrange(len(made) + 1)
        what = rng.randrange(5)
        if what == 0:
            del made[at:]
        elif what == 1 and made:
            made[at % len(made)] = rng.randrange(256)
        elif what == 2:
            made[at:at] = rng.choice(_INSERTED)
        elif what == 3:
            del made[at : at + rng.choice((1, 5, 50))]
        else:
            made[at:at] = made[at : at + 40]
    return bytes(made)


def checkpoint_folder(rng: random.Random, folder: Path) -> tuple[Path, str]:
    """A copy of a small checkpoint in which one file is odd or missing, and how to show it."""
    source = rng.choice((*FOLDERS, *_other_families()))
    made = folder / rng.choice(("checkpoint", "check [bold]", "é"))
    shutil.copytree(source, made, ignore=shutil.ignore_patterns(*LEFT_OUT))
    path = rng.choice(sorted(path for path in made.rglob("*") if path.is_file()))
    what = rng.random()
    if what < 0.05:
        path.unlink()
        return made, f"{source.name} without {path.name}"
    if path.suffix == ".json" and what < 0.85:
        content = json.loads(path.read_text(encoding="utf-8"))
        told = odd_value(rng, content)
        path.write_text(json.dumps(content), encoding="utf-8")
        return made, f"{source.name}/{path.name}: {told}"
    if path.suffix not in (".json", ".jinja") and what < 0.75:
        state = dict(_state(source / path.relative_to(made)))
        told = odd_tensor(rng, state)
        _write(state, path)
        return made, f"{source.name}/{path.name}: {told}"
    path.write_bytes(scrambled(rng, path.read_bytes()))
    return made, f"{source.name}/{path.name}: bytes"


def odd_value(rng: random.Random, content: Any) -> str:
    """Replace, delete or add one value somewhere in parsed JSON; says which."""
    names = []
    while True:
        keys = list(content) if isinstance(content, dict) else list(range(len(content)))
        if not keys:
            return "nothing"
        key = rng.choice(keys)
        names.append(str(key))
        deeper = content[key]
        if isinstance(deeper, dict | list) and deeper and rng.random() < 0.7:
            content = deeper
            continue
        if rng.random() < 0.2:
            del content[key]
            return f"{'.'.join(names)} deleted"
        content[key] = rng.choice(ODD_JSON)
        return f"{'.'.join(names)} = {str(content[key])[:40]!r}"


def odd_tensor(rng: random.Random, state: dict[str, Any]) -> str:
    """Change one tensor of a state dict; says which and how."""
    name = rng.choice(sorted(state))
    tensor = state[name]
    ways: dict[str, Any] = {
        "gone": None,
        "NaN": torch.full_like(tensor, float("nan")) if tensor.is_floating_point() else tensor,
        "transposed": tensor.T.contiguous() if tensor.ndim == 2 else tensor[:1].clone(),
        "flat": tensor.reshape(-1).clone(),
        "empty": tensor[:0].clone(),
        "longer": torch.cat([tensor, tensor]),
        "scalar": torch.tensor(1.0),
        "integers": (tensor * 100).to(torch.int8),
        "bfloat16": tensor.to(torch.bfloat16),
        "complex": tensor.to(torch.complex64),
        "bool": tensor.to(torch.bool),
        "renamed": tensor,
        "twice": tensor,
    }
    way = rng.choice(sorted(ways))
    if way != "twice":
        del state[name]
    if way in ("renamed", "twice"):
        name = rng.choice((f"module.{name}", f"x.{name}", name[3:], f"{name}.weight", name.upper()))
    if way != "gone":
        state[name] = ways[way]
    return f"{name} {way}"


@cache
def _other_families() -> tuple[Path, ...]:
    """A checkpoint of each family that no shipped model is of, with its base beside it."""
    scratch = Path(tempfile.mkdtemp(prefix="codi-lens-fuzz-"))
    atexit.register(shutil.rmtree, scratch, ignore_errors=True)
    files = ("prj.pt", "PEFT", "LatentTTS", "Coconut")
    layouts = [name for name, values in LAYOUTS.items() if values.get("files") in files]
    return tuple(make(scratch / str(i), recipe("gpt2", name)) for i, name in enumerate(layouts))


@cache
def _state(path: Path) -> dict[str, torch.Tensor]:
    return load_file(path) if path.suffix == ".safetensors" else torch.load(path, weights_only=True)


def _write(state: dict[str, Any], path: Path) -> None:
    if path.suffix == ".safetensors":
        save_file({name: tensor.contiguous().clone() for name, tensor in state.items()}, path)
    else:
        torch.save(state, path)
