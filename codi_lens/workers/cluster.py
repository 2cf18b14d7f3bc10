"""Jobs done to many tasks, here or by workers of a Ray cluster that are kept for the next."""

from __future__ import annotations

import logging
import os
import socket
import warnings
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

from codi_lens.errors import CodiLensError, shown
from codi_lens.work import rehearsing
from codi_lens.workers.packing import pack, the_ray, unpack
from codi_lens.workers.spread import Spread, Workers, allowed_cores

Task = TypeVar("Task")
Result = TypeVar("Result")
_RETRIES = 3
"""How often a task is tried again whose worker died."""


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
        spread: of `spread_of`; an empty one does the work here, task by task, in their order, and
            so does a rehearsal.

    Raises:
        CodiLensError: there is no such cluster, it has too few GPUs or cores, or a task's worker
            died every time.
        Exception: whatever the job raises.

    >>> list(each_done(abs, [-2, 3], torch.device("cpu"), {}))
    [(-2, 2), (3, 3)]
    """
    if not spread or rehearsing():
        yield from ((task, job(task)) for task in tasks)
    elif tasks:
        yield from _by_workers(job, tasks, _pool_for(spread, device))


@dataclass(frozen=True, eq=False)
class _Pool:
    """Workers that wait for jobs, and what was asked for to have them."""

    asked: tuple[Any, ...]
    workers: list[Any]
    own: bool

    def stop(self) -> None:
        """Stop the workers, and the cluster where it was started for them."""
        ray = the_ray()
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
    ray = the_ray()
    said: dict[Any, Any] = {}
    try:
        packed = [ray.put(pack(job))]  # in a list it goes as it is, not as what it stands for
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
    ray = the_ray()
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
    ray = the_ray()
    if ray.is_initialized():  # by whoever calls
        return False
    logging.getLogger("ray").setLevel(logging.ERROR)
    quiet: dict[str, Any] = {"log_to_driver": False, "configure_logging": False}
    if address is None:
        if unit == "CPU":
            quiet["num_cpus"] = max(allowed_cores(), amount * (n if isinstance(n, int) else 1))
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
            self._job, self._packed = unpack(*the_ray().get(packed[0])), packed[0]
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("default")
            result = self._job(task)
        said = [(each.message, each.category, each.filename, each.lineno) for each in caught]
        return i, result, said
