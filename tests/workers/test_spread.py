"""Who does the work: asked for in a sentence, and done here unless workers are asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from codi_lens import CodiLensError, CodiModel, extract
from codi_lens.causal.sweeps import sweep_heads
from codi_lens.cli.main import main
from codi_lens.problems import word_problems
from codi_lens.readout import logit_lens
from codi_lens.workers import spread
from codi_lens.workers.cluster import each_done
from codi_lens.workers.spread import spread_of

WRONG = [
    ({"workers": 0}, "workers must be at least 1, not 0."),
    ({"workers": -2}, "workers must be at least 1, not -2."),
    ({"workers": True}, "workers must be a whole number, not True."),
    ({"workers": 1.5}, "workers must be a whole number, not 1.5."),
    ({"workers": "many"}, "workers must be a whole number or \"auto\", not 'many'."),
    ({"ray_address": ""}, "ray_address is \"auto\" or the host:port of a cluster, not ''."),
    ({"ray_address": 6379}, 'ray_address is "auto" or the host:port of a cluster, not 6379.'),
]


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> dict[str, bool]:
    """Whether Ray is there, as far as anybody asks."""
    there = {"ray": True}
    monkeypatch.setattr(spread, "find_spec", lambda name: there[name] or None)
    return there


@pytest.mark.parametrize(("given", "sentence"), WRONG)
def test_what_cannot_be_is_refused(
    given: dict[str, Any], sentence: str, installed: dict[str, bool]
) -> None:
    with pytest.raises(CodiLensError) as error:
        spread_of(given.get("workers"), given.get("ray_address"))
    assert str(error.value) == sentence


def test_an_address_alone_asks_for_as_many_as_fit(installed: dict[str, bool]) -> None:
    assert spread_of(None, "auto") == {"workers": "auto", "ray_address": "auto"}
    assert spread_of(2, None) == {"workers": 2, "ray_address": None}


def test_without_ray_every_way_says_what_to_install(
    tiny_gpt2: CodiModel, installed: dict[str, bool], tmp_path: Path
) -> None:
    installed["ray"] = False
    some: Any = word_problems(2)
    for ask in (extract, sweep_heads, logit_lens):
        with pytest.raises(CodiLensError, match=r"pip install 'codi_lens\[ray\]'"):
            ask(tiny_gpt2, some, workers=2, progress=False)


@pytest.mark.parametrize("command", ["extract", "ablate --all", "patch", "read", "analyze"])
def test_commands_refuse_workers_before_they_load_anything(
    command: str, installed: dict[str, bool], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = [*command.split(), "tiny-gpt2", "--out", str(tmp_path / "out")]
    for there, given, end in (
        (True, "0", "workers must be at least 1, not 0."),
        (False, "auto", "or leave out workers (--workers)."),
    ):
        installed["ray"] = there
        with pytest.raises(SystemExit) as stop:
            main([*asked, "--workers", given])
        assert stop.value.code == 2
        told = capsys.readouterr().err
        assert (
            told.startswith("codi-lens: ") and told.endswith(f"{end}\n") and told.count("\n") == 1
        )
    assert not (tmp_path / "out").exists()


def test_here_tasks_are_done_one_by_one_in_their_order() -> None:
    begun: list[int] = []

    def job(task: int) -> int:
        begun.append(task)
        return -task

    done = each_done(job, [3, 1, 2], torch.device("cpu"), {})
    assert next(done) == (3, -3)
    assert begun == [3], "nothing is done before it is asked for"
    assert list(done) == [(1, -1), (2, -2)]
