"""Rows at hand, or a URL, to a finished run: what ``distcluster run`` does, from Python."""

import os
from collections.abc import Mapping
from typing import Any

from distributed import Client

from distcluster.api import run_job
from distcluster.errors import JobError
from distcluster.interactive.clients import computed_by, current_client, deploy_keys
from distcluster.interactive.finished_run import Run
from distcluster.interactive.memory_input import bare, write_input
from distcluster.interactive.reporters import shown_progress
from distcluster.job import Job
from distcluster.job_file import parse_job
from distcluster.prepare import check_job
from distcluster.report.made import current_report
from distcluster.storage.inputs import Source
from distcluster.storage.urls import absolute_url
from distcluster.url import Url

Tables = dict[str, dict[str, Any]]


def cluster(
    X: Any,
    output: str | os.PathLike[str],
    *,
    client: Client | None = None,
    ids: Any = None,
    items: Any = None,
    labels: Any = None,
    progress: bool = True,
    overwrite: bool = False,
    **tables: Mapping[str, Any],
) -> Run:
    """Cluster embeddings, or go on with what the output holds: the same call, the same bytes as ``distcluster run``.

    It works in a script, and where an event loop is running, as in a notebook.

    Parameters
    ----------
    X : str, path, or (N, D) NumPy, Dask or xarray array
        A URL is an input as in a job file. An array is first written as a Zarr group to ``<output>.input.zarr``, once;
        the same call finds it there by its checksums. A Dask array is written by its own tasks, and never gathered.
        float16, float32, float64, int8 or uint8.
    output : str or path
        Where the run lies, or goes on: a local path, or an s3://, gs:// or az:// URL.
    client : distributed.Client, optional
        Its cluster does the work; its workers must see the output. Absent: the current client's, and without one
        processes of this machine, one a core. ``deploy`` in the tables says otherwise.
    ids : str or (N,) array-like of str or int, optional
        What names a row: a column of the input, or for an array X the names themselves.
    items : str or (N,) array-like of str, optional
        What a person reads as the row, likewise.
    labels : str, sequence of str, (N,) array-like, or mapping of str to (N,) array-like, optional
        Taxonomies to compare the clusters with: columns of the input; for an array X one, or several by name.
    progress : bool
        Show a bar for each stage, in a terminal and in a notebook (which needs ``distcluster[notebook]``).
    overwrite : bool
        Give up what the output holds where it was made for something else.
    **tables : mapping
        The tables of a job file, as dictionaries: ``projection={"n_components": 5}``.

    Returns
    -------
    Run
        Finished, with its report written unless ``report={"write": "never"}``.

    Raises
    ------
    JobError
        When arguments, input or workers are wrong, before anything is lost.
    JobFailedError, SchedulerLostError, StorageError, RunHeldError, LeaseLostError
        As ``run_job``; what was committed stays, and the same call goes on.
    """
    asked: Tables = {name: dict(table) for name, table in tables.items()}
    client = _deployed(client, asked)
    columns = _read_from(X, output, (ids, items, labels), asked)
    job = parse_job(asked, name="cluster()")  # what is wrong in it is said before anything is written
    if columns is not None:
        X = bare(X)
        _write_input(X, columns, job, computed_by(client, X), overwrite=overwrite)
    return _run(job, progress=progress, overwrite=overwrite)


def _write_input(X: Any, columns: dict[str, Any], job: Job, compute: Any, *, overwrite: bool) -> None:
    def check(rows: Source) -> None:
        check_job(job, overwrite=overwrite, new=rows)

    write_input(X, columns, job.input.url.whole, compute, overwrite=overwrite, check=check)


def _run(job: Job, *, progress: bool, overwrite: bool) -> Run:
    with shown_progress(progress) as reporter:
        done = run_job(job, reporter, overwrite=overwrite)
    if job.report.write == "always" and not done.is_prediction:
        current_report(done, job.report, worked=reporter.used)
    return Run(done.url)


# --- the tables -------------------------------------------------------------------------------------------------


def _whole(url: str | os.PathLike[str]) -> str:
    return url.whole if isinstance(url, Url) else os.fspath(url)


def _set(tables: Tables, table: str, key: str, value: Any) -> None:
    """Set a key that the arguments of ``cluster`` say.

    Raises
    ------
    JobError
        When the table says it, too.
    """
    if key in tables.setdefault(table, {}):
        raise JobError(f"cluster(): {table}.{key} is said by an argument of its own: leave it out of the table.")
    tables[table][key] = value


def _deployed(client: Client | None, tables: Tables) -> Client | None:
    """The client whose cluster does the work, if any; the tables say so."""
    if client is None and "kind" not in tables.get("deploy", {}):
        client = current_client()
    if client is not None:
        for key, value in deploy_keys(client).items():
            _set(tables, "deploy", key, value)
    return client


def _read_from(X: Any, output: Any, columns: tuple[Any, Any, Any], tables: Tables) -> dict[str, Any] | None:
    """Say in the tables where input and output are; gives the columns of rows in memory, None where X is a URL."""
    _set(tables, "output", "url", _whole(output))
    if isinstance(X, str | os.PathLike):
        _set(tables, "input", "url", _whole(X))
        _name_columns(tables, *columns)
        return None
    in_memory = _columns(X, *columns)
    _set(tables, "input", "url", f"{absolute_url(_whole(output)).whole.rstrip('/')}.input.zarr")
    _name_columns(tables, *_names(in_memory))
    return in_memory


def _columns(X: Any, ids: Any, items: Any, labels: Any) -> dict[str, Any]:
    """The columns of rows in memory, by the names that they get in the group."""
    if labels is not None and not isinstance(labels, Mapping):
        labels = {"0": labels}
    given = {"id": ids, "item": items} | {f"label_{name}": values for name, values in (labels or {}).items()}
    return {name: _of_coordinate(X, name, values) for name, values in given.items() if values is not None}


def _of_coordinate(X: Any, name: str, values: Any) -> Any:
    if not isinstance(values, str):
        return bare(values)
    if values not in getattr(X, "coords", ()):
        raise JobError(f"cluster(): {name} is {values!r}, and X has no coordinate of that name: give one entry a row.")
    return bare(X.coords[values])


def _names(columns: Mapping[str, Any]) -> tuple[str | None, str | None, list[str] | None]:
    labels = [name for name in columns if name.startswith("label_")]
    return ("id" if "id" in columns else None), ("item" if "item" in columns else None), labels or None


def _name_columns(tables: Tables, ids: Any, items: Any, labels: Any) -> None:
    """Say which columns of the input are ids, items and labels."""
    labels = [labels] if isinstance(labels, str) else labels
    given = {"ids": ids, "items": items} | {f"labels[{i}]": name for i, name in enumerate(labels or ())}
    wrong = [name for name, value in given.items() if not isinstance(value, str | None)]
    if wrong:
        raise JobError(f"cluster(): X is a URL, so {', '.join(wrong)} must be the name of a column of that input.")
    if ids is not None:
        _set(tables, "input", "id", ids)
    if items is not None:
        _set(tables, "report", "items", f"input:{items}")
    if labels:
        _set(tables, "report", "labels", [f"input:{name}" for name in labels])
