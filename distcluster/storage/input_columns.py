"""Columns of a run's input, beside its rows' results: only as long as the input is what the run was made from."""

import logging
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import zarr

from distcluster.errors import JobError
from distcluster.storage.arrow_columns import ArrowEntries
from distcluster.storage.inputs import input_version
from distcluster.storage.items import open_column
from distcluster.storage.run import Run

log = logging.getLogger("distcluster")


InputColumn = zarr.Array[Any] | ArrowEntries


def open_input_column(run: Run, name: str, field: str) -> InputColumn:
    """A column of the input, in the order of the run's rows.

    Parameters
    ----------
    run : Run
    name : str
        The column.
    field : str
        Where it was named, for messages.

    Raises
    ------
    JobError
        When there is no such column, or the input has changed since the run was made.
    """
    made = run.around or run
    version = input_version(made.input_url)
    if version is not None and version != made.settings.input_version:
        raise JobError(
            f"{field}: the input {made.input_url} may have other rows now than when the run was made. If it was only "
            f"copied, run its job again, which compares them."
        )
    column = open_column(made.input_url, name, field)
    if column.shape[0] != run.partitioning.n_rows:
        raise JobError(
            f"{field}: {name!r} has {column.shape[0]:,} entries, and the run {run.partitioning.n_rows:,} rows."
        )
    return column


def readable_id(run: Run) -> str | None:
    """The column that names the run's rows; None where it has none, or it cannot be read, of which a warning tells."""
    name = run.job.input.id
    if name is None:
        return None
    try:
        open_input_column(run, name, "input.id")
    except (JobError, OSError) as error:
        log.warning("rows are shown without their ids: %s", error)
        return None
    return name


def read_column(run: Run, name: str, rows: slice | npt.NDArray[np.int64]) -> npt.NDArray[Any]:
    """Some rows of a column of the input, in their order: whole numbers, or objects.

    Raises
    ------
    JobError
        When the input is gone or has changed, or a number is missing.
    """
    column = open_input_column(run, name, "input.id")
    values = np.asarray(column[rows] if isinstance(rows, slice) else column.oindex[rows])
    if isinstance(column, zarr.Array):
        return values.astype(object) if column.dtype.kind == "T" else values
    if not pa.types.is_integer(column.kind):
        return values
    if any(value == "" for value in values):
        raise JobError(f"input.id: {name!r} has missing numbers.")
    return values.astype(np.int64)
