"""Rows in memory, written once as a Zarr group beside the run, which is then an input like any other."""

import itertools
from collections.abc import Callable, Mapping
from typing import Any

import dask
import dask.array as da
import numpy as np
import numpy.typing as npt
import pandas as pd
import zarr

from distcluster.errors import JobError
from distcluster.estimators.dask_em import refuse_frame
from distcluster.storage.array_store import READ_ERRORS, ArrayStore, checksum
from distcluster.storage.inputs import INPUT_DTYPES
from distcluster.storage.layout import ROOT

Array = npt.NDArray[Any]

EMBEDDINGS = "embeddings"
_MARK = "distcluster"
_CHUNK_BYTES = 2**24
_COLUMN_ROWS = 2**16  # of a chunk of a column: strings have any length


def write_input(
    X: Any,
    columns: Mapping[str, Any],
    url: str,
    compute: Callable[[list[Any]], list[Any]],
    *,
    overwrite: bool,
    check: Callable[[zarr.Array[Any]], object],
) -> None:
    """Write rows and their columns to a Zarr group, or find them there: content is compared by checksum.

    Parameters
    ----------
    X : (N, D) NumPy or Dask array
        A Dask array is written by its own tasks, and never gathered.
    columns : mapping of str to (N,) array
        Strings or integers.
    url : str
        Absolute.
    compute : callable
        Computes delayed values where the Dask array's tasks are to run.
    overwrite : bool
        Replace other content that an earlier call has written there.
    check : callable
        Called before anything is written or replaced, with an array of the shape, dtype and chunks that there will be.

    Raises
    ------
    JobError
        When rows or columns have a wrong shape or type, or something else lies at the place.
    """
    arrays = {EMBEDDINGS: _embeddings(X)}
    arrays |= {name: _column(name, values, arrays[EMBEDDINGS].shape[0]) for name, values in columns.items()}
    store = ArrayStore(url)
    written = _checksums(store, url)
    if written:
        other = _first_difference(store, url, arrays, written, compute)
        if not other:
            return
        if not overwrite:
            raise JobError(
                f"{url}, which an earlier call with this output has written, holds other rows than X: {other}. "
                f"Choose another output, or overwrite=True to give up what this one holds."
            )
    rows = arrays[EMBEDDINGS]
    check(zarr.create_array({}, shape=rows.shape, dtype=rows.dtype, chunks=(_chunk_rows(rows), rows.shape[1])))
    group = zarr.create_group(store.zarr_store, overwrite=True, attributes={_MARK: {}})
    sums = {}
    for name, values in arrays.items():
        chunk = _chunk_rows(values)
        options = {"name": name, "shape": values.shape, "chunks": (chunk, *values.shape[1:])}
        options["config"] = {"write_empty_chunks": True}  # one that is missing is an input that was cut short
        group.create_array(dtype=values.dtype, **options, dimension_names=("row", "feature")[: values.ndim])
        sums[name] = _of_chunks(_write_chunk, url, name, values, chunk, compute)
    group.attrs[_MARK] = {"checksums": sums}  # the last: without it nothing here counts


# --- what is given ----------------------------------------------------------------------------------------------


def bare(X: Any) -> Any:
    """The NumPy or Dask array of an array-like, xarray's included."""
    if hasattr(X, "dims") and hasattr(X, "data"):  # xarray's, which need not be installed
        X = X.data
    refuse_frame(X)
    return X if isinstance(X, da.Array) else np.asarray(X)


def _embeddings(X: Any) -> Any:
    X = bare(X)
    if str(X.dtype) not in INPUT_DTYPES:
        raise JobError(f"X has dtype {X.dtype}; embeddings must be {', '.join(INPUT_DTYPES)}: X.astype('float32').")
    if X.ndim != 2:
        raise JobError(f"X has the shape {X.shape}; embeddings must be (rows, features).")
    if 0 in X.shape:
        raise JobError(f"X is empty: shape {X.shape}; there is nothing to cluster.")
    return X


def _column(name: str, values: Any, n_rows: int) -> Any:
    values = bare(values)
    if values.shape != (n_rows,):
        raise JobError(f"{name} has the shape {values.shape}, X has {n_rows:,} rows: one entry a row is needed.")
    if values.dtype.kind in "iu":
        return values
    return values.map_blocks(_text, dtype=_STRING) if isinstance(values, da.Array) else _text(values)


def _text(values: Array) -> Array:
    """Strings; what is missing (None, NaN, pandas' NA) is an empty one."""
    return np.array(["" if pd.isna(value) else str(value) for value in values.tolist()], _STRING)


_STRING = np.dtypes.StringDType()


# --- chunks -----------------------------------------------------------------------------------------------------


def _chunk_rows(values: Any) -> int:
    """Rows of a chunk: a power of two, or all."""
    if values.ndim == 1:
        return int(min(_COLUMN_ROWS, values.shape[0]))
    most = max(1, _CHUNK_BYTES // (values.shape[1] * values.dtype.itemsize))
    return int(min(2 ** (most.bit_length() - 1), values.shape[0]))


def _of_chunks(
    of_chunk: Callable[[Array, str, str, int], str],
    url: str,
    name: str,
    values: Any,
    chunk: int,
    compute: Callable[[list[Any]], list[Any]],
) -> list[str]:
    """What a function gives for every chunk of rows; of a Dask array, in its own tasks."""
    if not isinstance(values, da.Array):
        return [of_chunk(values[i : i + chunk], url, name, i) for i in range(0, len(values), chunk)]
    blocks = values.rechunk({0: chunk} | ({1: -1} if values.ndim == 2 else {}))
    task, starts = dask.delayed(of_chunk, pure=False), itertools.count(0, chunk)
    return compute([task(block, url, name, next(starts)) for block in blocks.to_delayed().ravel()])


def _write_chunk(rows: Array, url: str, name: str, start: int) -> str:
    ArrayStore(url).open_array(name)[start : start + len(rows)] = rows
    return _checksum(rows)


def _sum_chunk(rows: Array, _url: str, _name: str, _start: int) -> str:
    return _checksum(rows)


def _checksum(rows: Array) -> str:
    return f"{checksum(rows):016x}"


# --- what is there ----------------------------------------------------------------------------------------------


def _checksums(store: ArrayStore, url: str) -> dict[str, list[str]]:
    """The checksums of every array's chunks; none where nothing is yet, or writing was cut short."""
    if store.is_absent() or (store.get(ROOT) is None and not store.keys_under("")):
        return {}
    try:
        mark = zarr.open_group(store.zarr_store, mode="r").attrs.get(_MARK)
    except READ_ERRORS:
        mark = None
    if not isinstance(mark, dict):
        raise JobError(f"{url}, where X would be written, holds something else: choose another output.")
    sums: dict[str, list[str]] = mark.get("checksums", {})
    return sums


def _first_difference(
    store: ArrayStore, url: str, arrays: Mapping[str, Any], written: Mapping[str, list[str]], compute: Any
) -> str:
    """What is not as it was written, in words; empty where all is."""
    if arrays.keys() != written.keys():
        return f"it has the arrays {', '.join(written)}, now there are {', '.join(arrays)}"
    for name, values in arrays.items():
        before = store.open_array(name)
        if (before.shape, str(before.dtype)) != (values.shape, str(values.dtype)):
            return f"{name} has shape {before.shape} and dtype {before.dtype}, now {values.shape} and {values.dtype}"
        chunk = before.chunks[0]
        found = _of_chunks(_sum_chunk, url, name, values, chunk, compute)
        for place, (old, new) in enumerate(zip(written[name], found, strict=True)):
            if old != new:
                return f"{name} differs in rows {place * chunk:,} to {min((place + 1) * chunk, len(values)) - 1:,}"
    return ""
