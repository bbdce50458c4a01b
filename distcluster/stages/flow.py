"""The list of all stages, in the order of the flow, and what follows from it."""

import re
from collections.abc import Collection
from functools import partial
from pathlib import PurePosixPath
from typing import Any

from distcluster.errors import CorruptError, JobError
from distcluster.stages.choosing import SCORE_CANDIDATES, SELECT_CANDIDATE, SUM_COMPONENTS, SUM_SILHOUETTES
from distcluster.stages.crossing import CROSS_LABELS, SUM_CROSSWALK
from distcluster.stages.deduplicating import (
    COMPARE_ROWS,
    GATHER_FIRSTS,
    GROUP_DUPLICATES,
    HASH_ROWS,
    MEASURE_DUPLICATES,
    PUBLISH_DUPLICATES,
    SKETCH_ROWS,
)
from distcluster.stages.fitting import EXTEND_GRID, FIT_CANDIDATES, START_KMEANS
from distcluster.stages.growing import CHECK_NEW_ROWS
from distcluster.stages.labelling import (
    LABEL_ROWS,
    MEASURE_PROJECTION,
    MERGE_COMPONENTS,
    SUMMARISE_CLUSTERS,
    level_arrays,
)
from distcluster.stages.matching import MATCH_CLUSTERS
from distcluster.stages.measuring import MEASURE_STABILITY
from distcluster.stages.projecting import FIT_UMAP, FIT_VIEWS, PROJECT_ROWS, PROJECT_SUBSAMPLE
from distcluster.stages.refining import PUBLISH_MIXTURE, REFINE_EXPECT, REFINE_MAXIMISE
from distcluster.stages.replicating import RECLUSTER, REPLICATE
from distcluster.stages.searching import BUILD_INDEX, FIND_NEIGHBOURS, FIT_PCA
from distcluster.stages.stage import Stage
from distcluster.stages.subsampling import CHECK_INPUT, SCAN, SUBSAMPLE
from distcluster.stages.topping_up import FIND_RARE, PROBE_SAMPLE
from distcluster.storage import layout
from distcluster.storage.array_store import at_once
from distcluster.storage.records import collection_key
from distcluster.storage.run import Run
from distcluster.storage.run_arrays import RowArray

STAGES: list[Stage[Any]] = [
    SCAN,
    CHECK_INPUT,
    CHECK_NEW_ROWS,
    PROBE_SAMPLE,
    FIND_RARE,
    SUBSAMPLE,
    FIT_PCA,
    BUILD_INDEX,
    FIT_UMAP,
    FIND_NEIGHBOURS,
    FIT_VIEWS,
    PROJECT_SUBSAMPLE,
    START_KMEANS,
    FIT_CANDIDATES,
    EXTEND_GRID,
    REPLICATE,
    RECLUSTER,
    PROJECT_ROWS,
    SCORE_CANDIDATES,
    SUM_COMPONENTS,
    SUM_SILHOUETTES,
    SELECT_CANDIDATE,
    REFINE_EXPECT,
    REFINE_MAXIMISE,
    MATCH_CLUSTERS,
    PUBLISH_MIXTURE,
    MEASURE_STABILITY,
    MEASURE_PROJECTION,
    MERGE_COMPONENTS,
    LABEL_ROWS,
    SUMMARISE_CLUSTERS,
    CROSS_LABELS,
    SUM_CROSSWALK,
    HASH_ROWS,
    SKETCH_ROWS,
    COMPARE_ROWS,
    GROUP_DUPLICATES,
    GATHER_FIRSTS,
    MEASURE_DUPLICATES,
    PUBLISH_DUPLICATES,
]

PREDICTS: tuple[Stage[Any], ...] = (SCAN, CHECK_INPUT, FIND_NEIGHBOURS, PROJECT_ROWS, LABEL_ROWS)
"""The stages of a run that labels rows by another's model."""

APPENDS: tuple[Stage[Any], ...] = (*PREDICTS, SUMMARISE_CLUSTERS)
"""The stages of a run that rows were appended to: its model is as it is."""

FITS: tuple[Stage[Any], ...] = (START_KMEANS, FIT_CANDIDATES)
"""The stages of a fit."""

DEDUPLICATES = tuple(stage for stage in STAGES if stage.on_request)
"""The stages that find near duplicates."""

_ONLY_IN_CHOICES = (CROSS_LABELS, SUM_CROSSWALK)

CHOOSES: tuple[Stage[Any], ...] = (
    SELECT_CANDIDATE, REFINE_EXPECT, REFINE_MAXIMISE, MATCH_CLUSTERS, PUBLISH_MIXTURE, MEASURE_STABILITY,
    MEASURE_PROJECTION, MERGE_COMPONENTS, LABEL_ROWS, SUMMARISE_CLUSTERS, *_ONLY_IN_CHOICES,
)  # fmt: skip
"""The stages of a choice: a run that has another candidate of the run around it."""


def stages_of(run: Run) -> list[Stage[Any]]:
    """The stages that a run has."""
    if run.settings.around is not None:
        return list(CHOOSES)
    if run.settings.model:
        return list(PREDICTS if run.is_prediction else APPENDS)
    return [stage for stage in STAGES if not (stage.on_request or stage in _ONLY_IN_CHOICES)]


def lines() -> dict[str, Stage[Any]]:
    """The names that people see stages under, each with the stage whose progress it shows."""
    return {stage.shown_as: stage for stage in STAGES if stage.commits}


def is_finished(run: Run) -> bool:
    """Whether every row has its results and every summary is there."""
    *others, last = (stage for stage in stages_of(run) if stage.is_result)
    # Of a run that is not finished it is missing; the others are asked for at once, for each takes some round trips.
    return is_complete(run, last) and all(at_once(partial(is_complete, run), others))


def require_finished(run: Run) -> None:
    """Refuse a run that is not finished.

    Raises
    ------
    JobError
    """
    if not is_finished(run):
        raise JobError(f"the run {run.url} is not finished: run its job to the end first.")


def is_complete(run: Run, stage: Stage[Any]) -> bool:
    """Whether all items of a stage are committed."""
    items = stage.items(run)
    return items is not None and {str(item) for item in items} <= stage.committed(run).keys()


def has_only_scans(run: Run) -> bool:
    """Whether no work beyond the scan is recorded, by this version or another."""
    beside = (f"commit/{SCAN.name}/", collection_key(SCAN.name), f"{layout.LEASE}/", layout.PROBE)
    return all(
        key.startswith(beside) or key == layout.ERROR or key.endswith("zarr.json")
        for key in run.store.keys_under("commit")
    )


_FIRST_AFTER: dict[str, tuple[Stage[Any], ...]] = {
    "mixture.n_components": (EXTEND_GRID, RECLUSTER, SCORE_CANDIDATES),
    "mixture.covariance_type": (EXTEND_GRID, RECLUSTER, SCORE_CANDIDATES),
    "mixture.n_init": (START_KMEANS,),
    "mixture.max_iter": (FIT_CANDIDATES, RECLUSTER, REFINE_EXPECT),
    "mixture.tol": (FIT_CANDIDATES, RECLUSTER, REFINE_MAXIMISE),
    "mixture.reg_covar": (FIT_CANDIDATES, RECLUSTER, REFINE_MAXIMISE),
    "mixture.previous": (MATCH_CLUSTERS, PUBLISH_MIXTURE),
    "selection.rule": (SELECT_CANDIDATE,),
    "selection.replicates": (REPLICATE,),
    "selection.refine": (REFINE_EXPECT,),
    "assign.levels": (MERGE_COMPONENTS,),
}
"""By job key, the stages that use it; a fit of the grid does not depend on which others there are."""


def stages_after(keys: Collection[str]) -> list[Stage[Any]] | None:
    """The stages whose results depend on keys of a job, or None where that is all but everything.

    Examples
    --------
    >>> [stage.name for stage in stages_after(["selection.rule"])][:3]
    ['select_candidate', 'refine_expect', 'refine_maximise']
    >>> stages_after(["selection.rule", "projection.n_neighbors"]) is None
    True
    """
    if not all(key in _FIRST_AFTER for key in keys):
        return None
    found = {stage.name for key in keys for stage in _FIRST_AFTER[key]}
    while more := {stage.name for stage in STAGES if found & set(stage.reads)} - found:
        found |= more
    return [stage for stage in STAGES if stage.name in found]


def row_arrays(run: Run) -> list[RowArray]:
    """The row arrays of a run: those of its stages, without views that the job does not ask for; levels once known."""
    views = {f"view_{d}d" for d in run.job.projection.views}
    left_out = {array for space, array in layout.SPACES.items() if space.startswith("view_") and space not in views}
    written = [each for stage in stages_of(run) for each in stage.writes if isinstance(each, RowArray)]
    try:
        levels = level_arrays(run)
    except CorruptError:  # they follow when the hierarchy has been made again
        levels = []
    return [each for each in written if each not in {*left_out, layout.LEVEL_LABEL}] + levels


def own_keys() -> re.Pattern[str]:
    """The objects that are a run's own: what may be deleted when a run is made anew, and nothing else.

    Examples
    --------
    >>> keys = ("label/c/0", "commit/scan/3.json", "partial/scan/3.npz", "choice/full-8/label/c/0", "label/thesis.txt")
    >>> [bool(own_keys().fullmatch(key)) for key in keys]
    [True, True, True, True, False]
    >>> [bool(own_keys().fullmatch(key)) for key in ("log/20261128T065800.123456Z.log", "log/mine.log")]
    [True, False]
    """
    written = {each.path for stage in STAGES for each in stage.writes}
    objects = {inside[0] for path in written if (inside := layout.in_object(path))}
    paths = {path for path in written if not layout.in_object(path)}
    parents = {str(parent) for path in paths for parent in PurePosixPath(path).parents} - {"."}
    arrays, groups, partial = ("|".join(map(_pattern, sorted(each))) for each in (paths, parents, objects))
    records = "|".join(stage.name for stage in STAGES)
    return re.compile(
        f"{layout.CHOICES}/zarr[.]json|{layout.CHOICES}/[a-z]+-[0-9]+/{layout.LEASE}/[^/]+"
        f"|({layout.CHOICES}/[a-z]+-[0-9]+/)?"
        f"(({arrays})/(zarr[.]json|c(/[0-9]+)*)"
        f"|({groups}|commit/({records}))/zarr[.]json"
        f"|commit/({records})(/{_ITEM})?[.]json|{partial}"
        f"|{layout.LOGS}/[0-9]{{8}}T[0-9.]+Z[.]log"
        f"|{re.escape(layout.PROBE)}.*|{'|'.join(map(re.escape, layout.OBJECTS))})"
    )


_ITEM = "[^/]+(/[0-9]+)?"


def _pattern(path: str) -> str:
    return re.escape(path).replace(re.escape("{item}"), _ITEM)
