"""Objects and Zarr arrays under one URL: written whole, flushed, listed and deleted."""

import contextlib
import functools
import io
import itertools
import json
import os
import threading
import uuid
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt
import obstore
import xxhash
from obstore.store import LocalStore

from distcluster import storage
from distcluster.storage.layout import PROBE, in_object
from distcluster.storage.npy_headers import array_in
from distcluster.storage.urls import local_path, object_store

if TYPE_CHECKING:
    import zarr

    from distcluster.storage.zarr_arrays import Store, WritingStore

T = TypeVar("T")
R = TypeVar("R")
Array = npt.NDArray[Any]

READERS = 128
"""Threads that ask for small objects: a store answers in its own time, and many requests at once."""

READ_ERRORS = (ValueError, RuntimeError, OSError, KeyError, TypeError, EOFError, zipfile.BadZipFile)
"""What zarr, its codecs, NumPy and obstore raise for objects that are missing, torn or damaged."""

_DELETED_AT_ONCE = 1_000  # what one request of an object store may name


class _Here(threading.local):
    """How many calls of ``begin`` this thread works within."""

    depth = 0


_here = _Here()


@functools.cache
def _threads(depth: int, _process: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(READERS, f"store-{depth}", initializer=setattr, initargs=(_here, "depth", depth + 1))


def begin(do: Callable[[T], R], item: T) -> Future[R]:
    """Have another thread ask a store for something.

    Threads are kept, one set a depth of calls within calls, so that none waits for itself. To start one is a risk on a
    Dask worker: CPython 3.11 can lock up where that meets the collection of garbage within ``sys._current_frames``,
    which Dask's profiler calls every 10 ms (cpython #106883).
    """
    return _threads(_here.depth, os.getpid()).submit(do, item)


def at_once(do: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """What comes of each of some items, many at a time, for a store answers in its own time."""
    items = list(items)
    if len(items) == 1:  # no other to wait beside
        return [do(items[0])]
    waiting = [begin(do, each) for each in items]
    wait(waiting)
    return [each.result() for each in waiting]


def checksum(values: Array) -> int:
    """XXH3, 64 bits, of an array's decoded bytes in C order.

    Examples
    --------
    >>> checksum(np.arange(3)) == checksum(np.arange(3)[::-1][::-1])
    True
    """
    if values.dtype.kind in "TU":  # strings: zarr gives them back in numpy's variable-length type
        return xxhash.xxh3_64_intdigest(json.dumps(values.tolist()).encode())
    return xxhash.xxh3_64_intdigest(np.ascontiguousarray(values).reshape(-1).view(np.uint8).data)


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
        self._row_arrays: dict[tuple[str, bool], zarr.Array[Any]] = {}
        self._groups: set[str] = set()  # metadata of groups that this process has written
        self._ahead: dict[str, Any] = {}  # the content of objects that were read ahead

    @cached_property
    def objects(self) -> Any:
        """Obstore's store."""
        return object_store(self._url, create=True)

    @cached_property
    def _tidy_objects(self) -> Any:
        return self.objects if self._path is None else LocalStore(self._path, automatic_cleanup=True)

    @cached_property
    def zarr_store(self) -> "Store":
        """The same, as zarr wants it."""
        return storage.zarr_arrays.store_of(self.objects)

    @cached_property
    def _writing_store(self) -> "WritingStore":
        return storage.zarr_arrays.WritingStore(self.zarr_store)

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

    def put(self, key: str, content: bytes) -> str:
        """Write an object, whole or not at all; gives its entity tag."""
        return entity_tag(obstore.put(self.objects, key, content))

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

    def delete(self, keys: Iterable[str], look: Callable[[], None] = lambda: None, *, for_others: bool = False) -> None:
        """Delete objects, a thousand at a time; those that are not there already are no error.

        Parameters
        ----------
        keys : iterable of str
        look : callable
            Called before each thousand; what it raises ends it.
        for_others : bool
            Other objects may come: on a file system, directories go with the last that they hold, for a file could not
            have their name.
        """
        left, objects = iter(keys), self._tidy_objects if for_others else self.objects
        while some := list(itertools.islice(left, _DELETED_AT_ONCE)):
            look()
            try:
                obstore.delete(objects, some)
            except FileNotFoundError:  # a file system's, of one of them
                for key in some:
                    with contextlib.suppress(FileNotFoundError):
                        obstore.delete(objects, key)

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

    def set_attribute(self, name: str, value: Any) -> None:
        """Replace an attribute of the root group."""
        storage.zarr_arrays.set_attribute(self.zarr_store, name, value)

    def open_array(self, path: str) -> "zarr.Array[Any]":
        """An array that is there."""
        return storage.zarr_arrays.open_array(self.zarr_store, path)

    def read_rows(self, path: str, rows: slice) -> Array:
        """Some rows of an array that is filled in parts.

        Raises
        ------
        READ_ERRORS
            When a chunk is missing, too.
        """
        return np.asarray(self._row_array(path, is_strict=True)[rows])

    def _row_array(self, path: str, *, is_strict: bool) -> "zarr.Array[Any]":
        """An array that is filled in parts, opened once: its metadata never change."""
        if (path, is_strict) not in self._row_arrays:
            store = storage.zarr_arrays.StrictStore(self.zarr_store) if is_strict else self._writing_store
            self._row_arrays[path, is_strict] = storage.zarr_arrays.open_parts(store, path)
        return self._row_arrays[path, is_strict]

    def read_array(self, path: str, objects: Iterable[str]) -> Array:
        """All values of an array that an item has for its own; ``objects`` are the item's."""
        if inside := in_object(path):
            return self.get_arrays(inside[0], inside[1:])[0]
        keys = [key for key in objects if key.startswith(f"{path}/")]
        # At once: zarr would ask for a chunk once it has the metadata.
        is_here = all(key in self._ahead for key in keys)
        contents = [self._ahead[key] for key in keys] if is_here else self._contents(keys)
        return storage.zarr_arrays.decode_whole(path, dict(zip(keys, contents, strict=True)))

    @contextmanager
    def read_ahead(self, keys: Sequence[str]) -> Iterator[None]:
        """Read objects at once and keep them: arrays that are read within this are made from them."""
        with contextlib.suppress(*READ_ERRORS):  # who reads what is missing will say so
            self._ahead = dict(zip(keys, self._contents(keys), strict=True))
        try:
            yield
        finally:
            self._ahead = {}

    def _contents(self, keys: Sequence[str]) -> list[Any]:
        return at_once(lambda key: obstore.get(self.objects, key).bytes(), keys)

    def get_arrays(self, key: str, names: Sequence[str]) -> list[Array]:
        """Some arrays of one object, as ``put_arrays`` wrote it: each is checked before it is unpacked.

        Raises
        ------
        READ_ERRORS
            Also for a compressed array, which none of ours is: it could be of any size.
        """
        content = bytes(obstore.get(self.objects, key).bytes())
        arrays = []
        with zipfile.ZipFile(io.BytesIO(content)) as found:
            for each in map(found.getinfo, (f"{name}.npy" for name in names)):
                if each.compress_type != zipfile.ZIP_STORED:
                    raise ValueError(f"{each.filename} is compressed")
                arrays.append(array_in(found.read(each)))
        return arrays

    def put_arrays(self, key: str, arrays: Mapping[str, Array]) -> dict[str, int]:
        """Write arrays as one object, in NumPy's npz format; gives its size by its key."""
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)  # type: ignore[arg-type]
        self.put(key, buffer.getvalue())
        return {key: buffer.tell()}

    def make_group(self, path: str) -> None:
        """Make a group that may be there already."""
        storage.zarr_arrays.make_group(self.zarr_store, path)

    def make_array(
        self, path: str, shape: tuple[int, ...], dtype: str, fill_value: float, chunk: int, shard: int,
        dimensions: Sequence[str],
    ) -> None:  # fmt: skip
        """Make an array that is filled in parts, unless it is there; ``chunk`` and ``shard`` count its first axis.

        One that is shorter is lengthened: rows were appended. Metadata that cannot be read are made anew: the chunks
        beside them are still good.
        """
        key = f"{path}/zarr.json"
        if self.has(key):
            try:
                array = self.open_array(path)
            except READ_ERRORS:
                self.delete([key])
            else:
                if array.shape[0] < shape[0]:
                    array.resize(shape)
                    self._row_arrays.clear()
                return
        storage.zarr_arrays.make_parts(self.zarr_store, path, shape, dtype, fill_value, chunk, shard, dimensions)

    def write_part(self, path: str, start: int, values: Array) -> dict[str, int]:
        """Write whole shards of an array from an index on; gives the objects written, with their sizes.

        Raises
        ------
        ValueError
            When the part is no whole shard, or of another type: its checksum would not be that of what is read back.
        """
        array = self._row_array(path, is_strict=False)
        if values.dtype != array.dtype:
            raise ValueError(f"{path}: values of {values.dtype} for an array of {array.dtype}")
        shard_rows = (array.shards or array.chunks)[0]
        if start % shard_rows or (len(values) != shard_rows and start + len(values) != array.shape[0]):
            raise ValueError(f"{path}: {start} to {start + len(values)} is no whole shard of {shard_rows} rows")
        key = shard_key(array, start)
        array[start : start + len(values)] = values
        return {key: self._writing_store.sizes.pop(key)}

    def write_array(self, path: str, values: Array, dimensions: Sequence[str]) -> dict[str, int]:
        """Write an array of one chunk, in place of what lay there; gives the objects written, with their sizes."""
        objects = storage.zarr_arrays.encode_whole(path, values, dimensions)
        groups = {key for key in objects if not key.startswith(f"{path}/")}  # nobody's own: they are all alike
        at_once(lambda key: self.put(key, objects[key]), objects.keys() - (groups & self._groups))
        self._groups |= groups
        return {key: len(content) for key, content in objects.items() if key not in groups}


def entity_tag(of: Any) -> str:
    """What a put or a listing says of an object's content, "" where it says nothing; a local put has no quotes."""
    return (of["e_tag"] or "").strip('"')


def shard_key(array: "zarr.Array[Any]", first_row: int) -> str:
    """The object that holds a row: parts are whole in every other axis."""
    shard_rows = (array.shards or array.chunks)[0]
    index = (first_row // shard_rows, *(0,) * (array.ndim - 1))
    return f"{array.path}/{array.metadata.encode_chunk_key(index)}"
