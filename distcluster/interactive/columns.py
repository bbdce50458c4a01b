"""What a run's input holds beside the vectors: ids and items of rows."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import zarr

from distcluster.errors import JobError
from distcluster.storage.input_columns import open_input_column
from distcluster.storage.run import Run
from distcluster.url import Url


def item_column(run: Run, source: str) -> str | None:
    """The column of the input that items were read from, if they were and it can be read."""
    above, name = Url(source).parted()
    if str(above) != str(run.input_url):
        return None
    try:
        open_input_column(run, name, "items")
    except JobError:  # a file beside those of the input, or the input has gone
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
