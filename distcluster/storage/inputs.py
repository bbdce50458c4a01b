"""Where data lies: URLs, object stores, and the input."""

import json
import os
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import numpy as np
import numpy.typing as npt
import obstore
import xxhash
import zarr
from obstore.exceptions import BaseError
from obstore.store import LocalStore, from_url
from zarr.storage import FsspecStore, ObjectStore, ZipStore

from distcluster.errors import JobError

INPUT_DTYPES = ("float16", "float32", "float64", "int8", "uint8")

Array = npt.NDArray[Any]

_OBJECT_SCHEMES = {
    "file", "s3", "s3a", "gs", "az", "adl", "azure", "abfs", "abfss", "http", "https",
}  # fmt: skip


def checksum(values: Array) -> int:
    """XXH3, 64 bits, of an array's decoded bytes in C order."""
    if values.dtype.kind in "TU":  # strings: zarr gives them back in numpy's variable-length type
        return xxhash.xxh3_64_intdigest(json.dumps(values.tolist()).encode())
    return xxhash.xxh3_64_intdigest(np.ascontiguousarray(values).tobytes())


# --- URLs -------------------------------------------------------------------------------------------------------


def absolute_url(url: str) -> str:
    """The URL as workers with another working directory can use it: local paths become absolute."""
    if "://" in url:
        return url
    return str(Path(url).expanduser().resolve())


def public_url(url: str) -> str:
    """The URL without user, password and query, which may hold credentials or signatures."""
    if "://" not in url:
        return url
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def local_path(url: str) -> Path | None:
    """The path behind a local URL, else None."""
    if "://" not in url:
        return Path(url)
    parts = urlsplit(url)
    return Path(parts.path) if parts.scheme == "file" else None


def object_store(url: str, create: bool = False) -> Any:
    """Obstore's store for a URL; credentials and endpoints come from the environment (AWS_*, GOOGLE_*, AZURE_*)."""
    path = local_path(url)
    if path is not None:
        return LocalStore(path, mkdir=create)
    if url.startswith("http://") or os.environ.get("AWS_ENDPOINT_URL", "").startswith("http://"):
        return from_url(url, client_options={"allow_http": True})
    return from_url(url)


# --- The input --------------------------------------------------------------------------------------------------


def open_input(url: str, name: str) -> zarr.Array[Any]:
    """Open the embeddings for reading.

    Parameters
    ----------
    url : str
        A Zarr array, format 2 or 3, or a group (a zipped one too) that holds one.
    name : str
        The array's name inside a group.

    Returns
    -------
    zarr.Array
        (N, D), N >= 1 and D >= 1, one of ``INPUT_DTYPES``.

    Raises
    ------
    JobError
        When there is no such array, or it has another shape or dtype.
    """
    node = _open_node(url)
    shown = public_url(url)
    if isinstance(node, zarr.Group):
        try:
            found = node[name]
        except KeyError as error:
            raise JobError(
                f"the group {shown} has no array {name!r}; it holds {_listing(node)}. Set input.array."
            ) from error
        if isinstance(found, zarr.Group):
            raise JobError(
                f"{name!r} in {shown} is a group that holds {_listing(found)}, not an array. Set input.array."
            )
        node, shown = found, f"{shown}/{name}"
    _check_input(node, shown)
    return node


def _open_node(url: str) -> zarr.Array[Any] | zarr.Group:
    path = local_path(url)
    if path is not None and not path.exists():
        raise JobError(f"there is no input at {path}. Set input.url to a Zarr array or group.")
    try:
        if path is not None and path.is_file():
            return zarr.open(ZipStore(path, mode="r"), mode="r")
        if path is not None or urlsplit(url).scheme in _OBJECT_SCHEMES:
            return zarr.open(ObjectStore(object_store(url), read_only=True), mode="r")
        return zarr.open(FsspecStore.from_url(url, read_only=True), mode="r")
    except JobError:
        raise
    except Exception as error:  # every store and codec has exceptions of its own; all mean the same to the user
        hint = ""
        if path is not None and path.suffix in {".npy", ".npz", ".parquet"}:
            hint = f" It looks like {path.suffix}: convert it with `distcluster ingest {path} {path.stem}.zarr`."
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise JobError(f"cannot open {public_url(url)} as Zarr: {reason}.{hint}") from error


def _listing(group: zarr.Group) -> str:
    try:
        names = sorted(group.keys())
    except (NotImplementedError, OSError, ValueError):  # plain HTTP cannot list
        return "arrays that this store cannot list"
    return ", ".join(names) if names else "nothing"


def _check_input(array: zarr.Array[Any], shown: str) -> None:
    if str(array.dtype) not in INPUT_DTYPES:
        raise JobError(
            f"{shown} has dtype {array.dtype}; embeddings must be {', '.join(INPUT_DTYPES)}. "
            f"Other types do not survive float32: convert the array first."
        )
    if array.ndim != 2:
        raise JobError(
            f"{shown} has {array.ndim} dimension{'s' * (array.ndim != 1)}, shape {array.shape}; "
            f"embeddings must be (rows, features)."
        )
    if 0 in array.shape:
        raise JobError(f"{shown} is empty: shape {array.shape}; there is nothing to cluster.")


def input_version(url: str) -> str | None:
    """A string that changes when any object under the URL is written, or None where the store cannot list.

    Sizes and entity tags (inode, size and time on a file system) of every object: one listing, no reading.
    """
    path = local_path(url)
    if path is None and urlsplit(url).scheme not in _OBJECT_SCHEMES - {"http", "https"}:
        return None
    if path is not None and path.is_file():
        objects = [obstore.head(*_file_store(url))]
    else:
        objects = [item for batch in obstore.list(object_store(url)) for item in batch]
    seen = sorted((item["path"], item["size"], item["e_tag"] or str(item["last_modified"])) for item in objects)
    return f"{xxhash.xxh3_64_hexdigest(json.dumps(seen).encode())}"


def read_lines(url: str, numbers: Iterable[int]) -> dict[int, str]:
    """Some lines of a text file, by number from 0; the file is streamed once and never held.

    Lines past its end are absent from the result.

    Raises
    ------
    JobError
        When there is no such file.
    """
    wanted = sorted(set(numbers))
    found: dict[int, str] = {}
    number, rest = 0, b""
    for chunk in _stream(url):
        *lines, rest = (rest + bytes(chunk)).split(b"\n")
        for wanted_number in wanted[bisect_left(wanted, number) : bisect_left(wanted, number + len(lines))]:
            found[wanted_number] = lines[wanted_number - number].decode(errors="replace").rstrip("\r")
        number += len(lines)
    if rest and number in wanted:
        found[number] = rest.decode(errors="replace")
    return found


def stream_lines(url: str) -> Iterator[str]:
    """The lines of a text file, without their ends; the file is streamed and never held."""
    rest = b""
    for chunk in _stream(url):
        *lines, rest = (rest + bytes(chunk)).split(b"\n")
        for line in lines:
            yield line.decode(errors="replace").rstrip("\r")
    if rest:
        yield rest.decode(errors="replace")


def open_entries(url: str, field: str, dimensions: tuple[int, ...] = (1,)) -> zarr.Array[Any] | None:
    """A Zarr array of one entry a row; None where the URL is a file. ``field`` is the job's, for messages.

    Raises
    ------
    JobError
        When there is neither, or the array has another shape.
    """
    try:
        obstore.head(*_file_store(url))
    except (FileNotFoundError, BaseError):
        pass
    else:
        return None
    shown, path = public_url(url), local_path(absolute_url(url))
    if path is not None and not path.is_dir():
        raise JobError(f"{field}: there is no file and no Zarr array at {shown}.")
    try:
        array = zarr.open_array(ObjectStore(object_store(absolute_url(url)), read_only=True), mode="r")
    except (FileNotFoundError, ValueError, BaseError) as error:
        raise JobError(f"{field}: there is no file and no Zarr array at {shown}.") from error
    if array.ndim not in dimensions:
        wanted = " or ".join({1: "(N,)", 2: "(N, m)"}[each] for each in dimensions)
        raise JobError(f"{field}: {shown} has the shape {array.shape}; it must be {wanted}, one entry a row.")
    return array


def read_bytes(url: str) -> bytes:
    """A whole file.

    Raises
    ------
    OSError or obstore's BaseError
        When it cannot be read.
    """
    store, name = _file_store(url)
    return bytes(obstore.get(store, name).bytes())


def count_labels(url: str) -> int:
    """How many labels there are, by reading a text file once."""
    array = open_entries(url, "report.labels", dimensions=(1, 2))
    return sum(1 for _ in stream_lines(url)) if array is None else int(array.shape[0])


def require_file(url: str, field: str) -> None:
    """Refuse a file that is not there, naming the job's field.

    Raises
    ------
    JobError
    """
    try:
        obstore.head(*_file_store(url))
    except (FileNotFoundError, BaseError) as error:
        raise JobError(f"{field}: there is no file at {public_url(url)}.") from error


def _stream(url: str) -> Iterable[Any]:
    store, name = _file_store(url)
    return obstore.get(store, name).stream()


def _file_store(url: str) -> tuple[Any, str]:
    """The store of a file's directory, and the file's name in it."""
    directory, _, name = absolute_url(url).rpartition("/")
    path = local_path(directory or "/")
    if path is not None and not path.is_dir():
        raise FileNotFoundError(path)
    return object_store(directory or "/"), name


def refuse_nested(input_url: str, output_url: str) -> None:
    """Refuse an output inside the input, the input itself, and an output around the input.

    Raises
    ------
    JobError
        When one URL is a prefix of the other.
    """
    source, target = (f"{public_url(url).removeprefix('file://').rstrip('/')}/" for url in (input_url, output_url))
    if target.startswith(source):
        raise JobError(f"the output {target} lies inside the input {source}: writing would damage it.")
    if source.startswith(target):
        raise JobError(f"the input {source} lies inside the output {target}: choose an output of its own.")
