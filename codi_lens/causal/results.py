"""Tables that grow part by part on disk, so that long work can stop and go on.

A folder holds `settings.json`, which says what the work is, and one parquet file per finished part;
when all parts are there they become one `outcomes.parquet`.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
import torch

from codi_lens.errors import as_path
from codi_lens.outputs import Kind, begin, clear_partials, held, in_place_of, resumes, to_json
from codi_lens.workers.cluster import each_done
from codi_lens.workers.spread import Spread

Task = TypeVar("Task")

RESULTS = Kind(
    marker="settings.json",
    foreign="exists and holds no results; choose another.",
    other="holds other results (their {differing} differ); choose another folder.",
    settings="settings.json",
)


class Results:
    """The parts of a table, in memory or in a folder that is kept to this process meanwhile.

    A part that is damaged is not there: what wrote it writes it again.

    Args:
        out: a folder, new, empty, or left by the same work; None keeps the parts in memory.
        settings: what decides the values (JSON); a folder with other settings is refused.

    Raises:
        OutputError: `out` holds something else, or other work, or another process writes it.

    >>> with Results(None, {}) as results:
    ...     results.write("b", pd.DataFrame({"x": [2]}))
    ...     results.write("a", pd.DataFrame({"x": [1]}))
    ...     "a" in results, results.finish()["x"].tolist()
    (True, [1, 2])
    """

    def __init__(self, out: str | Path | None, settings: Mapping[str, Any]) -> None:
        self._folder = None if out is None else as_path("out", out)
        self._settings = settings
        self._kept: dict[str, pd.DataFrame] = {}
        self._whole: pd.DataFrame | None = None
        self._stack = ExitStack()

    def __enter__(self) -> Results:
        """Begin, or go on where the folder holds a part."""
        if self._folder is None:
            return self
        resumes(self._folder, RESULTS, json.loads(to_json(dict(self._settings))))
        with ExitStack() as stack:
            stack.enter_context(held(self._folder))
            begin(self._folder, RESULTS, self._settings)
            clear_partials(self._folder)
            self._whole = _read(self._folder / "outcomes.parquet")
            if self._whole is None:
                (self._folder / "parts").mkdir(exist_ok=True)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        """Let other processes go on."""
        self._stack.close()

    @property
    def finished(self) -> bool:
        """Whether the whole table is there."""
        return self._whole is not None

    def __contains__(self, part: str) -> bool:
        """Whether a part is done."""
        if part not in self._kept and self._folder is not None:
            table = _read(self._folder / "parts" / f"{part}.parquet")
            if table is not None:
                self._kept[part] = table
        return part in self._kept

    def write(self, part: str, table: pd.DataFrame) -> None:
        """Keep a finished part; on disk it appears whole or not at all."""
        self._kept |= _written(self._parts, lambda task: [task], (part, table))

    def fill(
        self,
        job: Callable[[Task], Iterable[tuple[str, pd.DataFrame]]],
        tasks: Sequence[Task],
        device: torch.device,
        spread: Spread,
        tell: Callable[[Task], object],
    ) -> None:
        """Do a job to each task, here or by workers, and write the parts that come of it.

        Args:
            job: makes parts, by name; each is written where it is made, before the next.
            tasks, device, spread: see `codi_lens.workers.cluster.each_done`.
            tell: hears of each task once its parts are kept.
        """
        done = each_done(partial(_written, self._parts, job), tasks, device, spread)
        with closing(done):
            for task, parts in done:
                self._kept |= parts
                tell(task)

    @property
    def _parts(self) -> Path | None:
        return None if self._folder is None else self._folder.absolute() / "parts"

    def finish(self) -> pd.DataFrame:
        """All parts in the order of their names, as one table (and one file)."""
        if self._whole is None:
            parts = [self._kept[part] for part in sorted(self._kept)]
            self._whole = pd.concat(parts).reset_index(drop=True)
            if self._folder is not None:
                self._whole = _write(self._folder / "outcomes.parquet", self._whole)
        if self._folder is not None:
            shutil.rmtree(self._folder / "parts", ignore_errors=True)
        return self._whole

    def keep(self, table: pd.DataFrame) -> None:
        """Have the finished table's file say the same as this table, in which it was corrected."""
        if self._folder is not None:
            whole = self._folder / "outcomes.parquet"
            kept = _read(whole)
            if kept is None or not table.equals(kept):
                _write(whole, table)


def parts_to_do(
    results: Results, order: Sequence[int], at_once: int
) -> list[tuple[str, list[int]]]:
    """The parts that are not done, and which problems each holds.

    Args:
        results: where they are kept.
        order: all problems, in the order in which they are run.
        at_once: problems of a part.
    """
    starts = [] if results.finished else range(0, len(order), at_once)
    parts = [(f"{start:06d}", list(order[start : start + at_once])) for start in starts]
    return [each for each in parts if each[0] not in results]


def _written(
    folder: Path | None, job: Callable[[Task], Iterable[tuple[str, pd.DataFrame]]], task: Task
) -> dict[str, pd.DataFrame]:
    """The parts that come of a task, as they are read back where there is a folder."""
    return {
        part: table if folder is None else _write(folder / f"{part}.parquet", table)
        for part, table in job(task)
    }


def _write(path: Path, table: pd.DataFrame) -> pd.DataFrame:
    """Write a table; as it is read back, so that a rerun sees the same."""
    with in_place_of(path) as partial:
        table.to_parquet(partial, index=False, write_page_checksum=True)
    return pd.read_parquet(path)


def _read(path: Path) -> pd.DataFrame | None:
    """A table that was written whole; None where there is none, or it is damaged."""
    try:
        return pd.read_parquet(path, page_checksum_verification=True)
    except (OSError, ValueError, KeyError):
        return None
