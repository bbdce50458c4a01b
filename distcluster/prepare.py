"""Before any work: a job held against its input and its output, and the run made or opened."""

import math
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import psutil

from distcluster.deploy import memory_bytes
from distcluster.environment import differences, environment
from distcluster.errors import JobError
from distcluster.job import Job, require_extras
from distcluster.numerics.sampling import auto_sizes, priority_bound
from distcluster.plan import Plan, choose_partitioning, make_plan
from distcluster.stages.flow import (
    PREDICTS,
    STAGES,
    has_only_scans,
    is_finished,
    own_keys,
    row_arrays,
    stages_after,
)
from distcluster.stages.following import followed_run
from distcluster.stages.freezing import model_id, require_same_bits
from distcluster.stages.stage import Stage
from distcluster.storage.files import count_labels
from distcluster.storage.inputs import (
    Source,
    input_version,
    open_input,
    refuse_large_chunks,
    refuse_large_metadata,
    refuse_missing_chunks,
    refuse_query,
)
from distcluster.storage.items import open_column, require_items
from distcluster.storage.layout import CHOICES, LEVELS
from distcluster.storage.run import Run
from distcluster.storage.settings import InputFacts, Settings
from distcluster.storage.urls import absolute_url, refuse_nested

_MOST_MEMORY = 2**42  # of one worker of a cluster that somebody else runs


@dataclass(frozen=True, slots=True)
class CheckedJob:
    """A job that can be run.

    Attributes
    ----------
    job : Job
        With absolute local paths, as workers elsewhere on this machine need them.
    array : Source
        Its input.
    plan : Plan
    run : Run
        Its output, for reading.
    overwrite : bool
        Make the run anew where there is one, whatever it holds.
    model : Run or None
        Rows are labelled by its model, and nothing is fitted.
    append : bool
        The input may have more rows than the run.
    previous : Run or None
        Its cluster ids are to be followed; None also where that is done, for then it may have gone.
    """

    job: Job
    array: Source
    plan: Plan
    run: Run
    overwrite: bool
    model: Run | None = None
    append: bool = False
    previous: Run | None = None


def check_job(
    job: Job, *, overwrite: bool = False, model: Run | None = None, append: bool = False, new: Source | None = None
) -> CheckedJob:
    """Hold a job against its input and its output; nothing is written.

    ``new`` has the shape, dtype and chunks of an input that is still to be written: nothing is read there.

    Raises
    ------
    JobError
        When the input cannot be clustered, or the output holds something else or was made for another job, input or
        environment, naming every difference.
    """
    job = resolve(job)
    require_extras(job.report)
    if job.deploy.kind == "address":
        from distcluster.execution.connect import scheduler_address  # Dask takes a second to import

        scheduler_address(job.deploy)
    if new is None:
        refuse_query(job.input.url, job.input.raw)
        if job.input.id is not None:
            open_column(job.input.url, job.input.id, "input.id")
        if job.report.items is not None:
            require_items(job.report.items, job.report.item_column)
        refuse_large_metadata(job.input.url)
    refuse_nested(job.input.url, job.output.url)
    if model is not None:
        refuse_nested(model.url, job.output.url, what="model's run")
    array = open_input(job.input.url, job.input.array, job.input.raw) if new is None else new
    stages, fitted = (STAGES, None) if model is None else (PREDICTS, model.fitted.n_rows)
    shape, starts = (array.shape[0], array.shape[1]), getattr(array, "starts", None)
    plan = make_plan(job, shape, array.dtype.itemsize, stages, fitted=fitted, starts=starts)
    _refuse_impossible_sizes(job, array, plan)
    if new is None:
        refuse_large_chunks(job.input.url, array)
        if not job.input.allow_missing_chunks:
            refuse_missing_chunks(job.input.url, array)
        _refuse_other_lengths(job, array.shape[0])
    if model is not None:
        _refuse_other_features(model, array)
        require_same_bits(model)
    run = Run(job.output.url, job.input.url)
    previous = None if model is not None else followed_run(job, _input_facts(array), run, is_anew=overwrite)
    checked = CheckedJob(job, array, plan, run, overwrite, model, append, previous)
    _is_to_be_made(checked)
    return checked


@contextmanager
def prepared_run(checked: CheckedJob) -> Iterator[Run]:
    """The run of a job, made or opened to be resumed, for its one writer.

    Where a run is made anew only its own objects are deleted, never through a link, and a place that is not a run is
    refused all the same. What does not depend on a changed key of the tables mixture or selection is kept.

    Raises
    ------
    JobError
        As ``check_job``.
    RunHeldError
        When another process writes to the run.
    """
    run = checked.run
    with run.writing(checked.job.deploy.lease_seconds):
        if _is_to_be_made(checked):  # another writer may have been here since the check
            if run.find_settings() is None:
                run.create(_new_settings(checked))
            elif after := _to_be_made_again(checked):
                _keep_the_rest(checked, after)
            else:
                run.erase(own_keys())
                run.create(_new_settings(checked))
        elif run.job.input.id != checked.job.input.id:  # no result depends on it
            run.update(job=_with_id(run.settings.job, checked.job.input.id))
        run.make_arrays(row_arrays(run))
        yield run


def _to_be_made_again(checked: CheckedJob) -> list[Stage[Any]]:
    """The stages that depend on what has changed in the job; none where little or nothing of the run can be kept."""
    run, changed = checked.run, _changed_keys(checked.run, checked)
    is_other = len(_differences(run, checked)) > len(changed) or not is_input_unchanged(run)
    if is_other or run.settings.model:  # finished, because rows were appended since
        return []
    return stages_after([key for key, _, _ in changed]) or []


def _keep_the_rest(checked: CheckedJob, after: list[Stage[Any]]) -> None:
    """Make the run another one, without the results of some stages; cut short, it is still the run of the old job."""
    run = checked.run
    run.erase(own_keys(), under=CHOICES)
    for stage in reversed(after):
        run.undo(stage.name)
    run.erase(own_keys(), under=LEVELS)  # there may be others
    job = _stored_job(checked.job) | {"input": run.settings.job["input"]}
    run.update(run_id=uuid.uuid4().hex, job=job, previous=_previous_of(checked), keeps_rest=True)


def _is_to_be_made(checked: CheckedJob) -> bool:
    """Whether there is no run yet, or none that is worth keeping.

    Raises
    ------
    JobError
        When there is one for something else.
    """
    run = checked.run
    run.forget_settings()
    if run.find_settings() is None:
        return True
    found = _differences(run, checked)
    if checked.overwrite:
        return not (run.settings.keeps_rest and not found and not is_finished(run))  # cut short: it goes on
    # Nothing but a scan: a job that was refused for its input, and has been mended since.
    if found and not has_only_scans(run):
        raise JobError(
            f"the output {run.url} was made for something else:\n"
            + "\n".join(f"  {line}" for line in found)
            + f"\nUndo the change, choose another output, or {_advice(checked)}."
        )
    return bool(found)


def _advice(checked: CheckedJob) -> str:
    """What can be done with a run that was made for something else."""
    if _to_be_made_again(checked):
        return "have what depends on it made again with --overwrite"
    if not _differences(checked.run, replace(checked, append=True)):
        return "have the new rows labelled with --append"
    return "give up what it holds with --overwrite"


def is_input_unchanged(run: Run) -> bool:
    """Whether the input's objects are those whose content was last checked, where they were then."""
    version = input_version(run.input_url)
    is_there = str(run.input_url) == run.job.input.url
    return is_there and version is not None and version == run.settings.input_version


def resolve(job: Job) -> Job:
    """The job with absolute local paths, as workers elsewhere on this machine need them."""
    previous = None if job.mixture.previous is None else absolute_url(job.mixture.previous)
    return job.model_copy(
        update={
            "input": job.input.model_copy(update={"url": absolute_url(job.input.url)}),
            "output": job.output.model_copy(update={"url": absolute_url(job.output.url)}),
            "mixture": job.mixture.model_copy(update={"previous": previous}),
        }
    )


def _refuse_impossible_sizes(job: Job, array: Source, plan: Plan) -> None:
    """Refuse what no worker can hold, most often a shape that is a typing error, before anything has that size."""
    has = _MOST_MEMORY
    if job.deploy.kind == "local":
        has = memory_bytes(job.deploy.memory_limit) if job.deploy.memory_limit else psutil.virtual_memory().total
    elif job.deploy.kind == "kubernetes":
        has = memory_bytes(job.deploy.worker_memory)
    chunk = math.prod(array.chunks) * array.dtype.itemsize
    for needed, what in ((chunk, f"a chunk of {array.chunks}, which is read whole,"), (plan.memory_bytes, "a worker")):
        if needed > has:
            raise JobError(
                f"{job.input.url} has the shape {array.shape}: {what} needs {needed / 2**30:,.1f} GiB, and "
                f"a worker has {has / 2**30:,.1f} GiB. Smaller chunks or a smaller assign.partition_rows need less, "
                f"and in a run a smaller sample.rows or sample.mixture_rows."
            )


def _refuse_other_lengths(job: Job, n_rows: int) -> None:
    counts = {str(url): count_labels(url) for url in job.report.labels}
    found = [f"{url} has {count:,} labels" for url, count in counts.items() if count != n_rows]
    if found:
        raise JobError(f"report.labels: the input has {n_rows:,} rows, but {'; '.join(found)}: one a row is needed.")
    if job.input.id is not None:
        count = open_column(job.input.url, job.input.id, "input.id").shape[0]
        if count != n_rows:
            raise JobError(f"input.id: {job.input.id!r} has {count:,} entries, and the input {n_rows:,} rows.")


def _refuse_other_features(model: Run, array: Source) -> None:
    expected, found = model.settings.input.shape[1], array.shape[1]
    if found != expected:
        raise JobError(f"the rows have {found:,} features, those that the model was fitted on have {expected:,}.")


def _new_settings(checked: CheckedJob) -> Settings:
    job, array = checked.job, checked.array
    n_rows, n_features = array.shape
    # Enough for both subsamples, were every row valid.
    wanted = sum(auto_sizes(job.sample.rows, job.sample.mixture_rows, n_rows))
    return Settings(
        run_id=uuid.uuid4().hex,
        environment=environment(),
        job=_stored_job(job),
        input=_input_facts(array),
        input_version=input_version(job.input.url),
        priority_bound=0 if checked.model else priority_bound(wanted, n_rows),
        partitioning=choose_partitioning(job, n_rows, n_features),
        model=_model_of(checked),
        previous=_previous_of(checked),
    )


def _model_of(checked: CheckedJob) -> str:
    return "" if checked.model is None else model_id(checked.model)


def _previous_of(checked: CheckedJob) -> str:
    return "" if checked.previous is None else checked.previous.settings.run_id


def _stored_job(job: Job) -> dict[str, dict[str, Any]]:
    """What results depend on, and where input and output are; URLs without credentials."""
    return job.model_dump(mode="json", exclude={"predict", "deploy", "report"})


def _with_id(tables: Mapping[str, Mapping[str, object]], name: str | None) -> Mapping[str, Mapping[str, object]]:
    return {**tables, "input": {**tables["input"], "id": name}}


def _input_facts(array: Source) -> InputFacts:
    return InputFacts((array.shape[0], array.shape[1]), str(array.dtype))


def _changed_keys(run: Run, checked: CheckedJob) -> list[tuple[str, Any, Any]]:
    """The job's keys that results depend on and that are others now: key, value in the run, value in the job."""
    was, now = _stored_job(run.job), _stored_job(checked.job)  # a key that is newer than the run had its default
    return [
        (f"{table}.{key}", was.get(table, {}).get(key), value)
        for table, keys in now.items()
        for key, value in keys.items()
        if key not in ("url", "id", "allow_missing_chunks", "partition_rows") and was.get(table, {}).get(key) != value
    ]


def _differences(run: Run, checked: CheckedJob) -> list[str]:
    """What the run was made for and is not so now; the input's content is compared later, by checksum."""
    before, seen = run.settings.input, _input_facts(checked.array)
    has_grown = seen.shape[0] > before.shape[0] and seen.shape[1:] == before.shape[1:]
    of, wanted = run.settings.model if run.is_prediction else "", _model_of(checked)
    return [
        *(["it is a choice within another run"] if run.settings.around else []),
        *([f"the model: {of or 'of its own'} in the run, {wanted or 'of its own'} now"] if of != wanted else []),
        *_other_previous(run, checked),
        *(f"{key}: {was!r} in the run, {now!r} in the job" for key, was, now in _changed_keys(run, checked)),
        *(
            f"the input's {key}: {getattr(before, key)} in the run, {getattr(seen, key)} now"
            for key in ("shape", "dtype")
            if getattr(before, key) != getattr(seen, key) and not (key == "shape" and checked.append and has_grown)
        ),
        *differences(dict(run.settings.environment), environment()),
    ]


def _other_previous(run: Run, checked: CheckedJob) -> list[str]:
    """Where another run lies now at the same place."""
    before, now = run.settings.previous, _previous_of(checked)
    is_same_place = run.job.mixture.previous == checked.job.mixture.previous
    is_other = is_same_place and before and now and before != now
    return [f"the run at mixture.previous: {before} in the run, {now} now"] if is_other else []
