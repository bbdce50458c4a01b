"""What a run's input holds beside the vectors: ids and items of rows."""

from typing import Any

import numpy as np
import numpy.typing as npt
import zarr
from zarr.storage import ObjectStore

from distcluster.storage.run import Run
from distcluster.storage.urls import object_store

_INPUT = "input:"


def id_column(run: Run) -> str | None:
    """The column of the input that names its rows, where the job says one."""
    return getattr(run.job.input, "id", None)


def item_column(source: str) -> str | None:
    """The column of the input that items were read from."""
    return source.removeprefix(_INPUT) if source.startswith(_INPUT) else None


def read_column(run: Run, name: str, rows: slice | npt.NDArray[np.int64]) -> npt.NDArray[Any]:
    """Some rows of a column of the input, in their order."""
    store = ObjectStore(object_store(run.input_url.whole), read_only=True)
    array: Any = zarr.open_group(store, mode="r")[name]
    values = np.asarray(array[rows] if isinstance(rows, slice) else array.oindex[rows])
    return values.astype(object) if values.dtype.kind == "T" else values
