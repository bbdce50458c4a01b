"""The tree over components."""

from dataclasses import replace

import numpy as np
import pytest
from conftest import Command
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.cluster.hierarchy import fcluster, is_valid_linkage, linkage

from distcluster.numerics.hierarchy import build_hierarchy, cut, entropy_falls
from distcluster.storage.run import Run


def entropy(shares: np.ndarray) -> float:
    return float(-(shares * np.log(np.maximum(shares, 1e-300))).sum())


def test_the_fall_of_the_entropy_is_that_of_merging() -> None:
    shares = np.random.default_rng(0).dirichlet(np.full(5, 0.3), size=400)
    falls = entropy_falls(shares, 0.0)
    for a in range(5):
        for b in range(a + 1, 5):
            merged = np.delete(shares, b, axis=1)
            merged[:, a] += shares[:, b]
            assert falls[a, b] == pytest.approx(entropy(shares) - entropy(merged), rel=1e-9)


def test_two_halves_of_one_group_are_merged_before_two_groups() -> None:
    random = np.random.default_rng(1)
    truth = random.integers(3, size=900)
    half = random.uniform(0.2, 0.8, size=900)
    shares = np.zeros((900, 4))
    shares[np.arange(900), truth] = 1.0
    shares[truth == 0, 3] = half[truth == 0]
    shares[truth == 0, 0] = 1.0 - half[truth == 0]
    embedding = np.eye(3)[truth] * [1.0, 5.0, 5.5] + random.normal(scale=0.01, size=(900, 3))
    tree = build_hierarchy(shares, embedding.astype(np.float32))
    assert tree.rules == ("entropy", "ward", "ward")
    assert set(tree.merges[0, :2]) == {0, 3}
    assert cut(tree.merges, 3)[0] == cut(tree.merges, 3)[3]


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), k=st.integers(2, 12))
def test_without_overlap_the_tree_is_scipys_by_ward(seed: int, k: int) -> None:
    random = np.random.default_rng(seed)
    means = random.normal(size=(k, 4)).astype(np.float32)
    tree = build_hierarchy(np.eye(k), means)
    assert set(tree.rules) == {"ward"}
    theirs = linkage(means.astype(np.float64), "ward")
    np.testing.assert_allclose(tree.values, theirs[:, 2], rtol=1e-4)
    assert (tree.merges[:, :2] == theirs[:, :2]).all()


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), k=st.integers(2, 20))
def test_a_tree_is_a_linkage_and_its_cuts_are_nested(seed: int, k: int) -> None:
    random = np.random.default_rng(seed)
    shares = random.dirichlet(np.full(k, 0.2), size=300)
    tree = build_hierarchy(shares, random.normal(size=(300, 3)).astype(np.float32))
    assert is_valid_linkage(tree.merges)
    assert len(tree.rules) == len(tree.values) == k - 1
    for n in range(1, k + 1):
        here = cut(tree.merges, n)
        assert here.max() + 1 == n
        theirs = fcluster(tree.merges, k - n, "distance")
        assert len(set(zip(here, theirs, strict=True))) == n
    with pytest.raises(ValueError, match="can be cut into 1 to"):
        cut(tree.merges, k + 1)


def test_one_component_has_an_empty_tree() -> None:
    tree = build_hierarchy(np.ones((5, 1)), np.zeros((5, 2), np.float32))
    assert tree.merges.shape == (0, 4)
    assert cut(tree.merges, 1).tolist() == [0]


def test_a_run_has_a_tree_over_its_components(reference: Run) -> None:
    merges = reference.array("hierarchy/merge")[:]
    assert len(merges) == len(reference.array("cluster/size")[:]) - 1
    assert set(reference.array("hierarchy/rule")[:]) <= {"entropy", "ward"}


def test_levels_are_those_that_are_asked_for_and_each_cluster_is_shown_by_rows_of_its_own(
    finished: Command, reference: Run
) -> None:
    K = len(reference.array("cluster/size")[:])
    command = replace(finished, settings=finished.settings | {"assign.levels": [K - 2, K + 5, 3]})
    run = command.run_to_the_end("--overwrite")
    assert run.array("hierarchy/level_clusters")[:].tolist() == [K - 2, 3]
    label, rows = run.array("label")[:], run.array("hierarchy/level_exemplar")[:]
    assert (label == reference.array("label")[:]).all()
    first = 0
    for k, of in zip([K - 2, 3], run.array("hierarchy/level")[:], strict=True):
        for number in range(k):
            shown = rows[first + number]
            assert (of[label[shown[shown >= 0]]] == number).all()
        first += k
        assert (run.array(f"level/{k}")[:] == of[label]).all()
    assert sorted(each.name for each in (finished.output / "level").iterdir() if each.is_dir()) == ["3", str(K - 2)]
    page = (finished.output / "report" / "index.html").read_text()
    assert f"<summary>{K - 2} clusters</summary>" in page
