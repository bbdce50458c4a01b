"""The row kernel: umap-learn's objective, without its noise, its batches, or the compiler's freedom."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import planted_rows
from scipy.optimize import brentq
from scipy.spatial import cKDTree
from umap import UMAP

from distcluster.numerics.neighbors import build_index, nearest, open_index
from distcluster.numerics.projection import project
from distcluster.numerics.repulsion import parts_of, repulsion, repulsion_field, view_field
from distcluster.numerics.umap_fit import curve_parameters

A, B = 1.929, 0.7915


@pytest.fixture(scope="module")
def problem() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Neighbours and distances of 200 rows among 300 anchors, made up."""
    random = np.random.default_rng(0)
    index = np.stack([random.permutation(300)[:15] for _ in range(200)]).astype(np.int32)
    distance = np.sort(random.random((200, 15)), axis=1).astype(np.float32)
    return index, distance, random.normal(scale=3.0, size=(300, 5)).astype(np.float32)


def slow_projection(index: np.ndarray, distance: np.ndarray, anchors: np.ndarray, field: np.ndarray) -> np.ndarray:
    """The same descent for one row, in float64, each force written as in McInnes, Healy, Melville 2018, 3.2."""
    distance, anchors, field = (each.astype(np.float64) for each in (distance, anchors, field))
    target = np.log2(len(index))
    sigma = brentq(lambda s: np.exp(-distance[1:] / s).sum() - target, 1e-6, 1e6, xtol=1e-12)
    weight = np.exp(-distance / sigma)
    near, groups, softening, share = anchors[index], field[:-2].T, field[-2], field[-1]
    place = weight @ near / weight.sum()
    repulsion = np.zeros_like(place)
    for step in range(60):
        if step % 5 == 0:
            away = place - groups
            square = np.square(away).sum(axis=1) + softening
            repulsion = (share * 2 * B / ((0.001 + square) * (1 + A * square**B))) @ away
        away = place - near
        square = np.square(away).sum(axis=1)
        attraction = (weight * -2 * A * B * square ** (B - 1) / (1 + A * square**B)) @ away
        place = place + 0.25 * (1 - step / 60) * (attraction + 5 * weight.sum() * repulsion)
    return place


def test_the_kernel_equals_the_slow_obvious_way(problem: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    index, distance, anchors = problem
    field = repulsion_field(anchors)
    fast = project(index, distance, anchors, field, a=A, b=B, mean_distance=0.5)
    slow = np.stack([slow_projection(i, d, anchors, field) for i, d in zip(index, distance, strict=True)])
    assert fast == pytest.approx(slow, abs=2e-3)


@pytest.mark.parametrize("has_boxes", [False, True])
def test_groups_of_anchors_are_not_seen_in_a_plane(has_boxes: bool) -> None:
    """Beside the sum over all anchors rows move by an eighth of the anchors' spacing; a seventh is seen as stripes."""
    random = np.random.default_rng(0)
    anchors = random.uniform(0, 20, size=(6000, 2)).astype(np.float32)
    _, near = cKDTree(anchors).query(random.uniform(3, 17, size=(3000, 2)), 400)
    chosen = random.permuted(np.tile(np.arange(400), (3000, 1)), axis=1)[:, :15]
    index = np.take_along_axis(near, chosen, axis=1).astype(np.int32)
    distance = 1 + np.sort(random.random((3000, 15)), axis=1).astype(np.float32)
    every = np.vstack([anchors.T, np.zeros(6000), np.full(6000, 1 / 6000)]).astype(np.float32)
    grouped, exact = (
        project(index, distance, anchors, field, a=A, b=B, mean_distance=0.1)
        for field in (view_field(anchors, A, B) if has_boxes else repulsion_field(anchors), every)
    )
    assert np.median(np.linalg.norm(grouped - exact, axis=1)) < 0.12 * 20 / np.sqrt(6000)


def test_the_groups_of_anchors_repel_as_the_anchors_do(problem: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    index, distance, _ = problem
    anchors = np.random.default_rng(2).normal(scale=3.0, size=(4096, 5)).astype(np.float32)
    grouped = project(index, distance, anchors, repulsion_field(anchors), a=A, b=B, mean_distance=0.5)
    every = np.vstack([anchors.T, np.zeros((1, 4096)), np.full((1, 4096), 1 / 4096)]).astype(np.float32)
    exact = project(index, distance, anchors, every, a=A, b=B, mean_distance=0.5)
    nearest_other = np.linalg.norm(anchors[index[:, :1]] - exact[:, None], axis=2)
    assert np.median(np.linalg.norm(grouped - exact, axis=1)) < 0.02 * np.median(nearest_other)


@pytest.mark.parametrize("d", [2, 3])
def test_a_view_is_nearer_to_the_sum_over_anchors_in_boxes(d: int) -> None:
    """Rows among the anchors, where boxes are, and some far from them, where the groups are summed."""
    random = np.random.default_rng(3)
    anchors = random.normal(scale=3.0, size=(5000, d)).astype(np.float32)
    _, near = cKDTree(anchors).query(random.normal(scale=3.0, size=(2000, d)), 15)
    distance = 1 + np.sort(random.random((2000, 15)), axis=1).astype(np.float32)
    every = np.vstack([anchors.T, np.zeros(5000), np.full(5000, 1 / 5000)]).astype(np.float32)
    boxes = view_field(anchors, A, B)
    assert len(boxes) == 4096
    summed, boxed, exact = (
        project(near.astype(np.int32), distance, anchors, field, a=A, b=B, mean_distance=0.1)
        for field in (repulsion_field(anchors), boxes, every)
    )
    assert np.median(np.linalg.norm(boxed - exact, axis=1)) < np.median(np.linalg.norm(summed - exact, axis=1))
    groups, _ = parts_of(boxes, d)
    assert (groups == repulsion_field(anchors)).all()
    beyond = _repulsion_at(np.full((1, d), 50.0, np.float32), boxes)
    assert (beyond == _repulsion_at(np.full((1, d), 50.0, np.float32), repulsion_field(anchors))).all()


def _repulsion_at(places: np.ndarray, field: np.ndarray) -> np.ndarray:
    groups, boxes = parts_of(field, places.shape[1])
    force = np.empty_like(places)
    for place, here in zip(places, force, strict=True):
        repulsion(place, groups, boxes, np.float32(A), np.float32(B), np.empty((2, groups.shape[1]), np.float32), here)
    return force


def test_few_anchors_have_no_boxes() -> None:
    anchors = np.random.default_rng(1).normal(size=(4095, 2)).astype(np.float32)
    assert (view_field(anchors, A, B) == repulsion_field(anchors)).all()


@pytest.mark.parametrize("n_anchors", [5, 300, 5000])
def test_groups_hold_every_anchor_once(n_anchors: int) -> None:
    anchors = np.random.default_rng(1).normal(size=(n_anchors, 3)).astype(np.float32)
    *means, _, share = repulsion_field(anchors)
    sizes = np.rint(share * n_anchors)
    assert sizes.sum() == n_anchors
    assert np.ptp(sizes) <= 1
    assert len(sizes) == {5: 4, 300: 256, 5000: 512}[n_anchors]
    assert np.array(means) @ share == pytest.approx(anchors.mean(axis=0), abs=1e-5)


def test_a_row_without_neighbours_has_no_place(problem: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    index, distance, anchors = (each.copy() for each in problem)
    index[3], distance[3] = -1, np.nan
    result = project(index, distance, anchors, repulsion_field(anchors), a=A, b=B, mean_distance=0.5)
    assert np.isnan(result[3]).all()
    assert np.isfinite(np.delete(result, 3, axis=0)).all()


@pytest.mark.filterwarnings("ignore")  # umap-learn's and scikit-learn's own
def test_rows_go_where_umap_learn_sends_them() -> None:
    rows, truth = planted_rows(2400, 12, n_features=32)
    sample, new = rows[:1800], rows[1800:]
    model = UMAP(n_neighbors=15, n_components=3, min_dist=0.0, n_epochs=200, random_state=0, n_jobs=1).fit(sample)
    data, facts = build_index(sample, new, 15, "euclidean")
    index = open_index(data, facts, sample)
    a, b = curve_parameters(0.0)
    anchors = np.ascontiguousarray(model.embedding_, np.float32)
    own = nearest(index, sample, 15, "euclidean")[1].mean()
    ours = project(
        *nearest(index, new, 15, "euclidean"), anchors, repulsion_field(anchors), a=a, b=b, mean_distance=own
    )
    theirs = model.transform(new)
    means = np.stack([anchors[truth[:1800] == cluster].mean(axis=0) for cluster in range(12)])
    labels = [np.square(places[:, None] - means).sum(axis=2).argmin(axis=1) for places in (ours, theirs, anchors)]
    assert (labels[0] == labels[1]).mean() > 0.99
    assert (labels[0] == truth[1800:]).mean() > 0.99
    spread = np.median(np.linalg.norm(anchors - means[truth[:1800]], axis=1))
    assert np.median(np.linalg.norm(ours - theirs, axis=1)) < spread


KERNELS = """
import hashlib, numpy as np
from distcluster.numerics.neighbors import build_index, nearest, open_index
from distcluster.numerics.projection import project
from distcluster.numerics.repulsion import repulsion_field
random = np.random.default_rng(0)
sample = random.normal(size=(900, 50)).astype(np.float32)
index = open_index(*build_index(sample, sample, 15, "euclidean"), sample)
found, distance = nearest(index, random.normal(size=(300, 50)).astype(np.float32), 15, "euclidean")
anchors = random.normal(size=(900, 5)).astype(np.float32)
places = project(found, distance, anchors, repulsion_field(anchors), a=1.9, b=0.8, mean_distance=7.0)
print(hashlib.sha256(found.tobytes() + distance.tobytes() + places.tobytes()).hexdigest())
"""


def test_kernels_give_the_same_bits_compiled_cached_and_for_other_processors(tmp_path: Path) -> None:
    def digest(cache: str, **environ: str) -> str:
        environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path / cache)} | environ
        return subprocess.run(
            [sys.executable, "-c", KERNELS], env=environment, capture_output=True, text=True, timeout=200, check=True
        ).stdout

    compiled = digest("first")
    for part in (tmp_path / "first").rglob("projection._project-*"):
        part.unlink()  # the caller is compiled again, what it calls is read
    assert digest("first") == compiled
    assert digest("first") == compiled
    assert digest("generic", NUMBA_CPU_NAME="generic", NUMBA_CPU_FEATURES="") == compiled
