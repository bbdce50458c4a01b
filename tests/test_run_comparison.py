"""Two runs side by side: the rows that both have, the errors of their agreement, and what is refused."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import zarr
from conftest import BLOCK_ROWS, N_ROWS, planted_rows
from sklearn import metrics
from typer.testing import CliRunner

from distcluster import open_run
from distcluster.cli.main import app
from distcluster.errors import JobError
from distcluster.report.agreement import standard_errors
from distcluster.report.run_comparison import RunComparison, compare_runs
from distcluster.storage.inputs import open_input
from distcluster.storage.run import Run

GROWN = 700


def write_named(path: Path, rows: np.ndarray, ids: np.ndarray) -> Path:
    group = zarr.create_group(str(path))
    group.create_array("embeddings", data=rows, chunks=(1000, rows.shape[1]))
    group.create_array("id", data=ids)
    return path


def predict(model: Run, source: Path, output: Path) -> Run:
    settings = (
        "input.id=id",
        "assign.partition_rows=2048",
        "deploy.dashboard_address=127.0.0.1:0",
        "deploy.n_workers=1",
    )
    command = [sys.executable, "-m", "distcluster", "predict", str(model.url), str(source), str(output)]
    command += [word for each in settings for word in ("--set", each)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == 0, ended.stderr
    return Run(str(output))


@pytest.fixture(scope="module")
def grown(reference: Run, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The reference's model on its input with rows at the end; ids are texts."""
    directory = tmp_path_factory.mktemp("grown")
    rows = np.concatenate([open_input(reference.job.input.url, "embeddings")[:], planted_rows(GROWN, 1)[0]])
    ids = np.array([f"{i}" for i in range(len(rows))], np.dtypes.StringDType())
    return predict(reference, write_named(directory / "input", rows, ids), directory / "run")


@pytest.fixture(scope="module")
def shuffled(reference: Run, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, np.ndarray]:
    """The same on some of its rows in another order, and which they are; ids are numbers, one occurs twice."""
    directory = tmp_path_factory.mktemp("shuffled")
    taken = np.random.default_rng(2).permutation(N_ROWS)[:3000]
    taken[1] = taken[0]
    rows = open_input(reference.job.input.url, "embeddings")[:][taken]
    return predict(reference, write_named(directory / "input", rows, taken), directory / "run"), taken


def leave_one_out(truth: np.ndarray, label: np.ndarray, score: object) -> float:
    n = len(truth)
    left = [score(np.delete(truth, i), np.delete(label, i)) for i in range(n)]  # type: ignore[operator]
    return float(np.sqrt((n - 1) * np.var(left)))


@pytest.mark.parametrize(("classes", "clusters"), [(4, 5), (1, 3), (3, 1), (1, 1), (2, 60)])
def test_errors_are_those_of_the_jackknife(classes: int, clusters: int) -> None:
    random = np.random.default_rng(classes)
    truth = random.integers(classes, size=80)
    label = np.where(random.random(80) < 0.6, truth % clusters, random.integers(clusters, size=80))
    found = standard_errors(metrics.cluster.contingency_matrix(truth, label))
    assert found.adjusted_rand == pytest.approx(leave_one_out(truth, label, metrics.adjusted_rand_score), abs=1e-9)
    assert found.v_measure == pytest.approx(leave_one_out(truth, label, metrics.v_measure_score), abs=1e-9)


def test_errors_are_how_far_the_agreement_differs_on_other_rows() -> None:
    random = np.random.default_rng(0)
    cells = random.random((4, 5)) + 2 * np.eye(4, 5)
    tables = random.multinomial(1000, (cells / cells.sum()).ravel(), size=400).reshape(-1, 4, 5)
    pairs = [np.repeat(np.indices((4, 5)).reshape(2, -1), table.ravel(), axis=1) for table in tables]
    spread = np.std([metrics.adjusted_rand_score(*pair) for pair in pairs])
    assert standard_errors(tables[0]).adjusted_rand == pytest.approx(spread, rel=0.15)


def assert_same_clusters(found: RunComparison) -> None:
    assert found.scores.adjusted_rand == found.scores.v_measure == 1.0
    assert {name for name, count in found.events.items() if count} == {"kept"}
    assert (found.counts == np.diag(found.counts.diagonal())).all()


def test_rows_of_an_input_that_has_grown_are_common_to_the_last(reference: Run, grown: Run) -> None:
    for pair in ((reference, grown), (grown, reference)):
        found = compare_runs(*pair)
        assert (found.recognised_by, found.n_common) == ("position", N_ROWS)
        assert_same_clusters(found)
    assert (found.counts.diagonal() == reference.array("cluster/size")[:]).all()
    source = Path(grown.job.input.url)
    source.rename(source.with_name("moved"))
    try:
        assert compare_runs(reference, Run(str(grown.url))).n_common == N_ROWS - N_ROWS % BLOCK_ROWS
    finally:
        source.with_name("moved").rename(source)


def test_rows_are_recognised_by_their_ids_wherever_they_are(grown: Run, shuffled: tuple[Run, np.ndarray]) -> None:
    run, taken = shuffled
    found = compare_runs(grown, run)
    assert (found.recognised_by, found.n_common) == ("id", len(taken) - 2)
    assert_same_clusters(found)
    assert (found.counts.diagonal() == np.bincount(run.array("label")[2:], minlength=len(found.counts))).all()


def test_a_run_is_compared_on_the_command_line_and_in_python(reference: Run, grown: Run, tmp_path: Path) -> None:
    page = tmp_path / "new" / "page.html"
    command = ["compare", str(reference.url), str(grown.url), "--html", str(page)]
    shown = CliRunner().invoke(app, command)
    assert shown.exit_code == 0, shown.output
    assert f"{N_ROWS:,} rows have a label in both (the same by position)" in " ".join(shown.output.split())
    assert re.search(r"\b0 +[\d,]+ +kept +0 \(100%\)", shown.output)
    text = page.read_text()
    assert not re.search(r"(src|href)=\"(?!#)|https?://", text), "it asks no network for anything"
    assert "Adjusted Rand index 1.000 (standard error over rows 0.000)" in text
    again = CliRunner().invoke(app, command)
    assert "is there already" in str(again.exception)
    answer = json.loads(CliRunner().invoke(app, [*command[:3], "--json"]).stdout)
    assert (answer["n_common"], answer["html"], answer["events"]["kept"]) == (N_ROWS, None, len(answer["counts"]))
    assert open_run(reference.url).compare(str(grown.url)).n_common == N_ROWS


def test_what_cannot_be_compared_is_refused(
    reference: Run, grown: Run, shuffled: tuple[Run, np.ndarray], tmp_path: Path
) -> None:
    with pytest.raises(JobError, match="there is no run at"):
        compare_runs(reference, Run(str(tmp_path)))
    with pytest.raises(JobError, match=r"have no rows in common: no block of their inputs .* Name one"):
        compare_runs(reference, shuffled[0])
    record = Path(grown.url) / "commit/label_rows/1.json"
    kept, collected = record.read_bytes(), Path(grown.url) / "commit/label_rows.json"
    others = collected.read_bytes() if collected.exists() else None
    record.unlink()
    collected.unlink(missing_ok=True)
    try:
        with pytest.raises(JobError, match="is not finished: run its job to the end first"):
            compare_runs(reference, Run(str(grown.url)))
    finally:
        record.write_bytes(kept)
        if others is not None:
            collected.write_bytes(others)
