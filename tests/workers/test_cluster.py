"""What workers of Ray do is what is done here, byte for byte; `make test-ray` runs this."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from codi_lens import CodiLensError, CodiModel, InterventionError, extract, extract_scores
from codi_lens.attention.blocks import BLOCK, Blocks
from codi_lens.causal.attribution import attribute_heads
from codi_lens.causal.measure import measure
from codi_lens.causal.sweeps import sweep_heads
from codi_lens.cli.main import main
from codi_lens.interventions import ablate_heads
from codi_lens.problems import word_problems
from codi_lens.thinking.hooks import Intervention
from codi_lens.workers import cluster
from codi_lens.workers.cluster import each_done
from codi_lens.workers.packing import pack
from codi_lens.workers.spread import spread_of

pytestmark = pytest.mark.ray
MANY = word_problems(2 * BLOCK + 60, seed=3)
BRIEF: dict[str, Any] = {"max_new_tokens": 8, "progress": False}
BOTH: list[dict[str, Any]] = [{}, {"workers": 2}]
"""Here, and by workers."""


@pytest.fixture(scope="module", autouse=True)
def stopped() -> Iterator[None]:
    pytest.importorskip("ray", reason="Ray is not installed: make test-ray")
    yield
    for pool in list(cluster._POOLS):
        pool.stop()


def files(folder: Path) -> dict[str, bytes]:
    found = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def same_files(one: Path, other: Path) -> bool:
    a, b = files(one), files(other)
    assert a.keys() == b.keys()
    assert [name for name in a if a[name] != b[name]] == []
    return len(a) > 0


def ours() -> list[psutil.Process]:
    """The worker processes of this one."""
    found = []
    for each in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # one that ended meanwhile
            found += [each] if "ray::_Worker" in "".join(each.cmdline()[:1]) else []
    return found


def gone() -> bool:
    """Whether all workers were stopped."""
    return cluster._POOLS == [] and psutil.wait_procs(ours(), timeout=30)[1] == []


class Killer(threading.Thread):
    """Kills one of two workers, by its process id, once a file appears."""

    def __init__(self, folder: Path, pattern: str) -> None:
        super().__init__()
        self.folder, self.pattern, self.killed = folder, pattern, 0

    def run(self) -> None:
        until = time.monotonic() + 120
        while not self.killed and time.monotonic() < until:
            if any(self.folder.glob(self.pattern)) and (found := ours()):
                found[0].send_signal(signal.SIGKILL)
                self.killed = found[0].pid
            time.sleep(0.002)


def with_one_killed(folder: Path, pattern: str, work: Callable[[], object]) -> None:
    killer = Killer(folder, pattern)
    killer.start()
    work()
    killer.join()
    assert killer.killed and killer.killed not in [each.pid for each in ours()]


def test_an_extraction_is_the_same_though_a_worker_is_killed(
    tiny_gpt2: CodiModel, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"value_weighted": True, **BRIEF}
    one, two = tmp_path / "one.zarr", tmp_path / "two.zarr"
    here = extract(tiny_gpt2, MANY, one, **options).load()
    found: list[Any] = []
    # The workers are there, so that the first file comes from one of them at work.
    extract(tiny_gpt2, MANY[:1], workers=2, **BRIEF)
    with_one_killed(
        two,
        "answer/c/*",
        lambda: found.append(extract(tiny_gpt2, MANY, two, workers=2, **options).load()),
    )
    assert same_files(one, two)
    assert found[0].identical(here)


def test_scores_and_what_is_kept_in_memory_are_the_same(
    tiny_gpt2: CodiModel, tmp_path: Path
) -> None:
    for name, asked in zip(("one", "two"), BOTH, strict=True):
        extract_scores(tiny_gpt2, MANY, tmp_path / name, **asked, **BRIEF)
    assert same_files(tmp_path / "one", tmp_path / "two")
    some = MANY[: BLOCK + 9]
    here, there = (extract(tiny_gpt2, some, **BRIEF, **asked).load() for asked in BOTH)
    assert there.identical(here)


def test_workers_share_the_weights_and_keep_threads_and_precision(tiny_gpt2: CodiModel) -> None:
    ray = pytest.importorskip("ray")

    extract(tiny_gpt2, MANY[:1], workers=2, **BRIEF)
    (pool,) = cluster._POOLS
    packed = [ray.put(pack(lambda _: (torch.get_num_threads(), tiny_gpt2.fingerprint())))]
    told = ray.get([each.do.remote(packed, 0, None) for each in pool.workers])
    assert [result for _, result, _ in told] == [(1, tiny_gpt2.fingerprint())] * 2


def test_a_sweep_is_the_same_though_a_worker_is_killed(
    tiny_gpt2: CodiModel, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"rows_at_once": 64, **BRIEF}
    some = MANY[:96]
    here = sweep_heads(tiny_gpt2, some, out=tmp_path / "one", **options)
    found: list[Any] = []
    with_one_killed(
        tmp_path / "two",
        "parts/*.parquet",
        lambda: found.append(
            sweep_heads(tiny_gpt2, some, out=tmp_path / "two", workers=2, **options)
        ),
    )
    assert same_files(tmp_path / "one", tmp_path / "two")
    assert found[0].equals(here)
    assert sweep_heads(tiny_gpt2, some, workers=2, **options).equals(here), "in memory"


def test_attributions_are_the_same(tiny_gpt2: CodiModel) -> None:
    options: dict[str, Any] = {"problems_at_once": 8, "progress": False}
    here = attribute_heads(tiny_gpt2, MANY[:24], **options)
    assert attribute_heads(tiny_gpt2, MANY[:24], workers=2, **options).equals(here)


COMMANDS = {
    "ablate": "ablate tiny-gpt2 --all --n 16 --no-by-position",
    "patch": "patch tiny-gpt2 --n 12 --questions thoughts,restoration,hub",
    "read": "read tiny-gpt2 --n 24 --batch-size 8",
    "analyze": "analyze tiny-gpt2 --n 12",
}


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_write_the_same_files(command: str, tmp_path: Path) -> None:
    for name, asked in (("one", []), ("two", ["--workers", "2"])):
        main([*COMMANDS[command].split(), "--out", str(tmp_path / name), *asked])
    assert same_files(tmp_path / "one", tmp_path / "two")


def test_an_interruption_stops_the_workers_and_the_rest_is_made_up_for(
    tiny_gpt2: CodiModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settle = Blocks.settle

    def stop_after_one(*given: Any) -> int:
        settle(*given)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Blocks, "settle", stop_after_one)
        extract(tiny_gpt2, MANY, tmp_path / "two", workers=2, **BRIEF)
    assert gone()
    assert 1 <= len(list((tmp_path / "two" / "attention" / "c").iterdir())) < 3
    for name in ("one", "two"):
        extract(tiny_gpt2, MANY, tmp_path / name, **BRIEF)
    assert same_files(tmp_path / "one", tmp_path / "two")


def test_hooks_of_the_model_and_donors_go_with_a_job(tiny_gpt2: CodiModel) -> None:
    some = MANY[: BLOCK + 9]
    plain = extract(tiny_gpt2, some, **BRIEF).load()
    with tiny_gpt2.lens.hooks(fwd_hooks=[("blocks.0.attn.hook_z", lambda z, hook: 0 * z)]):
        here, there = (extract(tiny_gpt2, some, **BRIEF, **asked).load() for asked in BOTH)
    assert there.identical(here) and not here.identical(plain)
    options: dict[str, Any] = {"interventions": [ablate_heads([(1, 2)], "resample")], **BRIEF}
    here, there = (extract(tiny_gpt2, some, **options, **asked).load() for asked in BOTH)
    assert there.identical(here) and not here.identical(plain)


def test_warnings_are_heard_and_a_task_that_kills_every_worker_ends_in_a_sentence() -> None:
    def warn(task: int) -> int:
        warnings.warn(f"heard {task}", stacklevel=1)
        return task

    here = torch.device("cpu")
    with pytest.warns(UserWarning) as heard:
        done = list(each_done(warn, [1, 2], here, spread_of(2, None)))
    assert sorted(done) == [(1, 1), (2, 2)]
    assert sorted(str(each.message) for each in heard) == ["heard 1", "heard 2"]
    with pytest.raises(CodiLensError, match="A worker died 4 times at the same task"):
        list(each_done(lambda _: os._exit(1), [1], here, spread_of(2, None)))
    assert gone()


def test_no_cluster_is_one_sentence(tiny_gpt2: CodiModel) -> None:
    with socket.socket() as taken:  # bound, and nobody listens
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        for given in (address, "nowhere", "auto"):
            with pytest.raises(CodiLensError, match="No Ray cluster answers at"):
                extract(tiny_gpt2, MANY[:2], ray_address=given, **BRIEF)


def test_a_cluster_of_the_caller_is_used_and_left(tiny_gpt2: CodiModel) -> None:
    ray = pytest.importorskip("ray")

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, address="local")
    try:
        with pytest.raises(CodiLensError, match="3 workers need 3 CPUs, and the cluster has 2;"):
            extract(tiny_gpt2, MANY[:2], workers=3, **BRIEF)
        wrong = Intervention([("blocks.9.attn.hook_z", lambda z, hook: z)], at="ct1", name="wrong")
        told: list[str] = []
        for asked in BOTH:
            with pytest.raises(InterventionError) as error:
                measure(tiny_gpt2, MANY[:4], {"wrong": wrong}, **BRIEF, **asked)
            told.append(str(error.value))
        assert told[0] == told[1], "a mistake in a worker is the same mistake"
        assert gone()
        assert ray.is_initialized()
    finally:
        ray.shutdown()
