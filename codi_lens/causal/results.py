"""Tables that grow part by part on disk, so that long work can stop and go on.

A folder holds `settings.json`, which says what the work is, and one parquet file per finished part;
when all parts are there they become one `outcomes.parquet`.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from codi_lens.errors import OutputError
from codi_lens.outputs import Kind, begin

RESULTS = Kind(
    marker="settings.json",
    foreign="exists and holds no results; choose another.",
    other="holds other results (their {differing} differ); choose another folder.",
    settings="settings.json",
)


class Results:
    """The parts of a table, in memory or in a folder.

    Args:
        out: a folder, new, empty, or left by the same work; None keeps the parts in memory.
        settings: what decides the values (JSON); a folder with other settings is refused.

    Raises:
        OutputError: `out` holds something else, or other work.

    >>> results = Results(None, {})
    >>> results.write("b", pd.DataFrame({"x": [2]}))
    >>> results.write("a", pd.DataFrame({"x": [1]}))
    >>> "a" in results, results.finish()["x"].tolist()
    (True, [1, 2])
    """

    def __init__(self, out: str | Path | None, settings: Mapping[str, Any]) -> None:
        self._folder = None if out is None else Path(out)
        self._memory: dict[str, pd.DataFrame] = {}
        if self._folder is None:
            return
        begin(self._folder, RESULTS, settings)
        (self._folder / "parts").mkdir(exist_ok=True)

    @property
    def finished(self) -> bool:
        """Whether the whole table is there."""
        return self._folder is not None and (self._folder / "outcomes.parquet").is_file()

    def __contains__(self, part: str) -> bool:
        """Whether a part is done."""
        if self._folder is None:
            return part in self._memory
        return (self._folder / "parts" / f"{part}.parquet").is_file()

    def write(self, part: str, table: pd.DataFrame) -> None:
        """Keep a finished part; on disk it appears whole or not at all."""
        if self._folder is None:
            self._memory[part] = table
            return
        _write_parquet(self._folder / "parts" / f"{part}.parquet", table)

    def finish(self) -> pd.DataFrame:
        """All parts in the order of their names, as one table (and one file).

        Raises:
            OutputError: a file is damaged.
        """
        if self._folder is None:
            return pd.concat([self._memory[part] for part in sorted(self._memory)]).reset_index(
                drop=True
            )
        whole = self._folder / "outcomes.parquet"
        if not whole.is_file():
            parts = sorted((self._folder / "parts").glob("*.parquet"))
            _write_parquet(whole, pd.concat(map(_read_parquet, parts)).reset_index(drop=True))
        shutil.rmtree(self._folder / "parts", ignore_errors=True)
        return _read_parquet(whole)

    def keep(self, table: pd.DataFrame) -> None:
        """Have the finished table's file say the same as this table, in which it was corrected."""
        if self._folder is not None:
            whole = self._folder / "outcomes.parquet"
            if not _read_parquet(whole).equals(table):
                _write_parquet(whole, table)


def _write_parquet(path: Path, table: pd.DataFrame) -> None:
    partial = path.with_name(f".{path.name}.partial")
    table.to_parquet(partial, index=False)
    partial.replace(path)


def _read_parquet(path: Path) -> pd.DataFrame:
    try:
        return pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise OutputError(f"{path} is damaged; delete it and run again.") from error
