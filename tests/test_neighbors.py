"""The index finds the true neighbours, also in odd data, and a row's answer is its own."""

from dataclasses import replace

import numpy as np
import pytest
from conftest import planted_rows

from distcluster.numerics.neighbors import NeighbourIndex, build_index, nearest, open_index
from distcluster.numerics.prepared_rows import prepare
from distcluster.numerics.support import local_scale, support_limit


def heavy_tails(rows: np.ndarray) -> np.ndarray:
    """A few values a hundred thousand times as large: 8-bit codes over their range tell nothing apart."""
    rows = rows.copy()
    rows[::500, 0] *= 1e5
    return rows


def tight_clusters(n_rows: int, n_features: int) -> np.ndarray:
    """Many rows within 1e-3 of few centres that lie a hundred apart: graph searches get stuck."""
    random = np.random.default_rng(3)
    centres = random.normal(scale=100.0, size=(40, n_features))
    return (centres[random.integers(40, size=n_rows)] + random.normal(scale=1e-3, size=(n_rows, n_features))).astype(
        "f4"
    )


ODD = {
    "plain": lambda: planted_rows(5000, 20, n_features=48)[0],
    "few": lambda: planted_rows(1600, 5)[0],
    "heavy tails": lambda: heavy_tails(planted_rows(5000, 20, n_features=48)[0]),
    "tight clusters": lambda: tight_clusters(5000, 24),
    "few directions": lambda: planted_rows(5000, 20, n_features=40)[0] @ np.eye(40, 300, dtype=np.float32),
    "wide": lambda: np.random.default_rng(0).standard_normal((2700, 3072), np.float32),
}  # fmt: skip
KINDS = {"plain": "8-bit graph", "few directions": "8-bit graph", "few": "exact", "heavy tails": "32-bit graph"}


def indexed(what: str, metric: str = "euclidean", k: int = 15) -> tuple[NeighbourIndex, np.ndarray]:
    """An index over the first rows of odd data, and 400 others as queries; 300 more were probes."""
    sample, probes, queries = np.split(prepare(ODD[what](), metric), [-700, -400])
    data, facts = build_index(sample, probes, k, metric)
    return open_index(data, facts, sample), queries


def true_neighbours(sample: np.ndarray, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """By float64 differences, the slow obvious way."""
    square = np.stack([np.square(sample.astype(np.float64) - row).sum(axis=1) for row in queries.astype(np.float64)])
    order = np.argsort(square, axis=1, kind="stable")[:, :k]
    return order, np.take_along_axis(square, order, axis=1)


@pytest.mark.parametrize("what", ODD)
def test_at_least_95_percent_of_the_nearest_rows_are_found(what: str) -> None:
    index, queries = indexed(what)
    found, _ = nearest(index, queries, 15, "euclidean")
    truth, _ = true_neighbours(index.sample, queries, 15)
    assert (found[:, :, None] == truth[:, None, :]).sum() / truth.size >= 0.95, index.facts
    assert index.components.shape[1] == (64 if what == "few directions" else 0)
    if what in KINDS:
        assert index.facts.kind == KINDS[what]


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_distances_are_exact_and_ascending(metric: str) -> None:
    index, queries = indexed("plain", metric)
    found, distance = nearest(index, queries, 15, metric)
    square = np.square(index.sample[found].astype(np.float64) - queries[:, None, :]).sum(axis=2)
    assert distance == pytest.approx(square / 2 if metric == "cosine" else np.sqrt(square), rel=1e-5)
    assert (np.diff(distance, axis=1) >= 0).all()


@pytest.mark.parametrize("what", KINDS)
def test_the_neighbours_of_a_row_do_not_depend_on_its_batch(what: str) -> None:
    index, queries = indexed(what)
    whole = nearest(index, queries, 15, "euclidean")
    order = np.random.default_rng(1).permutation(len(queries))
    permuted = nearest(index, np.ascontiguousarray(queries[order]), 15, "euclidean")
    alone = [nearest(index, queries[i : i + 1], 15, "euclidean") for i in range(0, len(queries), 7)]
    for part in (0, 1):
        assert permuted[part].tobytes() == whole[part][order].tobytes()
        assert b"".join(each[part].tobytes() for each in alone) == whole[part][::7].tobytes()


def test_a_row_is_not_its_own_neighbour() -> None:
    index, _ = indexed("plain")
    found, distance = nearest(index, index.sample[:500], 15, "euclidean")
    assert (found != np.arange(500)[:, None]).all()
    assert (distance > 0).all()


def test_one_in_a_thousand_sample_rows_lies_beyond_the_limit_of_support() -> None:
    index, _ = indexed("plain")
    found, distance = nearest(index, index.sample, 15, "euclidean")
    scale = local_scale(distance)
    limit = support_limit(found, distance, scale)
    assert (distance[:, 0] / scale[found[:, 0]] > limit).sum() == len(index.sample) // 1000


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_an_exact_search_is_exact_among_many_that_are_as_far(metric: str) -> None:
    """Rows on a lattice, whose squared distances are whole numbers: ties go to the lower row."""
    random = np.random.default_rng(5)
    sample = np.unique(random.integers(0, 4, size=(6000, 8)).astype(np.float32), axis=0)
    sample = sample[random.permutation(len(sample))]
    rows = np.concatenate([sample[:20], random.integers(0, 4, size=(300, 8)).astype(np.float32)])
    few = sample[:50]  # compared one by one
    index = replace(open_index(*build_index(few, rows, 3, metric), few), sample=sample)
    found, distance = nearest(index, rows, 15, metric)
    square = np.square(rows[:, None].astype(np.float64) - sample).sum(axis=2)
    square[square == 0] = np.inf
    truth = np.argsort(square, axis=1, kind="stable")[:, :15]
    assert (found == truth).all()
    far = np.take_along_axis(square, truth, axis=1)
    assert (distance == (far / 2 if metric == "cosine" else np.sqrt(far)).astype(np.float32)).all()
