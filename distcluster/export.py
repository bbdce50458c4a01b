"""A run's results in other tools' formats."""

from collections.abc import Callable
from itertools import repeat
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from distcluster.items import stream_items
from distcluster.job import JobError, ReportTable
from distcluster.mixture import to_sklearn
from distcluster.partition import RowRange
from distcluster.run import Run
from distcluster.stages.projection import views
from distcluster.stages.refinement import chosen_mixture
from distcluster.stages.results import is_finished
from distcluster.stages.task import job_of
from distcluster.store import public_url

_AXES = ("x", "y", "z")


def export_run(run: Run, target: Path, form: str, table: ReportTable) -> Path:
    """Write a finished run's results to a place of its own.

    Parameters
    ----------
    run : Run
    target : Path
        Must not be there yet: a directory for "parquet", a file for "sklearn".
    form : str
        One of ``FORMATS``.
    table : ReportTable
        What a row is.

    Returns
    -------
    Path
        ``target``.

    Raises
    ------
    JobError
        When the format is unknown, the run is not finished, or the target is there already.
    """
    if form not in FORMATS:
        raise JobError(f"--to {form}: must be one of {', '.join(FORMATS)}.")
    if not is_finished(run):
        raise JobError(f"the run {public_url(run.url)} is not finished: run its job to the end first.")
    if target.exists():
        raise JobError(f"{target} is there already: choose another place, or remove it.")
    target.parent.mkdir(parents=True, exist_ok=True)
    FORMATS[form](run, target, table)
    return target


def _export_parquet(run: Run, target: Path, table: ReportTable) -> None:
    """One file a partition, in the order of the rows, so that memory does not grow with N."""
    target.mkdir()
    partitions = [run.partitioning[index] for index in range(len(run.partitioning))]
    items = stream_items(table.items, map(len, partitions), table.item_column) if table.items else repeat(None)
    for partition, texts in zip(partitions, items, strict=False):
        columns = _columns(run, partition)
        if texts is not None:
            columns["item"] = pa.array(texts, pa.string())
        pq.write_table(pa.table(columns), target / f"part-{partition.index:05}.parquet")


def _columns(run: Run, partition: RowRange) -> dict[str, Any]:
    """The columns of a partition's rows: what was written, one column a coordinate."""
    columns: dict[str, Any] = {"row": np.arange(partition.start, partition.stop)}
    for name in ("label", "probability", "log_density"):
        columns[name] = run.read_rows(name, partition, "assign")
    columns["support"] = run.read_rows("support", partition, "project")
    for view, d in views(job_of(run)).items():
        values = run.read_rows(view, partition, "project")
        columns |= {f"{view}_{axis}": values[:, i] for i, axis in zip(range(d), _AXES, strict=False)}
    projection = run.read_rows("projection", partition, "project")
    return columns | {f"projection_{i}": projection[:, i] for i in range(projection.shape[1])}


def _export_sklearn(run: Run, target: Path, _table: ReportTable) -> None:
    """scikit-learn's own GaussianMixture, by joblib: it labels rows of the projection."""
    with target.open("xb") as file:
        joblib.dump(to_sklearn(chosen_mixture(run)), file)


FORMATS: dict[str, Callable[[Run, Path, ReportTable], None]] = {"parquet": _export_parquet, "sklearn": _export_sklearn}
"""What writes each format."""
