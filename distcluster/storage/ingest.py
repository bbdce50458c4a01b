"""Turn files of vectors into a Zarr array, a chunk at a time; what is there at the end is whole, or is not there."""

import secrets
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import zarr
from zarr.codecs import ZstdCodec

from distcluster.errors import JobError
from distcluster.storage.inputs import INPUT_DTYPES
from distcluster.storage.vector_files import BATCH_ROWS, Batch, Vectors, open_vectors, refuse

CHUNK_ROWS = BATCH_ROWS
"""Rows of a chunk: a block of a run, so that no task reads a chunk that is mostly another's."""


@dataclass(frozen=True, slots=True)
class Ingested:
    """What was written, and how many rows of the source were left out."""

    rows: int
    features: int
    skipped: int


def ingest(
    source: Path, target: Path, column: str | None = None, on_invalid: Literal["error", "skip"] = "error"
) -> Ingested:
    """Write a file's vectors to a new Zarr v3 group, as its array ``embeddings``.

    The array is written beside its place and moved there when it is whole.

    Parameters
    ----------
    source : Path
        .npy (N, D); .npz with such an array; .parquet, or a directory of such files in order of their names, with a
        column of lists of equal length. Files may have different types of values: the widest is taken.
    target : Path
        A place that does not exist yet.
    column : str, optional
        The array of an .npz or the column of a Parquet file; may be left out where there is only one that fits.
    on_invalid : "error" or "skip"
        What to do with rows that are no vectors: a missing list, one of another length, one with missing values. Rows
        with NaN are vectors, and ``input.on_invalid`` is about them.

    Raises
    ------
    JobError
        When the source cannot be read as (N, D) embeddings, the target exists or cannot be written.
    """
    if target.exists():
        raise JobError(f"{target} exists: ingest writes a new store and replaces nothing.")
    unfinished = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    try:
        with open_vectors(source, column) as vectors:
            _refuse_wrong(vectors, source)
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
                done = _write(vectors, unfinished, source, on_invalid)
                unfinished.rename(target)
            except OSError as error:
                raise JobError(f"{target} cannot be written: {error.strerror or error}.") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return done


def _refuse_wrong(vectors: Vectors, source: Path) -> None:
    if str(_stored_dtype(vectors.dtype)) not in INPUT_DTYPES:
        raise JobError(f"{source} has dtype {vectors.dtype}; embeddings must be {', '.join(INPUT_DTYPES)}.")
    if len(vectors.shape) != 2 or 0 in vectors.shape:
        raise JobError(f"{source} has shape {vectors.shape}; embeddings must be (rows, features), both at least 1.")


def _stored_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The type in the machine's order of bytes; int16, which int8 and uint8 together need, fits float32 exactly."""
    return np.dtype(np.float32) if dtype.kind in "iu" and dtype.itemsize == 2 else dtype.newbyteorder("=")


def _write(vectors: Vectors, target: Path, source: Path, on_invalid: str) -> Ingested:
    n_rows, n_features = vectors.shape
    array = zarr.create_array(
        str(target),
        name="embeddings",
        shape=vectors.shape,
        dtype=_stored_dtype(vectors.dtype),
        chunks=(min(CHUNK_ROWS, n_rows), n_features),
        compressors=[ZstdCodec(level=1)],
    )
    skipped = 0

    def valid() -> Iterator[Batch]:
        nonlocal skipped
        for rows in vectors.batches:
            if rows.invalid and on_invalid == "error":
                raise refuse(rows.invalid, str(source))
            skipped += len(rows.invalid)
            yield rows.vectors

    written = 0
    for batch in _rechunk(valid(), CHUNK_ROWS):
        array[written : written + len(batch)] = batch
        written += len(batch)
    if not written:
        raise JobError(f"{source} has no row that is a vector: there is nothing to cluster.")
    if written < n_rows:
        array.resize((written, n_features))
    return Ingested(written, n_features, skipped)


def _rechunk(batches: Iterator[Batch], rows: int) -> Iterator[Batch]:
    """Batches of exactly ``rows`` rows, the last one shorter: every chunk of the target is written once."""
    held: list[Batch] = []
    count = 0
    for batch in batches:
        held.append(batch)
        count += len(batch)
        while count >= rows:
            together = np.concatenate(held)
            yield together[:rows]
            held, count = [together[rows:]], count - rows
    if count:
        yield np.concatenate(held)
