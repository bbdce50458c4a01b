"""The flow of stages, from the scan to the clusters."""

import asyncio
import logging
import math
from collections.abc import Awaitable
from typing import Any

from distcluster.errors import JobError, JobFailedError
from distcluster.execution.runner import Runner
from distcluster.numerics.mixture.candidate import Candidate
from distcluster.numerics.sampling import LEAST_SPREAD
from distcluster.prepare import is_input_unchanged
from distcluster.stages.choosing import SCORE_CANDIDATES, SELECT_CANDIDATE, SUM_COMPONENTS, SUM_SILHOUETTES
from distcluster.stages.crossing import CROSS_LABELS, SUM_CROSSWALK
from distcluster.stages.deduplicating import (
    COMPARE_ROWS,
    EQUAL,
    GATHER_FIRSTS,
    GROUP_DUPLICATES,
    HASH_ROWS,
    MEASURE_DUPLICATES,
    PUBLISH_DUPLICATES,
    SKETCH_ROWS,
    pairs_of_slabs,
    parts_at,
)
from distcluster.stages.fitting import EXTEND_GRID, FIT_CANDIDATES, START_KMEANS, grid_round
from distcluster.stages.flow import DEDUPLICATES, has_only_scans, is_complete, is_finished, row_arrays
from distcluster.stages.freezing import freeze, model_id
from distcluster.stages.growing import CHECK_NEW_ROWS, grow, new_rows, refuse_invalid
from distcluster.stages.labelling import (
    LABEL_ROWS,
    MEASURE_PROJECTION,
    MERGE_COMPONENTS,
    SUMMARISE_CLUSTERS,
    level_arrays,
)
from distcluster.stages.matching import MATCH_CLUSTERS, require_common_rows
from distcluster.stages.measuring import MEASURE_STABILITY
from distcluster.stages.projecting import FIT_UMAP, FIT_VIEWS, PROJECT_ROWS, PROJECT_SUBSAMPLE
from distcluster.stages.refining import (
    PUBLISH_MIXTURE,
    REFINE_EXPECT,
    REFINE_MAXIMISE,
    expectations,
    is_refined,
    iterations_done,
    most_iterations,
)
from distcluster.stages.replicating import RECLUSTER, REPLICATE
from distcluster.stages.searching import BUILD_INDEX, FIND_NEIGHBOURS, FIT_PCA
from distcluster.stages.stage import NoFacts, Output, Stage
from distcluster.stages.subsampling import CHECK_INPUT, SCAN, SUBSAMPLE, changed
from distcluster.stages.topping_up import FIND_RARE, LEFT, PROBE_SAMPLE
from distcluster.storage import layout
from distcluster.storage.inputs import input_version
from distcluster.storage.run import Run
from distcluster.storage.settings import RunRef

log = logging.getLogger("distcluster")


async def flow(run: Run, runner: Runner) -> None:
    """The whole job; everything that is already committed is skipped."""
    await _scan(run, runner)
    await _subsample(run, runner)
    _refuse_alike_rows(run)
    await asyncio.to_thread(require_common_rows, run)
    await runner.driven(FIT_PCA, _fit_pca)
    async with asyncio.TaskGroup() as together:
        # Workers take tasks in this order; the neighbours do not wait for the fit, nor the grid for the views, and
        # replicates, which give way to all others, wait for nothing: the index is one task.
        indexed = together.create_task(runner.each(BUILD_INDEX))
        fitted = together.create_task(_each(runner, FIT_UMAP, after=indexed))
        found = together.create_task(_each(runner, FIND_NEIGHBOURS, after=indexed))
        viewed = together.create_task(_each(runner, FIT_VIEWS, after=indexed))
        gridded = together.create_task(_fit_grid(run, runner, after=fitted))
        together.create_task(_replicate(runner, after=gridded))
        together.create_task(_each(runner, PROJECT_ROWS, after=asyncio.gather(fitted, found, viewed)))
    await runner.each(SCORE_CANDIDATES)
    await runner.each(SUM_COMPONENTS)
    await runner.each(SUM_SILHOUETTES)
    await runner.each(SELECT_CANDIDATE)
    await _use_candidate(run, runner)
    _require_finished(run)


async def _subsample(run: Run, runner: Runner) -> None:
    if run.job.sample.top_up and not is_complete(run, SUBSAMPLE):
        await runner.each(PROBE_SAMPLE)
        await runner.each(FIND_RARE)
    await runner.each(SUBSAMPLE)
    for path in LEFT if run.job.sample.top_up else ():
        run.drop(path)


async def fit(runner: Runner, candidate: Candidate) -> None:
    """Fit one candidate, of the grid or not."""
    await runner.each(START_KMEANS, [candidate.n_components])
    await runner.each(FIT_CANDIDATES, [candidate])


async def append(run: Run, runner: Runner, n_rows: int) -> None:
    """Label the rows that an input has grown by with the run's model; everything that is already committed is skipped.

    Parameters
    ----------
    run : Run
        Finished, for the rows that it has.
    runner : Runner
    n_rows : int
        Of the input.

    Raises
    ------
    JobError
        When rows of the run are others now, or new ones cannot be clustered; the run is as it was.
    """
    if n_rows > run.partitioning.n_rows:
        await _recognise_input(run, runner)
        if run.job.input.on_invalid == "error":
            refuse_invalid(await runner.each(CHECK_NEW_ROWS, new_rows(run, n_rows)))
        for stage in reversed(DEDUPLICATES):  # those among all rows are others now
            run.undo(stage.name)
        await asyncio.to_thread(grow, run, n_rows, [SCAN, SUMMARISE_CLUSTERS], row_arrays(run), model=model_id(run))
    await _scan(run, runner)
    await runner.each(FIND_NEIGHBOURS)
    await runner.each(PROJECT_ROWS)
    await runner.each(LABEL_ROWS)
    await runner.each(SUMMARISE_CLUSTERS)
    run.drop(layout.SCANNED)
    _require_finished(run)


async def deduplicate(run: Run, runner: Runner, distance: float) -> None:
    """Find the groups of rows within a distance; everything that is already committed is skipped."""
    await runner.each(HASH_ROWS)
    await runner.each(GROUP_DUPLICATES, [EQUAL])
    if distance != EQUAL:
        await runner.each(SKETCH_ROWS, [distance])
        await runner.each(COMPARE_ROWS, pairs_of_slabs(run, distance))
        await runner.each(GROUP_DUPLICATES, [distance])
        await runner.each(GATHER_FIRSTS, parts_at(run, distance))
        await runner.each(MEASURE_DUPLICATES, parts_at(run, distance))
        run.drop(f"partial/{GATHER_FIRSTS.name}/{distance}")
    await runner.each(PUBLISH_DUPLICATES, [distance])


async def choose(run: Run, runner: Runner) -> None:
    """Have another candidate in the chosen one's place, beside the run around; what is committed is skipped."""
    await runner.each(SELECT_CANDIDATE)
    await _use_candidate(run, runner)
    await runner.each(CROSS_LABELS)
    await runner.each(SUM_CROSSWALK)
    _require_finished(run)


async def _use_candidate(run: Run, runner: Runner) -> None:
    """All that follows from a choice: its refinement, the labels of all rows, its clusters."""
    await _refine(run, runner)
    async with asyncio.TaskGroup() as together:
        together.create_task(runner.each(MEASURE_PROJECTION))
        await runner.each(MERGE_COMPONENTS)
        await _label(run, runner)
    await runner.each(SUMMARISE_CLUSTERS)


async def _label(run: Run, runner: Runner) -> None:
    await asyncio.to_thread(run.make_arrays, level_arrays(run))  # which of them there are, the hierarchy says
    await runner.each(LABEL_ROWS)


async def predict(model: Run, run: Run, runner: Runner) -> None:
    """Label rows by another run's model; everything that is already committed is skipped."""
    await _scan(run, runner)
    await asyncio.to_thread(freeze, model, run)
    await runner.each(FIND_NEIGHBOURS)
    await runner.each(PROJECT_ROWS)
    await _label(run, runner)
    _require_finished(run)


async def _scan(run: Run, runner: Runner) -> None:
    """Check the input, all of it or what has changed."""
    await _recognise_input(run, runner)
    await runner.each(SCAN)
    _refuse_invalid_rows(run)


async def _recognise_input(run: Run, runner: Runner) -> None:
    """Where the input's objects are not those that were last checked, compare its content with what was scanned.

    Raises
    ------
    InputChangedError
        When rows that were used differ.
    """
    if is_input_unchanged(run) or not SCAN.committed(run):
        return
    version = input_version(run.input_url)  # before the comparison: what is written meanwhile is not what was compared
    if version is None or version != run.settings.input_version:
        if has_only_scans(run):
            run.records.forget(SCAN.name)
        else:
            scanned = sorted(map(int, SCAN.committed(run)))  # not yet all, where rows are being appended
            found = [facts.first_changed for facts in await runner.each(CHECK_INPUT, scanned)]
            differing = sorted(row for row in found if row is not None)
            if differing:
                raise changed(run, differing[0], len(differing))
    tables = {**run.settings.job, "input": {**run.settings.job["input"], "url": str(run.input_url)}}
    run.update(input_version=version, job=tables)


def _fit_pca(ref: RunRef) -> Output[NoFacts]:
    from distcluster.execution.pca import fit_pca  # dask-ml takes a second to import, and few jobs ask for it

    return fit_pca(ref)


async def _fit_grid(run: Run, runner: Runner, after: Awaitable[Any]) -> None:
    await after
    await runner.each(PROJECT_SUBSAMPLE)
    while True:
        await runner.each(START_KMEANS)
        await runner.each(FIT_CANDIDATES)
        number = grid_round(run)
        if number is None:
            return
        await runner.each(EXTEND_GRID, [number])


async def _replicate(runner: Runner, after: Awaitable[Any]) -> None:
    await runner.each(REPLICATE)
    await _each(runner, RECLUSTER, after)


async def _each(runner: Runner, stage: Stage[Any], after: Awaitable[Any]) -> None:
    await after
    await runner.each(stage)


async def _refine(run: Run, runner: Runner) -> None:
    """EM over all rows from the chosen candidate, its parameters committed after every iteration."""
    iteration = iterations_done(run)
    if not is_refined(run, iteration):
        with runner.steps(REFINE_MAXIMISE.shown_as, most_iterations(run) - iteration) as advance:
            while not is_refined(run, iteration):
                await runner.each(REFINE_EXPECT, expectations(run, iteration))
                await runner.each(REFINE_MAXIMISE, [iteration])
                iteration += 1
                advance()
    await runner.each(MATCH_CLUSTERS)
    await runner.each(PUBLISH_MIXTURE)
    await runner.each(MEASURE_STABILITY)


def _require_finished(run: Run) -> None:
    if not is_finished(run):
        raise JobFailedError("what was committed has gone missing during the run: check the storage, then run again")


def _refuse_invalid_rows(run: Run) -> None:
    facts = SCAN.all_facts(run).values()
    n_invalid = sum(each.n_invalid for each in facts)
    if n_invalid == 0:
        return
    first = sorted((each for of_partition in facts for each in of_partition.first_invalid), key=lambda each: each.row)
    shown = ", ".join(f"{each.row} ({each.why})" for each in first[:5])
    message = f"{n_invalid:,} of {run.partitioning.n_rows:,} rows cannot be clustered; the first: {shown}"
    if run.job.input.on_invalid == "error":
        raise JobError(f'{message}. Mend them, or set input.on_invalid = "skip" to give them label -1.')
    log.info("%s; they get label -1", message)


def _refuse_alike_rows(run: Run) -> None:
    facts, k = SUBSAMPLE.facts_of(run), run.job.projection.n_neighbors
    if facts.distinct <= k + 1:
        raise JobError(
            f"the sample's {facts.sample:,} rows hold only {facts.distinct:,} distinct ones, but n_neighbors = "
            f"{k} needs at least {k + 2}: the input is (nearly) constant, or sample.rows is too small."
        )
    if facts.spread < LEAST_SPREAD:
        raise JobError(
            f"rows lie about {facts.spread**0.5:.0e} from their mean: squared, such distances vanish in float32. "
            f"Multiply the input by {10.0 ** -round(math.log10(max(facts.spread, 1e-300)) / 2):.0e}, say."
        )
