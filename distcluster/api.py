"""What a caller runs: a job, a prediction, and another candidate in the chosen one's place."""

from collections.abc import Awaitable, Callable, Collection
from functools import partial
from typing import Any

from distcluster.errors import JobError
from distcluster.execution.connect import scheduler_address
from distcluster.execution.progress import Reporter
from distcluster.execution.runner import Runner
from distcluster.execution.session import Session
from distcluster.job import DeployTable, Job
from distcluster.numerics.mixture.candidate import Candidate
from distcluster.pipeline import choose, flow, predict
from distcluster.pipeline import fit as fit_candidate
from distcluster.prepare import check_job, is_input_unchanged, prepared_choice, prepared_run
from distcluster.stages.choosing import SELECT_CANDIDATE
from distcluster.stages.fitting import FIT_CANDIDATES, fitted_candidates
from distcluster.stages.flow import CHOOSES, FITS, PREDICTS, STAGES, is_finished
from distcluster.stages.freezing import FROZEN
from distcluster.stages.stage import Stage
from distcluster.storage.run import Run


def run_job(job: Job, reporter: Reporter, *, verify: bool = False, overwrite: bool = False) -> Run:
    """Run a job to its end, resuming whatever its output already holds.

    Parameters
    ----------
    job : Job
    reporter : Reporter
    verify : bool
        Read everything that is already committed and compare checksums; what differs is made again.
    overwrite : bool
        Give up the run that is there, and make it anew.

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
    return _run_to_the_end(job, reporter, flow, STAGES, verify=verify, overwrite=overwrite)


def predict_rows(model: Run, job: Job, reporter: Reporter, *, verify: bool = False, overwrite: bool = False) -> Run:
    """Label other rows by a run's frozen model, resuming whatever the output already holds.

    A row gets what the model's run gave it, bit for bit, or would have given it.

    Parameters
    ----------
    model : Run
        Finished, or an exported model.
    job : Job
        ``prepare.prediction_job``.
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
    work = partial(predict, model)
    makes = (*PREDICTS, *FROZEN)
    return _run_to_the_end(job, reporter, work, makes, verify=verify, overwrite=overwrite, model=model)


def _run_to_the_end(
    job: Job,
    reporter: Reporter,
    work: Callable[[Run, Runner], Awaitable[None]],
    makes: Collection[Stage[Any]],
    *,
    verify: bool,
    overwrite: bool,
    model: Run | None = None,
) -> Run:
    """Work on the run of a job, made or opened, unless nothing is left to do."""
    if job.deploy.kind == "kubernetes":
        scheduler_address(job.deploy)  # before anything is written
    with prepared_run(check_job(job, overwrite=overwrite, model=model)) as run:
        if not verify and is_finished(run) and is_input_unchanged(run):
            return run

        async def verify_and_work(runner: Runner) -> None:
            if verify and run.attempt == 0:
                await runner.verify()
            await work(run, runner)

        session = Session(run, job.deploy, reporter, makes, read_input=True, performance=job.report.performance)
        session.hold(verify_and_work)
    return run


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
            Session(run, deploy, reporter, makes=FITS, read_input=False).hold(partial(fit_candidate, candidate=wanted))
    if error := FIT_CANDIDATES.facts_of(run, wanted).error:
        raise JobError(f"{wanted} cannot be fitted: {error}")
    with prepared_choice(run, wanted, deploy.lease_seconds) as choice:
        if not verify and is_finished(choice):
            return choice

        async def work(runner: Runner) -> None:
            if verify and choice.attempt == 0:
                await runner.verify()
            await choose(choice, runner)

        Session(choice, deploy, reporter, makes=CHOOSES, read_input=False).hold(work)
    return choice


def _refuse_to_choose(run: Run, wanted: Candidate) -> None:
    if not is_finished(run):
        raise JobError(f"the run {run.url} is not finished: run its job to the end first.")
    if run.settings.model:
        raise JobError(f"the run {run.url} has another run's model, and no grid: choose from that run.")
    if run.around is not None:
        raise JobError(f"{run.url} is a choice: choose from the run {run.around.url}.")
    if wanted == SELECT_CANDIDATE.facts_of(run).candidate:
        raise JobError(f"{wanted} is what the run {run.url} has chosen: its labels are there.")
