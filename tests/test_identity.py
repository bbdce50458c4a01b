"""The promise: a row's label is a pure function of the row and the frozen model."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import BLOCK_ROWS, Command, unequal

from benchmarks.servers import dask_cluster
from distcluster.numerics.index_facts import INDEX_ARRAYS
from distcluster.numerics.mixture.assignment import assign_rows
from distcluster.numerics.neighbors import nearest, open_index
from distcluster.numerics.prepared_rows import prepare
from distcluster.numerics.projection import project
from distcluster.report.map_points import PackedPoints, packed_points
from distcluster.report.row_statistics import collect_row_statistics
from distcluster.stages.projecting import FIT_UMAP
from distcluster.stages.refining import chosen_mixture
from distcluster.stages.searching import BUILD_INDEX
from distcluster.storage import layout
from distcluster.storage.inputs import open_input
from distcluster.storage.run import Run


def test_bytes_do_not_depend_on_the_number_of_workers(reference: Run, new_command: Callable[..., Command]) -> None:
    assert unequal(reference, new_command().run_to_the_end()) == []


def test_bytes_do_not_depend_on_the_size_of_a_partition(reference: Run, new_command: Callable[..., Command]) -> None:
    run = new_command(assign__partition_rows=4 * BLOCK_ROWS).run_to_the_end()
    assert len(run.partitioning) == 8
    assert len(reference.partitioning) == 16
    assert unequal(reference, run) == []
    assert map_points(run) == map_points(reference)


def map_points(run: Run) -> PackedPoints:
    """What the map draws of a run, every fourth row."""
    found = collect_row_statistics(run, run.array("cluster/size").shape[0], has_map=True, n_points=5_000)
    return packed_points(found.map_points, found.moments.extent, [])


def test_two_runs_give_the_same_bytes_on_another_kernel_family(
    new_command: Callable[..., Command], other_kernels: dict[str, str | None]
) -> None:
    runs = [new_command(environ=other_kernels, deploy__n_workers=n).run_to_the_end() for n in (1, 2)]
    assert unequal(*runs) == []


def test_two_runs_at_once_on_one_scheduler_do_not_meet(
    reference: Run, new_command: Callable[..., Command], tmp_path: Path
) -> None:
    same, other = new_command(), new_command(sample__seed=1)
    with dask_cluster(tmp_path, n_workers=2, n_threads=2) as (address, _):
        started = [command.start("--scheduler", address) for command in (same, other)]
        for process in started:
            _, errors = process.communicate(timeout=300)
            assert process.returncode == 0, errors
    assert unequal(reference, Run(str(same.output))) == []
    assert "label" in unequal(reference, Run(str(other.output)))


def test_principal_components_do_not_depend_on_workers_or_partitions(new_command: Callable[..., Command]) -> None:
    settings: dict[str, Any] = {"projection__pca": 6, "projection__views": [], "mixture__n_components": [8]}
    runs = [
        new_command(deploy__n_workers=n, assign__partition_rows=n * 2 * BLOCK_ROWS, **settings).run_to_the_end()
        for n in (1, 2)
    ]
    names = ("model/pca/mean", "model/pca/components", "projection", "label")
    assert [runs[0].array(name)[:].tobytes() for name in names] == [runs[1].array(name)[:].tobytes() for name in names]
    components = runs[0].array("model/pca/components")[:].astype(np.float64)
    assert components.T @ components == pytest.approx(np.eye(6), abs=1e-5)
    rows = np.concatenate([runs[0].read(each) for each in (layout.SAMPLE, layout.MIXTURE_SAMPLE)])
    spectrum = np.linalg.eigvalsh(np.cov(rows.T.astype(np.float64)))[::-1]
    kept = np.var((rows - rows.mean(axis=0)) @ components, axis=0, ddof=1).sum()
    assert kept == pytest.approx(spectrum[:6].sum(), rel=1e-3)


@pytest.fixture(scope="module")
def labelled(reference: Run) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """Project and assign any rows with the frozen model of the reference run."""
    job, built, curve = reference.job, BUILD_INDEX.facts_of(reference), FIT_UMAP.facts_of(reference)
    arrays = {name: reference.read(layout.INDEX[name]) for name in INDEX_ARRAYS}
    index = open_index(arrays, built.search, reference.read(layout.SAMPLE))
    assert index.facts.kind == "8-bit graph"
    anchors, field = reference.read(layout.ANCHORS), reference.read(layout.FIELD)

    def label(rows: np.ndarray) -> dict[str, np.ndarray]:
        prepared = prepare(np.ascontiguousarray(rows), job.projection.metric)
        found, distance = nearest(index, prepared, job.projection.n_neighbors, job.projection.metric)
        projection = project(
            found, distance, anchors, field, a=curve.a, b=curve.b, mean_distance=built.mean_distance,
        )  # fmt: skip
        result = assign_rows(projection, chosen_mixture(reference), job.assign.top)
        return {"projection": projection, "label": result.label, "log_density": result.log_density}

    return label


@pytest.mark.parametrize("arrange", ["as stored", "permuted", "shifted", "one by one", "reversed"])
def test_results_follow_their_rows(
    arrange: str, reference: Run, labelled: Callable[[np.ndarray], dict[str, np.ndarray]]
) -> None:
    rows = np.asarray(open_input(reference.job.input.url, "embeddings")[:3000])
    order = {
        "as stored": np.arange(3000),
        "permuted": np.random.default_rng(0).permutation(3000),
        "shifted": np.roll(np.arange(3000), 7),
        "one by one": np.arange(200),
        "reversed": np.arange(3000)[::-1],
    }[arrange]
    batches = [[row] for row in order] if arrange == "one by one" else [order]
    for batch in batches:
        for name, values in labelled(rows[batch]).items():
            assert values.tobytes() == reference.array(name)[:3000][batch].tobytes(), name


def test_equal_rows_get_equal_coordinates(
    labelled: Callable[[np.ndarray], dict[str, np.ndarray]], reference: Run
) -> None:
    row = np.asarray(open_input(reference.job.input.url, "embeddings")[5:6])
    assert np.unique(labelled(np.repeat(row, 100, axis=0))["projection"], axis=0).shape[0] == 1


@pytest.mark.parametrize("what", ["resuming client", "worker"])
def test_another_kernel_family_is_refused(
    what: str,
    reference: Run,
    new_command: Callable[..., Command],
    other_kernels: dict[str, str | None],
    tmp_path: Path,
) -> None:
    if what == "worker":
        with dask_cluster(tmp_path, n_workers=1, environ=other_kernels) as (address, _):
            refused = new_command().run("--scheduler", address)
    else:
        resumed = new_command(environ=other_kernels)
        resumed.output = Path(shutil.copytree(reference.url, tmp_path / "run"))
        refused = resumed.run()
    ours = reference.settings.environment["OpenBLAS kernels"]
    assert refused.returncode == 2, refused.stderr
    assert f"OpenBLAS kernels: {ours} expected" in refused.stderr


def test_a_cluster_that_cannot_see_the_output_is_refused(new_command: Callable[..., Command], tmp_path: Path) -> None:
    command = new_command()
    with dask_cluster(tmp_path, n_workers=1) as (address, _):
        # In a mount namespace of its own the client writes to a file system that the worker does not see.
        hidden = command.output.parent / "hidden"
        hidden.mkdir()
        command.output = hidden / "output"
        shell = f"mount -t tmpfs none {hidden} && exec {' '.join(command.argv('--scheduler', address))}"
        made = subprocess.run(
            ["unshare", "--mount", "sh", "-c", shell],
            env=command.process_environment(), capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
    if "unshare" in made.stderr:
        pytest.skip("no mount namespaces here")
    assert made.returncode == 2, made.stderr
    assert "does not see the output" in made.stderr
