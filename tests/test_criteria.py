"""The selection table: sums over rows and silhouettes against the slow obvious way."""

import numpy as np
import pytest
from sklearn.metrics import silhouette_samples, silhouette_score
from test_mixture import blobs, both_ours

from distcluster.numerics.mixture.assignment import responsibilities
from distcluster.numerics.mixture.candidate import COVARIANCE_TYPES, Candidate, CovarianceType
from distcluster.numerics.mixture.parameters import natural_parameters, to_sklearn
from distcluster.numerics.mixture.scores import score_rows
from distcluster.numerics.mixture.silhouettes import silhouette_rows, stratified_silhouette
from distcluster.stages.fitting import fitted_mixture
from distcluster.storage.run import Run

kinds = pytest.mark.parametrize("kind", COVARIANCE_TYPES)


@kinds
def test_silhouettes_of_all_rows_are_scikit_learns_in_squared_distance(kind: CovarianceType) -> None:
    rows, labels = blobs(2500, 4, 6, seed=1)
    rows = rows + 50.0
    mixture = both_ours(rows, labels, kind, max_iter=5)
    centre = rows.mean(axis=0)
    natural = [natural_parameters(mixture, centre)]
    _, clusters = score_rows(rows, np.ones(len(rows), bool), centre, natural)
    label = responsibilities(rows, mixture)[0].argmax(axis=1)
    assert (clusters[:, 0] == np.bincount(label, minlength=6)).all()
    for k in range(6):
        np.testing.assert_allclose(clusters[k, 1:5] / clusters[k, 0] + centre, rows[label == k].mean(axis=0))
    (total,) = silhouette_rows(rows, centre, natural, clusters)
    assert total == pytest.approx(silhouette_samples(rows, label, metric="sqeuclidean").sum(), rel=1e-9)


def test_a_cluster_of_one_row_or_none_has_no_silhouette() -> None:
    rows, labels = blobs(1500, 3, 3, seed=2)
    rows = np.vstack([rows, [[90.0, 0.0, 0.0]]])
    mixture = both_ours(rows, np.append(labels, 3).astype(np.int32), "diag", max_iter=3)
    centre = rows.mean(axis=0)
    natural = [natural_parameters(mixture, centre)]
    _, clusters = score_rows(rows, np.ones(len(rows), bool), centre, natural)
    assert clusters[3, 0] == 1
    label = responsibilities(rows, mixture)[0].argmax(axis=1)
    (total,) = silhouette_rows(rows, centre, natural, clusters)
    assert total == pytest.approx(silhouette_samples(rows, label, metric="sqeuclidean").sum(), rel=1e-9)


def test_the_stratified_silhouette_is_the_exact_one_where_all_rows_are_chosen() -> None:
    rows, labels = blobs(600, 4, 3, seed=3)
    found, error = stratified_silhouette(rows.astype(np.float32), labels)
    assert found == pytest.approx(silhouette_score(rows.astype(np.float32).astype(np.float64), labels), rel=1e-9)
    assert error == 0.0


def test_the_stratified_silhouette_lies_within_its_standard_errors() -> None:
    sigmas = []
    for seed in range(12):
        rows, start = blobs(6000, 3, 5, seed)
        label = responsibilities(rows, both_ours(rows, start, "full", max_iter=3))[0].argmax(axis=1).astype(np.int32)
        found, error = stratified_silhouette(rows.astype(np.float32), label)
        assert found is not None
        assert error is not None
        sigmas.append((found - silhouette_score(rows, label)) / error)
    assert np.sqrt(np.mean(np.square(sigmas))) < 2.0


def test_one_cluster_has_no_silhouette() -> None:
    assert stratified_silhouette(np.zeros((10, 2), np.float32), np.zeros(10, np.int32)) == (None, None)


def test_the_tables_figures_of_all_rows_are_scikit_learns(reference: Run) -> None:
    rows = reference.array("projection")[:].astype(np.float64)
    ks = reference.array("selection/n_components")[:]
    kinds = reference.array("selection/covariance_type")[:]
    first = np.concatenate([[0], np.cumsum(ks)])
    for place in np.flatnonzero((ks == 8) | (ks == 3)):
        mixture = fitted_mixture(reference, Candidate(int(ks[place]), kinds[place]))
        model = to_sklearn(mixture)
        assert reference.array("selection/bic_all")[place] == pytest.approx(model.bic(rows), rel=1e-9)
        label = model.predict(rows)
        n = reference.array("selection/component/rows")[first[place] : first[place + 1]]
        assert (n == np.bincount(label, minlength=ks[place])).all()
        exact = silhouette_score(rows, label, metric="sqeuclidean")
        assert reference.array("selection/silhouette")[place] == pytest.approx(exact, rel=1e-6)
