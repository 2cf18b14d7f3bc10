"""Blocks of problems: how the arrays of a store are divided, filled and written.

An array is one file a block (`BLOCK` problems), which replaces the one before it whole, so that the
number of files hardly depends on the number of problems. Within a file, pieces of a few problems
have a checksum each and are read alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np
import zarr
from jaxtyping import Bool
from zarr.codecs import Crc32cCodec, ZstdCodec
from zarr.storage import MemoryStore

from codi_lens.memory import mapped

BLOCK = 320
"""Problems of which an array is one file: what a killed process loses at most."""
PIECE = 16
"""Rows that have a checksum of their own, and are read alone."""
_CODECS = (ZstdCodec(level=0), Crc32cCodec())


@dataclass(frozen=True)
class Kept:
    """One array of a store, by its blocks.

    Attributes:
        dims: names of its dimensions.
        shape: its sizes.
        dtype: "str", or a number's.
        in_block: rows of the first dimension that a block has.
        spans: of a ragged array, the rows of each problem.
    """

    dims: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: str = "float32"
    in_block: int = BLOCK
    spans: tuple[slice, ...] = ()

    def rows(self, block: int) -> slice:
        """The rows of a block."""
        return slice(block * self.in_block, min((block + 1) * self.in_block, self.shape[0]))

    def nothing(self, block: int) -> np.ndarray:
        """The rows of a block before anything is known."""
        rows = self.rows(block)
        shape = (rows.stop - rows.start, *self.shape[1:])
        if self.dtype == "str":
            return np.full(shape, "", dtype=np.dtypes.StringDType())
        return np.full(shape, np.nan, dtype=self.dtype)

    def put(
        self,
        values: np.ndarray,
        block: int,
        places: np.ndarray,
        given: Any,
        new: Bool[np.ndarray, " problem"],
    ) -> None:
        """Set what is given of problems, by their places, in a block's values, if it is new."""
        begin = self.rows(block).start
        if not self.spans:
            values[places[new] - begin] = np.asarray(given)[new]
        for i in np.flatnonzero(new) if self.spans else ():
            span = self.spans[places[i]]
            values[span.start - begin : span.stop - begin] = given[i]

    def create(self, group: zarr.Group, name: str, **told: Any) -> None:
        """Make the array; each piece carries a checksum, and so does the index of a file."""
        common: dict[str, Any] = {
            "shape": self.shape,
            "compressors": _CODECS,
            "dimension_names": self.dims,
            "attributes": told,
        }
        rest, least = self.shape[1:], min(self.in_block, self.shape[0])
        if self.dtype == "str":
            group.create_array(name, dtype=str, chunks=(self.in_block, *rest), **common)
            return
        piece = min(PIECE, least)
        group.create_array(
            name,
            dtype=self.dtype,
            chunks=(piece, *rest),
            shards=(ceil(least / piece) * piece, *rest),
            fill_value=np.nan,
            **common,
        )

    def create_whole(self, group: zarr.Group, name: str) -> None:
        """Make it one chunk that is written at once."""
        told: dict[str, Any] = {"shape": self.shape, "chunks": self.shape, "dtype": self.dtype}
        told["fill_value"] = {"bool": False, "int64": -1}.get(self.dtype, np.nan)
        group.create_array(name, compressors=_CODECS, dimension_names=self.dims, **told)


Values = dict[str, np.ndarray]


class Blocks:
    """The arrays of an extraction, to be filled a block of problems at a time.

    Attributes:
        done: the problems that need not be run again.
        unwritten: of the block that was filled last, what has to be written where the arrays are:
            in another process than that which holds them in memory.
    """

    def __init__(
        self,
        arrays: Mapping[str, Any],
        kept: Mapping[str, Kept],
        done: Bool[np.ndarray, " problem"],
        gathered: Mapping[str, Kept] | None = None,
        reduce: Callable[[Values], Values] | None = None,
    ) -> None:
        self.done = done
        self._arrays, self._kept = arrays, kept
        self._gathered, self._reduce = gathered or kept, reduce
        self.unwritten: Values | None = None

    def __getstate__(self) -> dict[str, Any]:
        """In another process, arrays that are in memory here cannot be written."""
        in_memory = isinstance(self._arrays["done"].store, MemoryStore)
        return vars(self) | ({"_arrays": None} if in_memory else {})

    def unfinished(self) -> list[int]:
        """The blocks with problems that are not done."""
        places = range(0, len(self.done), BLOCK)
        return [i // BLOCK for i in places if not self.done[i : i + BLOCK].all()]

    @contextmanager
    def filling(self, block: int) -> Iterator[Callable[[np.ndarray, Mapping[str, Any]], int]]:
        """What takes problems of a block, by their places, and says how many of them were new.

        They are written when the block is left, one file an array: also by an interruption, unless
        blocks are reduced, which is done once they are whole.
        """
        start = block * BLOCK
        done = self.done[start : start + BLOCK]  # a view
        before, again = done.copy(), done.any() and self._reduce is None
        values = {
            name: self._arrays[name][kept.rows(block)] if again else kept.nothing(block)
            for name, kept in self._gathered.items()
        }

        def take(places: np.ndarray, found: Mapping[str, Any]) -> int:
            new = ~done[places - start]
            for name, given in found.items():
                self._gathered[name].put(values[name], block, places, given, new)
            done[places - start] = True
            return int(new.sum())

        try:
            yield take
        finally:
            if (done != before).any() and (self._reduce is None or done.all()):
                kept = values if self._reduce is None else self._reduce(values)
                if self._arrays is None:
                    self.unwritten = kept
                else:
                    self._write(block, kept)

    def settle(
        self, block: int, done: Bool[np.ndarray, " problem"], unwritten: Values | None
    ) -> int:
        """Note what was filled, here or by another process; how many problems that were new.

        Args:
            block: was filled.
            done: which of its problems are.
            unwritten: see above.
        """
        if unwritten is not None:
            self._write(block, unwritten)
        mine = self.done[block * BLOCK : (block + 1) * BLOCK]  # a view
        new = int((done & ~mine).sum())
        mine[:] = done
        self.note("done", self.done)
        return new

    def _write(self, block: int, values: Values) -> None:
        # The first array says what is done, so it comes last.
        with mapped():
            for name in reversed([*self._kept]):
                self._arrays[name][self._kept[name].rows(block)] = values[name]

    def read(self, name: str) -> np.ndarray:
        """A whole array."""
        return self._arrays[name][:]

    def note(self, name: str, values: np.ndarray) -> None:
        """Write a whole array that follows from others, unless it is there."""
        found = readable(self._arrays[name], slice(None))
        if found is None or not np.array_equal(found, values, equal_nan=True):
            self._arrays[name][:] = values


def readable(array: Any, which: slice) -> np.ndarray | None:
    """What an array holds; None where it cannot be read or its checksum is wrong."""
    try:
        return array[which]
    except Exception:  # whatever a codec makes of damaged bytes
        return None
