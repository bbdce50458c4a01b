"""What a run's input holds beside the vectors: ids and items of rows."""

from typing import Any

import numpy as np
import numpy.typing as npt
import zarr

from distcluster.errors import JobError
from distcluster.storage.items import open_column
from distcluster.storage.run import Run
from distcluster.url import Url


def id_column(run: Run) -> str | None:
    """The column of the input that names its rows, where the job says one."""
    return run.job.input.id


def item_column(run: Run, source: str) -> str | None:
    """The column of the input that items were read from, if they were and it is still there."""
    above, name = Url(source).parted()
    if str(above) != str(run.input_url):
        return None
    try:
        open_column(run.input_url, name, "items")
    except JobError:  # a file beside those of the input
        return None
    return name


def read_column(run: Run, name: str, rows: slice | npt.NDArray[np.int64]) -> npt.NDArray[Any]:
    """Some rows of a column of the input, in their order."""
    column = open_column(run.input_url, name, "input.id")
    values = np.asarray(column[rows] if isinstance(rows, slice) else column.oindex[rows])
    is_text = isinstance(column, zarr.Array) and column.dtype.kind == "T"
    return values.astype(object) if is_text else values
