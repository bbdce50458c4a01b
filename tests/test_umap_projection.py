"""UMAP as a transformer: scikit-learn's own checks, the same bits from NumPy and Dask, and where users put it."""

import pickle

import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
from conftest import planted_rows
from sklearn.base import clone
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from distcluster import GaussianMixture, UMAPProjection


@pytest.fixture(scope="module")
def planted_balls() -> tuple[np.ndarray, np.ndarray]:
    return planted_rows(3000, 4, n_features=12)


@pytest.fixture(scope="module")
def fitted(planted_balls: tuple[np.ndarray, np.ndarray]) -> UMAPProjection:
    return UMAPProjection(2, metric="euclidean", n_epochs=60, max_fit_rows=1200, random_state=0).fit(planted_balls[0])


@parametrize_with_checks([UMAPProjection(2, metric="euclidean", n_epochs=10)])
def test_scikit_learns_checks_pass(estimator, check) -> None:
    check(estimator)


def test_rows_are_placed_by_themselves(fitted: UMAPProjection, planted_balls: tuple[np.ndarray, np.ndarray]) -> None:
    rows, truth = planted_balls
    places = fitted.transform(rows)
    assert places.dtype == np.float32
    assert fitted.transform(rows[::-1])[::-1].tobytes() == places.tobytes()
    assert fitted.transform(rows[17:18]).tobytes() == places[17].tobytes()
    centres = np.stack([places[truth == k].mean(axis=0) for k in range(4)])
    nearest = np.square(places[:, None] - centres).sum(axis=2).argmin(axis=1)
    assert (nearest == truth).mean() > 0.99


def test_a_dask_array_gives_the_same_bits_and_stays_lazy(
    fitted: UMAPProjection, planted_balls: tuple[np.ndarray, np.ndarray]
) -> None:
    rows = planted_balls[0]
    lazy = da.from_array(rows, chunks=(700, 5))
    there = clone(fitted).fit(lazy)
    assert there.embedding_.tobytes() == fitted.embedding_.tobytes()
    places = there.transform(lazy)
    assert isinstance(places, da.Array)
    assert places.compute(scheduler="threads").tobytes() == fitted.transform(rows).tobytes()


def test_it_travels_and_names_its_columns(fitted: UMAPProjection, planted_balls: tuple[np.ndarray, np.ndarray]) -> None:
    rows = planted_balls[0][:50]
    copy = pickle.loads(pickle.dumps(fitted)).set_output(transform="pandas")
    places = copy.transform(rows)
    assert list(places.columns) == ["umapprojection0", "umapprojection1"]
    np.testing.assert_array_equal(places, fitted.transform(rows))
    with pytest.raises(ValueError, match="would gather a Dask array"):
        copy.transform(da.from_array(rows))


def test_it_works_in_a_pipeline_with_a_mixture(planted_balls: tuple[np.ndarray, np.ndarray]) -> None:
    rows, truth = planted_balls
    steps = UMAPProjection(2, metric="euclidean", n_epochs=60, random_state=0), GaussianMixture(4, random_state=0)
    label = make_pipeline(StandardScaler(), *steps).fit(rows).predict(rows)
    table = np.zeros((4, 4))
    np.add.at(table, (label, truth), 1)
    assert table.max(axis=0).sum() > 0.98 * len(rows)


def test_what_it_cannot_take_is_refused(fitted: UMAPProjection) -> None:
    frame = dd.from_pandas(pd.DataFrame(np.ones((6, 12))), npartitions=2)
    for wrong in (frame, frame.to_dask_array()):
        for use in (UMAPProjection().fit, fitted.transform, GaussianMixture().fit):
            with pytest.raises(ValueError, match=r"to_dask_array\(lengths=True\)|compute_chunk_sizes"):
                use(wrong)
    with pytest.raises(ValueError, match="n_neighbors"):
        UMAPProjection(n_neighbors=1).fit(np.eye(9))
    with pytest.raises(ValueError, match="zero"):
        UMAPProjection(n_epochs=5).fit(np.vstack([np.eye(9), np.zeros(9)]))
