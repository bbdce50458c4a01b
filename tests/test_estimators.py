"""The estimators: scikit-learn's own checks, scikit-learn's answers, Dask arrays, and where users put them."""

from collections.abc import Iterator

import dask.array as da
import numpy as np
import pytest
from dask_ml.wrappers import ParallelPostFit
from distributed import Client
from sklearn.mixture import GaussianMixture as SklearnGaussianMixture
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks
from test_mixture import blobs

from distcluster import GaussianMixture, GaussianMixtureSearch
from distcluster.numerics.mixture.candidate import COVARIANCE_TYPES, CovarianceType

kinds = pytest.mark.parametrize("kind", COVARIANCE_TYPES)


@pytest.fixture(scope="module")
def rows() -> np.ndarray:
    return blobs(6000, 3, 4, seed=1)[0]


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with Client(processes=False, n_workers=1, threads_per_worker=2, dashboard_address="127.0.0.1:0") as client:
        yield client


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@parametrize_with_checks(
    [GaussianMixture(max_iter=20), GaussianMixtureSearch(n_components=(2, 3), n_init=1, max_iter=20)]
)
def test_scikit_learns_checks_pass(estimator, check) -> None:
    check(estimator)


@kinds
def test_answers_are_those_of_the_scikit_learn_model_handed_out(kind: CovarianceType, rows: np.ndarray) -> None:
    ours = GaussianMixture(4, covariance_type=kind, random_state=0).fit(rows)
    theirs = ours.to_sklearn()
    assert type(theirs) is SklearnGaussianMixture
    assert (ours.predict(rows) == theirs.predict(rows)).all()
    np.testing.assert_allclose(ours.predict_proba(rows), theirs.predict_proba(rows), atol=1e-12)
    np.testing.assert_allclose(ours.score_samples(rows), theirs.score_samples(rows), rtol=1e-10)
    for name in ("score", "bic", "aic"):
        assert getattr(ours, name)(rows) == pytest.approx(getattr(theirs, name)(rows), rel=1e-10)
    assert ours.icl(rows) >= ours.bic(rows)
    assert (
        ours.precisions_cholesky_.shape
        == SklearnGaussianMixture(4, covariance_type=kind).fit(rows).precisions_cholesky_.shape
    )


@kinds
def test_a_fit_from_given_means_is_scikit_learns(kind: CovarianceType, rows: np.ndarray) -> None:
    settings = {"covariance_type": kind, "random_state": 0, "means_init": rows[:4]}
    ours, theirs = GaussianMixture(4, **settings).fit(rows), SklearnGaussianMixture(4, **settings).fit(rows)
    assert ours.n_iter_ == theirs.n_iter_
    np.testing.assert_allclose(ours.lower_bounds_, theirs.lower_bounds_, rtol=1e-9)
    np.testing.assert_allclose(ours.means_, theirs.means_, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(ours.precisions_, theirs.precisions_, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("init_params", ["kmeans", "k-means++", "random_from_data", "random"])
def test_every_start_leads_somewhere_and_more_starts_never_to_worse(init_params: str, rows: np.ndarray) -> None:
    settings = {"init_params": init_params, "random_state": 0, "max_iter": 500}
    one, five = (GaussianMixture(4, n_init=n, **settings).fit(rows) for n in (1, 5))
    assert five.lower_bound_ >= one.lower_bound_
    assert np.isfinite(five.score(rows))


def test_a_warm_start_goes_on_where_the_last_fit_stopped(rows: np.ndarray) -> None:
    through = GaussianMixture(4, random_state=0, tol=1e-9, max_iter=1000).fit(rows)
    stopped = GaussianMixture(4, random_state=0, tol=1e-9, max_iter=5, warm_start=True)
    with pytest.warns(match="did not converge in 5 iterations"):
        stopped.fit(rows)
    stopped.set_params(max_iter=1000).fit(rows)
    assert stopped.n_iter_ + 5 == pytest.approx(through.n_iter_, abs=2)
    np.testing.assert_allclose(stopped.means_, through.means_, atol=1e-4)


def test_sampled_rows_come_from_the_mixture(rows: np.ndarray) -> None:
    fitted = GaussianMixture(4, random_state=0).fit(rows)
    sampled, components = fitted.sample(50_000)
    assert sampled.shape == (50_000, 3)
    np.testing.assert_allclose(np.bincount(components) / 50_000, fitted.weights_, atol=0.02)
    assert fitted.score(sampled) == pytest.approx(fitted.score(rows), abs=0.1)


@kinds
def test_dask_arrays_give_what_numpy_arrays_give(kind: CovarianceType, rows: np.ndarray, client: Client) -> None:
    lazy = da.from_array(rows, chunks=(1000, 2))
    settings = {"covariance_type": kind, "random_state": 0}
    here, there = GaussianMixture(4, **settings).fit(rows), GaussianMixture(4, **settings).fit(lazy)
    assert here.n_iter_ == there.n_iter_
    labels = there.predict(lazy)
    assert isinstance(labels, da.Array)
    np.testing.assert_allclose(there.predict_proba(lazy).compute(), here.predict_proba(rows), atol=1e-6)
    assert (labels.compute() == there.predict(rows)).all()
    assert there.score(lazy) == pytest.approx(here.score(rows), rel=1e-9)
    assert there.bic(lazy) == pytest.approx(here.bic(rows), rel=1e-9)
    assert there.icl(lazy) == pytest.approx(here.icl(rows), rel=1e-6)


def test_chunks_of_a_dask_array_change_no_bit(rows: np.ndarray, client: Client) -> None:
    means = [
        GaussianMixture(4, random_state=0).fit(da.from_array(rows, chunks=(n, 3))).means_.tobytes() for n in (700, 6000)
    ]
    assert means[0] == means[1]


@pytest.mark.parametrize("is_dask", [False, True])
def test_the_search_finds_what_was_planted(is_dask: bool, client: Client) -> None:
    random = np.random.default_rng(0)
    centres = random.uniform(-20, 20, (8, 3))
    truth = random.integers(8, size=8000)
    rows = centres[truth] + random.normal(size=(8000, 3)) * [1.0, 0.6, 1.6]
    data = da.from_array(rows, chunks=(1000, 3)) if is_dask else rows
    ks = (2, 3, 4, 6, 8, 11, 16, 23, 32)
    search = GaussianMixtureSearch(ks, random_state=0, max_fit_rows=4000).fit(data)
    assert (search.n_components_, search.covariance_type_) == (8, "tied"), search.verdict_.reason
    assert len(search.table_) == 4 * (1 + len(ks))
    best = search.table_.query("n_components == 8 and covariance_type == 'tied'")
    assert len(best) == 1
    assert (search.best_estimator_.predict(rows) == search.predict(rows)).all()
    assert search.score(rows) == pytest.approx(search.to_sklearn().score(rows))


def test_they_work_in_a_pipeline_and_after_parallel_post_fit(rows: np.ndarray, client: Client) -> None:
    pipeline = make_pipeline(StandardScaler(), GaussianMixture(4, random_state=0)).fit(rows)
    assert pipeline.predict(rows).shape == (6000,)
    wrapped = ParallelPostFit(GaussianMixture(4, random_state=0)).fit(rows)
    lazy = wrapped.predict(da.from_array(rows, chunks=(1000, 3)))
    assert (lazy.compute() == wrapped.estimator.predict(rows)).all()


def test_wrong_parameters_are_all_named(rows: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"(?s)covariance_type.*n_components.*tol"):
        GaussianMixture(0, covariance_type="round", tol=-1.0).fit(rows)
    with pytest.raises(ValueError, match="shape"):
        GaussianMixture(4, means_init=np.zeros((3, 3))).fit(rows)
    with pytest.raises(ValueError, match="rule"):
        GaussianMixtureSearch(rule="best").fit(rows)
