"""However a command ends, it is told in one line: any encoding, any name, any fault."""

from __future__ import annotations

import errno
import io
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from support.oracle import ROOT

from codi_lens.cli import main as entry
from codi_lens.cli import options
from codi_lens.cli.main import main
from codi_lens.cli.options import Loading
from codi_lens.cli.printing import print_folder, print_table
from codi_lens.cli.streams import one_line, spell_what_cannot_be_printed
from codi_lens.cli.threads import cores, default_threads

TINY = str(ROOT / "checkpoints" / "tiny-gpt2")


def ending(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[object, str]:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and error.startswith("codi-lens: "), error
    return stopped.value.code, error.removeprefix("codi-lens: ").rstrip("\n")


def raising(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def run(arguments: list[str]) -> None:
        raise error

    monkeypatch.setattr(entry, "_run", run)


def test_a_fault_is_one_line_that_names_the_traceback(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    raising(monkeypatch, KeyError("a\nb" * 500))
    code, said = ending(capsys, "verify")
    assert code == 70 and said.startswith("an unexpected error, KeyError: ") and len(said) < 500
    (kept,) = tmp_path.iterdir()
    assert said.endswith(str(kept)) and "Traceback" in kept.read_text()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "gone"))
    code, said = ending(capsys, "verify")
    assert code == 70 and "could not be written (No such file or directory" in said


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device."),
        (OSError(errno.EACCES, "Permission denied", "/a b"), "Permission denied: /a b"),
        (OSError(errno.EXDEV, "Cross-device link", "a", None, "b"), "Cross-device link: a -> b"),
        (OSError(errno.ENOENT, "No such file", b"\xff"), r"No such file: \udcff"),
        (OSError("no connection\nat all"), "no connection at all."),
        (ConnectionError(), "ConnectionError."),
    ],
)
def test_what_the_system_refuses_reads_well(
    error: OSError, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    raising(monkeypatch, error)
    assert ending(capsys, "verify") == (2, said)


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "latin-1", "utf-8"])
def test_every_encoding_can_be_printed_to(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    printed = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(printed, encoding=encoding))
    spell_what_cannot_be_printed()
    print("ct4 → ct2 • 95 % … − × \udcff 思")
    print_table(Console(), "Ω [bold]", ["a → b"], [["1 − 2"]])
    sys.stdout.flush()
    text = printed.getvalue().decode(encoding)
    assert "\\udcff" in text and "Ω [bold]" in text.replace("\\u03a9", "Ω")
    assert "ct4 -> ct2" in text.replace("→", "->") and "思" in text.replace("\\u601d", "思")


def test_nothing_in_a_sentence_moves_the_cursor() -> None:
    assert one_line("a\nb\x1b[2Jc\ud800é") == r"a b\x1b[2Jc\ud800é"


def test_names_are_not_markup(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    folder = tmp_path / "[bold]x[red]"
    print_folder(Console(width=1000), folder)
    assert str(folder / "index.html") in capsys.readouterr().out


def test_odd_arguments_are_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    new = str(tmp_path / "new")
    for threads in ("0", "-1", "1000000000"):
        code, said = ending(capsys, "analyze", TINY, "--out", new, "--threads", threads)
        assert code == 2 and said == (
            f"threads must be at least 1 and at most 1024, not {threads}."
        )
    asked = {
        ("ablate", TINY, "--heads", "L0H" + "9" * 5000): "names no head",
        ("analyze", f"{TINY}\udcff"): "is not UTF-8",
        ("analyze", f"{TINY}\0"): "NUL",
        ("analyze", TINY, "--problems", "a\0b"): "NUL",
        ("analyze", TINY, "--problems", str(tmp_path)): "is a folder",
        ("analyze", TINY, "--problems", "p" * 5000): "File name too long",
        ("analyze", TINY, "--seed", "-3"): "at least 0, not -3",
        ("patch", TINY, "--seed", "-3"): "at least 0, not -3",
        ("analyze", TINY, "--bot", "9" * 5000, "--eot", "1"): "has no token",
    }
    for arguments, said in asked.items():
        code, sentence = ending(capsys, *arguments, "--out", new)
        assert code == 2 and said in sentence and len(sentence) < 500
    assert not Path(new).exists()


def test_threads_are_those_that_help(monkeypatch: pytest.MonkeyPatch, tiny_gpt2: Any) -> None:
    small, large = 10_000_000, 100_000_000
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(6)), raising=False)
    for asked, expected in {
        "": (1, 6),
        "4": (4, 4),
        "3,2": (3, 3),
        "99": (6, 6),
        "x": (1, 6),
    }.items():
        monkeypatch.setenv("OMP_NUM_THREADS", asked)
        assert (default_threads(small), default_threads(large)) == expected, asked
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert (default_threads(small), cores()) == (1, 6)
    set_to: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", set_to.append)
    console = Console(file=io.StringIO())
    Loading().load(TINY, console)
    Loading(threads=2).load(TINY, console)
    monkeypatch.setattr(options, "_n_parameters", lambda model: 1 if model is tiny_gpt2 else large)
    Loading().load(TINY, console, tiny_gpt2)
    assert set_to == [6, 1, 2, 2, 6, 6]
