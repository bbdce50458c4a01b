"""Neighbours in the sample, UMAP fitted on it, and every row's place among its neighbours."""

import functools
from dataclasses import asdict

import numpy as np
import numpy.typing as npt

from distcluster.job import Job
from distcluster.numerics.neighbors import INDEX_ARRAYS, IndexFacts, NeighbourIndex, build_index, nearest, open_index
from distcluster.numerics.prepared_rows import prepare, principal
from distcluster.numerics.projection import project, repulsion_field
from distcluster.numerics.support import local_scale, support, support_limit
from distcluster.numerics.umap_fit import curve_parameters, fit_anchors
from distcluster.stages.context import ONE, RunRef, job_of, model_of, open_run, read_cached, record_of, task
from distcluster.stages.subsampling import read_blocks
from distcluster.storage.run import Run

Float32 = npt.NDArray[np.float32]


def keep_pca(run: Run, mean: Float32, components: Float32) -> None:
    """Publish the principal components; not a task, for dask-ml leaves them in the client's process."""
    run.commit("pca", ONE, models={"model/pca/mean": mean, "model/pca/components": components})


def searched(run: Run, prepared: Float32) -> Float32:
    """Prepared rows as the index compares them: their principal components, where the job asks for them."""
    if job_of(run).projection.pca is None:
        return prepared
    models = model_of(run, "pca")
    found = principal(np.ascontiguousarray(prepared), models["model/pca/mean"], models["model/pca/components"])
    return np.asarray(found)


@task
def index(run: Run) -> None:
    """Build the neighbour index, and find the sample's own neighbours for UMAP."""
    job = job_of(run)
    k, metric = job.projection.n_neighbors, job.projection.metric
    draws = model_of(run, "draw")
    sample = searched(run, draws["model/sample"])
    arrays, facts = build_index(sample, searched(run, draws["partial/draw"]), k, metric)
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


@task
def fit(run: Run) -> None:
    """Fit UMAP on the sample, for the space that is clustered."""
    _fit(run, "fit", "projection")


@task
def view(run: Run, space: str) -> None:
    """Fit UMAP on the sample, for a view."""
    _fit(run, "view", space)


def _fit(run: Run, stage: str, space: str) -> None:
    job = job_of(run)
    table = job.projection
    neighbours = model_of(run, "index")
    anchors = fit_anchors(
        model_of(run, "draw")["model/sample"],
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


def _nearest(run: Run, rows: Float32) -> tuple[npt.NDArray[np.int32], Float32]:
    """Neighbours of prepared rows in the run's sample."""
    table = job_of(run).projection
    opened = _opened_index(
        RunRef(run.url, run.attributes["run_id"]), record_of(run, "index")["id"], record_of(run, "draw")["id"]
    )
    return nearest(opened, searched(run, rows), table.n_neighbors, table.metric)


@functools.lru_cache(maxsize=2)
def _opened_index(ref: RunRef, index_id: str, draw_id: str) -> NeighbourIndex:
    run = open_run(ref)
    facts = IndexFacts(**record_of(run, "index")["facts"]["search"])
    arrays = {name: read_cached(ref, "index", ONE, f"model/index/{name}", index_id) for name in INDEX_ARRAYS}
    return open_index(arrays, facts, searched(run, read_cached(ref, "draw", ONE, "model/sample", draw_id)))


@task
def neighbours(run: Run, index: int) -> None:
    """The nearest sample rows of every row of a partition; -1 and NaN for invalid rows."""
    table, partition = job_of(run).projection, run.partitioning[index]
    found = np.full((len(partition), table.n_neighbors), -1, np.int32)
    distance = np.full(found.shape, np.nan, np.float32)
    for block, rows, valid in read_blocks(run, partition):
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


def project_into(run: Run, space: str, found: npt.NDArray[np.int32], distance: Float32) -> Float32:
    """Coordinates of rows in one of the job's spaces, from their neighbours."""
    fitted = ("fit", ONE) if space == "projection" else ("view", space)
    facts, models = record_of(run, *fitted)["facts"], model_of(run, *fitted)
    return project(
        found,
        distance,
        models[_of_space("anchors", space)],
        models[_of_space("field", space)],
        a=facts["a"],
        b=facts["b"],
        mean_distance=record_of(run, "index")["facts"]["mean_distance"],
    )


def sketch_items(run: Run) -> list[int]:
    """The parts, of a block's rows, in which the mixture draw is projected ahead of the rest."""
    mixture_rows = record_of(run, "draw")["facts"]["mixture"]
    return list(range(-(-mixture_rows // run.partitioning.block_rows)))


@task
def sketch(run: Run, index: int) -> None:
    """Project a part of the mixture draw into the cluster space."""
    size = run.partitioning.block_rows
    rows = model_of(run, "draw")["partial/draw"][index * size : (index + 1) * size]
    run.commit(
        "sketch",
        str(index),
        models={f"partial/sketch/{index}": project_into(run, "projection", *_nearest(run, np.ascontiguousarray(rows)))},
    )


def points_of(run: Run) -> Float32:
    """The projected mixture draw, (M, d)."""
    return np.concatenate([model_of(run, "sketch", str(i))[f"partial/sketch/{i}"] for i in sketch_items(run)])


@task
def project_rows(run: Run, index: int) -> None:
    """Project a partition into every space, from its neighbours."""
    job, partition = job_of(run), run.partitioning[index]
    found = run.read_rows("neighbours/index", partition, "neighbours")
    distance = run.read_rows("neighbours/distance", partition, "neighbours")
    results = {space: project_into(run, space, found, distance) for space in spaces(job)}
    results["support"] = support(found, distance, model_of(run, "index")["model/sample_scale"])
    run.commit(
        "project",
        str(index),
        {"n_outside_support": int((results["support"] > record_of(run, "index")["facts"]["support_limit"]).sum())},
        parts={name: (partition.start, values) for name, values in results.items()},
    )
