"""The part of a run that labels rows: its frozen model, copied to where other rows are labelled by it."""

from collections.abc import Iterable
from typing import Any

from distcluster.environment import differences, environment
from distcluster.errors import CorruptError, JobError, JobFailedError
from distcluster.stages.choosing import SELECT_CANDIDATE
from distcluster.stages.labelling import MERGE_COMPONENTS, SUMMARISE_CLUSTERS
from distcluster.stages.measuring import MEASURE_STABILITY
from distcluster.stages.projecting import FIT_UMAP, FIT_VIEWS, views
from distcluster.stages.refining import PUBLISH_MIXTURE
from distcluster.stages.searching import BUILD_INDEX, FIT_PCA
from distcluster.stages.stage import Stage
from distcluster.stages.subsampling import SUBSAMPLE
from distcluster.storage import layout
from distcluster.storage.array_store import Array
from distcluster.storage.records import Record
from distcluster.storage.run import Run
from distcluster.storage.run_arrays import ONE, ItemArray

_KEPT: dict[Stage[Any], tuple[ItemArray, ...]] = {
    SUBSAMPLE: (layout.SAMPLE,),
    FIT_PCA: (layout.PCA_MEAN, layout.PCA_COMPONENTS),
    BUILD_INDEX: (*layout.INDEX.values(), layout.SAMPLE_SCALE),
    FIT_UMAP: (layout.ANCHORS, layout.FIELD),
    FIT_VIEWS: (layout.VIEW_ANCHORS, layout.VIEW_FIELD),
    SELECT_CANDIDATE: (),
    PUBLISH_MIXTURE: tuple(layout.MIXTURE.values()),
    MEASURE_STABILITY: tuple(layout.ROW_STABILITY.values()),
    MERGE_COMPONENTS: (layout.LEVEL, layout.LEVEL_CLUSTERS),
}

FROZEN = tuple(_KEPT)
"""The stages that a model comes from."""


def model_id(run: Run) -> str:
    """The id of the run whose model lies in a run: its own, unless it labels rows by another's."""
    return run.settings.model or run.settings.run_id


def require_model(run: Run) -> None:
    """Refuse a run without a model to label rows by.

    Raises
    ------
    JobError
    """
    missing = [stage.name for stage, item in _items(run) if run.records.read(stage.name, item) is None]
    if missing:
        raise JobError(f"the run {run.url} has no model yet ({missing[0]} is not done): run its job to the end first.")


def require_same_bits(run: Run) -> None:
    """Refuse a model that would give other bits in this process than where it was made.

    Raises
    ------
    JobError
        Naming every package version and instruction level that differs.
    """
    found = differences(dict(run.settings.environment), environment())
    if found:
        lines = "\n".join(f"  {line}" for line in found)
        raise JobError(f"the model {run.url} gives other bits here than where it was made:\n{lines}")


def freeze(run: Run, target: Run, *, with_rows: bool = False) -> None:
    """Copy a run's model into another run that this process writes to; what is there already stays.

    Parameters
    ----------
    run : Run
    target : Run
        Of the same features.
    with_rows : bool
        What other rows are held against, too: the clusters' sizes, results of some rows.

    Raises
    ------
    JobError
        When another model lies there than the one that ``target`` is for.
    JobFailedError
        When an array of the model differs from what was committed.
    """
    _require_same(run, target)
    require_model(run)
    compared = (layout.CLUSTER_SIZE, *layout.HELD_OUT.values())
    kept = _KEPT | ({SUMMARISE_CLUSTERS: compared} if with_rows else {})
    for stage, item in [*_items(run), *([(SUMMARISE_CLUSTERS, ONE)] if with_rows else [])]:
        if item not in stage.committed(target):
            record, arrays = _read(run, stage, item, kept[stage])
            target.commit(stage.name, item, record.facts, arrays=arrays, seconds=record.seconds)
    try:
        _require_same(run, target)
    except JobError:  # what was copied may be of both
        for stage in kept:
            target.records.forget(stage.name)
        raise


def _require_same(run: Run, target: Run) -> None:
    run.forget_settings()  # hours may have passed
    if model_id(run) != model_id(target):
        raise JobError(f"{run.url} now holds another model than the one that {target.url} was made for.")


def _read(run: Run, stage: Stage[Any], item: str, arrays: Iterable[ItemArray]) -> tuple[Record, dict[ItemArray, Array]]:
    """What an item of the model's run has committed; damage there is not the target's."""
    try:
        record = run.records.read(stage.name, item)
        if record is None:
            raise CorruptError(f"{stage.name} {item} is not committed", stage.name, item)
        return record, {array: run.read(array, item) for array in arrays}
    except CorruptError as error:
        raise JobFailedError(
            f"the model {run.url} is damaged: {error}. Run its job again with --verify, or export it again."
        ) from error


def _items(run: Run) -> list[tuple[Stage[Any], str]]:
    """What a model consists of."""
    items = {FIT_PCA: [ONE] if run.job.projection.pca is not None else [], FIT_VIEWS: list(views(run.job))}
    return [(stage, item) for stage in _KEPT for item in items.get(stage, [ONE])]
