"""Drift: rows like the model's own raise no alarm, planted changes do, and say which."""

from collections.abc import Callable

import numpy as np
import pytest
from conftest import planted_rows

from distcluster import load_model
from distcluster.model import Model
from distcluster.numerics.drift import Drift, Recall, Rows, compare, population_stability
from distcluster.numerics.neighbors import build_index, count_found, open_index
from distcluster.storage import layout
from distcluster.storage.run import Run

N = 3000


@pytest.fixture(scope="module")
def model(reference: Run) -> Model:
    return load_model(reference.url)


@pytest.fixture(scope="module")
def drift(model: Model, reference: Run) -> Callable[[np.ndarray], Drift]:
    """Hold rows against those of the reference run."""
    before = Rows(
        reference.read(layout.CLUSTER_SIZE), *(reference.read(array) for array in layout.HELD_OUT.values())
    )  # fmt: skip

    def of(rows: np.ndarray) -> Drift:
        found = model.assign(rows)
        size = np.bincount(found.label, minlength=model.n_clusters)
        return compare(before, Rows(size, found.label, found.log_density, found.support), model.support_limit)

    return of


@pytest.fixture(scope="module")
def more_rows() -> tuple[np.ndarray, np.ndarray]:
    """Other rows of the balls that the run was made from."""
    return planted_rows(60_000, 8)


def test_rows_like_the_models_own_raise_no_alarm(
    drift: Callable[[np.ndarray], Drift], more_rows: tuple[np.ndarray, np.ndarray]
) -> None:
    parts = np.split(more_rows[0], np.cumsum([100] * 100 + [2000] * 20))[:-1]
    alarms = [reason for part in parts for reason in drift(part).reasons]
    assert len(alarms) <= 1, alarms


def test_false_alarms_are_rarer_than_one_in_a_hundred() -> None:
    random = np.random.default_rng(0)
    shares = random.dirichlet(np.ones(20))

    def draw(n: int) -> Rows:
        some = min(n, 5000)
        label = random.choice(20, some, p=shares).astype(np.int32)
        density = (-label - random.chisquare(4, some) / 2).astype(np.float32)
        support = random.lognormal(-1, 0.5, some).astype(np.float32)
        return Rows(random.multinomial(n, shares), label, density, support)

    for beyond in (3.09, 2.05):  # standard deviations: one in a thousand, one in fifty
        limit = float(np.exp(-1 + 0.5 * beyond))
        alarms = [
            compare(draw(before), draw(n), limit).verdict != "as before"
            for before in (1000, 50_000)
            for n in (100, 1000, 30_000) * 50
        ]
        assert np.mean(alarms) <= 0.01


def a_new_cluster(rows: np.ndarray, _: np.ndarray) -> np.ndarray:
    return np.concatenate([rows, planted_rows(N // 9, 1, seed=5)[0]])


def a_vanished_cluster(rows: np.ndarray, truth: np.ndarray) -> np.ndarray:
    return rows[truth != 3]


def a_shifted_mean(rows: np.ndarray, _: np.ndarray) -> np.ndarray:
    return rows + np.float32(1.5)


def a_shifted_cluster(rows: np.ndarray, truth: np.ndarray) -> np.ndarray:
    return rows + np.float32(1.5) * (truth == 3)[:, None].astype(np.float32)


def another_scale(rows: np.ndarray, _: np.ndarray) -> np.ndarray:
    return rows * np.float32(1.5)


@pytest.mark.parametrize(
    ("change", "verdict", "reason"),
    [
        (a_new_cluster, "refit", "have no support in the model's sample"),
        (a_vanished_cluster, "refit", "has 0.00% of the rows"),
        (a_shifted_mean, "refit", "supports differ"),
        (a_shifted_cluster, "refit", "have no support in the model's sample"),
        (another_scale, "refit", "supports differ"),
    ],
)
def test_planted_drift_is_found_and_named(
    change: Callable[[np.ndarray, np.ndarray], np.ndarray],
    verdict: str,
    reason: str,
    drift: Callable[[np.ndarray], Drift],
    more_rows: tuple[np.ndarray, np.ndarray],
) -> None:
    rows, truth = more_rows
    found = drift(change(rows[-N:], truth[-N:]))
    assert found.verdict == verdict, found
    assert any(reason in each for each in found.reasons), found.reasons


def test_small_changes_are_to_be_watched() -> None:
    random = np.random.default_rng(0)

    def rows(shift: float, shares: list[float]) -> Rows:
        label = random.choice(4, 5000, p=shares).astype(np.int32)
        density = random.normal(shift, 1, 5000).astype(np.float32)
        return Rows(random.multinomial(100_000, shares), label, density, np.full(5000, 0.5, np.float32))

    even = [0.25] * 4
    assert compare(rows(0, even), rows(0.4, even), 1.0).verdict == "watch"
    assert compare(rows(0, even), rows(0, [0.4, 0.25, 0.175, 0.175]), 1.0).verdict == "watch"
    assert compare(rows(0, even), rows(0, [0.55, 0.25, 0.1, 0.1]), 1.0).verdict == "refit"
    assert population_stability(np.array([10, 20]), np.array([1000, 2000])) < 0.001


def test_a_search_that_finds_fewer_neighbours_is_told() -> None:
    random = np.random.default_rng(0)
    values = random.normal(size=(2, 1000)).astype(np.float32)
    rows = Rows(np.array([500, 500]), random.integers(2, size=1000).astype(np.int32), *values)
    before = Recall(0.96, 0.0025)
    for share, verdict in ((0.955, "as before"), (0.93, "watch"), (0.8, "refit")):
        found = compare(rows, rows, 9.0, (before, Recall(share, 0.006)))
        assert found.verdict == verdict
        assert [each for each in found.reasons if "the search finds" not in each] == []
    assert compare(rows, rows, 9.0, (before, Recall(0.9, 0.03))).verdict == "as before", "that may be chance"


def test_what_the_search_finds_is_counted_beside_all_sample_rows() -> None:
    random = np.random.default_rng(0)
    sample, rows = (random.normal(size=(n, 24)).astype(np.float32) for n in (6000, 300))
    index = open_index(*build_index(sample, rows, 10, "euclidean"), sample)
    assert index.graph is not None
    count = count_found(index, rows, 10, "euclidean")
    assert count.shape == (300,)
    assert count.max() <= 10
    assert count.mean() / 10 == pytest.approx(index.facts.recall), "these rows were the index's probes"


def test_the_held_out_rows_are_in_neither_subsample(reference: Run) -> None:
    label = reference.read(layout.HELD_OUT["label"])
    fitted = len(reference.read(layout.SAMPLE_ROW)) + len(reference.read(layout.MIXTURE_ROW))
    assert len(label) == reference.partitioning.n_rows - fitted
    held_out = np.ones(reference.partitioning.n_rows, bool)
    held_out[reference.read(layout.SAMPLE_ROW)] = held_out[reference.read(layout.MIXTURE_ROW)] = False
    for name, array in layout.HELD_OUT.items():
        assert (reference.read(array) == reference.array(name)[:][held_out]).all()
