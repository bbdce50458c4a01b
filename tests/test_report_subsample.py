"""What the report says of the mixture subsample, replicates and forests equals scikit-learn or the slow obvious way."""

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import zarr
from conftest import N_ROWS
from sklearn import metrics
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import train_test_split

from distcluster.errors import JobError
from distcluster.export import FORMATS, export_run
from distcluster.job import ReportTable
from distcluster.numerics.mixture.candidate import Candidate
from distcluster.numerics.mixture.parameters import Mixture
from distcluster.numerics.stability import null_half
from distcluster.report.covariances import ellipses, tied_matrix
from distcluster.report.forest import grow_forests, measure_prediction, strata
from distcluster.report.interactive_3d import interactive_views, scaled
from distcluster.report.page import render_page
from distcluster.report.replicates import measure_stability, pairs_kept
from distcluster.report.subsample_rows import SubsampleRows, principal_axes, read_subsample_rows, silhouettes
from distcluster.stages import context
from distcluster.stages.choosing import SELECT_CANDIDATE
from distcluster.storage import layout
from distcluster.storage.run import Run

LABELS = Path(__file__).parent.parent / "jobs" / "demo" / "labels.txt"


def test_subsample_rows_are_the_run_s_and_their_embeddings_the_input_s(
    reference: Run, planted: tuple[Path, np.ndarray]
) -> None:
    subsample = read_subsample_rows(reference)
    embedding = zarr.open_array(str(planted[0]), path="embeddings")[:][subsample.row]
    np.testing.assert_allclose(
        subsample.embedding, embedding / np.linalg.norm(embedding, axis=1, keepdims=True), rtol=1e-5
    )
    for name in ("projection", "label", "probability"):
        np.testing.assert_array_equal(getattr(subsample, name), reference.array(name)[:][subsample.row])
    assert subsample.view is None  # this run has none
    assert 0 <= subsample.row.min() < subsample.row.max() < N_ROWS


def test_cosine_silhouettes_equal_scikit_learn() -> None:
    random = np.random.default_rng(0)
    label = random.integers(4, size=300)
    label[0] = 5  # alone; and component 4 is empty
    rows = (random.normal(size=(6, 12))[label] + random.normal(size=(300, 12))).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    found = silhouettes(rows, label, 6)
    expected = metrics.silhouette_samples(rows.astype(np.float64), label, metric="cosine")
    for k in (0, 1, 2, 3, 5):
        assert found[k] == pytest.approx(expected[label == k].mean(), abs=1e-6)
    assert np.isnan(found[4])
    assert np.isnan(silhouettes(rows, np.zeros(300, int), 1)).all()


def test_pairs_kept_equals_counting_pairs() -> None:
    a, b = np.random.default_rng(1).integers(3, size=(2, 40))
    together = [(a[i] == a[j], b[i] == b[j]) for i, j in combinations(range(40), 2)]
    kept, of_those = pairs_kept(a, b)
    assert kept == pytest.approx(np.mean([x == y for x, y in together]))
    assert kept == pytest.approx(metrics.rand_score(a, b))
    assert of_those == pytest.approx(np.mean([y for x, y in together if x]))


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that computes other bits than the runs were made with, and so may label no row."""
    context.open_run.cache_clear()
    monkeypatch.setattr(context, "environment", lambda: {"numpy": "another"})


@pytest.mark.usefixtures("elsewhere")
def test_a_report_and_an_export_can_be_made_on_another_machine(reference: Run, tmp_path: Path) -> None:
    assert "<h1>" in render_page(reference, ReportTable())
    for form in FORMATS:
        export_run(reference, tmp_path / form, form, ReportTable())


@pytest.mark.usefixtures("elsewhere")
def test_the_share_of_pairs_is_the_rand_index_of_two_replicates(demo: Run) -> None:
    found = measure_stability(demo)
    assert found is not None
    kinds, ks = demo.array("selection/covariance_type")[:], demo.array("selection/n_components")[:]
    facts = SELECT_CANDIDATE.facts_of(demo)
    place = np.flatnonzero((kinds == facts.covariance_type) & (ks == facts.n_components))[0]
    labels = [demo.read(layout.REPLICATE_LABEL, f"data-{i}")[place] for i in range(demo.job.selection.replicates)]
    assert found.n_rows == len(labels[0])
    rand = [metrics.rand_score(labels[i], labels[i + 1]) for i in range(0, len(labels), 2)]
    assert found.pairs_kept == pytest.approx(np.mean(rand))
    null = demo.read(layout.REPLICATE_LABEL, "null-0")[place]
    points = demo.read(layout.REPLICATE_COMMON, "null-0").astype(np.float64)
    assert found.null_silhouette == pytest.approx(
        metrics.silhouette_score(points, null, metric="sqeuclidean"), abs=1e-6
    )
    _, _, rows = null_half(
        demo.array("model/sample")[:], demo.array("sample/mixture_row").shape[0], 0, demo.job.projection.metric,
        demo.job.sample.seed,
    )  # fmt: skip
    assert found.null_cosine == pytest.approx(metrics.silhouette_score(rows, null, metric="cosine"), abs=1e-6)


def assert_forest_equals_scikit_learn(rows: np.ndarray, has: np.ndarray) -> None:
    """What the report says of a forest on these rows and classes, (n, C) bool."""
    found = grow_forests({"rows": rows}, has, seed=0)
    assert found is not None
    kept = np.flatnonzero(has[:, has.sum(axis=0) >= 2].any(axis=1))
    x, target = rows[kept], has[kept][:, found.classes].astype(int)
    has_one = (target.sum(axis=1) == 1).all()
    split = target.argmax(axis=1) if has_one else strata(target > 0)
    train, test = train_test_split(np.arange(len(kept)), test_size=0.2, stratify=split, random_state=0)
    forest = RandomForestClassifier(random_state=0).fit(x[train], target[train])
    answer = forest.predict(x[test])
    best = np.stack(forest.predict_proba(x[test]))[:, :, 1].argmax(axis=0)
    [it] = found.predictions
    assert (found.n_train, found.n_test) == (len(train), len(test))
    assert it.subset_accuracy == pytest.approx(metrics.accuracy_score(target[test], answer))
    assert it.micro_accuracy == pytest.approx(1.0 - metrics.hamming_loss(target[test], answer))
    assert it.recall == pytest.approx(metrics.recall_score(target[test], answer, average="micro"))
    assert it.best_class == pytest.approx(np.mean([target[row, k] for row, k in zip(test, best, strict=True)]))
    if has_one:
        confusion = metrics.confusion_matrix(target[test].argmax(axis=1), best, labels=range(target.shape[1]))
        np.testing.assert_array_equal(it.confusion, confusion.T)
    assert it.confusion.sum() == target[test].sum()


def test_forests_on_wordnet_equal_scikit_learn(demo: Run) -> None:
    subsample = read_subsample_rows(demo)
    names, code = np.unique(np.array(LABELS.read_text().splitlines())[subsample.row], return_inverse=True)
    has = np.eye(len(names), dtype=bool)[code]
    has[:100] = False  # rows without a class
    assert_forest_equals_scikit_learn(subsample.projection, has)


def test_forests_on_digits_of_several_classes_equal_scikit_learn() -> None:
    rows, digit = load_digits(return_X_y=True)
    has = np.column_stack([np.eye(10, dtype=bool)[digit], digit % 2 == 0, digit > 4])
    assert_forest_equals_scikit_learn(rows.astype(np.float32), has)


def test_a_row_of_several_classes_is_confused_with_none_of_its_own() -> None:
    probability = np.array([[0.9, 0.6, 0.1], [0.2, 0.3, 0.8]])
    true = np.array([[True, True, False], [True, True, False]])
    assert measure_prediction("x", probability, true).confusion.tolist() == [[1, 0, 0], [0, 1, 0], [1, 1, 0]]


def test_a_class_of_all_rows_or_of_no_fitted_row_is_certain() -> None:
    random = np.random.default_rng(0)
    has = np.zeros((100, 3), bool)
    has[:, 0] = True
    has[random.permutation(100)[:40], 1] = True
    has[:2, 2] = True
    found = grow_forests({"x": random.normal(size=(100, 2)).astype(np.float32)}, has, 0)
    assert found is not None
    assert found.classes == [0, 1, 2]
    assert found.predictions[0].best_class == 1.0


def test_rows_are_drawn_by_their_rarest_class() -> None:
    true = np.array([[1, 1, 0], [1, 0, 0], [1, 0, 0], [1, 1, 0], [1, 0, 1]], bool)
    assert strata(true).tolist() == [1, 0, 0, 1, 0]  # the last would be alone


def test_too_few_rows_grow_no_forest() -> None:
    rows = np.zeros((60, 2), np.float32)
    for code in (np.where(np.arange(60) < 30, -1, 0), np.arange(60), np.arange(60) % 15):
        # one class; single rows; too few to test each class
        assert grow_forests({"x": rows}, np.eye(60, dtype=bool)[code] & (code >= 0)[:, None], 0) is None


def test_an_ellipse_has_the_axes_of_the_covariance_in_the_widest_plane() -> None:
    random = np.random.default_rng(4)
    wide = np.diag([9.0, 4.0, 0.01])
    rows = random.multivariate_normal(np.zeros(3), wide, 4_000).astype(np.float32)
    mixture = Mixture(Candidate(1, "full"), np.ones(1), np.zeros((1, 3)), wide[None])
    drawn = str(ellipses(mixture, rows, ["#000000"]))
    long, short = (float(drawn.split(f'{name}="')[1].split('"')[0]) for name in ("rx", "ry"))
    assert long / short == pytest.approx(1.5, rel=0.01)
    assert not tied_matrix(mixture)


def test_the_tied_matrix_shows_every_value() -> None:
    matrix = np.array([[2.0, -0.5], [-0.5, 1.0]])
    drawn = str(tied_matrix(Mixture(Candidate(1, "tied"), np.ones(1), np.zeros((1, 2)), matrix)))
    assert [drawn.count(f">{value}</text>") for value in ("2", "-0.5", "1")] == [1, 2, 1]
    assert drawn.count('class="below"') == 2


def test_principal_axes_equal_a_singular_value_decomposition() -> None:
    rows = (np.random.default_rng(5).normal(size=(200, 6)) * [5, 3, 2, 1, 1, 1]).astype(np.float32)
    mean, axes = principal_axes(rows, 3)
    expected = np.linalg.svd(rows.astype(np.float64) - rows.mean(axis=0))[2][:3]
    np.testing.assert_allclose(np.abs(axes.T @ expected.T), np.eye(3), atol=1e-4)
    assert principal_axes(rows[:, :2], 3)[1].shape == (2, 3)
    assert np.abs(scaled((rows - mean) @ axes)).max() < 3.0


def test_t_sne_keeps_planted_groups_apart_and_lies_in_a_plane() -> None:
    random = np.random.default_rng(6)
    label = random.integers(3, size=240)
    rows = (random.normal(size=(3, 20))[label] + 0.1 * random.normal(size=(240, 20))).astype(np.float32)
    subsample = SubsampleRows(
        np.arange(240), rows, rows[:, :2], rows[:, :3], label.astype(np.int32), np.ones(240, np.float32)
    )
    shown = interactive_views(subsample, 3, [], {}, tsne_seed=0)
    assert shown is not None
    places = {each["name"]: np.reshape(each["places"], (240, 3)) for each in shown["spaces"]}
    assert list(places) == ["UMAP", "PCA of the embeddings", "t-SNE (flat)"]
    assert (places["t-SNE (flat)"][:, 2] == 0.0).all()
    assert metrics.silhouette_score(places["t-SNE (flat)"], label) > 0.8


def test_t_sne_without_its_package_is_refused(reference: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distcluster.job.find_spec", lambda _: None)
    with pytest.raises(JobError, match=r"report.tsne needs the package openTSNE"):
        render_page(reference, ReportTable(tsne=True))
