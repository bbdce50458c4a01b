"""From Python: the command's run from rows in memory, where an event loop runs, and what a person reads of it."""

import asyncio
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pandas as pd
import pytest
import zarr
from conftest import SMALL, planted_rows, unequal
from distributed import Client
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import estimator_checks

import distcluster
from benchmarks.servers import changed_environment, dask_cluster
from distcluster import EmbeddingClusterer, JobError, Run, cluster, open_run
from distcluster.job import InputTable
from distcluster.storage.run import Run as StoredRun

TABLES: dict[str, dict[str, Any]] = {}
for key, value in SMALL.items():
    table, _, name = key.partition(".")
    if table != "deploy":
        TABLES.setdefault(table, {})[name] = value

TINY: dict[str, dict[str, Any]] = {
    "sample": {"rows": 300, "mixture_rows": 200},
    "projection": {"n_components": 2, "n_epochs": 20, "views": [], "metric": "euclidean"},
    "mixture": {"n_components": [3], "covariance_type": ["diag"], "n_init": 1},
    "selection": {"replicates": 0, "rule": "bic"},
}

needs_columns = pytest.mark.skipif("id" not in InputTable.model_fields, reason="columns of the input are not there yet")


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    with dask_cluster(tmp_path_factory.mktemp("dask"), n_workers=1) as (address, _), Client(address) as client:
        yield client


@pytest.fixture(scope="module")
def rows(planted: tuple[Path, np.ndarray]) -> np.ndarray:
    return zarr.open_group(planted[0], mode="r")["embeddings"][:]


@pytest.fixture(scope="module")
def run(rows: np.ndarray, client: Client, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The reference's job from a Dask array, by the current client, while an event loop runs, as in a notebook."""

    async def cell() -> Run:
        return cluster(da.from_array(rows, chunks=(3000, 7)), tmp_path_factory.mktemp("python") / "run", **TABLES)

    return asyncio.run(cell())


def test_rows_in_memory_give_the_commands_bytes(run: Run, reference: StoredRun) -> None:
    assert unequal(reference, StoredRun(run.url)) == []
    assert Path(run.report()).is_file()


def test_the_same_call_goes_on_and_other_rows_are_refused(run: Run, rows: np.ndarray, client: Client) -> None:
    written = {path: path.stat().st_mtime_ns for path in Path(f"{run.url}.input.zarr").rglob("*")}
    again = cluster(rows, run.url, **TABLES)  # a NumPy array of the same content, too
    assert str(again.verdict) == str(run.verdict)
    other = rows.copy()
    other[9000, 3] += 1.0
    for X, what in (
        (other, r"embeddings differs in rows 0 to 16,283"),
        (da.from_array(other), "embeddings differs"),
        (rows[:-1], r"shape \(16284, 16\) .* now \(16283, 16\)"),
    ):
        with pytest.raises(JobError, match=f"(?s)holds other rows than X: .*{what}.*overwrite=True"):
            cluster(X, run.url, **TABLES)
    follows = TABLES["mixture"] | {"previous": f"{run.url}-before"}
    with pytest.raises(JobError, match="no run at"):  # the job is refused before its input is replaced
        cluster(other, run.url, overwrite=True, **TABLES | {"mixture": follows})
    assert {path: path.stat().st_mtime_ns for path in Path(f"{run.url}.input.zarr").rglob("*")} == written
    with pytest.raises(JobError, match="made for something else"):
        cluster(rows, run.url, **TABLES | {"projection": {"n_neighbors": 9}})


def test_what_a_call_gets_wrong_is_said_before_anything_is_written(rows: np.ndarray, tmp_path: Path) -> None:
    output = tmp_path / "run"
    for X, options, what in (
        (rows, {"projection": {"n_component": 5}}, "projection.n_component: no such key; did you mean 'n_components'"),
        (rows, {"projektion": {}}, "projektion: no such table"),
        (rows, {"input": {"url": "x"}}, "input.url is said by an argument"),
        (rows.astype(np.int64), {}, "dtype int64"),
        (rows[0], {}, "must be .rows, features"),
        (da.from_array(rows)[da.from_array(rows)[:, 0] > 0], {}, "compute_chunk_sizes"),
        ("docs.zarr", {"items": ["a", "b"]}, "items must be the name of a column"),
        (rows, {"items": "text"}, "has no coordinate"),
        ("docs.zarr", {}, "there is no input at"),
    ):
        with pytest.raises(JobError, match=what):
            cluster(X, output, **options)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "run.input.zarr").mkdir()
    (tmp_path / "run.input.zarr" / "thesis.txt").write_text("mine")
    with pytest.raises(JobError, match="holds something else"):
        cluster(rows, output, overwrite=True)
    assert (tmp_path / "run.input.zarr" / "thesis.txt").read_text() == "mine"


def test_a_script_without_a_main_guard_starts_a_cluster_of_its_own(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        f"import numpy as np, distcluster\n"
        f"tables = {TINY!r}\n"
        f"X = np.random.default_rng(0).normal(size=(600, 8)) + 9 * np.repeat(np.eye(3, 8), 200, axis=0)\n"
        f"deploy = dict(n_workers=1, dashboard_address='127.0.0.1:0')\n"
        f"run = distcluster.cluster(X, 'run', deploy=deploy, report=dict(write='never'), **tables)\n"
        f"print(repr(run))\n"
    )
    done = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False,
        env=changed_environment({"PYTHONPATH": str(Path(distcluster.__file__).parent.parent)}),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "label_rows" in done.stdout
    assert done.stdout.splitlines()[-1] == f"Run({str(tmp_path / 'run')!r}, 600 rows, diag-3)"


def test_a_run_tells_what_it_found(run: Run) -> None:
    assert (run.verdict.candidate.n_components, run.verdict.finding) == (8, "elbow")
    assert str(run.verdict) == run.verdict.reason
    chosen = run.selection.query("n_components == 8 and covariance_type == @run.verdict.candidate.covariance_type")
    assert len(chosen) == 1
    assert len(run.selection) == 36
    assert run.clusters.rows.sum() == len(run) == 16284
    assert "16,284 rows" in run._repr_html_()
    assert run.verdict.reason.split(":")[0] in run._repr_html_()


def test_labels_are_a_frame_that_is_read_by_partition(run: Run, client: Client) -> None:
    frame = run.labels()
    assert (frame.npartitions, frame.known_divisions) == (16, True)
    assert frame.index.name == "row"
    stored = StoredRun(run.url)
    whole = frame.compute()
    pd.testing.assert_frame_equal(whole.iloc[:0], frame._meta, check_index_type=False)
    for name in ("label", "probability", "log_density", "support"):
        np.testing.assert_array_equal(whole[name], stored.array(name)[:])
    counts = frame.level_4.value_counts().compute()
    assert (len(counts), counts.sum()) == (4, 16284)


def test_typical_rows_come_first_however_many_are_asked_for(run: Run) -> None:
    few, many = run.rows(3, n=5), run.rows(3, n=40)
    pd.testing.assert_frame_equal(few, many.head(5))
    assert many.distance.is_monotonic_increasing
    assert (StoredRun(run.url).array("label")[:][many.index] == 3).all()
    assert few.index.tolist() == run.clusters.typical_rows[3][:5]
    assert len(run.rows(3, n=10**6)) == run.clusters.rows[3]
    with pytest.raises(JobError, match="clusters 0 to 7"):
        run.rows(8)


def test_its_model_and_its_choices_are_at_hand(run: Run, rows: np.ndarray, client: Client, tmp_path: Path) -> None:
    np.testing.assert_array_equal(run.model().predict(rows[:100]), StoredRun(run.url).array("label")[:100])
    copied = open_run(shutil.copytree(run.url, tmp_path / "run"))
    chosen = copied.choose(6, "diag", progress=False)
    assert (len(chosen.clusters), chosen.verdict.finding) == (6, "chosen by hand")
    assert len(chosen.rows(0, n=20)) == 20
    with pytest.raises(JobError, match="must be one of"):
        copied.choose(6, "round")


def test_xarray_opens_it(run: Run) -> None:
    xr = pytest.importorskip("xarray")
    ours, theirs = run.to_xarray(), xr.open_zarr(run, consolidated=False)
    assert ours.projection.dims == theirs.projection.dims == ("row", "dimension")
    assert {"label", "probability", "top_label", "support", "view_2d"} <= set(ours.data_vars) & set(theirs.data_vars)
    assert ours.label.chunks[0] == (1024,) * 15 + (924,)
    for name in ("label", "projection"):
        np.testing.assert_array_equal(ours[name], theirs[name])
    assert set(xr.open_zarr(run, group="cluster", consolidated=False).dims) >= {"cluster"}


def test_plots_are_figures(run: Run, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    curves = run.plot.curves()
    assert [axes.get_title() for axes in curves.axes] == ["BIC", "ICL", "Silhouette"]
    ks = curves.axes[0].lines[0].get_xdata()
    assert list(ks) == [1, *SMALL["mixture.n_components"]]
    (image,) = run.plot.map().axes[0].images
    assert image.get_array().shape == (1200, 1200, 4)
    points = run.plot.map(color="support").axes[0].collections[0]
    assert len(points.get_offsets()) > 5000
    with pytest.raises(JobError, match="must be one of label"):
        run.plot.map(color="size")


def test_a_run_that_is_not_there_or_not_finished_is_not_opened(tmp_path: Path) -> None:
    with pytest.raises(JobError, match="there is no run"):
        open_run(tmp_path / "nothing")


@needs_columns
def test_ids_items_and_labels_travel_with_the_rows(client: Client, tmp_path: Path) -> None:
    rows, truth = planted_rows(600, 3)
    ids, texts = [f"doc-{i}" for i in range(600)], pd.Series([f"text {i}" for i in range(600)])
    run = cluster(rows, tmp_path / "run", ids=ids, items=texts, labels={"ball": truth}, **TINY)
    frame = run.labels().compute()
    assert frame.id.tolist() == ids
    few = run.rows(0, n=4)
    assert few.id.tolist() == [f"doc-{i}" for i in few.index]
    assert few.item.tolist() == [f"text {i}" for i in few.index]
    assert "text" in run.clusters["items"][0][0]


# --- the pipeline as an estimator ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def few_rows() -> np.ndarray:
    return planted_rows(600, 3)[0]


@pytest.fixture(scope="module")
def fitted(client: Client, few_rows: np.ndarray) -> EmbeddingClusterer:
    return EmbeddingClusterer(**TINY).fit(few_rows)


@pytest.mark.parametrize(
    "check",
    [
        estimator_checks.check_no_attributes_set_in_init, estimator_checks.check_parameters_default_constructible,
        estimator_checks.check_get_params_invariance, estimator_checks.check_set_params,
        estimator_checks.check_estimator_cloneable, estimator_checks.check_estimator_repr,
        estimator_checks.check_estimators_unfitted, estimator_checks.check_estimator_sparse_array,
        estimator_checks.check_complex_data, estimator_checks.check_mixin_order,
    ],
)  # fmt: skip
def test_scikit_learns_checks_that_fit_no_rows_pass(check: Callable[[str, EmbeddingClusterer], None]) -> None:
    check("EmbeddingClusterer", EmbeddingClusterer(**TINY))


def test_fitted_rows_keep_their_labels(fitted: EmbeddingClusterer, few_rows: np.ndarray) -> None:
    assert (fitted.predict(few_rows) == fitted.labels_).all()
    shares = fitted.predict_proba(few_rows)
    assert shares.shape == (600, 3)
    np.testing.assert_array_equal(shares.max(axis=1).astype(np.float32), fitted.probabilities_)
    assert fitted.transform(few_rows).shape == (600, 2)
    assert np.isfinite(fitted.score_samples(few_rows)).all()
    assert (fitted.verdict_.candidate.n_components, len(fitted.table_)) == (3, 2)
    assert fitted.run_ is None


def test_an_estimator_travels_when_its_run_has_gone(fitted: EmbeddingClusterer, few_rows: np.ndarray) -> None:
    assert not Path(fitted.model_.url).exists()
    copy = pickle.loads(pickle.dumps(fitted))
    assert (copy.predict(few_rows) == fitted.labels_).all()
    places = copy.set_output(transform="pandas").transform(few_rows)
    assert list(places.columns) == ["embeddingclusterer0", "embeddingclusterer1"]


def test_an_estimator_that_keeps_its_run_takes_dask_arrays(
    fitted: EmbeddingClusterer, few_rows: np.ndarray, client: Client, tmp_path: Path
) -> None:
    lazy = da.from_array(few_rows, chunks=(250, 5))
    kept = EmbeddingClusterer(**TINY).set_params(output=str(tmp_path / "run")).fit(lazy)
    assert isinstance(kept.labels_, da.Array)
    np.testing.assert_array_equal(kept.labels_, fitted.labels_)
    np.testing.assert_array_equal(kept.predict(lazy).compute(), fitted.labels_)
    assert kept.run_.clusters.rows.sum() == 600
    with pytest.raises(ValueError, match="needs output"):
        fitted.predict(lazy)
    with pytest.raises(ValueError, match="needs output"):
        EmbeddingClusterer(**TINY).fit(lazy)


def test_an_estimator_works_in_a_pipeline(client: Client, few_rows: np.ndarray) -> None:
    pipeline = make_pipeline(StandardScaler(), EmbeddingClusterer(**TINY))
    assert (pipeline.fit_predict(few_rows) == pipeline.predict(few_rows)).all()


def test_what_an_estimator_cannot_take_is_refused(fitted: EmbeddingClusterer, few_rows: np.ndarray) -> None:
    with pytest.raises(ValueError, match="expecting 16 features"):
        fitted.predict(few_rows[:, :5])
    with pytest.raises(JobError, match="no such key"):
        EmbeddingClusterer(mixture={"components": 3}).fit(few_rows)
    with pytest.raises(ValueError, match="NaN"):
        EmbeddingClusterer(**TINY).fit(np.full((9, 4), np.nan))
