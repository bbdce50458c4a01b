"""The report: what it says equals what a slow, independent way says, and it needs nothing but itself."""

import base64
import gzip
import json
import re
import shutil
import tomllib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import N_ROWS, Command, planted_rows, write_input
from sklearn.metrics import silhouette_samples
from typer.testing import CliRunner

from distcluster.cli.main import app
from distcluster.errors import JobError
from distcluster.job import ReportTable
from distcluster.job_file import parse_job
from distcluster.numerics.shown_rows import row_table
from distcluster.report.clusters import badge
from distcluster.report.figures import Curve, curve_panel, spread, tree
from distcluster.report.job_text import job_toml
from distcluster.report.map_points import PackedPoints, packed_points
from distcluster.report.page import render_page, write_report
from distcluster.report.palette import COLOURS, colours
from distcluster.report.row_statistics import (
    MAP_PIXELS,
    ClusterMoments,
    RowStatistics,
    collect_row_statistics,
    results_of,
    silhouette_sums,
)
from distcluster.report.words import distinguishing_words, weights
from distcluster.stages.choosing import SELECT_CANDIDATE
from distcluster.storage.run import Run

WRITTEN = re.compile(r"[0-9-]+ [0-9:]+ UTC")


@pytest.fixture(scope="module")
def statistics(reference: Run) -> RowStatistics:
    return collect_row_statistics(reference, reference.array("cluster/size").shape[0], has_map=True)


@pytest.fixture(scope="module")
def items(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One line a row; each could do harm if it were not escaped."""
    path = tmp_path_factory.mktemp("items") / "items.txt"
    path.write_text("".join(f"<script>document.title = 'row {i}'</script> & item {i}\n" for i in range(N_ROWS)))
    return str(path)


def test_silhouettes_of_clusters_equal_scikit_learn() -> None:
    rows, truth = planted_rows(700, 6, n_features=3, seed=2)
    label = np.where(truth == 5, 7, truth).astype(np.int32)  # components 5 and 6 are empty
    label[0] = 5  # and one is a single row
    K = 8
    size = np.bincount(label, minlength=K)
    with np.errstate(invalid="ignore"):
        mean = np.stack([np.bincount(label, column, K) for column in rows.T.astype(np.float64)], axis=1) / size[:, None]
        mean_square = np.bincount(label, (rows.astype(np.float64) ** 2).sum(axis=1), K) / size
    found = silhouette_sums(rows, label, ClusterMoments(size, mean, mean_square, None))
    expected = silhouette_samples(rows.astype(np.float64), label, metric="sqeuclidean")
    np.testing.assert_allclose(found, np.bincount(label, expected, K), atol=1e-9)


def test_every_row_is_on_the_map_once(statistics: RowStatistics) -> None:
    assert statistics.colour_sums is not None
    assert statistics.colour_sums.shape == (MAP_PIXELS, MAP_PIXELS, 4)
    assert statistics.colour_sums[..., 3].sum() == N_ROWS


def test_a_lone_row_keeps_its_cluster_s_colour_when_it_is_spread(statistics: RowStatistics) -> None:
    sums = np.zeros((50, 50, 4))
    sums[20, 30] = [10.0, 20.0, 30.0, 1.0]
    discs = spread(sums)
    assert np.count_nonzero(discs[..., 3]) > 9
    assert np.allclose(discs[discs[..., 3] > 0], [10.0, 20.0, 30.0, 1.0])


def test_outliers_and_borderline_rows_are_the_most_extreme_of_all_rows(
    reference: Run, statistics: RowStatistics
) -> None:
    support, probability, label = (reference.array(name)[:] for name in ("support", "probability", "label"))
    assert statistics.outliers.support.tolist() == np.sort(support)[::-1][: len(statistics.outliers)].tolist()
    for k, rows in statistics.borderline.groupby("label"):
        np.testing.assert_array_equal(rows.probability, np.sort(probability[label == k])[: len(rows)])
        assert (rows.neighbour != k).all()
    assert statistics.ambiguous.probability.tolist() == np.sort(probability)[: len(statistics.ambiguous)].tolist()
    assert statistics.n_unsure == (probability < 0.5).sum()


def test_moments_are_those_of_all_rows(reference: Run, statistics: RowStatistics) -> None:
    label, rows = reference.array("label")[:], reference.array("projection")[:].astype(np.float64)
    for k in np.unique(label):
        assert statistics.moments.size[k] == (label == k).sum()
        np.testing.assert_allclose(statistics.moments.mean[k], rows[label == k].mean(axis=0))


@pytest.mark.parametrize("n_points", [N_ROWS, 5_000])
def test_the_map_s_points_are_spread_evenly_and_unpack_to_the_run_s_results(reference: Run, n_points: int) -> None:
    found = collect_row_statistics(reference, reference.array("cluster/size").shape[0], has_map=True, n_points=n_points)
    points, extent = found.map_points, found.moments.extent
    spread = np.arange(n_points) * N_ROWS // n_points
    assert set(points.row) == set(spread) - (set(found.drawn) - set(points.row))
    assert set(points.row).isdisjoint(found.points.row)
    classes = points.row.to_numpy() % 7 - 1
    packed = packed_points(points, extent, [classes])
    assert packed == packed_points(points.copy(), extent, [classes])
    columns = unpacked(packed)
    assert np.cumsum(columns["row"]).tolist() == points.row.tolist()
    assert columns["label"].tolist() == reference.array("label")[:][points.row].tolist()
    assert extent is not None
    for axis, name in enumerate("xy"):
        low, span = extent[0, axis], extent[1, axis] - extent[0, axis]
        places = low + columns[name] / 65_535 * span
        np.testing.assert_allclose(places, reference.array("view_2d")[:][points.row, axis], atol=span / 100_000)
    np.testing.assert_allclose(columns["probability"] / 100, points.probability, atol=0.0051)
    support = reference.array("support")[:][points.row]
    is_told_apart = columns["support"] < 254
    assert is_told_apart.mean() > 0.99
    here = columns["support"][is_told_apart] * packed.columns["support_step"]
    np.testing.assert_allclose(here, support[is_told_apart], atol=packed.columns["support_step"])
    assert (columns["stability"] == 255).all(), "a run without replicates"
    assert columns["class 0"].tolist() == np.where(classes < 0, 255, classes).tolist()


def unpacked(packed: PackedPoints) -> dict[str, np.ndarray]:
    """The columns as integers: another way than the page's script."""
    planes, columns = gzip.decompress(base64.b64decode(packed.text)), {}
    n = packed.columns["n"]
    for name, size in packed.columns["columns"]:
        bytes_of_rows, planes = np.frombuffer(planes[: n * size], np.uint8).reshape(size, n), planes[n * size :]
        columns[name] = sum(plane.astype(np.int64) << 8 * byte for byte, plane in enumerate(bytes_of_rows))
    assert not planes
    return columns


def test_typical_rows_have_their_results_at_hand_or_not(reference: Run) -> None:
    K = reference.array("cluster/size").shape[0]
    typical = np.unique(reference.array("cluster/exemplar")[:][:, :4])
    assert len(typical) == 4 * K
    found = collect_row_statistics(reference, K, has_map=True, typical=typical).typical
    read = results_of(reference, typical, row_table(0, 3), has_map=True)
    for name in ("label", "probability", "support", "log_density", "stability"):
        expected = reference.array(name)[:][typical]
        np.testing.assert_array_equal(found[name], expected)
        np.testing.assert_array_equal(read[name], expected)
    np.testing.assert_array_equal(np.stack([read["x"], read["y"]], axis=1), found[["x", "y"]])


def test_a_words_weight_is_the_z_score_of_its_log_odds_ratio_times_how_far_it_is_the_clusters_own() -> None:
    counts, size = np.array([[30, 5], [12, 5], [0, 90]]), np.array([60, 40, 100])
    here, there, n_here, n_there = 12 + 0.42, 30 + 0.42, 40 + 2, 160 + 2
    z = (np.log(here / (n_here - here)) - np.log(there / (n_there - there))) / np.sqrt(1 / here + 1 / there)
    own = (here / n_here) / (30.42 / 62)
    found = weights(counts, size)
    np.testing.assert_allclose(found[1, 0], z * own)
    assert found[0, 0] > found[1, 0] > 0 > found[2, 0]
    assert found[2, 1] > 0 > found[:2, 1].max()
    assert weights(np.array([[4], [6]]), np.array([4, 6])).tolist() == [[0.0], [0.0]], "all rows have it"


def test_planted_words_set_clusters_apart() -> None:
    texts = ["the whale swims in the sea", "a whale and a shark", "the engine of a car", "car with an engine, red car"]
    found = distinguishing_words(texts, np.array([0, 0, 2, 2]), K=3, n_words=2)
    assert found[0] == ["whale"]
    assert found[1] == []
    assert set(found[2]) == {"car", "engine"}
    texts = ["new york by night", "night in new york"] * 5 + ["ships of new zealand", "the ship"] * 5
    found = distinguishing_words(texts, np.arange(20) // 10, K=2, n_words=3)
    assert found == [["new", "night", "york"], ["new zealand", "ship"]]


def test_items_without_words_have_no_distinguishing_words() -> None:
    assert distinguishing_words(["1", "2", ""], np.array([0, 1, 1]), K=2, n_words=3) == [[], []]


@pytest.mark.parametrize(
    ("value", "word"), [(0.75, "strong"), (0.74, "fair"), (0.5, "fair"), (0.49, "weak"), (float("nan"), "not measured")]
)
def test_badges_follow_hennig(value: float, word: str) -> None:
    assert badge(value).word == word


def test_a_hundred_clusters_have_a_hundred_colours() -> None:
    assert len(set(colours(100))) == len(COLOURS) == 100
    assert colours(101)[100] == COLOURS[0]


def test_the_chosen_candidate_the_elbow_and_the_range_are_marked() -> None:
    curve = Curve("full", "c0", [1, 2, 4, 8], [4.0, 3.0, 1.0, float("nan")], elbow=4)
    drawn = str(curve_panel("BIC", "nats", [curve], chosen=("full", 4), near=[2, 4]))
    assert [drawn.count(f'class="{style}"') for style in ("chosen", "elbow", "range")] == [1, 1, 1]
    assert drawn.count('class="dot c0"') == 3  # NaN is no point


def test_the_tree_names_every_component_and_escapes_it() -> None:
    merges = np.array([[0, 2, 1, 2], [1, 3, 2, 3]], np.float64)
    drawn = str(tree(merges, {0: "a", 1: "<b>", 2: "c"}, ["#000"] * 3))
    assert drawn.count('class="leaf"') == 3
    assert "&lt;b&gt;" in drawn
    assert "<b>" not in drawn


@pytest.fixture(scope="module")
def page(reference: Run, items: str) -> str:
    return render_page(reference, ReportTable(items=items))


def test_the_page_needs_no_network_and_is_small(reference: Run, page: str) -> None:
    assert len(page.encode()) < 10_000_000
    assert not re.search(r"""(src|href)\s*=\s*["']?(https?:|//)|url\(|@import""", page)
    assert "default-src 'none'" in page
    reason = SELECT_CANDIDATE.facts_of(reference).reason
    assert reason in page


def test_items_are_escaped(page: str) -> None:
    assert "&lt;script&gt;document.title" in page
    assert "<script>document.title" not in page


def test_another_report_shows_the_items_that_the_run_keeps_and_opens_no_file(
    reference: Run, items: str, tmp_path: Path
) -> None:
    run = Run(str(shutil.copytree(reference.url, tmp_path / "run")))
    source = tmp_path / "secret.txt"
    source.write_text(Path(items).read_text())
    write_report(run, ReportTable(items=str(source)))
    with_items = (Path(run.url) / "report" / "index.html").read_text()
    source.write_text("not for others\n" * run.partitioning.n_rows)
    write_report(run, ReportTable())
    again = (Path(run.url) / "report" / "index.html").read_text()
    assert "not for others" not in again
    assert WRITTEN.sub("", again) == WRITTEN.sub("", with_items)


def test_the_shown_job_is_a_job_file(reference: Run) -> None:
    job = reference.settings.job
    shown = parse_job(tomllib.loads(job_toml(job, ReportTable(), "")))
    assert json.loads(shown.model_dump_json(exclude={"predict", "deploy", "report"})) == job
    job = job | {"assign": job["assign"] | {"levels": []}}
    assert parse_job(tomllib.loads(job_toml(job, ReportTable(), ""))).assign.levels == ()


def test_an_unfinished_run_and_a_missing_file_are_refused(reference: Run, tmp_path: Path) -> None:
    with pytest.raises(JobError, match="there is no run"):
        render_page(Run(str(tmp_path / "nothing")), ReportTable())
    with pytest.raises(JobError, match=r"report.items: there is no file"):
        render_page(reference, ReportTable(items=str(tmp_path / "nothing.txt")))
    refused = CliRunner().invoke(app, ["report", reference.url, "--points", "many"]).exception
    assert isinstance(refused, JobError)
    assert "--points: Input should be 'auto'" in str(refused)


def test_a_run_writes_its_report_at_its_end(reference: Run) -> None:
    assert "<h1>" in (Path(reference.url) / "report" / "index.html").read_text()


def test_a_run_with_one_component_skipped_rows_and_no_view_has_a_report(
    new_command: Callable[..., Command], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = np.random.default_rng(0).normal(size=(N_ROWS, 8)).astype(np.float32)
    rows[[5, 700]] = np.nan
    source = write_input(tmp_path / "shapeless.zarr", rows)
    settings: dict[str, object] = {
        "report.write": "always",
        "input.on_invalid": "skip",
        "projection.views": [],
        "mixture.n_components": [2, 3],
    }
    command = new_command(source, **{key.replace(".", "__"): value for key, value in settings.items()})
    run = command.run_to_the_end()
    written = Path(run.url) / "report" / "index.html"
    written.unlink()
    shown: list[str] = []
    monkeypatch.setattr("typer.launch", shown.append)
    done = CliRunner().invoke(app, ["report", run.url, "--open"])
    assert done.exit_code == 0, done.output
    assert shown == [str(written)]
    page = written.read_text()
    assert "no two-dimensional view" in page
    assert "2 invalid rows were skipped" in page
