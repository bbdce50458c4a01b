"""The input: embeddings in Zarr, or in files of another kind, read where they lie, and what recognises them again."""

import contextlib
import functools
import json
import math
import zipfile
from pathlib import PurePosixPath
from typing import Any, Protocol
from urllib.parse import urlsplit

import numpy as np
import obstore
import xxhash
import zarr
from zarr.storage import FsspecStore, ObjectStore, ZipStore

from distcluster.errors import JobError, StorageError
from distcluster.job import RawLayout
from distcluster.numerics.partition import RowRange
from distcluster.storage.array_store import Array
from distcluster.storage.faults import of_storage
from distcluster.storage.lance_files import is_lance, lance_vectors, refuse_other_stores
from distcluster.storage.npy_files import open_npy
from distcluster.storage.object_file import has_pattern, listed, may_exist
from distcluster.storage.parquet_files import open_parquet, open_vectors_of
from distcluster.storage.row_files import open_raw
from distcluster.storage.urls import OBJECT_SCHEMES, file_store, local_path, object_store, reason_of
from distcluster.url import Url

_METADATA = {"zarr.json", ".zarray", ".zgroup", ".zattrs", ".zmetadata"}
_MOST_METADATA = 2**26  # bytes

INPUT_DTYPES = ("float16", "float32", "float64", "int8", "uint8")


class Source(Protocol):
    """What an input is to its readers: as much of a Zarr array as they need."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, D)."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """One of ``INPUT_DTYPES``."""

    @property
    def chunks(self) -> tuple[int, ...]:
        """Rows and features that are read together."""

    def __getitem__(self, rows: slice, /) -> Any:
        """Some rows, as stored."""


def open_input(url: Url, name: str, raw: RawLayout | None = None) -> Source:
    """Open the embeddings for reading.

    Parameters
    ----------
    url : Url
        A Zarr array, format 2 or 3, or a group (a zipped one too) that holds one; Parquet, .npy or raw values, a file,
        a folder of files, or a pattern of their names; a Lance dataset.
    name : str
        The array's name inside a group, or the column's; an only column of lists is taken whatever its name.
    raw : RawLayout, optional
        How rows lie in raw files; absent: the input says itself what it holds.

    Returns
    -------
    Source
        (N, D), N >= 1 and D >= 1, one of ``INPUT_DTYPES``. Rows of Parquet and Lance that are no vectors are NaN.

    Raises
    ------
    JobError
        When there is no such array, or it has another shape or dtype.
    """
    is_of_files = raw is not None or _names_files(url)
    node = (_open_files(url, name, raw) if is_of_files else None) or _open_node(url, name)
    if isinstance(node, zarr.Group):
        try:
            found = node[name]
        except KeyError as error:
            raise JobError(
                f"the group {url} has no array {name!r}; it holds {_listing(node)}. Set input.array."
            ) from error
        except Exception as error:  # as in _open_node
            fault = of_storage(error)
            raise fault or JobError(f"{url}/{name} is no array that Zarr can open: {reason_of(error)}.") from None
        if isinstance(found, zarr.Group):
            raise JobError(f"{name!r} in {url} is a group that holds {_listing(found)}, not an array. Set input.array.")
        node, url = found, Url(f"{url}/{name}")
    _check_input(node, url)
    return node


def refuse_query(url: Url, raw: RawLayout | None = None) -> None:
    """Refuse files of vectors behind a signed URL: a store is asked for parts of a path, which has no place for it.

    Raises
    ------
    JobError
    """
    if local_path(url) is None and "?" in url.whole and (raw is not None or _names_files(url)):
        raise JobError(
            f"{url}: files behind a URL with a query (a signature, say) cannot be read where they lie. Give "
            f"credentials in the environment, or copy the file."
        )


def _names_files(url: Url) -> bool:
    suffix = PurePosixPath(urlsplit(url).path if "://" in url else url).suffix.lower()
    return suffix in (".parquet", ".lance", ".npy") or has_pattern(url)


def _open_files(url: Url, name: str, raw: RawLayout | None = None) -> Source | None:
    """The embeddings of Parquet, Lance, .npy or raw files; None where there are none."""
    if not may_exist(url):
        return None
    refuse_other_stores(url)
    try:
        return _opened_files(url, name, raw, input_version(url))
    except JobError:
        raise
    except Exception as error:  # as in _open_node
        fault = of_storage(error)
        raise fault or JobError(f"{url} cannot be read: {reason_of(error)}.") from None


@functools.lru_cache(maxsize=4)  # a folder has thousands of headers, and every task opens the input
def _opened_files(url: Url, name: str, raw: RawLayout | None, version: str | None) -> Source | None:
    if raw is not None:
        return open_raw(url, raw)
    if is_lance(url):
        return lance_vectors(url, name, version)
    files = open_parquet(url, version)
    return open_npy(url) if files is None else open_vectors_of(files, name)


def _open_node(url: Url, name: str) -> zarr.Array[Any] | zarr.Group | Source:
    path = local_path(url)
    if path is not None and not path.exists():
        raise JobError(f"there is no input at {path}. Set input.url to a Zarr array or group.")
    try:
        if path is not None and path.is_file():
            return zarr.open(ZipStore(path, mode="r"), mode="r")
        if path is not None or urlsplit(url).scheme in OBJECT_SCHEMES:
            return zarr.open(ObjectStore(object_store(url), read_only=True), mode="r")
        return zarr.open(FsspecStore.from_url(url.whole, read_only=True), mode="r")
    except JobError:
        raise
    except Exception as error:  # every store and codec has exceptions of its own; all mean the same to the user
        fault = of_storage(error)
        if isinstance(fault, StorageError):
            raise fault from None
        if (files := _open_files(url, name)) is not None:
            return files
        hint = ""
        if path is not None and path.suffix == ".npz":
            hint = f" It looks like .npz: convert it with `distcluster ingest {path} {path.stem}.zarr`."
        elif path is not None and (path / "ingest.json").is_file():
            hint = " An ingest into it was not finished: `distcluster ingest` goes on with it."
        elif path is not None and path.is_file():
            hint = " Where it holds nothing but values, set input.dtype and input.features."
        raise JobError(f"cannot open {url} as Zarr: {reason_of(error)}.{hint}") from None


def read_block(array: Source, url: Url, block: RowRange) -> Array:
    """A block of the input, as stored.

    Raises
    ------
    JobError
        When it cannot be read, naming its rows.
    StorageError
        When the store is away.
    """
    try:
        return np.asarray(array[block.rows])
    except Exception as error:  # as in _open_node
        fault = of_storage(error)
        if fault is not None:
            raise fault from None
        raise JobError(
            f"rows {block.start:,} to {block.stop - 1:,} of {url} cannot be read: {reason_of(error)}."
        ) from None


def _listing(group: zarr.Group) -> str:
    try:
        names = sorted(group.keys())
    except (NotImplementedError, OSError, ValueError):  # plain HTTP cannot list
        return "arrays that this store cannot list"
    return ", ".join(names) if names else "nothing"


def _check_input(array: Source, url: Url) -> None:
    if str(array.dtype).lstrip("<>") not in (*INPUT_DTYPES, "f2", "f4", "f8"):  # in any order of bytes
        raise JobError(
            f"{url} has dtype {array.dtype}; embeddings must be {', '.join(INPUT_DTYPES)}. "
            f"Other types do not survive float32: convert the array first."
        )
    if len(array.shape) != 2:
        raise JobError(
            f"{url} has {len(array.shape)} dimension{'s' * (len(array.shape) != 1)}, shape {array.shape}; "
            f"embeddings must be (rows, features)."
        )
    if 0 in array.shape:
        raise JobError(f"{url} is empty: shape {array.shape}; there is nothing to cluster.")
    if min(array.chunks) < 1:
        raise JobError(f"{url} says that its chunks are {array.chunks}: that cannot be.")


def refuse_large_metadata(url: Url) -> None:
    """Refuse a zip whose metadata, which are read whole, unpack to more than metadata can be.

    Raises
    ------
    JobError
        Naming what does.
    """
    for name, size in _zipped(url):
        if size > _MOST_METADATA and PurePosixPath(name).name in _METADATA:
            raise JobError(f"{name} in {local_path(url)} unpacks to {size:,} bytes: that is no array's metadata.")


def refuse_large_chunks(url: Url, array: Source) -> None:
    """Refuse a zip in which a chunk unpacks to more than a chunk can be.

    Raises
    ------
    JobError
        Naming it.
    """
    if not isinstance(array, zarr.Array):
        return
    most = 2 * math.prod(array.shards or array.chunks) * array.dtype.itemsize + 2**20  # codecs add a little
    below = f"{array.path}/" if array.path else ""
    for name, size in _zipped(url):
        if size > most and name.startswith(below):
            raise JobError(f"{name} in {local_path(url)} unpacks to {size:,} bytes, and a chunk has {most:,} at most.")


def _zipped(url: Url) -> list[tuple[str, int]]:
    """Name and unpacked size of what a zip holds; nothing where the input is none."""
    path = local_path(url)
    is_zip = path is not None and path.is_file() and zipfile.is_zipfile(path)
    return [(name, size) for name, size, _ in _listed(url) or ()] if is_zip else []


def refuse_missing_chunks(url: Url, array: Source) -> None:
    """Refuse an input of which chunks are not there.

    Raises
    ------
    JobError
        With the rows of the first.
    """
    missing = _missing_chunks(url, array)
    if missing is not None:
        number, first = missing
        raise JobError(
            f"{number:,} chunks of rows are not in {url}, the first with rows {first.start:,} to {first.stop - 1:,}: "
            f"Zarr would read them as its fill value. Complete the input, or set input.allow_missing_chunks = true "
            f"where they are meant to be so."
        )


def _missing_chunks(url: Url, array: Source) -> tuple[int, slice] | None:
    """How many chunks (or shards) are not there, and the rows of the first; None where all are, or none can be listed.

    Zarr reads such a chunk as the fill value, whether it was never written, lost, or left out for holding nothing else.
    """
    there = _listed(url) if isinstance(array, zarr.Array) else None
    if there is None or not isinstance(array, zarr.Array):
        return None
    names = {name for name, _, _ in there}
    rows, features = array.shards or array.chunks
    prefix = f"{array.path}/" if array.path else ""
    down, across = -(-array.shape[0] // rows), -(-array.shape[1] // features)
    keys = ((i, f"{prefix}{array.metadata.encode_chunk_key((i, j))}") for i in range(down) for j in range(across))
    first = next((i for i, key in keys if key not in names), None)
    if first is None:
        return None
    # Of a shape that is a typing error there are too many to look for each: those that are there are counted.
    below = f"{prefix}c/" if array.metadata.zarr_format == 3 else prefix
    n_there = sum(name.startswith(below) and name[len(below) :][:1].isdigit() for name in names)
    return max(1, down * across - n_there), slice(first * rows, min((first + 1) * rows, array.shape[0]))


def input_version(url: Url) -> str | None:
    """A string that changes when any object under the URL is written, or None where the store cannot list.

    Sizes and entity tags (inode, size and time on a file system) of every object: one listing, no reading.
    """
    path = local_path(url)
    is_file = path.is_file() if path is not None else _names_files(url) and not has_pattern(url)
    seen = (_seen_file(url) if is_file else None) or _listed(url)
    if seen == [] and path is None:
        seen = _seen_file(url)  # a raw file may have any name
    return None if seen is None else xxhash.xxh3_64_hexdigest(json.dumps(sorted(seen)).encode())


def _seen_file(url: Url) -> list[tuple[str, int, str]] | None:
    with contextlib.suppress(FileNotFoundError):  # a folder with a file's name
        return [_seen(obstore.head(*file_store(url)))]
    return None


def _listed(url: Url) -> list[tuple[str, int, str]] | None:
    """Name, size and entity tag (or time) of every object under a URL, or in a zip; None where none can be listed."""
    path = local_path(url)
    if path is not None and path.is_file():
        if not zipfile.is_zipfile(path):
            return None
        with zipfile.ZipFile(path) as archive:
            entries = (each for each in archive.infolist() if not each.is_dir())
            return [(each.filename, each.file_size, str(each.CRC)) for each in entries]
    if path is None and urlsplit(url).scheme not in OBJECT_SCHEMES - {"http", "https"}:
        return None
    return [_seen(item) for item in listed(url)[1]]


def _seen(item: Any) -> tuple[str, int, str]:
    return item["path"], item["size"], item["e_tag"] or str(item["last_modified"])
