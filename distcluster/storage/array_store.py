"""Objects and Zarr arrays under one URL: written whole, flushed, listed and deleted."""

import json
import os
import uuid
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import obstore
import xxhash
import zarr
from zarr.codecs import Crc32cCodec, ZstdCodec
from zarr.storage import ObjectStore

from distcluster.storage.layout import PROBE
from distcluster.storage.urls import local_path, object_store

Array = npt.NDArray[Any]

READ_ERRORS = (ValueError, RuntimeError, OSError, KeyError, TypeError)
"""What zarr, its codecs and obstore raise for objects that are missing, torn or damaged; the last two for metadata."""

_COMPRESSORS = (ZstdCodec(level=1), Crc32cCodec())


def checksum(values: Array) -> int:
    """XXH3, 64 bits, of an array's decoded bytes in C order.

    Examples
    --------
    >>> checksum(np.arange(3)) == checksum(np.arange(3)[::-1][::-1])
    True
    """
    if values.dtype.kind in "TU":  # strings: zarr gives them back in numpy's variable-length type
        return xxhash.xxh3_64_intdigest(json.dumps(values.tolist()).encode())
    return xxhash.xxh3_64_intdigest(np.ascontiguousarray(values).tobytes())


class ArrayStore:
    """The objects and arrays of one run.

    Parameters
    ----------
    url : str
        Absolute; a local directory is made on first use.
    """

    def __init__(self, url: str) -> None:
        self._path = local_path(url)
        self._url = url

    @cached_property
    def objects(self) -> Any:
        """Obstore's store."""
        return object_store(self._url, create=True)

    @cached_property
    def zarr_store(self) -> ObjectStore[Any]:
        """The same, as zarr wants it."""
        return ObjectStore(self.objects)

    def is_absent(self) -> bool:
        """Whether this is a local directory that is not there."""
        return self._path is not None and not self._path.exists()

    # -- objects

    def get(self, key: str) -> bytes | None:
        """An object's content, or None."""
        try:
            return bytes(obstore.get(self.objects, key).bytes())
        except FileNotFoundError:
            return None

    def put(self, key: str, content: bytes) -> None:
        """Write an object, whole or not at all."""
        obstore.put(self.objects, key, content)

    def put_probe(self) -> str:
        """Leave an empty object, for another process to look for or to ask the store for its time; gives its name."""
        name = f"{PROBE}{uuid.uuid4().hex}"
        self.put(name, b"")
        return name

    def has(self, key: str) -> bool:
        """Whether an object of this name is visible from this process."""
        if self.is_absent():
            return False
        try:
            obstore.head(self.objects, key)
        except FileNotFoundError:
            return False
        return True

    def size(self, key: str) -> int:
        """An object's size in bytes."""
        return int(obstore.head(self.objects, key)["size"])

    def listed(self, prefix: str) -> Iterable[Any]:
        """Path, size and time of every object under a path."""
        prefix = f"{prefix}/" if prefix else ""
        return (item for batch in obstore.list(self.objects, prefix=prefix) for item in batch)

    def keys_under(self, prefix: str) -> list[str]:
        """Every object under a path."""
        return [item["path"] for item in self.listed(prefix)]

    def is_inside(self, key: str) -> bool:
        """Whether an object lies where its name says: a listing of a file system follows links that lead outside."""
        if self._path is None:
            return True
        root = self._path.resolve()
        return (root / key).resolve() == root / key

    def delete(self, keys: Iterable[str], look: Callable[[], None] = lambda: None) -> None:
        """Delete objects; those that are not there already are no error.

        ``look`` is called before the first and every fifty, a second or so in an object store; what it raises ends it.
        """
        for number, key in enumerate(keys):
            if number % 50 == 0:
                look()
            try:
                obstore.delete(self.objects, key)
            except FileNotFoundError:
                continue

    def flush(self, keys: Sequence[str]) -> None:
        """On a file system, make objects and their names survive a power cut; elsewhere a put already does."""
        if self._path is None:
            return
        files = [self._path / key for key in keys]
        for path in [*files, *{file.parent for file in files}]:
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    # -- arrays

    def open_array(self, path: str) -> zarr.Array[Any]:
        """An array that is there."""
        return zarr.open_array(self.zarr_store, path=path, mode="r+")

    def make_group(self, path: str) -> None:
        """Make a group that may be there already."""
        zarr.open_group(self.zarr_store, path=path, mode="a")

    def make_array(
        self, path: str, shape: tuple[int, ...], dtype: str, fill_value: float, chunk: int, shard: int
    ) -> None:
        """Make an array that is filled in parts, unless it is there; ``chunk`` and ``shard`` count its first axis.

        Metadata that cannot be read are made anew: the chunks beside them are still good.
        """
        key = f"{path}/zarr.json"
        if self.has(key):
            try:
                self.open_array(path)
            except READ_ERRORS:
                self.delete([key])
            else:
                return
        zarr.create_array(
            self.zarr_store,
            name=path,
            shape=shape,
            dtype=dtype,
            chunks=(chunk, *shape[1:]),
            shards=(shard, *shape[1:]),
            compressors=_COMPRESSORS,
            fill_value=fill_value,
            config={"write_empty_chunks": True},
        )

    def write_part(self, path: str, start: int, values: Array) -> list[str]:
        """Write whole shards of an array from an index on; returns the objects written.

        The old object goes first: zarr would read a torn shard before replacing it.

        Raises
        ------
        ValueError
            When the part is no whole shard, or of another type: its checksum would not be that of what is read back.
        """
        array = self.open_array(path)
        if values.dtype != array.dtype:
            raise ValueError(f"{path}: values of {values.dtype} for an array of {array.dtype}")
        shard_rows = (array.shards or array.chunks)[0]
        if start % shard_rows or (len(values) != shard_rows and start + len(values) != array.shape[0]):
            raise ValueError(f"{path}: {start} to {start + len(values)} is no whole shard of {shard_rows} rows")
        key = shard_key(array, start)
        self.delete([key])
        array[start : start + len(values)] = values
        return [key]

    def write_array(self, path: str, values: Array) -> list[str]:
        """Write an array of one chunk, in place of what lay there; returns the objects written."""
        self.delete(self.keys_under(path))
        array = zarr.create_array(
            self.zarr_store,
            name=path,
            data=values,
            chunks=tuple(max(length, 1) for length in values.shape),
            compressors=_COMPRESSORS,
            config={"write_empty_chunks": True},
            overwrite=True,
        )
        keys = [f"{path}/zarr.json"]
        if values.size:
            keys.append(f"{path}/{array.metadata.encode_chunk_key((0,) * values.ndim)}")
        return keys

    def reads_back(self, path: str, rows: slice, expected: int) -> bool:
        """Whether rows of an array have the checksum that they were written with."""
        try:
            return checksum(np.asarray(self.open_array(path)[rows])) == expected
        except READ_ERRORS:
            return False


def shard_key(array: zarr.Array[Any], first_row: int) -> str:
    """The object that holds a row: parts are whole in every other axis."""
    shard_rows = (array.shards or array.chunks)[0]
    index = (first_row // shard_rows, *(0,) * (array.ndim - 1))
    return f"{array.path}/{array.metadata.encode_chunk_key(index)}"
