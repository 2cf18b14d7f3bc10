"""Work on many problems, done here or by workers of a Ray cluster: `codi_lens[ray]`.

The one seam between codi_lens and Ray. A *job* is what is done, a *task* what it is done to: a
block of problems, say. Ray holds the job once a node, starts the workers, and replaces one that
dies; each task is done as it would be done here, by as many threads, so that the results are the
same bit for bit.
"""

from __future__ import annotations

import logging
import os
import socket
import warnings
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from importlib.util import find_spec
from io import BytesIO
from typing import Any, Literal, TypedDict, TypeVar

import numpy as np
import torch

from codi_lens.errors import CodiLensError, shown, whole_number

Workers = int | Literal["auto"]
Task = TypeVar("Task")
Result = TypeVar("Result")
_RETRIES = 3
"""How often a task is tried again whose worker died."""
_OUTSIDE = 1 << 16
"""Bytes from which an array is laid beside the pickle, where all workers of a node share it."""
_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing is reported to anybody
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # what becomes the default, without its warning
}


class Spread(TypedDict, total=False):
    """Who does the work.

    Attributes:
        workers: how many workers of Ray: a number, or "auto", one for each GPU if the model is on
            one, else one for each core (or as many cores as it has threads); by default none, and
            the work is done here.
        ray_address: of a running cluster, "auto" or "host:port"; by default Ray starts one on this
            machine, which lasts as long as the process.
    """

    workers: Workers | None
    ray_address: str | None


def spread_of(workers: Any, ray_address: Any) -> Spread:
    """Who does the work, checked; an address alone means workers="auto".

    Args:
        workers: see `Spread`.
        ray_address: see `Spread`.

    Raises:
        CodiLensError: no such number of workers, no address, or Ray is not installed.

    >>> spread_of(None, None)
    {}
    >>> spread_of(0, None)
    Traceback (most recent call last):
    codi_lens.errors.CodiLensError: workers must be at least 1, not 0.
    """
    if workers is None and ray_address is None:
        return {}
    if isinstance(workers, str) and workers != "auto":
        raise CodiLensError(f'workers must be a whole number or "auto", not {shown(workers)}.')
    if ray_address is not None and not (isinstance(ray_address, str) and ray_address.strip()):
        raise CodiLensError(
            f'ray_address is "auto" or the host:port of a cluster, not {shown(ray_address)}.'
        )
    if workers is not None and workers != "auto":
        workers = whole_number("workers", workers, 1, 100_000, CodiLensError)
    if find_spec("ray") is None:
        raise CodiLensError(
            "Workers need the `ray` package: pip install 'codi_lens[ray]'; or leave out workers "
            "(--workers)."
        )
    return {"workers": workers or "auto", "ray_address": ray_address}


def each_done(
    job: Callable[[Task], Result],
    tasks: Sequence[Task],
    device: torch.device,
    spread: Spread,
) -> Generator[tuple[Task, Result], None, None]:
    """Do a job to every task: each task and what came of it, in whichever order they are done.

    Args:
        job: goes to every worker with all that it refers to, models too.
        tasks: small, since they are sent one by one.
        device: where the job's models run; workers of a model on a GPU have one each.
        spread: of `spread_of`; an empty one does the work here, task by task, in their order.

    Raises:
        CodiLensError: there is no such cluster, it has too few GPUs or cores, or a task's worker
            died every time.
        Exception: whatever the job raises.

    >>> list(each_done(abs, [-2, 3], torch.device("cpu"), {}))
    [(-2, 2), (3, 3)]
    """
    if not spread:
        yield from ((task, job(task)) for task in tasks)
    elif tasks:
        yield from _by_workers(job, tasks, _pool_for(spread, device))


def _ray() -> Any:
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    return import_module("ray")


@dataclass(frozen=True, eq=False)
class _Pool:
    """Workers that wait for jobs, and what was asked for to have them."""

    asked: tuple[Any, ...]
    workers: list[Any]
    own: bool

    def stop(self) -> None:
        """Stop the workers, and the cluster where it was started for them."""
        ray = _ray()
        _POOLS.remove(self)
        if ray.is_initialized():
            for worker in self.workers:
                ray.kill(worker)
            if self.own:
                ray.shutdown()


_POOLS: list[_Pool] = []
"""The workers of this process, at most one set, kept until others are asked for."""


def _by_workers(
    job: Callable[[Task], Result], tasks: Sequence[Task], pool: _Pool
) -> Generator[tuple[Task, Result], None, None]:
    ray = _ray()
    said: dict[Any, Any] = {}
    try:
        packed = [ray.put(_pack(job))]  # in a list it goes as it is, not as what it stands for
        done = ray.util.ActorPool(pool.workers).map_unordered(
            lambda worker, i: worker.do.remote(packed, i, tasks[i]), range(len(tasks))
        )
        for i, result, warned in done:
            for each in warned:
                warnings.warn_explicit(*each, registry=said)
            yield tasks[i], result
    except ray.exceptions.RayTaskError as error:
        pool.stop()
        raise error.cause from (None if isinstance(error.cause, CodiLensError) else error)
    except ray.exceptions.RayActorError as error:
        pool.stop()
        raise CodiLensError(
            f"A worker died {_RETRIES + 1} times at the same task, for want of memory perhaps; "
            "the same call goes on where the work is kept in a folder."
        ) from error
    except BaseException:  # ^C too: nobody waits for what is still being done
        pool.stop()
        raise


def _pool_for(spread: Spread, device: torch.device) -> _Pool:
    """Workers as asked for: those that are there, or new ones."""
    if device.index:
        raise CodiLensError(
            f"Workers have a GPU each, which each knows as cuda:0, and the model is on {device}; "
            'move it there with model.to("cuda:0").'
        )
    threads, precision = torch.get_num_threads(), torch.get_float32_matmul_precision()
    asked = (tuple(spread.items()), device.type, threads, precision, os.getpid())
    for pool in list(_POOLS):
        if pool.asked == asked:
            return pool
        pool.stop()
    unit, amount = ("GPU", 1) if device.type == "cuda" else ("CPU", threads)
    n, address = spread.get("workers"), spread.get("ray_address")
    own = _join(address, n, unit, amount)
    ray = _ray()
    has = int(ray.cluster_resources().get(unit, 0))
    n = max(1, has // amount) if n == "auto" or n is None else n
    if n * amount > has:
        if own:
            ray.shutdown()
        raise CodiLensError(
            f"{n} workers need {n * amount} {unit}s, and the cluster has {has}; ask for fewer "
            "(--workers), or add machines."
        )
    needs = {"num_gpus": 1} if unit == "GPU" else {"num_cpus": amount}
    kind = ray.remote(max_restarts=-1, max_task_retries=_RETRIES, **needs)(_Worker)
    _POOLS.append(_Pool(asked, [kind.remote(threads, precision) for _ in range(n)], own))
    return _POOLS[0]


def _join(address: str | None, n: Workers | None, unit: str, amount: int) -> bool:
    """Be in a cluster; whether it was started here and now."""
    ray = _ray()
    if ray.is_initialized():  # by whoever calls
        return False
    logging.getLogger("ray").setLevel(logging.ERROR)
    quiet: dict[str, Any] = {"log_to_driver": False, "configure_logging": False}
    if address is None:
        if unit == "CPU":
            cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
            cores = cores or os.cpu_count() or 1
            quiet["num_cpus"] = max(cores, amount * (n if isinstance(n, int) else 1))
        ray.init(address="local", include_dashboard=False, **quiet)
        return True
    try:
        if address != "auto":  # Ray itself asks for minutes, and ends the process
            host, _, port = address.rpartition("/")[2].rpartition(":")
            socket.create_connection((host, int(port)), timeout=10).close()
        ray.init(address=address, **quiet)
    except (OSError, ValueError, OverflowError, RuntimeError, SystemExit) as error:
        raise CodiLensError(
            f"No Ray cluster answers at {shown(address)}; start one with `ray start --head`, and "
            'give its host:port, or "auto" on a machine of it.'
        ) from error
    return True


class _Worker:
    """What runs in a worker: jobs, of which it keeps the last."""

    def __init__(self, threads: int, precision: str) -> None:
        torch.set_num_threads(threads)
        torch.set_float32_matmul_precision(precision)
        self._packed: Any = None
        self._job: Any = None

    def do(self, packed: list[Any], i: int, task: Any) -> tuple[int, Any, list[tuple[Any, ...]]]:
        """Do a job to a task; its number, what came of it, and the warnings meanwhile."""
        if packed[0] != self._packed:
            self._job = None  # the last one's memory first
            self._job, self._packed = _unpack(*_ray().get(packed[0])), packed[0]
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("default")
            result = self._job(task)
        said = [(each.message, each.category, each.filename, each.lineno) for each in caught]
        return i, result, said


class _Bytes:
    """The memory that tensors are views of: once in a pickle, however many they are."""

    def __init__(self, array: np.ndarray, device: str) -> None:
        self._array, self._device = array, device

    def __reduce__(self) -> tuple[Any, ...]:
        return _Bytes, (self._array, self._device)

    @cached_property
    def storage(self) -> torch.UntypedStorage:
        """The same memory on a CPU, a copy on its device else."""
        with warnings.catch_warnings():  # what workers share is read alone, as weights are
            warnings.filterwarnings("ignore", "The given NumPy array is not writable")
            return torch.from_numpy(self._array).to(self._device).untyped_storage()


def _typed(memory: _Bytes, dtype: torch.dtype) -> torch.TypedStorage:
    return torch.TypedStorage(wrap_storage=memory.storage, dtype=dtype, _internal=True)


def _pack(job: Any) -> tuple[bytes, list[np.ndarray]]:
    """A job as bytes, and the large arrays in it beside them, tensors too; nothing twice."""
    kept: dict[tuple[str, int], _Bytes] = {}
    outside: list[np.ndarray] = []

    class Packer(_ray().cloudpickle.CloudPickler):
        def reducer_override(self, obj: Any) -> Any:
            if type(obj) is not torch.TypedStorage:
                return super().reducer_override(obj)
            memory = obj._untyped_storage
            key = str(memory.device), memory.data_ptr()
            if key not in kept:
                values = torch.empty(0, dtype=torch.uint8, device=memory.device).set_(memory)
                kept[key] = _Bytes(values.cpu().numpy(), memory.device.type)
            return _typed, (kept[key], obj.dtype)

    def inside(buffer: Any) -> bool:
        raw = buffer.raw()
        if raw.nbytes >= _OUTSIDE:
            outside.append(np.frombuffer(raw, dtype=np.uint8))
        return raw.nbytes < _OUTSIDE

    with BytesIO() as file:
        Packer(file, protocol=5, buffer_callback=inside).dump(job)
        return file.getvalue(), outside


def _unpack(pickled: bytes, outside: list[np.ndarray]) -> Any:
    return _ray().cloudpickle.loads(pickled, buffers=outside)
