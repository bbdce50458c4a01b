"""The job of a prediction: what is the model's, and what a caller says."""

from collections.abc import Sequence

from distcluster.errors import JobError
from distcluster.job import MODEL_TABLES, Job
from distcluster.job_file import override, parse_job
from distcluster.stages.freezing import require_model
from distcluster.storage.items import open_column
from distcluster.storage.run import Run
from distcluster.storage.urls import absolute_url

_SET_TO_PREDICT = ("input", "assign", "deploy")


def prediction_job(model: Run, source: str, output: str, overrides: Sequence[str] = ()) -> Job:
    """The job that labels other rows by a run's model.

    Parameters
    ----------
    model : Run
    source, output : str
        The rows, as ``input.url``, and where the labels go, as ``output.url``.
    overrides : sequence of str
        ``table.key=value`` of the tables input, assign and deploy.

    Raises
    ------
    JobError
        When the run has no model, or an override is of another table, or wrong.
    """
    require_model(model)
    tables = {table: dict(keys) for table, keys in model.settings.job.items()}
    tables["input"] |= {"url": source, "id": _id_in(source, model.job.input.id), "allow_missing_chunks": False}
    tables["input"] |= {"dtype": None, "features": None, "offset": 0}  # the old rows' own
    tables["output"] = {"url": output}
    for each in overrides:
        if each.partition(".")[0].strip() not in _SET_TO_PREDICT:
            raise JobError(f"--set {each}: the model is as it is; only {', '.join(_SET_TO_PREDICT)} can be set.")
        override(tables, each)
    return parse_job(tables)


def _id_in(source: str, name: str | None) -> str | None:
    """The column that named the model's rows, if these have it, too: no label depends on it."""
    if name is not None:
        try:
            open_column(absolute_url(source), name, "input.id")
        except JobError:  # also where there is no such source, which is told when the job is held against it
            return None
    return name


def with_model(job: Job, model: Run) -> Job:
    """A job with ``predict.model``, its other tables as that model's.

    Raises
    ------
    JobError
        When the run has no model.
    """
    require_model(model)
    tables = {table: getattr(model.job, table) for table in MODEL_TABLES}
    assign = model.job.assign.model_copy(update=job.assign.model_dump(exclude_unset=True))
    return job.model_copy(update={**tables, "assign": assign})
