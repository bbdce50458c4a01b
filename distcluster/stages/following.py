"""Before any work: the previous run whose cluster ids a job asks to follow, held against the job."""

from distcluster.errors import JobError
from distcluster.job import Job
from distcluster.stages.flow import is_finished
from distcluster.stages.matching import MATCH_CLUSTERS
from distcluster.storage.run import Run
from distcluster.storage.settings import InputFacts
from distcluster.storage.urls import refuse_nested


def followed_run(job: Job, seen: InputFacts, run: Run, *, is_anew: bool) -> Run | None:
    """The run whose ids are to be followed; None where the job names none, or where that is done already.

    Parameters
    ----------
    job : Job
        With absolute paths.
    seen : InputFacts
        Its input.
    run : Run
        Its output. Once ids are those of the previous run, that may have gone.
    is_anew : bool
        Whatever the output holds is given up.

    Raises
    ------
    JobError
        When there is no finished run, or its rows cannot be recognised among the job's.
    """
    url = job.mixture.previous
    if url is None:
        return None
    refuse_nested(url, job.output.url, what="run of mixture.previous")
    if not is_anew and run.find_settings() is not None and MATCH_CLUSTERS.committed(run):
        return None
    previous = Run(url)
    was = previous.find_settings()
    if was is None:
        raise JobError(f"mixture.previous: there is no run at {previous.url}.")
    if not is_finished(previous):
        raise JobError(f"mixture.previous: the run {previous.url} is not finished: run its job to the end first.")
    compared = (
        ("features", was.input.shape[1], seen.shape[1]),
        ("dtype", was.input.dtype, seen.dtype),
        ("assign.block_rows", was.partitioning.block_rows, job.assign.block_rows),
    )
    found = [f"{name} {before} there, {now} here" for name, before, now in compared if before != now]
    if found:
        raise JobError(
            f"mixture.previous: rows are recognised by the bytes of their blocks, and no block of {previous.url} can "
            f"be one of the job's: {'; '.join(found)}."
        )
    return previous
