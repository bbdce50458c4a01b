"""Columns in Arrow's terms, sliced as Zarr's arrays are: vectors, or one entry a row."""

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from distcluster.errors import JobError
from distcluster.storage.array_store import Array
from distcluster.storage.arrow_lists import lists_as_rows, why_no_vector
from distcluster.url import Url

BATCH_ROWS = 4_096
"""Rows that are decoded at a time."""


class ArrowColumn(Protocol):
    """A column that can be read from any row on."""

    @property
    def url(self) -> Url:
        """Where it lies."""

    @property
    def n_rows(self) -> int:
        """All that it has."""

    def parts(self, rows: slice) -> Iterator[Any]:
        """The values of some rows, as Arrow's arrays, in order."""

    def entries(self, rows: list[int]) -> list[Any]:
        """The entries of single rows, whose numbers rise."""

    def place_of(self, row: int) -> str:
        """A row as messages name it."""


class ArrowVectors:
    """A column of lists as an array (N, D); a row that is no list of D values is NaN.

    Attributes
    ----------
    shape, dtype, chunks
        As a Zarr array has them; a chunk is what is decoded at a time.
    starts : (groups,) int64 or None
        The rows at which decoding begins anew; None: it can begin anywhere.
    """

    def __init__(
        self, column: ArrowColumn, width: int, dtype: np.dtype[Any], starts: npt.NDArray[np.int64] | None = None
    ) -> None:
        self._column, self.dtype, self.starts = column, dtype, starts
        self.shape = (column.n_rows, width)
        self.chunks = (min(BATCH_ROWS, column.n_rows), width)

    def __getitem__(self, rows: slice) -> Array:
        found, is_vector = self.vectors(rows)
        if is_vector.all():
            return found
        if self.dtype.kind != "f":
            row = rows.indices(self.shape[0])[0] + int(np.flatnonzero(~is_vector)[0])
            raise JobError(f"row {row:,} of {self._column.url} is no list of {self.shape[1]:,} numbers: mend it.")
        all_rows = np.full((len(is_vector), self.shape[1]), np.nan, self.dtype)
        all_rows[is_vector] = found
        return all_rows

    def vectors(self, rows: slice) -> tuple[Array, npt.NDArray[np.bool_]]:
        """Those of n rows that are vectors, and which they are: (n', D), (n,)."""
        parts = [lists_as_rows(values, self.shape[1]) for values in self._column.parts(rows)]
        found = [np.empty((0, self.shape[1]), self.dtype), *(vectors for vectors, _ in parts)]
        is_vector = [np.empty(0, np.bool_), *(each for _, each in parts)]
        return np.concatenate(found, dtype=self.dtype), np.concatenate(is_vector)

    def why_no_vector(self, row: int) -> str:
        """Where a row is that is no vector, and what is wrong with it."""
        values = next(self._column.parts(slice(row, row + 1)))
        return f"{self._column.place_of(row)}: {why_no_vector(values[0].as_py(), self.shape[1])}"


class ArrowEntries:
    """A column of one entry a row as an array (N,) of objects; an empty string where there is none."""

    def __init__(self, column: ArrowColumn, kind: Any) -> None:
        self._column, self.shape, self.ndim, self.kind = column, (column.n_rows,), 1, kind

    def __getitem__(self, rows: slice | npt.NDArray[np.int64]) -> npt.NDArray[np.object_]:
        if isinstance(rows, slice):
            values = [value for part in self._column.parts(rows) for value in part.to_pylist()]
            order = range(len(values))
        else:
            order = np.argsort(rows, kind="stable").tolist()  # forward
            values = self._column.entries(rows[order].tolist())
        found = np.empty(len(values), object)
        for place, value in zip(order, values, strict=True):
            found[place] = "" if value is None else value
        return found

    @property
    def oindex(self) -> "ArrowEntries":
        """The same, as a Zarr array's: rows can be given one by one."""
        return self


def first_length(column: ArrowColumn, name: str) -> int:
    """The number of values in the first list that has any: what lists of variable length are held against.

    Raises
    ------
    JobError
        When there is none.
    """
    start, count = 0, 16  # most often the first has some: little is read then
    while start < column.n_rows:
        for values in column.parts(slice(start, start + count)):
            for length in values.value_lengths():
                if length.is_valid and length.as_py() > 0:
                    return int(length.as_py())
        start, count = start + count, BATCH_ROWS
    raise JobError(f"{column.url} has no row with values in {name!r}: there is nothing to cluster.")


def only_list(lists: list[str], name: str, url: Url) -> str:
    """The column of vectors: that of the name, or the only one.

    Raises
    ------
    JobError
        When there is none, or there are several and none has the name.
    """
    if name in lists:
        return name
    if len(lists) != 1:
        has = f"the columns of lists {', '.join(lists)}" if lists else "no column of lists"
        raise JobError(f"{url} has {has}, and none is {name!r}. Set input.array.")
    return lists[0]
