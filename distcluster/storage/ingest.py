"""Vectors copied into a Zarr array, any chunk at any time; the group's metadata, written last, say that it is whole."""

import contextlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import zarr
from zarr.codecs import ZstdCodec
from zarr.storage import MemoryStore

from distcluster.errors import JobError
from distcluster.storage.array_store import READ_ERRORS, Array, ArrayStore
from distcluster.storage.ingest_source import (
    Vectors,
    may_have_invalid_rows,
    open_vectors,
    read_vectors,
    stored_dtype,
    why_invalid,
)
from distcluster.storage.inputs import input_version
from distcluster.storage.object_file import may_exist
from distcluster.storage.urls import absolute_url, local_path, refuse_nested
from distcluster.url import Url

CHUNK_ROWS = 16_384
"""Rows of a chunk: a block of a run, so that no task reads a chunk that is mostly another's."""

_ARRAY = "embeddings"
_CHUNKS = f"{_ARRAY}/c/"
_METADATA = "zarr.json"
_RECORD = "ingest.json"  # of what is not whole yet; afterwards it is an attribute of the group
PART_BYTES = 2**26
"""Of the target that one task writes, at least."""


@dataclass(frozen=True, slots=True)
class Ingest:
    """What is copied where: the same ingest has the same bytes, whoever writes which chunk.

    Attributes
    ----------
    source, target : Url
        Absolute.
    version : str or None
        Of the source (``inputs.input_version``).
    column : str or None
        The array of an .npz, the column of Parquet; None: the only one.
    on_invalid : "error" or "skip"
        What to do with rows that are no vectors.
    source_rows, features : int
        The source's shape.
    dtype : str
        Of the target.
    skipped : int
        Rows of the source that are left out.
    """

    source: Url
    target: Url
    version: str | None
    column: str | None
    on_invalid: Literal["error", "skip"]
    source_rows: int
    features: int
    dtype: str
    skipped: int = 0

    @property
    def rows(self) -> int:
        """Rows of the target."""
        return self.source_rows - self.skipped

    @property
    def vectors(self) -> Vectors:
        """The source, opened once in a process."""
        return open_vectors(self.source, self.column, self.version)

    @property
    def store(self) -> ArrayStore:
        """The target."""
        return ArrayStore(self.target)

    @property
    def counts_first(self) -> bool:
        """Whether the source must be read before it is known which rows lie in which chunk."""
        return self.on_invalid == "skip" and may_have_invalid_rows(self.vectors)

    def record(self) -> dict[str, Any]:
        """What must be the same for an ingest to be gone on with, without the secrets of its URL."""
        names = ("version", "column", "on_invalid", "source_rows", "features", "dtype")
        return {"source": str(self.source)} | {name: getattr(self, name) for name in names}


@dataclass(frozen=True, slots=True)
class Chunk:
    """A chunk of the target, and the rows of the source that it is made from."""

    index: int
    start: int
    stop: int


def open_ingest(
    source: str, target: str, column: str | None = None, on_invalid: Literal["error", "skip"] = "error"
) -> Ingest:
    """Hold a source against what can be ingested; nothing is written.

    Raises
    ------
    JobError
        When the source cannot be read as (N, D) embeddings, or the target lies within it.
    """
    source, target = absolute_url(source), absolute_url(target)
    refuse_nested(source, target)
    version = input_version(source) if may_exist(source) else None
    found = open_vectors(source, column, version)
    rows, features = found.shape
    return Ingest(source, target, version, column, on_invalid, rows, features, str(stored_dtype(found)))


# --- what is made of what -----------------------------------------------------------------------------------------


def chunks_of(ingest: Ingest, invalid: npt.NDArray[np.int64]) -> list[Chunk]:
    """The chunks of the target; rows of the source that are left out are given in their order."""
    firsts = np.arange(0, ingest.source_rows - len(invalid), CHUNK_ROWS)
    starts = firsts + np.searchsorted(invalid - np.arange(len(invalid)), firsts, "right")
    stops = [*starts[1:].tolist(), ingest.source_rows]
    return [Chunk(index, start, stop) for index, (start, stop) in enumerate(zip(starts.tolist(), stops, strict=True))]


def parts_of(ingest: Ingest, chunks: Sequence[Chunk]) -> list[list[Chunk]]:
    """The same chunks, those together that one process should read: all of what is decoded forward, and no crumbs."""
    begins = getattr(ingest.vectors, "starts", None)
    most = PART_BYTES // (ingest.features * np.dtype(ingest.dtype).itemsize)
    parts: list[list[Chunk]] = []
    for chunk in chunks:
        first = parts[-1][0].start if parts else None
        if first is None or (
            chunk.start - first >= most
            and (
                begins is None
                or np.searchsorted(begins, first, "right") < np.searchsorted(begins, chunk.start, "right")
            )
        ):
            parts.append([])
        parts[-1].append(chunk)
    return parts


# --- the work of a task -------------------------------------------------------------------------------------------


def find_invalid(ingest: Ingest, chunks: Sequence[Chunk]) -> npt.NDArray[np.int64]:
    """The rows of the source, among those of some chunks, that are no vectors."""
    masks = (_read(ingest, chunk)[1] for chunk in chunks)
    found = [chunk.start + np.flatnonzero(~mask) for chunk, mask in zip(chunks, masks, strict=True)]
    return np.concatenate([np.empty(0, np.int64), *found])


def write_chunks(ingest: Ingest, chunks: Sequence[Chunk]) -> str:
    """Write some chunks, or tell which rows of the source are no vectors where that is an error."""
    store = ingest.store
    for chunk in chunks:
        found, is_vector = _read(ingest, chunk)
        if not is_vector.all() and ingest.on_invalid == "error":
            return why_invalid(ingest.vectors, (chunk.start + np.flatnonzero(~is_vector)).tolist())
        key = _key(chunk.index)
        store.put(key, _encoded(ingest, chunk.index, found))
        store.flush([key])
    return ""


def _read(ingest: Ingest, chunk: Chunk) -> tuple[Array, npt.NDArray[np.bool_]]:
    return read_vectors(ingest.source, ingest.vectors, slice(chunk.start, chunk.stop))


# --- the target ---------------------------------------------------------------------------------------------------


def finished(ingest: Ingest) -> Ingest | None:
    """What was written to the target, where that is whole."""
    store = ingest.store
    if store.is_absent() or not store.has(_METADATA):
        return None
    try:
        group = zarr.open_group(store.zarr_store, mode="r")
        rows = store.open_array(_ARRAY).shape[0]
    except READ_ERRORS:  # another's, or damaged
        return None
    return replace(ingest, skipped=ingest.source_rows - rows) if group.attrs.get("ingest") == ingest.record() else None


def begin(ingest: Ingest) -> set[int]:
    """Make the target, or go on with it; gives the chunks that are there.

    Raises
    ------
    JobError
        When there is something else.
    """
    store, path, record = ingest.store, local_path(ingest.target), json.dumps(ingest.record()).encode()
    is_file = path is not None and path.is_file()
    there = set() if is_file or store.is_absent() else set(store.keys_under(""))
    if is_file or _METADATA in there or (there and _RECORD not in there):
        raise JobError(f"{ingest.target} exists: ingest writes a new store and replaces nothing.")
    if not there:
        store.put(_RECORD, record)
    elif store.get(_RECORD) != record:
        raise JobError(
            f"{ingest.target} holds the beginning of another ingest, or of this one before its source was changed: "
            f"delete it, or choose another place."
        )
    return {int(key.removeprefix(_CHUNKS).partition("/")[0]) for key in there if key.startswith(_CHUNKS)}


def finish(ingest: Ingest) -> None:
    """Make the target what can be opened, now that all chunks are there.

    Raises
    ------
    JobError
        When not all are there, or the source was changed meanwhile.
    """
    store = ingest.store
    wanted = {_key(chunk) for chunk in range(-(-ingest.rows // CHUNK_ROWS))}
    if missing := wanted - set(store.keys_under(_CHUNKS.rstrip("/"))):
        raise JobError(
            f"{len(missing):,} chunks are not in {ingest.target}, though workers have written them: it must be on "
            f"storage that all machines share."
        )
    if input_version(ingest.source) != ingest.version:
        raise JobError(f"{ingest.source} was changed while it was read: delete {ingest.target}, and run again.")
    made = _made(ingest)
    for key in (f"{_ARRAY}/{_METADATA}", _METADATA):
        store.put(key, made[key].to_bytes())
        store.flush([key])
    store.delete([_RECORD])


def give_up(ingest: Ingest, *, unless_begun: bool = False) -> None:
    """Delete what was written: of a source that must be changed first, nothing can be used."""
    store = ingest.store
    chunks = store.keys_under(_CHUNKS.rstrip("/"))
    if not (unless_begun and chunks):
        store.delete([*chunks, _RECORD], for_others=True)
        if (path := local_path(ingest.target)) is not None:
            with contextlib.suppress(OSError):
                path.rmdir()


def _key(chunk: int) -> str:
    return f"{_CHUNKS}{chunk}/0"


def _made(ingest: Ingest) -> dict[str, Any]:
    """The group and the array, still without values, in memory."""
    made: dict[str, Any] = {}
    group = zarr.create_group(MemoryStore(made), attributes={"ingest": ingest.record()})
    group.create_array(
        _ARRAY,
        shape=(ingest.rows, ingest.features),
        dtype=ingest.dtype,
        chunks=(min(CHUNK_ROWS, ingest.rows), ingest.features),
        compressors=[ZstdCodec(level=1)],
        config={"write_empty_chunks": True},
    )
    return made


def _encoded(ingest: Ingest, chunk: int, vectors: Array) -> bytes:
    """A chunk's bytes, as zarr writes them."""
    made = _made(ingest)
    array = zarr.open_array(MemoryStore(made), path=_ARRAY, mode="r+")
    array[chunk * CHUNK_ROWS : (chunk + 1) * CHUNK_ROWS] = vectors
    content: bytes = made[_key(chunk)].to_bytes()
    return content
