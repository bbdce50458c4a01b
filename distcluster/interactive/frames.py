"""A run's tables for pandas, Dask and xarray; what has an entry a row is read lazily, by partition."""

from typing import Any

import dask
import dask.array as da
import numpy as np
import numpy.typing as npt
import pandas as pd

from distcluster.interactive.columns import item_column
from distcluster.interactive.extras import require_extra
from distcluster.numerics.mixture.assignment import merge_nearest, nearest_to_means
from distcluster.numerics.mixture.candidate import Candidate
from distcluster.numerics.mixture.parameters import Mixture
from distcluster.report.names import kept_names
from distcluster.report.shown_items import kept_items
from distcluster.report.subsample_rows import rows_of
from distcluster.stages.flow import row_arrays
from distcluster.stages.labelling import level_arrays
from distcluster.stages.refining import published_mixture
from distcluster.storage import layout
from distcluster.storage.dimensions import dimensions
from distcluster.storage.input_columns import read_column, readable_id
from distcluster.storage.run import Run
from distcluster.storage.run_arrays import RowArray
from distcluster.url import Url

_ITEMS = 3  # that a cluster is told by
_OF_ROWS = (layout.LABEL, layout.PROBABILITY, layout.STABILITY, layout.LOG_DENSITY, layout.SUPPORT)


# --- small tables -----------------------------------------------------------------------------------------------


def selection(run: Run) -> pd.DataFrame:
    """The candidates."""
    return pd.DataFrame({name: _plain(run.read(array)) for name, array in layout.SELECTION.items()})


def clusters(run: Run) -> pd.DataFrame:
    """The clusters by label."""
    size, exemplar = run.read(layout.CLUSTER_SIZE), run.read(layout.EXEMPLAR)
    typical = [[int(row) for row in rows if row >= 0] for rows in exemplar]
    columns = {
        "rows": size,
        "share": size / size.sum(),
        "mean_probability": run.read(layout.CLUSTER_PROBABILITY),
        "stability": run.read(layout.CLUSTER_STABILITY),
        "typical_rows": typical,
    }
    if names := kept_names(run).clusters:
        columns["name"] = [names.get(label, "") for label in range(len(size))]
    if texts := kept_items(run).texts:
        columns["items"] = [[texts[row] for row in rows[:_ITEMS] if row in texts] for rows in typical]
    return pd.DataFrame(columns, index=pd.RangeIndex(len(size), name="label"))


def n_clusters(run: Run) -> int:
    """K."""
    return int(published_mixture(run).candidate.n_components)


def _plain(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return values.astype(object) if values.dtype.kind == "T" else values


# --- rows -------------------------------------------------------------------------------------------------------


def labels(run: Run) -> Any:
    """All rows as a Dask DataFrame."""
    import dask.dataframe as dd  # a second to import

    parts, arrays, id_name = run.partitioning, [*_OF_ROWS, *level_arrays(run)], readable_id(run)
    divisions = [*(parts[index].start for index in range(len(parts))), parts.n_rows - 1]
    return dd.from_map(
        _labels_of,
        range(len(parts)),
        args=(run.url, run.input_url, run.settings.run_id, arrays, id_name),
        meta=_labels_frame(run, {array: np.empty(0, array.dtype) for array in arrays}, id_name, slice(0, 0)),
        divisions=divisions,
        label="labels",
    )


def _labels_of(
    index: int, url: Url, input_url: Url, run_id: str, arrays: list[RowArray], id_name: str | None
) -> pd.DataFrame:
    """One partition of the same."""
    run = _opened(url, input_url, run_id)
    partition = run.partitioning[index]
    return _labels_frame(run, {each: run.read_rows(each, partition) for each in arrays}, id_name, partition.rows)


def _labels_frame(run: Run, values: dict[RowArray, Any], id_name: str | None, rows: slice) -> pd.DataFrame:
    columns: dict[str, Any] = {array.path.replace("/", "_"): of_rows for array, of_rows in values.items()}
    if id_name is not None:
        columns = {"id": _column(read_column(run, id_name, rows))} | columns
    return pd.DataFrame(columns, index=pd.RangeIndex(rows.start, rows.stop, name="row"))


def _column(values: npt.NDArray[Any]) -> Any:
    """Strings in a type that pandas infers from no value: it is the same in an empty partition."""
    return pd.array(values, dtype="string[pyarrow]") if values.dtype.kind == "O" else values


def typical_rows(run: Run, cluster: int, n: int) -> pd.DataFrame:
    """The n rows of a cluster nearest to its mean."""
    if not run.is_prediction and n <= (exemplar := run.read(layout.EXEMPLAR)).shape[1]:
        row, distance = exemplar[cluster][:n], run.read(layout.EXEMPLAR_DISTANCE)[cluster][:n]
    else:
        row, distance = _nearest(run, cluster, n)
    row, distance = row[row >= 0], distance[row >= 0]
    columns: dict[str, Any] = {}
    if (name := readable_id(run)) is not None:
        columns["id"] = _column(read_column(run, name, row))
    if (items := _items(run, row)) is not None:
        columns["item"] = items
    columns |= {"distance": distance}
    columns |= {array.path: rows_of(run, array, row) if len(row) else [] for array in _OF_ROWS[1:]}
    return pd.DataFrame(columns, index=pd.Index(row, name="row"))


def some_rows(run: Run, row: npt.NDArray[np.int64]) -> pd.DataFrame:
    """Some rows, at least one: what ``labels`` has of them, and their items where they are known."""
    arrays = [*_OF_ROWS, *level_arrays(run)]
    columns: dict[str, Any] = {}
    if (name := readable_id(run)) is not None:
        columns["id"] = _column(read_column(run, name, row))
    if (items := _items(run, row)) is not None:
        columns["item"] = items
    columns |= {array.path.replace("/", "_"): rows_of(run, array, row) for array in arrays}
    return pd.DataFrame(columns, index=pd.Index(row, name="row"))


def _nearest(run: Run, cluster: int, n: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """The same as numbers, by a pass over all partitions."""
    all_of, one = published_mixture(run), slice(cluster, cluster + 1)
    covariances = all_of.full_covariances()[one]
    mixture = Mixture(Candidate(1, "full"), np.ones(1), all_of.means[one], covariances)
    tasks = [
        dask.delayed(_nearest_of)(index, run.url, run.input_url, run.settings.run_id, cluster, mixture, n)
        for index in range(len(run.partitioning))
    ]
    rows, distances = zip(*dask.compute(*tasks), strict=True)
    row, distance = merge_nearest(np.stack(rows), np.stack(distances), n)
    return row[0], distance[0]


def _nearest_of(
    index: int, url: Url, input_url: Url, run_id: str, cluster: int, mixture: Mixture, n: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    run = _opened(url, input_url, run_id)
    partition = run.partitioning[index]
    label, projection = (run.read_rows(array, partition) for array in (layout.LABEL, layout.PROJECTION))
    member = np.where(label == cluster, 0, -1).astype(np.int32)
    return nearest_to_means(projection, member, mixture, partition.start, n)


def _items(run: Run, row: npt.NDArray[np.int64]) -> list[str | None] | None:
    """The items of rows: a column of the input, or what the report has kept of them; None where nothing is known."""
    kept = kept_items(run)
    if (name := item_column(run, kept.source)) is not None:
        return [str(value) for value in read_column(run, name, row)]
    return [kept.texts.get(int(each)) for each in row] if kept.texts else None


def _opened(url: Url, input_url: Url, run_id: str) -> Run:
    """The run in the process of a task.

    Raises
    ------
    RuntimeError
        When another run lies there now.
    """
    run = Run(url, input_url)
    if run.settings.run_id != run_id:
        raise RuntimeError(f"{url} holds another run now: open it again.")
    return run


# --- arrays -----------------------------------------------------------------------------------------------------


def dataset(run: Run) -> Any:
    """The arrays of rows as an ``xarray.Dataset`` of Dask arrays, in chunks of partitions."""
    require_extra("xarray", "to_xarray")
    import xarray as xr

    around = [each for each in row_arrays(run.around) if run.holder(each.stage) is not run] if run.around else []
    own = [*row_arrays(run), *around]
    emptied = (layout.NEIGHBOUR_INDEX, layout.NEIGHBOUR_DISTANCE)
    shown = {each.path.replace("/", "_"): each for each in own if each.counts == "rows" and each not in emptied}
    variables = {path: _variable(run, each) for path, each in shown.items()}
    coordinates: dict[str, Any] = {"row": np.arange(run.partitioning.n_rows)}
    if (name := readable_id(run)) is not None:
        coordinates["id"] = _ids(run, name)
    attributes = {"url": str(run.url), "run_id": run.settings.run_id}
    return xr.Dataset(variables, coords=coordinates, attrs=attributes)


def _variable(run: Run, array: RowArray) -> tuple[Any, ...]:
    stored = run.holder(array.stage).store.open_array(array.path)
    values = _by_partition(run, _rows_of, array, stored.shape[1:], stored.dtype)
    return dimensions(array, stored.ndim), values, {"long_name": array.meaning}


def _ids(run: Run, name: str) -> tuple[str, Any]:
    return "row", _by_partition(run, _ids_of, name, (), read_column(run, name, slice(0, 0)).dtype)


def _by_partition(run: Run, of_partition: Any, what: Any, tail: tuple[int, ...], dtype: Any) -> Any:
    """A Dask array of what a function gives for every partition."""
    task, blocks = dask.delayed(of_partition), []
    for index in range(len(run.partitioning)):
        values = task(index, run.url, run.input_url, run.settings.run_id, what)
        blocks.append(da.from_delayed(values, (len(run.partitioning[index]), *tail), dtype))
    return da.concatenate(blocks)


def _rows_of(index: int, url: Url, input_url: Url, run_id: str, array: RowArray) -> npt.NDArray[Any]:
    run = _opened(url, input_url, run_id)
    return run.read_rows(array, run.partitioning[index])


def _ids_of(index: int, url: Url, input_url: Url, run_id: str, name: str) -> npt.NDArray[Any]:
    run = _opened(url, input_url, run_id)
    return read_column(run, name, run.partitioning[index].rows)
