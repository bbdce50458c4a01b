"""The engine of the mixtures: scikit-learn as the oracle, laws as properties, bits that follow their rows."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score
from sklearn.mixture import GaussianMixture

from distcluster.numerics.mixture.assignment import assign_rows, responsibilities
from distcluster.numerics.mixture.candidate import COVARIANCE_TYPES, Candidate, CovarianceType
from distcluster.numerics.mixture.candidate_fit import fit_candidate
from distcluster.numerics.mixture.criteria import information_criteria
from distcluster.numerics.mixture.em import Maximum, centre_rows, e_step, from_labels, m_step, maximise
from distcluster.numerics.mixture.kernels import exponentials, tile_expectation
from distcluster.numerics.mixture.parameters import Mixture, natural_parameters
from distcluster.numerics.mixture.scores import score_rows
from distcluster.numerics.mixture.start import Starts
from distcluster.numerics.mixture.tiles import TILE_ROWS, make_tiles

kinds = pytest.mark.parametrize("kind", COVARIANCE_TYPES)


def blobs(n: int, d: int, k: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Overlapping, correlated Gaussians: rows (n, d), and the labels of a poor start."""
    random = np.random.default_rng(seed)
    means = random.normal(scale=2.5 / np.sqrt(d), size=(k, d))
    mixing = np.eye(d) + 0.5 * random.normal(size=(k, d, d)) / np.sqrt(d)
    truth = random.integers(k, size=n)
    rows = means[truth] + np.einsum("nij,nj->ni", mixing[truth], random.normal(size=(n, d)))
    return rows, np.where(random.random(n) < 0.7, truth, random.integers(k, size=n)).astype(np.int32)


def both(
    rows: np.ndarray, labels: np.ndarray, kind: CovarianceType, k: int, n_iter: int
) -> tuple[Maximum, Mixture, GaussianMixture]:
    """EM from the same start for the same number of iterations, by us and by scikit-learn."""
    prepared = centre_rows(rows)
    start = from_labels(prepared, labels, Candidate(k, kind), 1e-6)
    ours = maximise(prepared, start, tol=0.0, reg_covar=1e-6, max_iter=n_iter)
    precisions = np.linalg.inv(start.covariances) if kind in ("full", "tied") else 1.0 / start.covariances
    theirs = GaussianMixture(
        k, covariance_type=kind, tol=0.0, max_iter=n_iter, weights_init=start.weights,
        means_init=start.moved(prepared.centre).means, precisions_init=precisions,
    )  # fmt: skip
    with pytest.warns(match="did not converge"):
        theirs.fit(rows)
    return ours, ours.mixture.moved(prepared.centre), theirs


def assert_equal_parameters(ours: Mixture, theirs: GaussianMixture, extent: np.ndarray) -> None:
    """Weights, means and covariances to 1e-6 of the size of what they measure, in units of each feature's extent."""
    np.testing.assert_allclose(ours.weights, theirs.weights_, rtol=1e-6)
    np.testing.assert_allclose(ours.means / extent, theirs.means_ / extent, rtol=1e-6, atol=1e-6)
    kind = ours.candidate.covariance_type
    unit = {"spherical": (extent**2).mean(), "diag": extent**2}.get(kind, extent[:, None] * extent)
    scale = {"spherical": 0.0, "diag": 0.0}.get(kind, 1e-6 * np.abs(theirs.covariances_ / unit).max())
    np.testing.assert_allclose(ours.covariances / unit, theirs.covariances_ / unit, rtol=1e-6, atol=scale)


@kinds
@pytest.mark.parametrize("d", [2, 5, 17, 50])
def test_parameters_equal_scikit_learns_after_the_same_number_of_iterations(kind: CovarianceType, d: int) -> None:
    rows, labels = blobs(5000, d, 7, seed=d)
    ours, mixture, theirs = both(rows, labels, kind, 7, n_iter=12)
    assert_equal_parameters(mixture, theirs, rows.std(axis=0))
    np.testing.assert_allclose(ours.log_likelihoods, theirs.lower_bounds_, rtol=1e-9)


@kinds
@pytest.mark.parametrize("what", ["badly scaled", "far from zero"])
def test_parameters_equal_scikit_learns_on_awkward_data(kind: CovarianceType, what: str) -> None:
    rows, labels = blobs(4000, 6, 5, seed=3)
    # scikit-learn does not centre: further out its own diag and tied covariances lose the digits that are compared.
    rows = rows * np.logspace(-2, 4, 6) if what == "badly scaled" else rows + 300.0
    _, mixture, theirs = both(rows, labels, kind, 5, n_iter=10)
    assert_equal_parameters(mixture, theirs, rows.std(axis=0))


@kinds
def test_moving_the_data_moves_the_means_alone(kind: CovarianceType) -> None:
    rows, labels = blobs(3000, 4, 5, seed=1)
    rows = rows.astype(np.float32).astype(np.float64)  # exact when 2^26 is added
    near, far = (both_ours(rows + shift, labels, kind) for shift in (0.0, 2.0**26))
    np.testing.assert_allclose(far.means - 2.0**26, near.means, atol=1e-6)
    np.testing.assert_allclose(far.covariances, near.covariances, rtol=1e-6, atol=1e-7)


def both_ours(rows: np.ndarray, labels: np.ndarray, kind: CovarianceType, max_iter: int = 10) -> Mixture:
    prepared = centre_rows(rows)
    start = from_labels(prepared, labels, Candidate(int(labels.max()) + 1, kind), 1e-6)
    found = maximise(prepared, start, tol=0.0, reg_covar=1e-6, max_iter=max_iter)
    return found.mixture.moved(prepared.centre)


@kinds
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), d=st.integers(1, 6), k=st.integers(1, 9))
def test_the_likelihood_never_falls(kind: CovarianceType, seed: int, d: int, k: int) -> None:
    rows, labels = blobs(1500, d, k, seed)
    prepared = centre_rows(rows)
    start = from_labels(prepared, labels, Candidate(k, kind), 0.0)
    history = maximise(prepared, start, tol=0.0, reg_covar=0.0, max_iter=20).log_likelihoods
    assert np.diff(history).min() > -1e-12 * max(1.0, abs(history[-1]))


@kinds
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), d=st.integers(1, 6), k=st.integers(1, 9))
def test_criteria_and_responsibilities_obey_their_laws(kind: CovarianceType, seed: int, d: int, k: int) -> None:
    rows, labels = blobs(1500, d, k, seed)
    mixture = both_ours(rows, labels, kind, max_iter=3)
    responsibility, log_density = responsibilities(rows, mixture)
    np.testing.assert_allclose(responsibility.sum(axis=1), 1.0, rtol=1e-12)
    assert (responsibility >= 0.0).all()
    natural = natural_parameters(mixture, rows.mean(axis=0))
    everything = np.ones(len(rows), bool)
    ((likelihood, entropy, *_),), _ = score_rows(rows, everything, rows.mean(axis=0), [natural])
    assert likelihood == pytest.approx(log_density.sum(), rel=1e-10)
    logs = np.log(np.maximum(responsibility, 1e-300))
    assert entropy == pytest.approx(-(responsibility * logs).sum(), rel=1e-8, abs=1e-8)
    bic, icl = information_criteria(likelihood, entropy, mixture.n_parameters, len(rows))
    assert icl >= bic - 1e-9 * abs(bic)


@kinds
def test_permuting_components_or_rows_changes_nothing_but_names(kind: CovarianceType) -> None:
    rows, labels = blobs(3000, 4, 6, seed=2)
    random = np.random.default_rng(0)
    names, order = random.permutation(6).astype(np.int32), random.permutation(3000)
    one = both_ours(rows, labels, kind)
    other = both_ours(rows[order], names[labels[order]], kind)
    np.testing.assert_allclose(other.means[names], one.means, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(other.weights[names], one.weights, rtol=1e-7)


@kinds
@pytest.mark.parametrize("d", [2, 5, 12])
@pytest.mark.parametrize("k", [1, 3, 40])
def test_bits_of_a_row_do_not_depend_on_its_place(kind: CovarianceType, d: int, k: int) -> None:
    rows, labels = blobs(3000, d, k, seed=4)
    mixture = both_ours(rows, labels, kind, max_iter=2)
    here = responsibilities(rows, mixture)
    random = np.random.default_rng(1)
    for order in (random.permutation(3000), np.roll(np.arange(3000), 7), np.arange(3000)[::-1], np.arange(1500, 1501)):
        there = responsibilities(rows[order], mixture)
        for a, b in zip(here, there, strict=True):
            assert a[order].tobytes() == b.tobytes()


def test_rows_that_do_not_count_change_no_bit_of_the_sums() -> None:
    rows, labels = blobs(2000, 3, 4, seed=5)
    mixture = both_ours(rows, labels, "full", max_iter=2)
    natural = natural_parameters(mixture, np.zeros(3))
    taken = np.arange(2000) % 3 > 0
    others = np.where(taken[:, None], rows, np.nan)
    sums = [
        tile_expectation(*make_tiles(each, taken, natural.centre), natural.kind, natural.theta, natural.shared)
        for each in (rows, others)
    ]
    assert sums[0][0].tobytes() == sums[1][0].tobytes()
    assert sums[0][1] == sums[1][1]
    assert sums[0][0][:, 0].sum() == pytest.approx(taken.sum(), rel=1e-12)


def test_the_exponential_is_accurate_to_two_units_in_the_last_place() -> None:
    x = -np.concatenate([np.linspace(0.0, 229.9, 63 * TILE_ROWS), np.logspace(-18, 2, TILE_ROWS)])
    shares = x.reshape(64, TILE_ROWS).copy()
    total = np.empty(TILE_ROWS)
    exponentials(shares, np.zeros(TILE_ROWS), total)
    exact = np.exp(x).reshape(64, TILE_ROWS)
    assert np.abs((shares - exact) / np.spacing(exact)).max() <= 2.0
    np.testing.assert_allclose(total, exact.sum(axis=0), rtol=1e-14)


@kinds
def test_a_component_that_dies_is_told_and_takes_no_row(kind: CovarianceType) -> None:
    rows, labels = blobs(3000, 3, 2, seed=6)
    prepared = centre_rows(rows)
    start = from_labels(prepared, labels, Candidate(2, kind), 1e-6)
    means = np.vstack([start.means[0], np.full(3, 1e6)])
    lost = Mixture(start.candidate, start.weights, means, start.covariances)
    found = maximise(prepared, lost, tol=1e-3, reg_covar=1e-6, max_iter=50)
    responsibility, log_density = responsibilities(rows - prepared.centre, found.mixture)
    assert np.isfinite(log_density).all()
    assert (responsibility.argmax(axis=1) == 0).all()
    assert found.mixture.weights.sum() == pytest.approx(1.0)


@kinds
@pytest.mark.parametrize("reg_covar", [0.0, 1e-6])
def test_singular_components_are_fitted_and_noted(kind: CovarianceType, reg_covar: float) -> None:
    random = np.random.default_rng(7)
    cloud, line = random.normal(size=(2000, 3)), np.zeros((500, 3))
    line[:, 0] = random.normal(size=500)
    rows = np.vstack([cloud, line + np.array([20.0, 0.0, 0.0]), np.repeat([[0.0, 40.0, 0.0]], 300, axis=0)]).astype(
        np.float32
    )
    labels = np.repeat([0, 1, 2], [2000, 500, 300]).astype(np.int32)
    fit = fit_candidate(rows, labels, Candidate(3, kind), tol=1e-3, reg_covar=reg_covar, max_iter=100)
    assert fit.mixture is not None, fit.error
    assert np.isfinite(fit.mixture.means).all()
    assert np.linalg.eigvalsh(fit.mixture.full_covariances()).min() > 0.0
    assert (responsibilities(rows, fit.mixture)[0].argmax(axis=1) == labels).mean() > 0.95
    if kind != "tied" and reg_covar == 0.0:
        assert "no extent of their own" in fit.note


@kinds
def test_the_stopping_rule_is_scikit_learns(kind: CovarianceType) -> None:
    rows, _ = blobs(3000, 4, 6, seed=8)
    labels = Starts(rows.astype(np.float32), 1, 0).labels(6)
    prepared = centre_rows(rows)
    start = from_labels(prepared, labels, Candidate(6, kind), 1e-6)
    ours = maximise(prepared, start, tol=1e-3, reg_covar=1e-6, max_iter=200)
    precisions = np.linalg.inv(start.covariances) if kind in ("full", "tied") else 1.0 / start.covariances
    theirs = GaussianMixture(
        6, covariance_type=kind, max_iter=200, weights_init=start.weights,
        means_init=start.moved(prepared.centre).means, precisions_init=precisions,
    ).fit(rows)  # fmt: skip
    assert (len(ours.log_likelihoods), ours.converged) == (theirs.n_iter_, theirs.converged_)
    assert ours.log_likelihoods[-1] == pytest.approx(theirs.lower_bound_, rel=1e-12)


@kinds
def test_sums_of_parts_are_the_sums_of_the_whole(kind: CovarianceType) -> None:
    rows, labels = blobs(4 * TILE_ROWS, 3, 5, seed=9)
    prepared = centre_rows(rows)
    mixture = from_labels(prepared, labels, Candidate(5, kind), 1e-6)
    whole = e_step(prepared.tiles, prepared.weight, mixture)
    parts = [e_step(prepared.tiles[t : t + 1], prepared.weight[t : t + 1], mixture) for t in range(4)]
    np.testing.assert_allclose(sum(part.sums for part in parts), whole.sums, rtol=1e-12, atol=1e-9)
    after = m_step(whole, prepared.of_rows, mixture, 1e-6)
    assert after.weights.sum() == pytest.approx(1.0, rel=1e-12)


def test_labels_of_many_rows_are_those_of_each_part() -> None:
    rows, labels = blobs(20_000, 3, 5, seed=10)
    mixture = both_ours(rows[:3000], labels[:3000], "full", max_iter=3)
    points = rows.astype(np.float32)
    points[17] = np.nan
    whole = assign_rows(points, mixture, top=2)
    for part in (slice(0, 1), slice(8000, 8300), slice(19_000, 20_000)):
        some = assign_rows(points[part], mixture, top=2)
        for name in ("label", "probability", "top_label", "top_probability", "log_density"):
            assert getattr(whole, name)[part].tobytes() == getattr(some, name).tobytes()
    assert whole.label[17] == -1
    assert len(assign_rows(points[:0], mixture, top=2).label) == 0


# --- starts -----------------------------------------------------------------------------------------------------


def groups_of_many_sizes(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Twenty groups whose extents differ by a factor of up to 30: 6,000 rows in five dimensions."""
    random = np.random.default_rng(seed)
    means, extent = random.uniform(-12.0, 12.0, size=(20, 5)), np.geomspace(0.1, 3.0, 20)
    truth = random.integers(20, size=6_000)
    return (means[truth] + extent[truth, None] * random.normal(size=(6_000, 5))).astype(np.float32), truth


@pytest.mark.parametrize("seed", range(4))
def test_the_start_finds_groups_that_k_means_cuts_and_joins(seed: int) -> None:
    rows, truth = groups_of_many_sizes(seed)
    theirs = KMeans(20, n_init=5, random_state=seed).fit_predict(rows)
    ours = Starts(rows, 5, seed).labels(20)
    assert adjusted_rand_score(truth, ours) > 0.98 >= adjusted_rand_score(truth, theirs)


def test_one_cloud_is_no_reason_to_leave_k_means() -> None:
    rows = np.random.default_rng(0).normal(size=(6_000, 5)).astype(np.float32)
    theirs = KMeans(8, n_init=3, random_state=1).fit(rows.astype(np.float64)).labels_
    np.testing.assert_array_equal(Starts(rows, 3, 1).labels(8), theirs)


def test_the_start_of_one_k_does_not_depend_on_others() -> None:
    rows, _ = groups_of_many_sizes(0)
    starts = Starts(rows, n_init=1, seed=3)
    for k in (200, 1, 20, 5):
        np.testing.assert_array_equal(starts.labels(k), Starts(rows, 1, 3).labels(k))


@pytest.mark.parametrize(("n", "d", "k"), [(60, 3, 40), (2_000, 40, 10), (500, 2, 1), (500, 2, 500)])
def test_where_small_clusters_make_no_sense_k_means_starts(n: int, d: int, k: int) -> None:
    rows = np.random.default_rng(0).normal(size=(n, d)).astype(np.float32)
    theirs = KMeans(k, n_init=2, random_state=1).fit(rows.astype(np.float64)).labels_
    np.testing.assert_array_equal(Starts(rows, 2, 1).labels(k), theirs)


def test_rows_in_one_place_or_on_a_line_have_a_start() -> None:
    line = np.linspace(0.0, 1.0, 900, dtype=np.float32)[:, None] * np.ones((1, 3), np.float32)
    assert len(np.unique(Starts(line, 1, 0).labels(7))) == 7
    assert len(np.unique(Starts(np.repeat(line[:4], 300, axis=0), 1, 0).labels(7))) == 4
