"""Planted truth, structureless data, and scikit-learn as the oracle: what the verdict and the labels are worth."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import FEW, SMALL, Command, planted_rows, write_input
from sklearn.metrics import adjusted_rand_score

from distcluster.numerics.mixture.assignment import assign_rows
from distcluster.numerics.mixture.candidate import COVARIANCE_TYPES
from distcluster.numerics.mixture.candidate_fit import fit_candidate
from distcluster.numerics.mixture.candidate_grid import grid
from distcluster.numerics.mixture.criteria import Criteria, information_criteria
from distcluster.numerics.mixture.parameters import natural_parameters, to_sklearn
from distcluster.numerics.mixture.scores import score_rows
from distcluster.numerics.mixture.selection import select
from distcluster.numerics.mixture.start import Starts
from distcluster.numerics.sampling import sampling_priority
from distcluster.stages.choosing import SELECT_CANDIDATE
from distcluster.stages.fitting import fitted_mixture
from distcluster.stages.labelling import MEASURE_PROJECTION
from distcluster.stages.refining import chosen_mixture
from distcluster.stages.searching import BUILD_INDEX
from distcluster.storage import layout
from distcluster.storage.run import Run


def test_the_planted_clusters_are_found(reference: Run, planted: tuple[Path, np.ndarray]) -> None:
    facts = SELECT_CANDIDATE.facts_of(reference)
    assert facts.n_components == 8
    assert facts.finding == "elbow"
    assert adjusted_rand_score(planted[1], reference.array("label")[:]) > 0.95


def test_labels_equal_scikit_learns_on_the_stored_projection(reference: Run) -> None:
    model = to_sklearn(chosen_mixture(reference))
    projection = reference.array("projection")[:].astype(np.float64)
    assert (model.predict(projection) == reference.array("label")[:]).all()
    probability = model.predict_proba(projection)
    np.testing.assert_allclose(probability.max(axis=1), reference.array("probability")[:], atol=1e-6)
    np.testing.assert_allclose(model.score_samples(projection), reference.array("log_density")[:], rtol=1e-4, atol=1e-4)


def test_the_selection_table_is_what_scikit_learn_says_of_the_held_out_rows(reference: Run) -> None:
    held_out = np.ones(reference.partitioning.n_rows, bool)
    held_out[reference.array("sample/row")[:]] = False
    held_out[reference.array("sample/mixture_row")[:]] = False
    rows = reference.array("projection")[:][held_out].astype(np.float64)
    facts = SELECT_CANDIDATE.facts_of(reference)
    model = to_sklearn(fitted_mixture(reference, facts.candidate))
    ks = reference.array("selection/n_components")[:]
    kinds = reference.array("selection/covariance_type")[:]
    chosen = np.flatnonzero((ks == facts.n_components) & (kinds == facts.covariance_type))[0]
    assert reference.array("selection/bic")[chosen] == pytest.approx(model.bic(rows), rel=1e-9)
    probability = model.predict_proba(rows)
    entropy = -np.sum(probability * np.log(np.maximum(probability, 1e-300)))
    icl = reference.array("selection/icl")[chosen]
    assert icl == pytest.approx(model.bic(rows) + 2 * entropy, rel=1e-9)


def test_sample_rows_are_about_as_dense_as_others(reference: Run) -> None:
    """Unlike UMAP's own coordinates of them, which are half a nat denser."""
    density = reference.array("log_density")[:]
    sampled = density[reference.array("sample/row")[:]].mean()
    subsampled = np.concatenate([reference.array(f"sample/{name}")[:] for name in ("row", "mixture_row")])
    others = np.delete(density, subsampled).mean()
    anchors = reference.read(layout.ANCHORS)
    fitted = assign_rows(anchors, chosen_mixture(reference), top=1).log_density.mean()
    assert abs(sampled - others) < 0.3 * abs(fitted - others)
    facts = MEASURE_PROJECTION.facts_of(reference)
    assert facts.sample_log_density == pytest.approx(sampled, abs=1e-3)
    assert 0.5 < facts.trustworthiness <= 1.0


def test_cluster_summaries_are_those_of_the_labels(reference: Run) -> None:
    label, probability = reference.array("label")[:], reference.array("probability")[:]
    size = reference.array("cluster/size")[:]
    assert (np.bincount(label, minlength=len(size)) == size).all()
    for k in np.flatnonzero(size):
        assert reference.array("cluster/mean_probability")[k] == pytest.approx(probability[label == k].mean(), rel=1e-5)
    assert (label[reference.array("cluster/exemplar")[:, :3]] == np.arange(len(size))[:, None]).all()


def test_a_rare_cluster_that_the_sample_misses_is_warned_of(
    new_command: Callable[..., Command], tmp_path: Path
) -> None:
    rows, _ = planted_rows(8000, 4)
    everything = np.arange(len(rows))
    sampled = np.argsort(sampling_priority(0, len(rows), everything), kind="stable")[: SMALL["sample.rows"]]
    rare = np.setdiff1d(everything, sampled)[:60]
    rows[rare] = planted_rows(60, 1, seed=1)[0] + 40.0
    command = new_command(write_input(tmp_path / "rare", rows), **FEW)
    done = command.run()
    said = " ".join(done.stdout.split())  # lines end after 110 columns
    assert "Warning: 6" in said, said + done.stderr
    assert "rows lie beyond the UMAP subsample's support" in said
    assert "Raise sample.rows, now 1,500" in said
    run = Run(str(command.output))
    assert set(run.array("sample/row")[:]) == set(sampled)
    limit = BUILD_INDEX.facts_of(run).support_limit
    assert (run.array("support")[:][rare] > limit).all()


@pytest.mark.parametrize("what", ["noise", "one Gaussian"])
def test_structureless_data_is_flagged(what: str, new_command: Callable[..., Command], tmp_path: Path) -> None:
    random = np.random.default_rng(5)
    shape = (6000, 16)
    rows = random.uniform(-1, 1, shape) if what == "noise" else random.normal(size=shape) @ random.normal(size=(16, 16))
    source = write_input(tmp_path / "input", rows.astype(np.float32))
    run = new_command(source, mixture__n_components="auto").run_to_the_end()
    facts = SELECT_CANDIDATE.facts_of(run)
    assert facts.finding in ("no elbow", "no cluster structure"), facts.reason


def draw_mixture(kind: str, k: int, n_rows: int, seed: int) -> np.ndarray:
    """Rows of k well separated Gaussians of one covariance type, in three dimensions."""
    random = np.random.default_rng(seed)
    means = random.uniform(-1, 1, (k, 3)) * 9 * k ** (1 / 3)
    stretch = np.diag([2.0, 1.0, 0.5])

    def rotated() -> np.ndarray:
        return np.linalg.qr(random.normal(size=(3, 3)))[0] @ stretch

    tied = rotated()
    factors = {
        "spherical": [np.eye(3) * random.uniform(0.5, 1.5) for _ in range(k)],
        "diag": [np.diag(random.permutation([2.0, 1.0, 0.5])) for _ in range(k)],
        "tied": [tied] * k,
        "full": [rotated() for _ in range(k)],
    }[kind]
    truth = random.integers(k, size=n_rows)
    noise = random.normal(size=(n_rows, 3))
    return (means[truth] + np.einsum("nij,nj->ni", np.stack(factors)[truth], noise)).astype(np.float32)


@pytest.mark.parametrize("kind", ["spherical", "diag", "tied", "full"])
def test_k_and_covariance_type_of_a_planted_mixture_are_chosen(kind: str) -> None:
    rows = draw_mixture(kind, 11, 8000, seed=1)
    fitted, held_out = rows[:4000], rows[4000:]
    ks = (2, 3, 4, 6, 8, 11, 16, 23, 32)
    starts = {k: Starts(fitted, 3, 0).labels(k) for k in (1, *ks)}
    criteria = []
    for candidate in grid(ks, COVARIANCE_TYPES, len(fitted)):
        fit = fit_candidate(fitted, starts[candidate.n_components], candidate, tol=1e-3, reg_covar=1e-6, max_iter=100)
        assert fit.mixture is not None, fit.error
        centre = fitted.mean(axis=0, dtype=np.float64)
        everything = np.ones(len(held_out), bool)
        natural = natural_parameters(fit.mixture, centre)
        ((likelihood, entropy, *_),), _ = score_rows(held_out, everything, centre, [natural])
        bic, icl = information_criteria(likelihood, entropy, fit.mixture.n_parameters, len(held_out))
        criteria.append(
            Criteria(candidate.n_components, candidate.covariance_type, likelihood, bic, icl, 0.0, fit.n_iter, True)
        )
        assert bic == pytest.approx(to_sklearn(fit.mixture).bic(held_out.astype(np.float64)), rel=1e-9)
        assert icl >= bic
    verdict = select(criteria, "elbow", len(held_out))
    assert (verdict.finding, str(verdict.candidate)) == ("elbow", f"{kind}-11"), verdict.reason


def test_a_candidate_that_cannot_be_fitted_is_a_row_of_the_table(
    new_command: Callable[..., Command], tmp_path: Path
) -> None:
    source = write_input(tmp_path / "input", planted_rows(4000, 4)[0])
    settings: dict[str, Any] = {"sample__mixture_rows": 40, "mixture__n_components": [2, 4, 39, 500]}
    run = new_command(source, **settings).run_to_the_end()
    errors = dict(zip(run.array("selection/n_components")[:], run.array("selection/error")[:], strict=True))
    assert "too few distinct rows: k-means filled only 40 of 500 components" in errors[500]
    assert errors[2] == ""
    assert np.isnan(run.array("selection/bic")[run.array("selection/n_components")[:] == 500]).all()
