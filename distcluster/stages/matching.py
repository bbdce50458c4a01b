"""Clusters numbered after those of a previous run, and what became of each."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from distcluster import numerics
from distcluster.errors import CorruptError, JobError, JobFailedError
from distcluster.numerics.partition import RowRange
from distcluster.stages.choosing import SELECT_CANDIDATE
from distcluster.stages.cost import Cost
from distcluster.stages.projecting import read_points
from distcluster.stages.refining import refined_mixture
from distcluster.stages.stage import Output, Stage
from distcluster.storage import layout
from distcluster.storage.run import Run
from distcluster.storage.run_arrays import ONE

Rows = npt.NDArray[np.int64]

# --- the previous run -------------------------------------------------------------------------------------------


def needs_previous(run: Run) -> bool:
    """Whether a run has still to read the one whose ids it follows."""
    is_fitted_here = not run.settings.model  # a prediction has the job of its model's run
    return run.job.mixture.previous is not None and is_fitted_here and not MATCH_CLUSTERS.committed(run)


def previous_of(run: Run) -> Run:
    """The run whose ids this one follows: the one that was there when this one was made.

    Raises
    ------
    JobError
        When another lies there now, or none.
    """
    url = run.job.mixture.previous
    assert url is not None
    previous = Run(url)
    settings = previous.find_settings()
    if settings is None or settings.run_id != run.settings.previous:
        raise JobError(
            f"mixture.previous: {previous.url} does not hold the run {run.settings.previous} any more, whose cluster "
            f"ids {run.url} follows. Restore it, or make that run anew with --overwrite."
        )
    return previous


@contextmanager
def _reading(previous: Run) -> Iterator[None]:
    """Damage there is not this run's: nothing of it can be made again here."""
    try:
        yield
    except CorruptError as error:
        raise JobFailedError(
            f"mixture.previous: {previous.url} is damaged: {error}. Run its job again with --verify."
        ) from error


def _n_clusters(previous: Run) -> int:
    """The clusters of a run, those of the model where it is a prediction."""
    with _reading(previous):
        return SELECT_CANDIDATE.facts_of(previous).n_components


def block_checksums(run: Run) -> npt.NDArray[np.uint64]:
    """The checksum of every block of a run's input, (blocks,) uint64."""
    parts, size = run.partitioning, run.partitioning.partition_blocks
    blocks = [RowRange(i, i * size, min((i + 1) * size, parts.n_blocks)) for i in range(len(parts))]
    return np.concatenate(list(run.read_partitions(layout.CHECKSUM, blocks)))


def equal_blocks(now: npt.NDArray[np.uint64], before: npt.NDArray[np.uint64]) -> npt.NDArray[np.bool_]:
    """Which blocks of a run have the same bytes in another, under the same number, by both runs' checksums."""
    n = min(len(now), len(before))
    is_equal = np.zeros(len(now), np.bool_)
    is_equal[:n] = now[:n] == before[:n]
    return is_equal


def _in_equal_blocks(run: Run, previous: Run, rows: Rows) -> npt.NDArray[np.intp]:
    """Places of those rows whose block has the same bytes in both runs, under the same number."""
    now = block_checksums(run)
    with _reading(previous):
        before = block_checksums(previous)
    is_equal = equal_blocks(now, before)
    is_labelled = rows < previous.partitioning.n_rows  # a choice may have fewer rows than the run around it
    return np.flatnonzero(is_equal[rows // run.partitioning.block_rows] & is_labelled)


def _labels(previous: Run, rows: Rows) -> npt.NDArray[np.int32]:
    """The previous labels of some rows, by the block: a large run's are not read whole."""
    parts = previous.partitioning
    block, found = rows // parts.block_rows, np.empty(len(rows), np.int32)
    needed = [
        RowRange(index // parts.partition_blocks, index * parts.block_rows,
                 min((index + 1) * parts.block_rows, parts.n_rows))
        for index in np.unique(block).tolist()
    ]  # fmt: skip
    with _reading(previous):
        for each, labels in zip(needed, previous.read_partitions(layout.LABEL, needed), strict=True):
            here = block == each.start // parts.block_rows
            found[here] = labels[rows[here] - each.start]
    if len(found) and not -1 <= found.min() <= found.max() < _n_clusters(previous):
        raise JobFailedError(f"mixture.previous: {previous.url} has labels that are none of its clusters'.")
    return found


# --- common rows ------------------------------------------------------------------------------------------------


def require_common_rows(run: Run) -> None:
    """Refuse a previous run that has hardly a row in common, as soon as the subsample is known.

    Raises
    ------
    JobError
        Naming how many rows are common.
    """
    if not needs_previous(run):
        return
    previous, rows = previous_of(run), run.read(layout.MIXTURE_ROW)
    _require_enough(run, previous, len(_in_equal_blocks(run, previous, rows)))


def _require_enough(run: Run, previous: Run, n_common: int) -> None:
    K = _n_clusters(previous)
    if n_common < K:
        raise JobError(
            f"mixture.previous: only {n_common:,} of the mixture subsample's {len(run.read(layout.MIXTURE_ROW)):,} "
            f"rows lie in blocks that {previous.url} has labelled too, fewer than its {K} clusters: ids cannot follow "
            f"them. Append rows instead of changing or moving them; or label the new input by that run's model "
            f"(distcluster predict) and name the prediction; or leave mixture.previous out."
        )


# --- the match --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class LineageFacts:
    """The id of the run whose ids are followed; rows in common; those that have the same id in both."""

    previous: str
    n_common: int
    n_same_id: int


def match_clusters(run: Run) -> Output[LineageFacts]:
    """Number the components of the refined mixture after the previous run's clusters, by the rows in common."""
    previous, rows = previous_of(run), run.read(layout.MIXTURE_ROW)
    common = _in_equal_blocks(run, previous, rows)
    before = _labels(previous, rows[common])
    previous = previous_of(run)  # nobody has made it anew meanwhile
    common, before = common[before >= 0], before[before >= 0]
    _require_enough(run, previous, len(common))
    mixture = refined_mixture(run)
    found = numerics.lineage.trace_clusters(
        before,
        numerics.mixture.assignment.assign_rows(read_points(run), mixture, top=1).label,
        common,
        previous_k=_n_clusters(previous),
        n_components=mixture.candidate.n_components,
    )
    strings = np.dtypes.StringDType()
    return Output(
        LineageFacts(run.settings.previous, len(common), int(np.trace(found.counts))),
        arrays={
            layout.LINEAGE["component"]: found.component,
            layout.LINEAGE["counts"]: found.counts,
            layout.LINEAGE["predecessor"]: found.predecessor,
            layout.LINEAGE["event"]: np.array(found.events, strings),
            layout.LINEAGE["previous_event"]: np.array(found.previous_events, strings),
        },
    )


MATCH_CLUSTERS = Stage(
    "match_clusters",
    match_clusters,
    facts=LineageFacts,
    items=lambda run: [] if run.job.mixture.previous is None else [ONE],
    reads=("scan", "subsample", "project_subsample", "fit_candidates", "select_candidate", "refine_maximise"),
    cost=lambda sizes: Cost(tasks=int(sizes.has_previous)),
    is_result=True,
)
