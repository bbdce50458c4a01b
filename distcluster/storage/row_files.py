"""Files whose rows lie one after the other, as one array whose rows are read where they lie; raw ones, too."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import obstore

from distcluster.errors import JobError
from distcluster.job import RawLayout
from distcluster.storage.array_store import Array
from distcluster.storage.object_file import objects_of
from distcluster.url import Url

_OTHERS = (".parquet", ".lance", ".npy", ".npz", ".zip", "zarr.json", ".zarray", ".zgroup")  # they say what they hold


@dataclass(frozen=True, slots=True)
class RowFile:
    """A file: its name in the store, the byte at which its first row begins, and its number of rows."""

    name: str
    begin: int
    n_rows: int


class RowFiles:
    """The rows of files, one below the other, as one array (N, D).

    Attributes
    ----------
    shape, dtype, chunks
        As a Zarr array has them; only the bytes of the rows that are asked for are read.
    """

    def __init__(self, store: Any, files: Sequence[RowFile], features: int, dtype: np.dtype[Any]) -> None:
        self._store, self._files, self.dtype = store, files, dtype
        self._starts = np.cumsum([0, *(file.n_rows for file in files)])
        self.shape = (int(self._starts[-1]), features)
        self.chunks = (1, features)

    def __getitem__(self, rows: slice) -> Array:
        start, stop, _ = rows.indices(self.shape[0])
        parts = [np.empty((0, self.shape[1]), self.dtype)]
        while start < stop:
            place = int(np.searchsorted(self._starts, start, "right")) - 1
            end = min(stop, int(self._starts[place + 1]))
            parts.append(self._read(self._files[place], start - int(self._starts[place]), end - start))
            start = end
        return np.concatenate(parts)

    def _read(self, file: RowFile, row: int, count: int) -> Array:
        wide = self.shape[1] * self.dtype.itemsize
        content = obstore.get_range(self._store, file.name, start=file.begin + row * wide, length=count * wide)
        return np.frombuffer(memoryview(content), self.dtype).reshape(count, self.shape[1])


def open_raw(url: Url, layout: RawLayout) -> RowFiles:
    """The raw files at a URL, a file or a folder of them, as a job declares them.

    Raises
    ------
    JobError
        When there are none, a file's size does not fit, or a file says itself what it holds.
    """
    store, files = objects_of(url, "")
    dtype = np.dtype(layout.dtype).newbyteorder("<")
    wide = layout.features * dtype.itemsize
    if not files:
        raise JobError(f"there is no input at {url}. Set input.url to a raw file, or to a folder of them.")
    if told := next((name for name, _ in files if name.lower().endswith(_OTHERS)), None):
        raise JobError(
            f"input.dtype and input.features are for raw files, and {told} of {url} says itself what it holds: leave "
            f"them out."
        )
    for name, size in files:
        if size < layout.offset or (size - layout.offset) % wide:
            raise JobError(
                f"{name} of {url} has {size:,} bytes: that is no whole number of rows of {layout.features:,} "
                f"{layout.dtype} ({wide:,} bytes) after the first {layout.offset:,}. Set input.dtype, input.features "
                f"and input.offset to what the file was written with."
            )
    parts = [RowFile(name, layout.offset, (size - layout.offset) // wide) for name, size in files]
    return RowFiles(store, parts, layout.features, dtype)
