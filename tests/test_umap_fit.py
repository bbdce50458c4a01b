"""UMAP's fit: umap-learn's objective, met as well as it meets it, and the same bits on any number of threads."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import planted_rows
from scipy.linalg import subspace_angles
from scipy.sparse import block_diag, csr_matrix, diags_array
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import eigsh
from sklearn.manifold import trustworthiness
from umap import UMAP
from umap.umap_ import find_ab_params, fuzzy_simplicial_set

from distcluster.numerics.epochs import lay_out
from distcluster.numerics.fuzzy_graph import breadth_first, fuzzy_graph
from distcluster.numerics.neighbors import build_index, nearest, open_index
from distcluster.numerics.row_tasks import row_tasks
from distcluster.numerics.sampling import sampling_priority
from distcluster.numerics.spectral_start import leading_vectors, spectral_start
from distcluster.numerics.umap_fit import Optimizer, curve_parameters, fit_anchors

Problem = tuple[np.ndarray, np.ndarray, np.ndarray]


def searched(sample: np.ndarray, k: int) -> Problem:
    """A sample, and the neighbours of its rows."""
    data, facts = build_index(sample, sample, k, "euclidean")
    return sample, *nearest(open_index(data, facts, sample), sample, k, "euclidean")


@pytest.fixture(scope="module")
def manifold() -> Problem:
    """A bent sheet in 20 dimensions, with noise: one component, without clusters."""
    random = np.random.default_rng(0)
    u, v = random.random((2, 2000))
    sheet = np.stack([u * np.cos(3 * u), 2 * v, u * np.sin(3 * u)], axis=1)
    rows = sheet @ random.normal(size=(3, 20)) + random.normal(scale=0.02, size=(2000, 20))
    return searched(rows.astype(np.float32), 15)


def loss(places: np.ndarray, graph: csr_matrix, a: float, b: float) -> float:
    """What UMAP's sampled steps go down on, an edge (Damrich, Hamprecht 2021), over all pairs."""
    squares = np.square(places[:, None].astype(np.float64) - places[None]).sum(axis=2)
    weight = graph.toarray() / graph.data.max()
    power = a * squares**b
    push = -np.log((power + 1e-4) / (1.0 + power))
    np.fill_diagonal(push, 0.0)
    pulled = (weight * np.log1p(power)).sum()
    return float((pulled + 2.5 * (weight.sum(axis=1) * push.mean(axis=1)).sum()) / weight.sum())


def test_the_graph_is_umap_learns(manifold: Problem) -> None:
    rows, index, distance = manifold
    itself = np.arange(len(rows), dtype=np.int32)[:, None]
    theirs = fuzzy_simplicial_set(
        rows, 15, np.random.RandomState(0), "euclidean", knn_indices=np.hstack([itself, index[:, :-1]]),
        knn_dists=np.hstack([np.zeros((len(rows), 1), np.float32), distance[:, :-1]]),
    )[0]  # fmt: skip
    ours = fuzzy_graph(index, distance)
    assert ours.nnz == theirs.nnz
    assert abs(ours - theirs).max() < 5e-5
    assert abs(ours - ours.T).max() == 0


def test_rows_in_the_order_of_a_search_are_all_there_and_their_edges_short(manifold: Problem) -> None:
    rows, index, distance = manifold
    graph = block_diag([fuzzy_graph(index, distance)] * 2).tocsr()
    order, ordered = breadth_first(graph)
    assert sorted(order.tolist()) == list(range(2 * len(rows)))
    assert (ordered != graph[order][:, order]).nnz == 0
    assert ordered.has_sorted_indices
    lengths = [np.median(abs(each.tocoo().row - each.tocoo().col)) for each in (graph, ordered)]
    assert lengths[1] < lengths[0] / 3
    assert (np.sort(order[: len(rows)]) == np.arange(len(rows))).all(), "a component's rows lie together"


@pytest.mark.parametrize("min_dist", [0.0, 0.1, 0.5, 1.0])
def test_the_curve_is_umap_learns(min_dist: float) -> None:
    np.testing.assert_allclose(curve_parameters(min_dist), find_ab_params(1.0, min_dist), rtol=1e-6)


def test_the_start_is_made_of_the_laplacians_eigenvectors(manifold: Problem) -> None:
    rows, index, distance = manifold
    graph = fuzzy_graph(index, distance)
    with row_tasks(threads=1) as run:
        ours = leading_vectors(graph, rows, 3, np.random.default_rng(0), run)
    scaled = diags_array(1 / np.sqrt(np.asarray(graph.sum(axis=1)).ravel()))
    values, vectors = eigsh(scaled @ graph @ scaled, k=4, which="LA")
    theirs = vectors[:, np.argsort(-values)][:, 1:]
    assert np.degrees(subspace_angles(ours, theirs).max()) < 5
    np.testing.assert_allclose(ours.T @ ours, np.eye(3), atol=1e-4)


def test_components_of_the_graph_start_apart() -> None:
    rows, truth = planted_rows(3000, 5)
    sample, index, distance = searched(rows, 15)
    graph = fuzzy_graph(index, distance)
    places = spectral_start(graph, sample, np.arange(3000, dtype=np.int32), 2, seed=0)
    means = np.stack([places[truth == cluster].mean(axis=0) for cluster in range(5)])
    nearest_mean = np.square(places[:, None] - means).sum(axis=2).argmin(axis=1)
    assert (nearest_mean == truth).mean() > 0.99
    np.testing.assert_allclose((places.min(), places.max()), (0, 10), atol=1e-2)


def with_crumbs(rows: np.ndarray, n_crumbs: int, n_rows: int, away: float) -> np.ndarray:
    """And some groups of rows that are nearly the same, each at a place beside a row."""
    random = np.random.default_rng(1)
    middles = rows[:n_crumbs] + random.normal(scale=away, size=(n_crumbs, rows.shape[1]))
    crumbs = np.repeat(middles, n_rows, axis=0) + random.normal(scale=1e-4, size=(n_crumbs * n_rows, rows.shape[1]))
    return np.concatenate([rows, crumbs]).astype(np.float32)


@pytest.mark.parametrize("n_rows", [18, 10])  # each a component of the graph; or hanging on the rest by a thread
def test_a_few_near_duplicates_leave_the_others_their_room(n_rows: int, manifold: Problem) -> None:
    sample, index, distance = searched(with_crumbs(manifold[0], 12, n_rows, 0.3), 15)
    graph = fuzzy_graph(index, distance)
    n_parts, _ = connected_components(graph, directed=False)
    assert (n_parts == 13) if n_rows == 18 else (n_parts == 1)
    places = spectral_start(graph, sample, np.arange(len(sample), dtype=np.int32), 3, seed=0)
    low, high = np.quantile(places[:2000], [0.05, 0.95], axis=0)
    assert (high - low).min() > 2.0
    beside = np.linalg.norm(places[2000::n_rows] - places[:12], axis=1)
    assert np.median(beside) < 1.5


@pytest.mark.parametrize("d", [2, 5])
def test_the_loss_is_no_more_than_umap_learns_and_neighbours_are_kept_as_well(d: int, manifold: Problem) -> None:
    rows, index, distance = manifold
    graph, curve = fuzzy_graph(index, distance), curve_parameters(0.0)
    losses, trusted = {}, {}
    for optimizer in ("batch", "umap-learn"):
        fits = [
            fit_anchors(
                *manifold, n_components=d, metric="euclidean", min_dist=0.0, n_epochs=None, seed=seed,
                optimizer=optimizer,  # type: ignore[arg-type]
            )
            for seed in (0, 1, 2)
        ]  # fmt: skip
        losses[optimizer] = np.median([loss(places, graph, *curve) for places in fits])
        trusted[optimizer] = np.median([trustworthiness(rows, places, n_neighbors=15) for places in fits])
    assert losses["batch"] < 1.005 * losses["umap-learn"]
    assert trusted["batch"] > trusted["umap-learn"] - 0.005


def test_close_rows_and_hubs_stay_where_numbers_are_finite() -> None:
    """Rows that nearly coincide push each other hard; a hub is pulled by all."""
    random = np.random.default_rng(0)
    tight = random.normal(size=(40, 8)).astype(np.float32).repeat(50, axis=0) + random.normal(
        scale=1e-6, size=(2000, 8)
    ).astype(np.float32)
    places = fit_anchors(*searched(tight, 15), n_components=2, metric="euclidean", min_dist=0.0, n_epochs=None, seed=0)
    assert np.isfinite(places).all()
    assert np.abs(places).max() < 200
    star = np.zeros((1500, 1500), np.float32)
    star[0, 1:] = star[1:, 0] = 1.0
    places = lay_out(
        csr_matrix(star), random.normal(size=(1500, 2)).astype(np.float32), a=1.9, b=0.8, n_epochs=100, seed=0
    )
    assert np.isfinite(places).all()
    assert np.abs(places).max() < 200


@pytest.mark.parametrize("rows", [4, 18, 120])
def test_few_rows_are_fitted_too(rows: int) -> None:
    sample = np.random.default_rng(0).normal(size=(rows, 6)).astype(np.float32)
    places = fit_anchors(
        *searched(sample, min(15, rows - 2)), n_components=5, metric="euclidean", min_dist=0.0, n_epochs=50, seed=0
    )
    assert places.shape == (rows, 5)
    assert np.isfinite(places).all()


FIT = """
import hashlib, numpy as np
from distcluster.numerics.neighbors import build_index, nearest, open_index
from distcluster.numerics.umap_fit import fit_anchors
random = np.random.default_rng(0)
sample = np.concatenate([random.normal(size=(8200, 6)), random.normal(loc=40, size=(300, 6))]).astype(np.float32)
sample[4000:4200] = sample[:200] + np.float32(1e-3)
index = open_index(*build_index(sample, sample, 15, "euclidean"), sample)
found = nearest(index, sample, 15, "euclidean")
for threads in (1, 2, 3, 4, 8):
    places = fit_anchors(
        sample, *found, n_components=5, metric="euclidean", min_dist=0.0, n_epochs=20, seed=0, threads=threads
    )
    print(hashlib.sha256(places.tobytes()).hexdigest())
"""


def test_a_fit_has_the_same_bits_on_any_number_of_threads_compiled_and_cached(tmp_path: Path) -> None:
    def digests(cache: str, **environ: str) -> set[str]:
        environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path / cache)} | environ
        done = subprocess.run(
            [sys.executable, "-c", FIT], env=environment, capture_output=True, text=True, timeout=300, check=True
        )
        return set(done.stdout.split())

    compiled = digests("first")
    assert len(compiled) == 1
    for part in (tmp_path / "first").rglob("epochs._epoch-*"):
        part.unlink()  # the caller is compiled again, what it calls is read
    assert digests("first") == compiled
    assert digests("first") == compiled
    assert digests("generic", NUMBA_CPU_NAME="generic", NUMBA_CPU_FEATURES="") == compiled


@pytest.mark.filterwarnings("ignore")
def test_umap_learn_fits_as_it_does_by_itself() -> None:
    sample, found, distance = searched(planted_rows(1200, 6, n_features=20)[0], 10)
    fits = [
        fit_anchors(
            sample,
            found,
            distance,
            n_components=2,
            metric="euclidean",
            min_dist=0.1,
            n_epochs=50,
            seed=seed,
            optimizer="umap-learn",
        )
        for seed in (0, 0, 1)
    ]
    itself = np.arange(1200, dtype=np.int32)[:, None]
    knn = np.hstack([itself, found[:, :-1]]), np.hstack([np.zeros((1200, 1), np.float32), distance[:, :-1]])
    theirs = UMAP(
        n_neighbors=10, n_components=2, min_dist=0.1, n_epochs=50, random_state=0, n_jobs=1, precomputed_knn=knn,
        force_approximation_algorithm=True,
    ).fit_transform(sample)  # fmt: skip
    assert fits[0].tobytes() == fits[1].tobytes() == theirs.astype(np.float32).tobytes()
    assert fits[0].tobytes() != fits[2].tobytes()


@pytest.mark.parametrize("optimizer", ["batch", "umap-learn"])
def test_a_sample_in_many_parts_is_fitted_to_the_same_bytes_every_time(optimizer: Optimizer) -> None:
    """Parts so far apart that the matrix between them is nearly the identity."""
    rows = planted_rows(8092, 8)[0]
    sample = rows[np.argsort(sampling_priority(0, len(rows), np.arange(len(rows))), kind="stable")[:1500]]
    _, found, distance = searched(sample, 15)
    fits = {
        fit_anchors(
            sample,
            found,
            distance,
            n_components=3,
            metric="euclidean",
            min_dist=0.0,
            n_epochs=5,
            seed=0,
            optimizer=optimizer,
        ).tobytes()
        for _ in range(4)
    }
    assert len(fits) == 1
