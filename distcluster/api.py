"""What a caller runs: a job, a prediction, another candidate in the chosen one's place, a search for duplicates."""

import logging
from collections.abc import Awaitable, Callable, Collection
from functools import partial
from typing import Any

from distcluster import pipeline
from distcluster.choice import prepared_choice
from distcluster.deploy import DeployTable
from distcluster.errors import JobError
from distcluster.execution.connect import scheduler_address
from distcluster.execution.progress import Reporter
from distcluster.execution.runner import Runner
from distcluster.execution.session import Session
from distcluster.job import Job
from distcluster.numerics.mixture.candidate import Candidate
from distcluster.predicting import with_model
from distcluster.prepare import CheckedJob, check_job, is_input_unchanged, prepared_run
from distcluster.stages.choosing import SELECT_CANDIDATE
from distcluster.stages.deduplicating import PUBLISH_DUPLICATES, require_distance
from distcluster.stages.fitting import FIT_CANDIDATES, fitted_candidates
from distcluster.stages.flow import (
    APPENDS,
    CHOOSES,
    DEDUPLICATES,
    FITS,
    PREDICTS,
    STAGES,
    is_finished,
    require_finished,
)
from distcluster.stages.freezing import FROZEN
from distcluster.stages.matching import previous_of
from distcluster.stages.stage import Stage
from distcluster.storage.run import Run

log = logging.getLogger("distcluster")


def run_job(
    job: Job, reporter: Reporter, *, verify: bool = False, overwrite: bool = False, append: bool = False
) -> Run:
    """Run a job to its end, resuming whatever its output already holds; with ``predict.model``, ``predict_rows``.

    Parameters
    ----------
    job : Job
    reporter : Reporter
    verify : bool
        Read everything that is already committed and compare checksums; what differs is made again.
    overwrite : bool
        Give up the run that is there, and make it anew; of one whose job has changed in mixture, selection or
        assign.levels only, what depends on that.
    append : bool
        Where the input has grown at its end since the run was made, label the new rows with the run's model.

    Raises
    ------
    JobError
        When job or input are wrong.
    JobFailedError
        When a task fails for good.
    SchedulerLostError
        When the cluster is gone; what was committed stays, and running again resumes.
    RunHeldError, LeaseLostError
        When another process writes to the output, or has taken it from this one.
    """
    if job.predict.model is not None:
        if append:
            raise JobError("--append: a prediction does not grow: predict the new rows to another output.")
        model = Run(job.predict.model)
        return predict_rows(model, with_model(job, model), reporter, verify=verify, overwrite=overwrite)

    def parts(run: Run, n_rows: int) -> list[Work]:
        if not run.settings.model and n_rows == run.partitioning.n_rows:
            return [(pipeline.flow, STAGES)]
        is_made = run.settings.model or is_finished(run)
        made: list[Work] = [] if is_made else [(pipeline.flow, STAGES)]
        return [*made, (partial(pipeline.append, n_rows=n_rows), APPENDS)]

    return _run_to_the_end(check_job(job, overwrite=overwrite, append=append), reporter, parts, verify=verify)


def predict_rows(model: Run, job: Job, reporter: Reporter, *, verify: bool = False, overwrite: bool = False) -> Run:
    """Label other rows by a run's frozen model, resuming whatever the output already holds.

    A row gets what the model's run gave it, bit for bit, or would have given it.

    Parameters
    ----------
    model : Run
        Finished, or an exported model.
    job : Job
        ``predicting.prediction_job``.
    reporter : Reporter
    verify, overwrite : bool
        As ``run_job``.

    Returns
    -------
    Run
        With all row arrays of a run, and a copy of the model.

    Raises
    ------
    JobError
        When input or output are wrong, rows have other features, or this machine would compute other bits.
    JobFailedError, SchedulerLostError, RunHeldError, LeaseLostError
        As ``run_job``.
    """
    checked = check_job(job, overwrite=overwrite, model=model)
    work: Work = (partial(pipeline.predict, model), (*PREDICTS, *FROZEN))
    return _run_to_the_end(checked, reporter, lambda _run, _n_rows: [work], verify=verify)


Work = tuple[Callable[[Run, Runner], Awaitable[None]], Collection[Stage[Any]]]
"""Some of the work on a run, and the stages that it makes."""


def _run_to_the_end(
    checked: CheckedJob, reporter: Reporter, parts: Callable[[Run, int], list[Work]], *, verify: bool
) -> Run:
    """Work on the run of a job, made or opened, unless nothing is left to do: a session for each part."""
    job, n_rows = checked.job, checked.array.shape[0]
    if job.deploy.kind == "kubernetes":
        scheduler_address(job.deploy)  # before anything is written
    with prepared_run(checked) as run:
        if not verify and is_finished(run) and is_input_unchanged(run) and n_rows == run.partitioning.n_rows:
            return run
        if checked.plan.advice:
            log.warning("%s", checked.plan.advice)
        for work, makes in parts(run, n_rows):
            session = Session(run, job.deploy, reporter, makes, read_input=True, performance=job.report.performance)
            session.hold(_verified_first(run, work, makes) if verify else partial(work, run))
    return run


def _verified_first(
    run: Run, work: Callable[[Run, Runner], Awaitable[None]], makes: Collection[Stage[Any]]
) -> Callable[[Runner], Awaitable[None]]:
    async def verify_and_work(runner: Runner) -> None:
        if run.attempt == 0:
            await runner.verify(makes)
        await work(run, runner)

    return verify_and_work


def choose_candidate(
    url: str, wanted: Candidate, deploy: DeployTable, reporter: Reporter, *, fit: bool = False, verify: bool = False
) -> Run:
    """Have another candidate in the chosen one's place, with all that follows from it, beside what the run has.

    Parameters
    ----------
    url : str
        A finished run.
    wanted : Candidate
    deploy : DeployTable
    reporter : Reporter
    fit : bool
        Fit it first where the grid does not have it.
    verify : bool
        As ``run_job``, of the choice.

    Returns
    -------
    Run
        The choice: a run of its own within that run, which can be reported, exported and predicted by.

    Raises
    ------
    JobError
        When there is no finished run, or its grid has no such candidate.
    JobFailedError, SchedulerLostError, RunHeldError, LeaseLostError
        As ``run_job``.
    """
    run = Run(url)
    _refuse_to_choose(run, wanted)
    if FIT_CANDIDATES.find_facts(run, wanted) is None:
        if not fit:
            fitted = ", ".join(map(str, fitted_candidates(run)))
            raise JobError(f"the grid of {run.url} has no {wanted}: --fit has it fitted. The grid has: {fitted}.")
        with run.writing(deploy.lease_seconds):
            Session(run, deploy, reporter, makes=FITS, read_input=False).hold(partial(pipeline.fit, candidate=wanted))
    if error := FIT_CANDIDATES.facts_of(run, wanted).error:
        raise JobError(f"{wanted} cannot be fitted: {error}")
    with prepared_choice(run, wanted, deploy.lease_seconds) as choice:
        if not verify and is_finished(choice):
            return choice

        work = _verified_first(choice, pipeline.choose, CHOOSES) if verify else partial(pipeline.choose, choice)
        Session(choice, deploy, reporter, makes=CHOOSES, read_input=False).hold(work)
    return choice


def _refuse_to_choose(run: Run, wanted: Candidate) -> None:
    require_finished(run)
    if run.is_prediction:
        raise JobError(f"the run {run.url} has another run's model, and no grid: choose from that run.")
    if run.around is not None:
        raise JobError(f"{run.url} is a choice: choose from the run {run.around.url}.")
    if wanted == SELECT_CANDIDATE.facts_of(run).candidate:
        raise JobError(f"{wanted} is what the run {run.url} has chosen: its labels are there.")
    if run.job.mixture.previous is not None:
        previous_of(run)  # whose ids the choice follows, too


def find_duplicates(url: str, distance: float, deploy: DeployTable, reporter: Reporter) -> Run:
    """Find the groups of rows of a finished run that are equal, or connected by pairs within a cosine distance.

    All such pairs count, of all rows: the groups are a function of the rows and the distance alone.

    Parameters
    ----------
    url : str
        A finished run, a choice (whose rows are those of the run around it) or a prediction.
    distance : float
        0: equal rows only.
    deploy : DeployTable
    reporter : Reporter

    Returns
    -------
    Run
        As it was asked for; ``report.near_duplicates`` reads what was found.

    Raises
    ------
    JobError
        When there is no finished run, its input is gone, or the distance cannot be.
    JobFailedError, SchedulerLostError, RunHeldError, LeaseLostError
        As ``run_job``.
    """
    distance, run = require_distance(distance, "--distance"), Run(url)
    require_finished(run)
    of = run.around or run
    if str(distance) not in PUBLISH_DUPLICATES.committed(of):
        with of.writing(deploy.lease_seconds):
            work = partial(pipeline.deduplicate, of, distance=distance)
            Session(of, deploy, reporter, makes=DEDUPLICATES, read_input=True).hold(work)
    return run
