"""Replicates of the pipeline: the stability of clusters, and of what a null gives."""

import itertools
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from conftest import BLOCK_ROWS, Command, unequal
from sklearn.metrics import adjusted_rand_score, jaccard_score

from distcluster import load_model
from distcluster.numerics.mixture.candidate import Candidate
from distcluster.numerics.mixture.criteria import Criteria
from distcluster.numerics.mixture.selection import select
from distcluster.numerics.mixture.trust import assess
from distcluster.numerics.row_stability import RowStability
from distcluster.numerics.sampling import replicate_sizes
from distcluster.numerics.stability import agreement, cluster_agreement, half_of, null_half
from distcluster.stages.choosing import SELECT_CANDIDATE
from distcluster.storage import layout
from distcluster.storage.inputs import open_input
from distcluster.storage.run import Run


def test_two_replicates_share_the_rows_that_they_label_and_no_other() -> None:
    sample, mixture = np.arange(501, dtype=np.float32)[:, None], np.arange(501, 801, dtype=np.float32)[:, None]
    assert replicate_sizes(len(mixture)) == (60, 120)
    halves = [half_of(sample, mixture, number, seed=1) for number in range(4)]
    for a, b in (halves[:2], halves[2:]):
        assert a[2].tobytes() == b[2].tobytes() == halves[0][2].tobytes()
        used = np.concatenate([a[0], a[1], b[0], b[1], a[2]])
        assert len(np.unique(used)) == len(used) == 801
    assert halves[0][0].tobytes() != halves[2][0].tobytes()


def test_agreement_is_the_mean_rand_index_of_replicates_that_share_no_row() -> None:
    random = np.random.default_rng(0)
    labels = [random.integers(4, size=(3, 500)).astype(np.int16) for _ in range(4)]
    labels[1][1] = -1  # could not be fitted
    for each in labels:
        each[2] = 0  # a single cluster
    found, error = agreement(labels)
    of_pairs = [adjusted_rand_score(labels[a][0], labels[a + 1][0]) for a in (0, 2)]
    assert found[0] == pytest.approx(np.mean(of_pairs))
    assert error[0] == pytest.approx(abs(of_pairs[0] - of_pairs[1]) / 2)
    assert np.isnan(found[1:]).all()
    assert np.isnan(agreement(labels[:2])[1]).all()  # one pair has no error


def test_a_cluster_that_comes_back_under_another_name_has_jaccard_index_one() -> None:
    chosen = np.repeat([0, 1, 2], 100)
    renamed = np.array([2, 0, 1], np.int16)[chosen]
    halved = np.where((chosen == 2) & (np.arange(300) % 2 == 0), 3, chosen).astype(np.int16)
    np.testing.assert_allclose(cluster_agreement(chosen, [renamed, halved], 4), [1.0, 1.0, 0.75, np.nan])


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_null_rows_have_the_extent_of_the_data(metric: str) -> None:
    random = np.random.default_rng(1)
    like = (random.normal(size=(4000, 6)) @ random.normal(size=(6, 6)) + 3.0).astype(np.float32)
    _, _, null = null_half(like, 50_000, 0, metric, seed=0)
    assert len(null) == 10_000
    if metric == "cosine":
        np.testing.assert_allclose(np.linalg.norm(null, axis=1), 1.0, rtol=1e-5)
    else:
        np.testing.assert_allclose(null.mean(axis=0), like.mean(axis=0), atol=0.15)
        np.testing.assert_allclose(np.cov(null, rowvar=False), np.cov(like, rowvar=False), atol=0.8)


def row(k: int, bic: float, real: float, null: float) -> Criteria:
    nan = float("nan")
    return Criteria(k, "full", nan, bic, nan, nan, 1, True, stability=real, stability_null=null)


def test_without_an_elbow_the_middle_of_the_stable_range_is_taken() -> None:
    ks = (1, 2, 3, 4, 8, 16, 32, 64)
    above = (np.nan, 0.6, 0.2, 0.55, 0.6, 0.62, 0.4, 0.1)  # 2 is as good, but 3 is not
    table = [row(k, -2000.0 * np.log2(k) ** 0.8, 0.1 + up, 0.1) for k, up in zip(ks, above, strict=True)]
    verdict = select(table, "elbow", 1000)
    assert (verdict.finding, verdict.candidate.n_components) == ("no elbow", 8)
    assert "4 to 16 components are stable across replicates" in verdict.reason
    assert "0.70; on one Gaussian of the same extent by 0.10" in verdict.reason
    assert select(table, "stability", 1000).candidate.n_components == 16


def test_without_an_elbow_the_most_clusters_that_return_are_taken() -> None:
    returning = {2: 2, 4: 4, 8: 7, 16: 6}
    table = [
        replace(
            row(k, -2000.0 * np.log2(k) ** 0.8, 0.7 if k > 1 else np.nan, 0.1),
            row_stability=0.6,
            n_returning=returning.get(k, 0),
        )
        for k in (1, 2, 4, 8, 16, 32)
    ]
    verdict = select(table, "elbow", 1000)
    assert (verdict.finding, verdict.candidate.n_components, verdict.trust) == ("no elbow", 8, "fair")
    assert "2 to 32 components are stable" in verdict.reason
    assert "8, the largest number of which most return, were taken" in verdict.reason
    assert verdict.advice.startswith("7 of these 8 groups return")


def test_of_the_numbers_about_an_elbow_the_largest_that_returns_as_well_is_taken() -> None:
    cost = {1: 8.0, 2: 7.0, 4: 6.0, 6: 5.4, 8: 5.0, 11: 4.95, 16: 4.9, 32: 4.8}
    returning = {4: 0.99, 6: 0.98, 8: 0.97, 11: 0.98, 16: 0.8, 32: 0.985}  # 32 is more than twice the elbow
    table = [
        replace(row(k, 2000 * y, 0.9, 0.1), row_stability=returning.get(k, np.nan), n_returning=k)
        for k, y in cost.items()
    ]
    verdict = select(table, "elbow", 1000)
    assert (verdict.finding, verdict.candidate.n_components) == ("elbow", 11)
    assert "(row stability 0.98; the best has 0.99, the elbow 0.97). The elbow: 8 components" in verdict.reason
    fewer = [replace(each, row_stability=0.8) if each.n_components == 11 else each for each in table]
    verdict = select(fewer, "elbow", 1000)
    assert (verdict.finding, verdict.candidate.n_components) == ("elbow", 8)
    assert "no larger number returns as well" in verdict.reason


def test_an_elbow_whose_clusters_do_not_return_is_none() -> None:
    cost = {1: 8.0, 2: 7.0, 4: 6.0, 8: 5.0, 16: 4.9, 32: 4.8}
    table = [replace(row(k, 2000 * y, 0.3, 0.1), row_stability=0.3, n_returning=1) for k, y in cost.items()]
    assert select([replace(each, row_stability=np.nan) for each in table], "elbow", 1000).finding == "elbow"
    verdict = select(table, "elbow", 1000)
    assert (verdict.finding, verdict.trust) == ("no elbow", "weak")
    assert "bends at 8 components with full covariance, but only 1 of these clusters return" in verdict.reason
    assert "do not return when other rows are drawn" in verdict.advice


def test_clusters_that_return_no_more_than_those_of_the_null_are_weak() -> None:
    """As two tied components of structureless rows do: most rows stay together, whatever is cut off."""
    cost = {1: 8.0, 2: 7.0, 4: 6.0, 8: 5.0, 16: 4.9, 32: 4.8}
    table = [replace(row(k, 2000 * y, 0.5, 0.1), row_stability=0.8, n_returning=k) for k, y in cost.items()]
    assert (select(table, "elbow", 1000).finding, select(table, "elbow", 1000).trust) == ("elbow", "strong")
    like_null = [replace(each, stability_null=0.45) if each.n_components > 4 else each for each in table]
    verdict = select(like_null, "elbow", 1000)
    assert (verdict.finding, verdict.candidate.n_components, verdict.trust) == ("no elbow", 4, "strong")
    assert "bends at 8 components with full covariance, but rows of one Gaussian agree" in verdict.reason
    told = assess(like_null, Candidate(8, "full"))
    assert told.trust == "weak"
    assert told.advice == (
        "These 8 groups do not clearly return more often than groups cut out of one shapeless cloud: use them to "
        "browse. 4 coarser ones do (choose --n-components 4 --covariance-type full)."
    )
    assert assess([replace(each, stability_null=np.nan) for each in table], Candidate(8, "full")).trust == "strong"


@pytest.fixture(scope="module")
def replicated(new_command: Callable[..., Command]) -> Run:
    """A run with replicates."""
    return new_command(selection__replicates=2, mixture__n_components=[2, 8, 23], deploy__n_workers=2).run_to_the_end()


def test_planted_clusters_come_back_and_those_of_a_null_do_not(replicated: Run) -> None:
    ks = replicated.array("selection/n_components")[:]
    real = replicated.array("selection/stability")[:]
    null = replicated.array("selection/stability_null")[:]
    assert (real[ks == 8] > 0.9).all()
    assert (null[ks == 8] < 0.5).all()
    assert np.isnan(real[ks == 1]).all()
    assert len(replicated.array("cluster/stability")[:]) == len(replicated.array("cluster/size")[:])
    assert (replicated.array("stability")[:] > 0.9).mean() > 0.99, "the balls lie far apart"


def test_bytes_of_replicates_do_not_depend_on_workers_or_partitions(
    replicated: Run, new_command: Callable[..., Command]
) -> None:
    command = new_command(
        selection__replicates=2, mixture__n_components=[2, 8, 23],
        assign__partition_rows=4 * BLOCK_ROWS,
    )  # fmt: skip
    run = command.run_to_the_end()
    assert unequal(replicated, run) == []
    for name in ("selection/stability", "selection/stability_null", "cluster/stability"):
        assert run.array(name)[:].tobytes() == replicated.array(name)[:].tobytes()


def test_a_row_s_stability_is_that_of_the_labelled_rows_beside_it(demo: Run) -> None:
    point, label, share = (demo.read(each) for each in layout.ROW_STABILITY.values())
    chosen, n = SELECT_CANDIDATE.facts_of(demo), demo.job.selection.replicates
    ks, kinds = (demo.array(f"selection/{name}")[:] for name in ("n_components", "covariance_type"))
    place = int(np.flatnonzero((ks == chosen.n_components) & (kinds == chosen.covariance_type))[0])
    labels, projection, stability = (demo.array(name)[:] for name in ("label", "projection", "stability"))
    assert (label == labels[demo.read(layout.MIXTURE_ROW)[: len(point)]]).all()
    held = np.zeros((n, len(label)))
    for number, k in itertools.product(range(n), range(chosen.n_components)):
        of_replicate, own = demo.read(layout.REPLICATE_LABEL, f"data-{number}")[place], label == k
        best = int(np.argmax([jaccard_score(own, of_replicate == j) for j in range(chosen.n_components)]))
        held[number, own] = of_replicate[own] == best
    assert (share == held.mean(axis=0)).all()
    assert share.std() > 0.1, "they differ"
    for row in range(0, len(labels), 97):
        own = np.flatnonzero(label == labels[row])
        distance = np.square(point[own].astype(float) - projection[row]).sum(axis=1)
        assert stability[row] == np.float32(share[own[np.argsort(distance, kind="stable")[:5]]].mean(dtype=float))
    rows = open_input(demo.job.input.url, demo.job.input.array)[:300]
    assert load_model(demo.url).assign(rows).stability.tobytes() == stability[:300].tobytes()


def test_a_cluster_of_which_no_labelled_row_is_known_has_no_stability() -> None:
    known = RowStability(np.empty((0, 2), np.float32), np.empty(0, np.int32), np.empty(0, np.float32))
    assert np.isnan(known.of_rows(np.zeros((3, 2), np.float32), np.array([0, 1, -1], np.int32))).all()


def test_the_rows_beside_it_tell_how_often_a_row_would_have_been_held() -> None:
    random = np.random.default_rng(0)
    rows = random.uniform(size=(4000, 2)).astype(np.float32)
    cuts = random.normal(0.5, 0.1, size=200)  # each replicate cuts a strip in two somewhere else
    held = (rows[:, :1] < cuts).mean(axis=1).astype(np.float32)
    label = np.zeros(4000, np.int32)
    few = np.array([random.binomial(4, share) / 4 for share in held[:1000]], np.float32)
    found = RowStability(rows[:1000], label[:1000], few).of_rows(rows[1000:], label[1000:])
    assert np.corrcoef(found, held[1000:])[0, 1] > 0.9
    assert abs(found.mean() - held[1000:].mean()) < 0.02
