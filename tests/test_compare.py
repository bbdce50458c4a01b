"""Comparison with taxonomies: scikit-learn, given the label vectors, says the same."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import zarr
from conftest import N_ROWS, Command
from sklearn import metrics

from distcluster.errors import JobError
from distcluster.report.agreement import Scores, contingency, expected_mutual_information, scores
from distcluster.report.compare import Comparison, compare
from distcluster.report.figures import heat_map, leaf_order
from distcluster.report.row_statistics import RowStatistics, collect_row_statistics
from distcluster.storage.run import Run

LABELS = Path(__file__).parent.parent / "jobs" / "demo" / "labels.txt"


def by_scikit_learn(truth: np.ndarray, label: np.ndarray) -> Scores:
    table = metrics.cluster.contingency_matrix(truth, label)
    return Scores(
        metrics.adjusted_rand_score(truth, label),
        metrics.adjusted_mutual_info_score(truth, label),
        *metrics.homogeneity_completeness_v_measure(truth, label),
        table.max(axis=0).sum() / len(label),
    )


def assert_equal(found: Scores, expected: Scores) -> None:
    for name in Scores.__slots__:
        assert getattr(found, name) == pytest.approx(getattr(expected, name), abs=1e-9), name


@pytest.fixture(scope="module")
def statistics(reference: Run) -> RowStatistics:
    return collect_row_statistics(reference, reference.array("cluster/size").shape[0], has_map=True)


@pytest.mark.parametrize(
    ("classes", "clusters"), [(5, 7), (1, 4), (4, 1), (1, 1), (30, 2)], ids=lambda value: str(value)
)
def test_scores_equal_scikit_learn(classes: int, clusters: int) -> None:
    random = np.random.default_rng(classes)
    truth = random.integers(classes, size=900)
    label = np.where(random.random(900) < 0.5, truth % clusters, random.integers(clusters, size=900))
    assert_equal(scores(contingency(truth, label)), by_scikit_learn(truth, label))


def test_equal_partitions_score_one() -> None:
    truth = np.repeat(np.arange(6), 20)
    assert_equal(scores(contingency(truth, (truth + 2) % 6)), Scores(1.0, 1.0, 1.0, 1.0, 1.0, 1.0))


def test_a_rand_index_of_a_thousand_million_rows_is_exact() -> None:
    table = np.array([[5 * 10**8, 1], [1, 5 * 10**8]], np.int64)
    assert scores(table).adjusted_rand == pytest.approx(1.0 - 8e-9, abs=1e-10)


@pytest.mark.parametrize("n_rows", [40, 3_000, 100_000])
def test_what_chance_gives_equals_scikit_learn_s_full_sum(n_rows: int) -> None:
    random = np.random.default_rng(n_rows)
    table = np.unique(random.geometric(0.3, (2, n_rows)).clip(max=9), axis=1, return_counts=True)
    counts = np.zeros((10, 10), np.int64)
    counts[tuple(table[0])] = table[1]
    counts = counts[counts.any(axis=1)][:, counts.any(axis=0)]
    expected = metrics.cluster.expected_mutual_information(counts.astype(np.float64), n_rows)
    found = expected_mutual_information(counts.sum(axis=1), counts.sum(axis=0))
    assert found == pytest.approx(expected, rel=1e-6, abs=1e-12)


def test_the_table_counts_every_row_that_has_a_class_once(
    reference: Run, statistics: RowStatistics, planted: tuple[Path, np.ndarray], tmp_path: Path
) -> None:
    names = np.array([f"ball {k}" for k in planted[1]], object)
    names[::7] = ""  # rows without a class
    (tmp_path / "labels.txt").write_text("\n".join(names) + "\n")
    zarr.create_array(tmp_path / "labels.zarr", data=names.astype(np.dtypes.StringDType()), chunks=(1000,))
    label = reference.array("label")[:]
    has_class = names != ""
    for file in ("labels.txt", "labels.zarr"):
        found = compare(reference, str(tmp_path / file), statistics, np.array([7, 16_000, 0, 3]))
        assert found.n_without == (~has_class).sum()
        assert classes_of(found) == [{name} - {""} for name in names[[7, 16_000, 0, 3]]]
        for i, name in enumerate(found.classes):
            np.testing.assert_array_equal(
                found.table[i], np.bincount(label[names == name], minlength=found.table.shape[1])
            )
        assert_equal(found.methods[0].scores, by_scikit_learn(names[has_class].astype(str), label[has_class]))


def classes_of(found: Comparison) -> list[set[str]]:
    """Of the rows of the subsample, by name."""
    return [{found.classes[column] for column in np.flatnonzero(row)} for row in found.of_subsample]


def test_rows_of_several_classes_are_compared_by_their_sets(
    reference: Run, statistics: RowStatistics, planted: tuple[Path, np.ndarray], tmp_path: Path
) -> None:
    ball = planted[1]
    sets = [{f"ball {k}", "even" if k % 2 == 0 else "odd"} | ({"third"} if k % 3 == 0 else set()) for k in ball]
    sets[::5] = [set()] * len(sets[::5])
    classes = sorted(set().union(*sets))
    (tmp_path / "labels.txt").write_text("".join("\t".join(sorted(each, reverse=True)) + "\n" for each in sets))
    texts = np.array([[*sorted(each), "", "", ""][:3] for each in sets], np.dtypes.StringDType())
    zarr.create_array(tmp_path / "labels.zarr", data=texts, chunks=(1000, 2))
    has = np.array([[name in each for name in classes] for each in sets])
    array = zarr.create_array(tmp_path / "has.zarr", data=has.astype(np.uint8), chunks=(1000, 4))
    array.attrs["classes"] = classes
    label = reference.array("label")[:]
    known = has.any(axis=1)
    whole = np.array(["+".join(sorted(each)) for each in sets])[known]
    subsample_row = np.array([7, 16_000, 0, 3])
    for file in ("labels.txt", "labels.zarr", "has.zarr"):
        found = compare(reference, str(tmp_path / file), statistics, subsample_row)
        assert classes_of(found) == [sets[row] for row in subsample_row]
        assert (found.n_sets, found.n_without) == (len(set(whole)), (~known).sum())
        np.testing.assert_array_equal(found.n_rows, np.bincount(label[known]))
        for name, counts in zip(found.classes, found.table, strict=True):
            np.testing.assert_array_equal(
                counts, np.bincount(label[has[:, classes.index(name)]], minlength=len(counts))
            )
        purity = sum(has[known & (label == k)].sum(axis=0).max() for k in np.unique(label)) / known.sum()
        assert_equal(found.methods[0].scores, replace(by_scikit_learn(whole, label[known]), purity=purity))


@pytest.mark.parametrize(
    ("values", "classes", "message"),
    [
        (2, None, "other numbers than 0 and 1"),
        (1, ["a", "b"], "names 2 of its 3 columns"),
    ],
)
def test_indicators_that_are_none_are_refused(
    reference: Run, statistics: RowStatistics, tmp_path: Path, values: int, classes: list[str] | None, message: str
) -> None:
    array = zarr.create_array(tmp_path / "has", data=np.full((N_ROWS, 3), values, np.int8))
    if classes:
        array.attrs["classes"] = classes
    with pytest.raises(JobError, match=message):
        compare(reference, str(tmp_path / "has"), statistics, np.arange(3))


def test_on_planted_clusters_every_method_agrees_with_the_plan(
    reference: Run, statistics: RowStatistics, planted: tuple[Path, np.ndarray], tmp_path: Path
) -> None:
    (tmp_path / "labels.txt").write_text("".join(f"{k}\n" for k in planted[1]))
    found = compare(reference, str(tmp_path / "labels.txt"), statistics, np.arange(3))
    assert len(found.methods) == 4
    assert min(method.scores.adjusted_rand for method in found.methods) > 0.95


def test_on_wordnet_the_figures_are_scikit_learn_s(demo: Run) -> None:
    truth = np.array(LABELS.read_text().splitlines())
    label = demo.array("label")[:]
    found = compare(demo, str(LABELS), collect_row_statistics(demo, int(label.max()) + 1, has_map=True), np.arange(3))
    assert_equal(found.methods[0].scores, by_scikit_learn(truth, label))
    few = np.arange(8_000) * len(label) // 8_000
    assert found.methods[3].n_rows == len(few)
    assert_equal(found.methods[3].scores, by_scikit_learn(truth[few], label[few]))


def test_labels_of_another_length_are_refused_before_the_run(
    new_command: Callable[..., Command], reference: Run, statistics: RowStatistics, tmp_path: Path
) -> None:
    (tmp_path / "labels.txt").write_text("a\nb\n")
    with pytest.raises(JobError, match=rf"has 2 labels, the run {N_ROWS:,} rows"):
        compare(reference, str(tmp_path / "labels.txt"), statistics, np.arange(3))
    command = new_command(report__write="always", report__labels=[str(tmp_path / "labels.txt")])
    done = command.run()
    assert done.returncode == 2
    assert "labels.txt has 2 labels" in done.stderr.replace("\n", " ")
    assert not command.output.exists()


def test_a_heat_map_of_equal_partitions_is_a_diagonal() -> None:
    counts = np.diag([5, 6, 7])[[2, 0, 1]]
    drawn = str(heat_map(counts, ["c", "<a>", "b"], leaf_order(np.empty((0, 4)), 3), counts.sum(axis=0)))
    assert drawn.count("<rect") == 3
    assert drawn.index("&lt;a&gt;</text>") < drawn.index(">b</text>") < drawn.index(">c</text>")
