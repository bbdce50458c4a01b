"""The whole pipeline as an estimator: the run's labels, other rows, where it travels, and what it refuses."""

import pickle
from collections.abc import Iterator
from pathlib import Path

import dask.array as da
import numpy as np
import pytest
from conftest import planted_rows
from distributed import Client
from sklearn.base import clone
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks.servers import dask_cluster
from distcluster import EmbeddingClusterer, JobError

TINY = EmbeddingClusterer(
    sample={"rows": 300, "mixture_rows": 200},
    projection={"n_components": 2, "n_epochs": 20, "views": [], "metric": "euclidean"},
    mixture={"n_components": [3], "covariance_type": ["diag"], "n_init": 1},
    selection={"replicates": 0, "rule": "bic"},
)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    with dask_cluster(tmp_path_factory.mktemp("dask"), n_workers=1) as (address, _), Client(address) as client:
        yield client


@pytest.fixture(scope="module")
def rows() -> np.ndarray:
    return planted_rows(600, 3)[0]


@pytest.fixture(scope="module")
def fitted(client: Client, rows: np.ndarray) -> EmbeddingClusterer:
    return clone(TINY).fit(rows)


def test_fitted_rows_keep_their_labels(fitted: EmbeddingClusterer, rows: np.ndarray) -> None:
    assert (fitted.predict(rows) == fitted.labels_).all()
    shares = fitted.predict_proba(rows)
    assert shares.shape == (600, 3)
    np.testing.assert_array_equal(shares.max(axis=1).astype(np.float32), fitted.probabilities_)
    assert fitted.transform(rows).shape == (600, 2)
    assert np.isfinite(fitted.score_samples(rows)).all()
    assert (fitted.verdict_.candidate.n_components, len(fitted.table_)) == (3, 2)
    assert fitted.run_ is None


def test_it_travels_when_its_run_has_gone(fitted: EmbeddingClusterer, rows: np.ndarray) -> None:
    assert not Path(fitted.model_.url).exists()
    copy = pickle.loads(pickle.dumps(fitted))
    assert (copy.predict(rows) == fitted.labels_).all()
    places = copy.set_output(transform="pandas").transform(rows)
    assert list(places.columns) == ["embeddingclusterer0", "embeddingclusterer1"]


def test_a_run_that_is_kept_takes_dask_arrays(
    fitted: EmbeddingClusterer, rows: np.ndarray, client: Client, tmp_path: Path
) -> None:
    lazy = da.from_array(rows, chunks=(250, 5))
    kept = clone(TINY).set_params(output=str(tmp_path / "run")).fit(lazy)
    assert isinstance(kept.labels_, da.Array)
    np.testing.assert_array_equal(kept.labels_, fitted.labels_)
    np.testing.assert_array_equal(kept.predict(lazy).compute(), fitted.labels_)
    assert kept.run_.clusters.rows.sum() == 600
    with pytest.raises(ValueError, match="needs output"):
        fitted.predict(lazy)
    with pytest.raises(ValueError, match="needs output"):
        clone(TINY).fit(lazy)


def test_it_works_in_a_pipeline(client: Client, rows: np.ndarray) -> None:
    pipeline = make_pipeline(StandardScaler(), clone(TINY))
    assert (pipeline.fit_predict(rows) == pipeline.predict(rows)).all()


def test_what_it_cannot_take_is_refused(fitted: EmbeddingClusterer, rows: np.ndarray) -> None:
    with pytest.raises(ValueError, match="expecting 16 features"):
        fitted.predict(rows[:, :5])
    with pytest.raises(JobError, match="no such key"):
        EmbeddingClusterer(mixture={"components": 3}).fit(rows)
    with pytest.raises(ValueError, match="NaN"):
        clone(TINY).fit(np.full((9, 4), np.nan))
