"""The chosen mixture continues over all rows: what it becomes, from which bytes, and after a kill."""

from collections.abc import Callable

import numpy as np
import pytest
from conftest import BLOCK_ROWS, Command, unequal
from sklearn.mixture import GaussianMixture

from distcluster.numerics.mixture.parameters import to_sklearn
from distcluster.numerics.partition import Partitioning, groups
from distcluster.stages.choosing import SELECT_CANDIDATE
from distcluster.stages.fitting import fitted_mixture
from distcluster.stages.refining import PUBLISH_MIXTURE, chosen_mixture
from distcluster.storage.run import Run


def test_the_refined_mixture_is_what_scikit_learn_makes_of_all_rows(reference: Run) -> None:
    facts, steps = SELECT_CANDIDATE.facts_of(reference), PUBLISH_MIXTURE.facts_of(reference)
    start = to_sklearn(fitted_mixture(reference, facts.candidate))
    rows = reference.array("projection")[:].astype(np.float64)
    theirs = GaussianMixture(
        facts.n_components, covariance_type=facts.covariance_type, weights_init=start.weights_,
        means_init=start.means_, precisions_init=start.precisions_,
    ).fit(rows)  # fmt: skip
    ours = chosen_mixture(reference)
    assert (steps.n_iter, steps.converged) == (theirs.n_iter_, True)
    assert steps.mean_log_likelihoods[-1] == pytest.approx(theirs.lower_bound_, rel=1e-9)
    np.testing.assert_allclose(ours.means, theirs.means_, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(ours.covariances, theirs.covariances_, rtol=1e-6, atol=1e-6)


def test_without_refinement_the_candidate_labels_the_rows(new_command: Callable[..., Command]) -> None:
    run = new_command(selection__refine=False).run_to_the_end()
    fitted = fitted_mixture(run, SELECT_CANDIDATE.facts_of(run).candidate)
    assert chosen_mixture(run).means.tobytes() == fitted.means.tobytes()
    assert PUBLISH_MIXTURE.facts_of(run).n_iter == 0


def test_the_likelihood_of_all_rows_never_falls(refined: Run) -> None:
    history = PUBLISH_MIXTURE.facts_of(refined).mean_log_likelihoods
    assert np.diff(history).min() > -1e-12


def test_refined_bytes_do_not_depend_on_partitions_or_workers(
    refined: Run, long_refinement: Callable[..., Command]
) -> None:
    run = long_refinement(BLOCK_ROWS, deploy__n_workers=1).run_to_the_end()
    assert unequal(refined, run) == []


@pytest.mark.parametrize("n_partitions", [1, 31, 64, 100, 1000, 10_000])
def test_groups_are_aligned_powers_of_two_that_cover_every_partition_once(n_partitions: int) -> None:
    found = groups(Partitioning(n_partitions * 16_384 - 5, 16_384, 16_384))
    assert [index for group in found for index in group] == list(range(n_partitions))
    size = len(found[0])
    assert size & (size - 1) == 0
    assert all(group.start % size == 0 for group in found)
    assert size * 16_384 <= 2**17 or len(found) >= 512  # no longer than that, unless all workers have work
    assert size * 16_384 <= 2**22
