"""The grid that grows, and the elbow, on curves whose answer is known."""

from collections.abc import Callable

import numpy as np
import pytest

from distcluster.numerics.mixture.candidate_grid import largest_k, missing_ks
from distcluster.numerics.mixture.criteria import Criteria
from distcluster.numerics.mixture.elbow import find_elbow
from distcluster.numerics.mixture.selection import select

GRID = (1, 2, 3, 4, 6, 8, 11, 16, 23, 32, 45, 64, 91, 128)


def table(cost: Callable[[float], float], ks: tuple[int, ...] = GRID) -> list[Criteria]:
    """A table of one covariance type with a cost in nats per row, for 1,000 rows."""
    nan = float("nan")
    return [Criteria(k, "full", nan, 2000.0 * cost(k), nan, nan, 10, True) for k in ks]


def knee(at: float) -> Callable[[float], float]:
    """Falls by a nat a doubling up to the knee, and by a tenth of one beyond."""
    return lambda k: -min(np.log2(k), np.log2(at)) - 0.1 * max(np.log2(k / at), 0.0)


def test_a_grid_whose_elbow_lies_in_its_last_doubling_is_extended_by_one() -> None:
    added = missing_ks(table(knee(100)), 1000, 512, has_between=False)
    assert (added.ks, added.why) == ((181, 256), "extended")
    longer = table(knee(100), (*GRID, *added.ks))
    assert missing_ks(longer, 1000, 512, has_between=False).why == "between"


def test_a_grid_never_ends_beyond_its_limit() -> None:
    assert missing_ks(table(knee(100)), 1000, 150, has_between=False).ks == (150,)
    assert missing_ks(table(knee(100), (*GRID, 150)), 1000, 150, has_between=False).why != "extended"
    assert largest_k(50_000, 100_000) == 512
    assert largest_k(10_000, 100_000) == 200
    assert largest_k(50_000, 1_000) == 50


@pytest.mark.parametrize(("at", "between"), [(11, (9, 10, 12, 13, 14, 15)), (3, ())])
def test_ks_between_the_neighbours_of_an_accepted_elbow_are_added_once(at: int, between: tuple[int, ...]) -> None:
    added = missing_ks(table(knee(at)), 1000, 512, has_between=False)
    assert added.ks == between
    again = table(knee(at), tuple(sorted({*GRID, *added.ks})))
    assert missing_ks(again, 1000, 512, has_between=True).why == "complete"


def test_at_most_eight_ks_are_added_between_neighbours_far_apart() -> None:
    added = missing_ks(table(knee(45)), 1000, 512, has_between=False)
    assert 4 <= len(added.ks) <= 8
    assert all(32 < k < 64 for k in added.ks)


def test_a_curve_without_an_elbow_adds_nothing_between() -> None:
    assert missing_ks(table(lambda k: -np.log2(k)), 1000, 128, has_between=False).ks == ()


@pytest.mark.parametrize("at", [12, 13, 14])
def test_the_elbow_taken_again_is_nearer_to_the_truth(at: int) -> None:
    first = table(knee(at))
    ks = missing_ks(first, 1000, 512, has_between=False).ks
    verdict = select(table(knee(at), tuple(sorted({*GRID, *ks}))), "elbow", 1000)
    assert (verdict.finding, verdict.candidate.n_components) == ("elbow", at)


def test_a_k_that_is_a_hair_deeper_does_not_hide_the_elbow_beside_it() -> None:
    ks, cost = np.log2([1.0, 16.0, 32.0, 128.0]), [0.0, -4.0, -4.1, 0.0]
    rows = table(lambda k: float(np.interp(np.log2(k), ks, cost)))
    assert min(rows, key=lambda row: row.bic).n_components == 32  # after a doubling that gained a tenth of a nat
    verdict = select(rows, "elbow", 1000)
    assert (verdict.finding, verdict.candidate.n_components) == ("elbow", 23)


def test_rounding_does_not_say_where_a_curve_that_lies_above_its_chord_ends() -> None:
    ks, cost = [1, 2, 4, 8, 16, 32, 64], [9.0, 8.9, 8.6, 8.0, 7.0, 5.0, 4.9]
    for change in (-1e-12, 0.0, 1e-12):
        elbow = find_elbow(ks, [cost[0] + change, *cost[1:]])
        assert (elbow.n_components, elbow.shorter) == (32, 32)


@pytest.mark.parametrize(
    ("cost", "finding", "k"), [(knee(8), "no elbow", 8), (lambda k: -0.01 * k, "no cluster structure", 1)]
)
def test_a_single_k_is_taken_though_it_has_no_elbow_unless_it_shows_no_structure(
    cost: Callable[[float], float], finding: str, k: int
) -> None:
    verdict = select(table(cost, (1, 8)), "elbow", 1000)
    assert (verdict.finding, verdict.candidate.n_components) == (finding, k)
    assert ("a single number of components has no curve" in verdict.reason) == (k == 8)
    assert select(table(cost, (8,)), "elbow", 1000).candidate.n_components == 8
