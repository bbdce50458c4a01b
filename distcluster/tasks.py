"""One function a stage: read from the run, compute, commit to the run.

Every function takes the run and an item (a partition, a candidate, ...), can be repeated at any time, and returns
nothing: data moves only through the store.
"""

import functools
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any, Concatenate, ParamSpec

import numpy as np
import numpy.typing as npt
from sklearn.manifold import trustworthiness

from distcluster.assign import assign_rows, merge_nearest, nearest_to_means
from distcluster.criteria import Criteria, judged, of_fitted_rows, stratified_silhouette, table_columns
from distcluster.em import (
    expect_rows,
    fit_candidate,
    initial_labels,
    m_step,
    moments,
    packed,
    remarks,
    scatter_rows,
    unpacked,
)
from distcluster.environment import differences, environment, pin_to_one_thread
from distcluster.hierarchy import HIERARCHY_ROWS, build_hierarchy
from distcluster.job import Job, parse_job
from distcluster.mixture import (
    Candidate,
    Mixture,
    NaturalParameters,
    natural_parameters,
    responsibilities,
    score_rows,
    silhouette_rows,
)
from distcluster.neighbors import (
    INDEX_ARRAYS,
    IndexFacts,
    NeighbourIndex,
    build_index,
    distinct_rows,
    local_scale,
    nearest,
    open_index,
    prepare,
    principal,
    support,
    support_limit,
)
from distcluster.partition import RowRange, groups, tree_sum
from distcluster.projection import curve_parameters, fit_anchors, project, repulsion_field
from distcluster.replicate import (
    agreement,
    cluster_again,
    cluster_agreement,
    null_rows,
    parts_of,
    project_through,
    replicate_rows,
)
from distcluster.run import ArraySpec, CorruptError, Run
from distcluster.sample import (
    draw_bound,
    draw_priority,
    draw_sizes,
    invalid_rows,
    select_draws,
)
from distcluster.selection import grid, largest_k, missing_ks, select
from distcluster.store import InputChangedError, checksum, open_input

Float32 = npt.NDArray[np.float32]
P = ParamSpec("P")

ONE = "all"
"""The item of a stage that is one task."""

EXEMPLARS = 10
"""Rows kept for each component, nearest to its mean."""

PARAMETERS = ("weights", "means", "covariances")
"""The arrays of a mixture."""

PARTITION_STAGES = ("scan", "neighbours", "project", "score", "silhouette", "assign", "relabel")
STAGES = (
    "scan", "draw", "pca", "index", "fit", "neighbours", "view", "sketch", "project", "kmeans", "candidate", "grid",
    "replicate", "recluster", "score", "clusters", "silhouette", "select", "mixture", "quality", "hierarchy", "assign",
    "cluster",
)  # fmt: skip
"""In the order of the flow; "cluster" is the last, and a run that has it is finished. Each iteration of the refinement
 (``refine_stages``) adds two between "select" and "mixture"."""

_TRUST_ROWS = 2_048  # of the mixture draw: trustworthiness costs the square
_DENSITY_ROWS = 8_192  # of the sample: a standard error of about 0.02 nats


@dataclass(frozen=True, slots=True)
class RunRef:
    """Where a run is and which one: a worker must never mistake a new run at an old place for the old one."""

    url: str
    run_id: str


class EnvironmentMismatchError(RuntimeError):
    """A process that would compute other bits than the run was made with."""


@functools.lru_cache(maxsize=8)
def open_run(ref: RunRef) -> Run:
    """Open a run once per process, and refuse it when this process would give other bits.

    Raises
    ------
    EnvironmentMismatchError
        Naming every package version and instruction level that differs.
    """
    run = Run(ref.url)
    if run.attributes["run_id"] != ref.run_id:
        raise RuntimeError(f"{ref.url} now holds another run than the one that was started")
    found = differences(run.attributes["environment"], environment())
    if found:
        raise EnvironmentMismatchError("this worker differs from what the run was made with: " + "; ".join(found))
    return run


def _task(function: Callable[Concatenate[Run, P], None]) -> Callable[Concatenate[RunRef, P], None]:
    """Open the run, and compute in one thread."""

    @functools.wraps(function)
    def task(ref: RunRef, /, *args: P.args, **kwargs: P.kwargs) -> None:
        pin_to_one_thread()
        function(open_run(ref), *args, **kwargs)

    return task


def job_of(run: Run) -> Job:
    """The job that a run was made for."""
    return parse_job(run.attributes["job"])


@functools.lru_cache(maxsize=128)
def _cached(ref: RunRef, stage: str, item: str, path: str, _commit_id: str) -> npt.NDArray[Any]:
    """An array of a model, read once per process and commit."""
    return open_run(ref).read_model(stage, item, only=path)[path]


@dataclass(frozen=True, slots=True)
class _Model:
    """The arrays that an item of a stage has published, each read when it is asked for: draws are large."""

    ref: RunRef
    stage: str
    item: str
    commit_id: str

    def __getitem__(self, path: str) -> Any:
        return _cached(self.ref, self.stage, self.item, path, self.commit_id)


def _model(run: Run, stage: str, item: str = ONE) -> _Model:
    return _Model(RunRef(run.url, run.attributes["run_id"]), stage, item, _record(run, stage, item)["id"])


def _record(run: Run, stage: str, item: str = ONE) -> dict[str, Any]:
    record = run.record(stage, item)
    if record is None:
        raise CorruptError(f"{stage} {item} is not committed", stage, item)
    return record


# --- the input --------------------------------------------------------------------------------------------------


def as_float32(block: npt.NDArray[Any]) -> Float32:
    """Rows as float32, C order; a negative zero becomes zero, so that equal rows have equal bytes."""
    with np.errstate(over="ignore"):  # too large for float32 becomes infinite, and so invalid
        return np.ascontiguousarray(block, np.float32) + np.float32(0.0)


def _read_blocks(run: Run, partition: RowRange) -> Iterator[tuple[RowRange, Float32, npt.NDArray[np.bool_]]]:
    """The blocks of a partition: rows, and which are valid.

    Raises
    ------
    InputChangedError
        When a block is not what the scan saw.
    """
    job = job_of(run)
    array = open_input(job.input.url, job.input.array)
    first = partition.start // run.partitioning.block_rows
    n_blocks = -(-len(partition) // run.partitioning.block_rows)
    expected = run.read_rows("input/checksum", RowRange(partition.index, first, first + n_blocks), "scan")
    for block in run.partitioning.blocks(partition):
        raw = np.asarray(array[block.rows])
        if checksum(raw) != int(expected[block.index - first]):
            raise InputChangedError(
                f"rows {block.start:,} to {block.stop - 1:,} of {job.input.url} are not what the scan of this run "
                f"saw: the input was changed. Restore it, or choose another output."
            )
        rows = as_float32(raw)
        yield block, rows, ~invalid_rows(rows, job.projection.metric)


@_task
def scan(run: Run, index: int) -> None:
    """Check every row of a partition, take the blocks' checksums, and gather its rows of the draws."""
    job, parts = job_of(run), run.partitioning
    array = open_input(job.input.url, job.input.array)
    bound = np.uint64(run.attributes["draw_bound"])
    checksums, invalid, rows_drawn, drawn = [], [], [], []
    for block in parts.blocks(parts[index]):
        raw = np.asarray(array[block.rows])
        checksums.append(checksum(raw))
        rows = as_float32(raw)
        wrong = invalid_rows(rows, job.projection.metric)
        invalid.append(block.start + np.flatnonzero(wrong))
        numbers = np.arange(block.start, block.stop)
        chosen = np.flatnonzero((draw_priority(job.sample.seed, parts.n_rows, numbers) <= bound) & ~wrong)
        rows_drawn.append(numbers[chosen])
        drawn.append(rows[chosen])
    wrong_rows = np.concatenate(invalid)
    run.commit(
        "scan",
        str(index),
        {"n_invalid": len(wrong_rows), "first_invalid": wrong_rows[:5].tolist()},
        parts={"input/checksum": (index * parts.partition_blocks, np.array(checksums, np.uint64))},
        models={
            f"partial/scan/{index}/row": np.concatenate(rows_drawn),
            f"partial/scan/{index}/vector": np.concatenate(drawn),
        },
    )


@_task
def check_input(run: Run, index: int) -> None:
    """Compare every block of a partition with what the scan saw."""
    for _ in _read_blocks(run, run.partitioning[index]):
        pass


# --- the draws and the models -----------------------------------------------------------------------------------


@_task
def draw(run: Run) -> None:
    """Take the two draws from what the scan gathered."""
    job, parts = job_of(run), run.partitioning
    records = [_record(run, "scan", str(index)) for index in range(len(parts))]
    n_valid = parts.n_rows - sum(record["facts"]["n_invalid"] for record in records)
    sizes = draw_sizes(job.sample, n_valid, job.projection.n_neighbors)
    gathered = [run.read_model("scan", str(index)) for index in range(len(parts))]
    rows = np.concatenate([arrays[f"partial/scan/{index}/row"] for index, arrays in enumerate(gathered)])
    vectors = np.concatenate([arrays[f"partial/scan/{index}/vector"] for index, arrays in enumerate(gathered)])
    if len(rows) < sizes.total:
        more_rows, more_vectors = _read_valid_rows_above(run, sizes.total - len(rows))
        rows, vectors = np.concatenate([rows, more_rows]), np.concatenate([vectors, more_vectors])
    priority = draw_priority(job.sample.seed, parts.n_rows, rows)
    sample, mixture = select_draws(rows, priority, sizes)
    prepared = prepare(vectors[sample], job.projection.metric)
    distinct = distinct_rows(prepared)
    run.commit(
        "draw",
        ONE,
        {**asdict(sizes), "n_valid": n_valid, "n_judging": n_valid - sizes.total, "distinct": len(distinct)},
        models={
            "sample/row": rows[sample],
            "sample/mixture_row": rows[mixture],
            "model/sample": prepared[distinct],
            "partial/draw": prepare(vectors[mixture], job.projection.metric),
        },
    )


def _read_valid_rows_above(run: Run, missing: int) -> tuple[npt.NDArray[np.int64], Float32]:
    """Valid rows whose priority lies above the scan's bound, lowest first, at least ``missing`` of them.

    Only where so many rows are invalid that the scan gathered too few: one more pass, in this one task.
    """
    job, parts = job_of(run), run.partitioning
    bound = np.uint64(run.attributes["draw_bound"])
    kept_rows = np.empty(0, np.int64)
    kept_vectors = np.empty((0, run.attributes["input"]["shape"][1]), np.float32)
    for index in range(len(parts)):
        for block, rows, valid in _read_blocks(run, parts[index]):
            numbers = np.arange(block.start, block.stop)
            chosen = np.flatnonzero((draw_priority(job.sample.seed, parts.n_rows, numbers) > bound) & valid)
            kept_rows = np.concatenate([kept_rows, numbers[chosen]])
            kept_vectors = np.concatenate([kept_vectors, rows[chosen]])
            best = np.argsort(draw_priority(job.sample.seed, parts.n_rows, kept_rows), kind="stable")[:missing]
            kept_rows, kept_vectors = kept_rows[best], kept_vectors[best]
    return kept_rows, kept_vectors


def draw_parts(ref: RunRef) -> list[tuple[int, int]]:
    """Shapes of the parts, of a block's rows, in which both draws are read: the sample's, then the mixture draw's."""
    run = open_run(ref)
    size, D = run.partitioning.block_rows, run.attributes["input"]["shape"][1]
    facts = _record(run, "draw")["facts"]
    return [(min(size, n - i), D) for n in (facts["distinct"], facts["mixture"]) for i in range(0, n, size)]


def read_draw_part(ref: RunRef, part: int) -> Float32:
    """One of ``draw_parts``, prepared rows."""
    pin_to_one_thread()  # and what follows on this worker: the decomposition's own tasks
    run = open_run(ref)
    size, models = run.partitioning.block_rows, _model(run, "draw")
    starts = [(name, i) for name in ("model/sample", "partial/draw") for i in range(0, len(models[name]), size)]
    name, start = starts[part]
    return np.asarray(models[name][start : start + size])


@_task
def keep_pca(run: Run, mean: Float32, components: Float32) -> None:
    """Publish the principal components."""
    run.commit("pca", ONE, models={"model/pca/mean": mean, "model/pca/components": components})


def _searched(run: Run, prepared: Float32) -> Float32:
    """Prepared rows as the index compares them: their principal components, where the job asks for them."""
    if job_of(run).projection.pca is None:
        return prepared
    models = _model(run, "pca")
    found = principal(np.ascontiguousarray(prepared), models["model/pca/mean"], models["model/pca/components"])
    return np.asarray(found)


@_task
def index(run: Run) -> None:
    """Build the neighbour index, and find the sample's own neighbours for UMAP."""
    job = job_of(run)
    k, metric = job.projection.n_neighbors, job.projection.metric
    draws = _model(run, "draw")
    sample = _searched(run, draws["model/sample"])
    arrays, facts = build_index(sample, _searched(run, draws["partial/draw"]), k, metric)
    found, distance = nearest(open_index(arrays, facts, sample), sample, k, metric)
    scale = local_scale(distance)
    run.commit(
        "index",
        ONE,
        {
            "mean_distance": float(distance.mean(dtype=np.float64)),
            "support_limit": support_limit(found, distance, scale),
            "search": asdict(facts),
        },
        models={
            **{f"model/index/{name}": values for name, values in arrays.items()},
            "model/sample_neighbours/index": found,
            "model/sample_neighbours/distance": distance,
            "model/sample_scale": scale,
        },
    )


def views(job: Job) -> dict[str, int]:
    """The projections for looking, name to dimensions."""
    return {f"view_{d}d": d for d in job.projection.views}


def spaces(job: Job) -> dict[str, int]:
    """The projections of a job, name to dimensions: the one that is clustered, then the views."""
    return {"projection": job.projection.n_components} | views(job)


@_task
def fit(run: Run) -> None:
    """Fit UMAP on the sample, for the space that is clustered."""
    _fit(run, "fit", "projection")


@_task
def view(run: Run, space: str) -> None:
    """Fit UMAP on the sample, for a view."""
    _fit(run, "view", space)


def _fit(run: Run, stage: str, space: str) -> None:
    job = job_of(run)
    table = job.projection
    neighbours = _model(run, "index")
    anchors = fit_anchors(
        _model(run, "draw")["model/sample"],
        neighbours["model/sample_neighbours/index"],
        neighbours["model/sample_neighbours/distance"],
        n_components=spaces(job)[space],
        metric=table.metric,
        min_dist=table.min_dist,
        n_epochs=table.n_epochs,
        seed=job.sample.seed,
    )
    a, b = curve_parameters(table.min_dist)
    run.commit(
        stage,
        ONE if stage == "fit" else space,
        {"a": a, "b": b},
        models={_of_space("anchors", space): anchors, _of_space("field", space): repulsion_field(anchors)},
    )


def _of_space(name: str, space: str) -> str:
    """Path of a model's array: plain for the space that is clustered, with ``_2d`` or ``_3d`` for a view."""
    return f"model/{name}{space.removeprefix('projection').removeprefix('view')}"


# --- every row --------------------------------------------------------------------------------------------------


def _nearest(run: Run, rows: Float32) -> tuple[npt.NDArray[np.int32], Float32]:
    """Neighbours of prepared rows in the run's sample."""
    table = job_of(run).projection
    opened = _opened_index(
        RunRef(run.url, run.attributes["run_id"]), _record(run, "index")["id"], _record(run, "draw")["id"]
    )
    return nearest(opened, _searched(run, rows), table.n_neighbors, table.metric)


@functools.lru_cache(maxsize=2)
def _opened_index(ref: RunRef, index_id: str, draw_id: str) -> NeighbourIndex:
    run = open_run(ref)
    facts = IndexFacts(**_record(run, "index")["facts"]["search"])
    arrays = {name: _cached(ref, "index", ONE, f"model/index/{name}", index_id) for name in INDEX_ARRAYS}
    return open_index(arrays, facts, _searched(run, _cached(ref, "draw", ONE, "model/sample", draw_id)))


@_task
def neighbours(run: Run, index: int) -> None:
    """The nearest sample rows of every row of a partition; -1 and NaN for invalid rows."""
    table, partition = job_of(run).projection, run.partitioning[index]
    found = np.full((len(partition), table.n_neighbors), -1, np.int32)
    distance = np.full(found.shape, np.nan, np.float32)
    for block, rows, valid in _read_blocks(run, partition):
        here = np.flatnonzero(valid) + block.start - partition.start
        found[here], distance[here] = _nearest(run, prepare(rows[valid], table.metric))
    run.commit(
        "neighbours",
        str(index),
        parts={
            "neighbours/index": (partition.start, found),
            "neighbours/distance": (partition.start, distance),
        },
    )


def _project(run: Run, space: str, found: npt.NDArray[np.int32], distance: Float32) -> Float32:
    fitted = ("fit", ONE) if space == "projection" else ("view", space)
    facts, models = _record(run, *fitted)["facts"], _model(run, *fitted)
    return project(
        found,
        distance,
        models[_of_space("anchors", space)],
        models[_of_space("field", space)],
        a=facts["a"],
        b=facts["b"],
        mean_distance=_record(run, "index")["facts"]["mean_distance"],
    )


def sketch_items(run: Run) -> list[int]:
    """The parts, of a block's rows, in which the mixture draw is projected ahead of the rest."""
    mixture_rows = _record(run, "draw")["facts"]["mixture"]
    return list(range(-(-mixture_rows // run.partitioning.block_rows)))


@_task
def sketch(run: Run, index: int) -> None:
    """Project a part of the mixture draw into the cluster space."""
    size = run.partitioning.block_rows
    rows = _model(run, "draw")["partial/draw"][index * size : (index + 1) * size]
    run.commit(
        "sketch",
        str(index),
        models={f"partial/sketch/{index}": _project(run, "projection", *_nearest(run, np.ascontiguousarray(rows)))},
    )


def _points(run: Run) -> Float32:
    """The projected mixture draw, (M, d)."""
    return np.concatenate([_model(run, "sketch", str(i))[f"partial/sketch/{i}"] for i in sketch_items(run)])


@_task
def project_rows(run: Run, index: int) -> None:
    """Project a partition into every space, from its neighbours."""
    job, partition = job_of(run), run.partitioning[index]
    found = run.read_rows("neighbours/index", partition, "neighbours")
    distance = run.read_rows("neighbours/distance", partition, "neighbours")
    results = {space: _project(run, space, found, distance) for space in spaces(job)}
    results["support"] = support(found, distance, _model(run, "index")["model/sample_scale"])
    run.commit(
        "project",
        str(index),
        {"n_outside_support": int((results["support"] > _record(run, "index")["facts"]["support_limit"]).sum())},
        parts={name: (partition.start, values) for name, values in results.items()},
    )


# --- the grid ---------------------------------------------------------------------------------------------------


def candidates(run: Run) -> list[Candidate]:
    """The grid of a run, once the draws are known: as the job says, and what has been added since."""
    table = job_of(run).mixture
    first = grid(table, _record(run, "draw")["facts"]["mixture"])
    added = [k for ks in _additions(run) for k in ks]
    ks = sorted({each.n_components for each in first} | set(added))
    return [Candidate(k, kind) for k in ks for kind in table.covariance_type]


def _additions(run: Run) -> list[list[int]]:
    """The ks that each round has added to the automatic grid; the last is empty where the grid is complete."""
    found: list[list[int]] = []
    while record := run.record("grid", str(len(found))):
        found.append(record["facts"]["ks"])
    return found


def grid_round(run: Run) -> int | None:
    """The round in which the automatic grid may grow next, or None where it is complete."""
    added = _additions(run)
    is_complete = job_of(run).mixture.n_components != "auto" or (added and not added[-1])
    return None if is_complete else len(added)


@_task
def extend_grid(run: Run, round_number: int) -> None:
    """Decide which ks the automatic grid still lacks, from the rows that its candidates were fitted on."""
    facts = _record(run, "draw")["facts"]
    n_rows = facts["mixture"]
    table = []
    for each in candidates(run):
        row = _unjudged(run, each)
        if not row.error:
            mean = _record(run, "candidate", str(each))["facts"]["mean_log_likelihood"]
            row = of_fitted_rows(row, _fitted(run, each).n_parameters, mean, n_rows)
        table.append(row)
    has_between = any(_record(run, "grid", str(i))["facts"]["why"] == "between" for i in range(round_number))
    added = missing_ks(table, n_rows, largest_k(facts["sample"], n_rows), has_between=has_between)
    run.commit("grid", str(round_number), {"ks": list(added.ks), "why": added.why})


def _unjudged(run: Run, wanted: Candidate) -> Criteria:
    """A candidate's row of the table before it is judged."""
    facts = _record(run, "candidate", str(wanted))["facts"]
    return Criteria(wanted.n_components, wanted.covariance_type, *(float("nan"),) * 4, facts["n_iter"],
                    facts["converged"], facts["error"])  # fmt: skip


@_task
def kmeans(run: Run, n_components: int) -> None:
    """The start that the covariance types of one k share."""
    job = job_of(run)
    labels = initial_labels(_points(run), n_components, job.mixture.n_init, job.sample.seed)
    run.commit("kmeans", str(n_components), models={f"partial/kmeans/{n_components}": labels})


@_task
def candidate(run: Run, wanted: Candidate) -> None:
    """Fit one candidate of the grid on the projected mixture draw; a failure is a result."""
    job = job_of(run)
    points = _points(run)
    k = wanted.n_components
    labels = _model(run, "kmeans", str(k))[f"partial/kmeans/{k}"]
    fitted = fit_candidate(points, labels, wanted, job.mixture)
    models: dict[str, npt.NDArray[Any]] = {}
    silhouette = error = None
    if fitted.mixture is not None:
        prefix = f"selection/fit/{wanted}"
        models = {
            f"{prefix}/weights": fitted.mixture.weights,
            f"{prefix}/means": fitted.mixture.means,
            f"{prefix}/covariances": fitted.mixture.covariances,
        }
        label = assign_rows(points, fitted.mixture, top=1).label
        silhouette, error = stratified_silhouette(points, label)
    run.commit(
        "candidate",
        str(wanted),
        {
            "n_iter": fitted.n_iter,
            "converged": fitted.converged,
            "error": fitted.error,
            "note": fitted.note,
            "mean_log_likelihood": None if fitted.error else fitted.mean_log_likelihood,
            "silhouette_euclidean": silhouette,
            "silhouette_euclidean_error": error,
            "seconds": fitted.seconds,
        },
        models=models,
    )


def _fitted(run: Run, wanted: Candidate) -> Mixture:
    prefix = f"selection/fit/{wanted}"
    arrays = _model(run, "candidate", str(wanted))
    return Mixture(wanted, *(arrays[f"{prefix}/{name}"] for name in PARAMETERS))


def fitted_candidates(run: Run) -> list[Candidate]:
    """The candidates of the grid that could be fitted, in its order."""
    return [each for each in candidates(run) if not _record(run, "candidate", str(each))["facts"]["error"]]


@functools.lru_cache(maxsize=2)
def _grid_parameters(
    ref: RunRef, _commit_ids: tuple[str, ...]
) -> tuple[npt.NDArray[np.float64], list[NaturalParameters]]:
    """The centre of the mixture draw, and all fitted candidates relative to it."""
    run = open_run(ref)
    centre = _points(run).mean(axis=0, dtype=np.float64)
    return centre, [natural_parameters(_fitted(run, each), centre) for each in fitted_candidates(run)]


def _grid(run: Run) -> tuple[npt.NDArray[np.float64], list[NaturalParameters]]:
    ids = tuple(_record(run, "candidate", str(each))["id"] for each in candidates(run))
    return _grid_parameters(RunRef(run.url, run.attributes["run_id"]), ids)


@_task
def score(run: Run, index: int) -> None:
    """Sums over a partition's rows under every candidate: one node of the sums' tree."""
    parts = run.partitioning
    partition = parts[index]
    centre, parameters = _grid(run)
    rows = run.read_rows("projection", partition, "project")
    judging = np.asarray(~np.isnan(rows).any(axis=1))
    judging[_drawn_in(run, partition)] = False
    criteria, clusters, scatter = [], [], []
    for block in parts.blocks(partition):
        here = slice(block.start - partition.start, block.stop - partition.start)
        of_candidates, of_components = score_rows(rows[here], judging[here], centre, parameters)
        criteria.append(of_candidates)
        clusters.append(of_components)
        scatter.append(scatter_rows(rows[here], centre))
    run.commit(
        "score",
        str(index),
        {"n_rows": int(judging.sum())},
        models={
            f"partial/score/{index}/criteria": tree_sum(criteria),
            f"partial/score/{index}/clusters": tree_sum(clusters),
            f"partial/score/{index}/scatter": tree_sum(scatter),
        },
    )


@_task
def clusters(run: Run) -> None:
    """Sums over all rows, and for every component of every candidate: what a silhouette compares a row with."""
    parts = range(len(run.partitioning))
    scatter = tree_sum(run.read_model("score", str(i))[f"partial/score/{i}/scatter"] for i in parts)
    sums = tree_sum(run.read_model("score", str(i))[f"partial/score/{i}/clusters"] for i in parts)
    centre, _ = _grid(run)
    with np.errstate(invalid="ignore"):  # an empty component has no mean
        mean = sums[:, 1:-1] / sums[:, :1] + centre
    run.commit(
        "clusters",
        ONE,
        models={
            "partial/clusters": sums,
            "partial/scatter": scatter,
            "selection/component/rows": sums[:, 0].astype(np.int64),
            "selection/component/mean": mean,
        },
    )


@_task
def silhouette(run: Run, index: int) -> None:
    """Sums over a partition's rows of their silhouettes under every candidate."""
    parts = run.partitioning
    partition = parts[index]
    centre, parameters = _grid(run)
    of_components = _model(run, "clusters")["partial/clusters"]
    rows = run.read_rows("projection", partition, "project")
    sums = [
        silhouette_rows(
            rows[block.start - partition.start : block.stop - partition.start], centre, parameters, of_components
        )
        for block in parts.blocks(partition)
    ]
    run.commit("silhouette", str(index), models={f"partial/silhouette/{index}": tree_sum(sums)})


def _drawn_in(run: Run, partition: RowRange) -> npt.NDArray[np.int64]:
    """Positions in a partition of rows that do not judge: both draws, or the sample alone where that leaves none."""
    models = _model(run, "draw")
    drawn = [models["sample/row"], models["sample/mixture_row"]]
    if judged_by_draw(run):
        # The mixture draw judges itself; its figures flatter.
        drawn = [np.setdiff1d(np.arange(partition.start, partition.stop), drawn[1])]
    rows = np.concatenate(drawn)
    return rows[(rows >= partition.start) & (rows < partition.stop)] - partition.start


def judged_by_draw(run: Run) -> bool:
    """Whether no row is left outside both draws, so that the mixture draw judges its own fits."""
    return bool(_record(run, "draw")["facts"]["n_judging"] == 0)


# --- replicates -------------------------------------------------------------------------------------------------


def replicates(run: Run) -> list[str]:
    """The replicates of a run: of its data, and of rows without clusters."""
    job = job_of(run)
    n = job.selection.replicates
    rows = replicate_rows(_record(run, "draw")["facts"]["mixture"], max(n, 1))
    if rows <= job.projection.n_neighbors + 1:
        return []  # too few rows to replicate anything
    return [f"{what}-{number}" for what in ("data", "null") for number in range(n)]


@_task
def replicate(run: Run, item: str) -> None:
    """Project a replicate's rows, and the common ones, by a UMAP of its own."""
    job = job_of(run)
    what, number = item.split("-")
    count = job.selection.replicates
    rows = _model(run, "draw")["partial/draw"]
    if what == "null":
        wanted = (2 * count + 1) * replicate_rows(len(rows), count)
        rows = null_rows(_model(run, "draw")["model/sample"], wanted, job.projection.metric, job.sample.seed)
    sample, fitted, common = (_searched(run, part) for part in parts_of(rows, int(number), count))
    points = project_through(
        sample, np.concatenate([fitted, common]), job.projection, job.sample.seed + 1 + int(number)
    )
    run.commit(
        "replicate",
        item,
        models={
            f"partial/replicate/{item}/fitted": points[: len(fitted)],
            f"partial/replicate/{item}/common": points[len(fitted) :],
        },
    )


@_task
def recluster(run: Run, item: str) -> None:
    """Fit the whole grid to a replicate, and label the common rows."""
    job = job_of(run)
    points = _model(run, "replicate", item)
    labels = cluster_again(
        points[f"partial/replicate/{item}/fitted"],
        points[f"partial/replicate/{item}/common"],
        candidates(run),
        job.mixture,
        job.sample.seed + 1 + int(item.split("-")[1]),
    )
    run.commit("recluster", item, models={f"partial/recluster/{item}": labels})


def _replicated_labels(run: Run, what: str) -> list[npt.NDArray[np.int16]]:
    items = [item for item in replicates(run) if item.startswith(what)]
    return [_model(run, "recluster", item)[f"partial/recluster/{item}"] for item in items]


def _cluster_agreement(run: Run) -> npt.NDArray[np.float64]:
    """The Jaccard index of every chosen cluster in the replicates; NaN without replicates."""
    mixture, labels = chosen_mixture(run), _replicated_labels(run, "data")
    place = candidates(run).index(mixture.candidate)
    K = mixture.candidate.n_components
    if not labels or any(each[place].min() < 0 for each in labels):
        return np.full(K, np.nan)
    points = _points(run)
    n = replicate_rows(len(points), len(labels))
    common = points[2 * n * len(labels) : (2 * len(labels) + 1) * n]
    chosen = assign_rows(common, mixture, top=1).label
    return cluster_agreement(chosen, [each[place] for each in labels], K)


@_task
def select_candidate(run: Run) -> None:
    """Reduce the scores to the selection table and the verdict; publish the chosen mixture."""
    job = job_of(run)
    n_rows = sum(_record(run, "score", str(i))["facts"]["n_rows"] for i in range(len(run.partitioning)))
    table = _selection_table(run, n_rows)
    verdict = select(table, job.selection.rule, n_rows)
    columns = table_columns(table)
    run.commit(
        "select",
        ONE,
        {
            **asdict(verdict.candidate),
            "finding": verdict.finding,
            "reason": verdict.reason,
            "n_judging": n_rows,
            "judged_by_draw": judged_by_draw(run),
        },
        models={f"selection/{name}": values for name, values in columns.items()},
    )


def _selection_table(run: Run, n_rows: int) -> list[Criteria]:
    parts, n_valid = range(len(run.partitioning)), _record(run, "draw")["facts"]["n_valid"]
    criteria = tree_sum(run.read_model("score", str(i))[f"partial/score/{i}/criteria"] for i in parts)
    silhouettes = tree_sum(run.read_model("silhouette", str(i))[f"partial/silhouette/{i}"] for i in parts)
    fitted = iter(zip(criteria, silhouettes, strict=True))
    data, null = (_replicated_labels(run, what) for what in ("data", "null"))
    nan = np.full(len(candidates(run)), np.nan)
    agreed, agreed_null = (agreement(labels) if labels else nan for labels in (data, null))
    table = []
    for place, each in enumerate(candidates(run)):
        facts = _record(run, "candidate", str(each))["facts"]
        row = _unjudged(run, each)
        if not facts["error"]:
            sums, of_rows = next(fitted)
            row = judged(row, _fitted(run, each).n_parameters, sums, n_rows, n_valid)
            row = replace(
                row,
                silhouette=float("nan") if each.n_components == 1 else float(of_rows) / n_valid,
                silhouette_euclidean=_number(facts["silhouette_euclidean"]),
                silhouette_euclidean_error=_number(facts["silhouette_euclidean_error"]),
                note=facts["note"],
                reproducibility=float(agreed[place]),
                reproducibility_null=float(agreed_null[place]),
            )
        table.append(row)
    return table


def _number(value: float | None) -> float:
    """A number from a record: JSON has no NaN."""
    return float("nan") if value is None else value


# --- refinement -------------------------------------------------------------------------------------------------


def refine_iterations(run: Run) -> int:
    """The iterations of EM over all rows that a run may need."""
    job = job_of(run)
    return job.mixture.max_iter if job.selection.refine else 0


def refine_stages(iteration: int) -> tuple[str, str]:
    """The names of an iteration's two stages: one task a group of partitions, then one task."""
    return f"expect-{iteration}", f"maximise-{iteration}"


def has_step(run: Run, iteration: int) -> bool:
    """Whether an iteration of EM over all rows is complete."""
    return iteration < refine_iterations(run) and run.record(refine_stages(iteration)[1], ONE) is not None


def is_refined(run: Run, iterations: int) -> bool:
    """Whether the mixture needs no iteration beyond so many."""
    if iterations == refine_iterations(run):
        return True
    return iterations > 0 and bool(_record(run, refine_stages(iterations - 1)[1])["facts"]["converged"])


def _before(run: Run, iteration: int) -> Mixture:
    """The mixture that an iteration starts from."""
    facts = _record(run, "select")["facts"]
    candidate = Candidate(facts["n_components"], facts["covariance_type"])
    if iteration == 0:
        return _fitted(run, candidate)
    stage = refine_stages(iteration - 1)[1]
    arrays = _model(run, stage)
    return Mixture(candidate, *(arrays[f"partial/{stage}/{name}"] for name in PARAMETERS))


@_task
def expect(run: Run, group: int, *, iteration: int) -> None:
    """Sums for the M-step over a group of partitions: one node of the sums' tree."""
    parts = run.partitioning
    centre, _ = _grid(run)
    mixture = _before(run, iteration).moved(-centre)

    def of_partition(index: int) -> npt.NDArray[np.float64]:
        partition = parts[index]
        rows = run.read_rows("projection", partition, "project")
        blocks = (slice(b.start - partition.start, b.stop - partition.start) for b in parts.blocks(partition))
        return tree_sum(packed(expect_rows(rows[here], centre, mixture)) for here in blocks)

    stage = refine_stages(iteration)[0]
    total = tree_sum(of_partition(index) for index in groups(parts)[group])
    run.commit(stage, str(group), models={f"partial/{stage}/{group}": total})


@_task
def take_step(run: Run, *, iteration: int) -> None:
    """The M-step of an iteration of EM over all rows."""
    expect_stage, stage = refine_stages(iteration)
    nodes = (
        run.read_model(expect_stage, str(group))[f"partial/{expect_stage}/{group}"]
        for group in range(len(groups(run.partitioning)))
    )
    expected = unpacked(tree_sum(nodes))
    table = job_of(run).mixture
    centre, _ = _grid(run)
    of_rows = moments(_model(run, "clusters")["partial/scatter"])
    mixture = m_step(expected, of_rows, _before(run, iteration).moved(-centre), table.reg_covar).moved(centre)
    mean = expected.log_likelihood / of_rows.n_rows
    converged = False
    if iteration > 0:
        previous = _record(run, refine_stages(iteration - 1)[1])["facts"]["mean_log_likelihood"]
        converged = abs(mean - previous) < table.tol
    run.commit(
        stage,
        ONE,
        {"mean_log_likelihood": mean, "converged": converged},
        models={f"partial/{stage}/{name}": getattr(mixture, name) for name in PARAMETERS},
    )


@_task
def publish(run: Run, *, iterations: int) -> None:
    """The chosen mixture, as it is after so many iterations over all rows."""
    mixture = _before(run, iterations)
    steps = [_record(run, refine_stages(i)[1])["facts"] for i in range(iterations)]
    n_valid = _record(run, "draw")["facts"]["n_valid"]
    centre, _ = _grid(run)
    of_rows = moments(_model(run, "clusters")["partial/scatter"])
    run.commit(
        "mixture",
        ONE,
        {
            "n_iter": iterations,
            "converged": bool(steps) and steps[-1]["converged"],
            "mean_log_likelihoods": [each["mean_log_likelihood"] for each in steps],
            "n_rows": n_valid,
            "note": remarks(mixture.moved(-centre), of_rows, job_of(run).mixture.reg_covar),
        },
        models={f"model/mixture/{name}": getattr(mixture, name) for name in PARAMETERS},
    )


# --- labels -----------------------------------------------------------------------------------------------------


def chosen_mixture(run: Run) -> Mixture:
    """The mixture that the verdict chose, refined."""
    facts = _record(run, "select")["facts"]
    arrays = _model(run, "mixture")
    return Mixture(
        Candidate(facts["n_components"], facts["covariance_type"]),
        *(arrays[f"model/mixture/{name}"] for name in PARAMETERS),
    )


@_task
def quality(run: Run) -> None:
    """How far the projection can be trusted: on rows that it was not fitted on, and on those that it was."""
    job = job_of(run)
    models = _model(run, "index")
    some = slice(None, None, -(-len(models["model/sample_scale"]) // _DENSITY_ROWS))
    of_sample = _project(
        run,
        "projection",
        np.ascontiguousarray(models["model/sample_neighbours/index"][some]),
        np.ascontiguousarray(models["model/sample_neighbours/distance"][some]),
    )
    points, vectors = _points(run), _model(run, "draw")["partial/draw"]
    some = slice(None, None, -(-len(points) // _TRUST_ROWS))
    few = min(job.projection.n_neighbors, (len(points[some]) - 1) // 2)
    mixture = chosen_mixture(run)
    run.commit(
        "quality",
        ONE,
        {
            "trustworthiness": float(trustworthiness(vectors[some], points[some], n_neighbors=few)) if few else None,
            **{
                f"{name}_log_density": float(assign_rows(rows, mixture, top=1).log_density.mean(dtype=np.float64))
                for name, rows in (("sample", of_sample), ("other", points))
            },
        },
    )


@_task
def assign(run: Run, index: int) -> None:
    """Labels and probabilities of a partition; its part of the cluster summaries."""
    parts = run.partitioning
    partition = parts[index]
    mixture = chosen_mixture(run)
    rows = run.read_rows("projection", partition, "project")
    result = assign_rows(rows, mixture, job_of(run).assign.top)
    exemplar, distance = nearest_to_means(rows, result.label, mixture, partition.start, EXEMPLARS)
    K = mixture.candidate.n_components
    probability_sums = []
    for block in parts.blocks(partition):
        here = slice(block.start - partition.start, block.stop - partition.start)
        valid = result.label[here] >= 0
        label, probability = result.label[here][valid], result.probability[here][valid]
        probability_sums.append(np.bincount(label, probability, K).astype(np.float64))
    run.commit(
        "assign",
        str(index),
        parts={name: (partition.start, values) for name, values in asdict(result).items()},
        models={
            f"partial/assign/{index}/size": np.bincount(result.label[result.label >= 0], minlength=K),
            f"partial/assign/{index}/probability": tree_sum(probability_sums),
            f"partial/assign/{index}/exemplar": exemplar,
            f"partial/assign/{index}/exemplar_distance": distance,
        },
    )


@_task
def cluster(run: Run) -> None:
    """Reduce the summaries of the clusters over all partitions."""
    partials = []
    for i in range(len(run.partitioning)):
        arrays = run.read_model("assign", str(i))
        partials.append({path.rpartition("/")[2]: values for path, values in arrays.items()})
    size = np.sum([each["size"] for each in partials], axis=0)
    probability = tree_sum(each["probability"] for each in partials)
    exemplar, distance = merge_nearest(
        np.stack([each["exemplar"] for each in partials]),
        np.stack([each["exemplar_distance"] for each in partials]),
        EXEMPLARS,
    )
    with np.errstate(invalid="ignore"):  # an empty component has no mean
        mean_probability = probability / size
    projected = [_record(run, "project", str(i))["facts"] for i in range(len(run.partitioning))]
    run.commit(
        "cluster",
        ONE,
        {"n_outside_support": sum(facts["n_outside_support"] for facts in projected)},
        models={
            "cluster/size": size,
            "cluster/mean_probability": mean_probability,
            "cluster/reproducibility": _cluster_agreement(run),
            "cluster/exemplar": exemplar,
            "cluster/exemplar_distance": distance,
        },
    )


@_task
def hierarchy(run: Run) -> None:
    """The tree over the chosen components, from the mixture draw."""
    responsibility, _ = responsibilities(_points(run)[:HIERARCHY_ROWS], chosen_mixture(run))
    embedding = _model(run, "draw")["partial/draw"][:HIERARCHY_ROWS]
    tree = build_hierarchy(responsibility, embedding)
    run.commit(
        "hierarchy",
        ONE,
        models={
            "hierarchy/merge": tree.merges,
            "hierarchy/rule": np.array(tree.rules, np.dtypes.StringDType()),
            "hierarchy/value": tree.values,
        },
    )


# --- another candidate's labels ---------------------------------------------------------------------------------


def relabel_stages(wanted: Candidate) -> tuple[str, str]:
    """The names of the two stages that label all rows by another candidate: partitions, then one task."""
    return f"relabel-{wanted}", f"crosswalk-{wanted}"


def relabel_arrays(run: Run, wanted: Candidate) -> list[ArraySpec]:
    """The arrays that a relabelling fills partition by partition."""
    parts = run.partitioning
    return [
        ArraySpec(f"relabel/{wanted}/{name}", (parts.n_rows,), dtype, fill, parts.block_rows, parts.partition_rows)
        for name, dtype, fill in (("label", "int32", -1), ("probability", "float32", float("nan")))
    ]


@_task
def relabel(run: Run, index: int, *, wanted: Candidate) -> None:
    """Labels of a partition under another candidate, and how they meet those of the chosen one."""
    partition = run.partitioning[index]
    result = assign_rows(run.read_rows("projection", partition, "project"), _fitted(run, wanted), top=1)
    chosen = run.read_rows("label", partition, "assign")
    valid = result.label >= 0
    met = np.zeros((chosen_mixture(run).candidate.n_components, wanted.n_components), np.int64)
    np.add.at(met, (chosen[valid], result.label[valid]), 1)
    stage = relabel_stages(wanted)[0]
    run.commit(
        stage,
        str(index),
        parts={
            f"relabel/{wanted}/label": (partition.start, result.label),
            f"relabel/{wanted}/probability": (partition.start, result.probability),
        },
        models={f"partial/{stage}/{index}": met},
    )


@_task
def crosswalk(run: Run, *, wanted: Candidate) -> None:
    """Rows by the chosen label and by the other candidate's."""
    relabelled, stage = relabel_stages(wanted)
    parts = range(len(run.partitioning))
    met = sum(run.read_model(relabelled, str(i))[f"partial/{relabelled}/{i}"] for i in parts)
    run.commit(stage, ONE, models={f"relabel/{wanted}/crosswalk": np.asarray(met)})


# --- layout -----------------------------------------------------------------------------------------------------


def row_arrays(run: Run) -> list[ArraySpec]:
    """The arrays with one entry a row (or a block) that a run's stages fill partition by partition."""
    job, parts = job_of(run), run.partitioning
    N, k, top = parts.n_rows, job.projection.n_neighbors, job.assign.top
    nan = float("nan")

    def rows(name: str, dtype: str, fill_value: float, *tail: int) -> ArraySpec:
        return ArraySpec(name, (N, *tail), dtype, fill_value, parts.block_rows, parts.partition_rows)

    blocks = parts.partition_blocks
    return [
        ArraySpec("input/checksum", (parts.n_blocks,), "uint64", 0, blocks, blocks),
        rows("neighbours/index", "int32", -1, k),
        rows("neighbours/distance", "float32", nan, k),
        *(rows(space, "float32", nan, d) for space, d in spaces(job).items()),
        rows("support", "float32", nan),
        rows("label", "int32", -1),
        rows("probability", "float32", nan),
        rows("top_label", "int32", -1, top),
        rows("top_probability", "float32", nan, top),
        rows("log_density", "float32", nan),
    ]


def new_draw_bound(job: Job, n_rows: int) -> int:
    """The priority up to which the scan gathers rows: enough for both draws, were every row valid."""
    auto = (min(50_000, n_rows // 2), min(100_000, n_rows // 4))
    sample, mixture = (
        default if asked == "auto" else asked
        for default, asked in zip(auto, (job.sample.rows, job.sample.mixture_rows), strict=True)
    )
    return draw_bound(sample + mixture, n_rows)


def is_finished(run: Run) -> bool:
    """Whether every row has its results and every summary is there."""
    if not all(ONE in run.committed(stage) for stage in ("cluster", "quality")):
        return False
    wanted = {str(index) for index in range(len(run.partitioning))}
    return all(wanted <= run.committed(stage).keys() for stage in ("project", "assign"))
