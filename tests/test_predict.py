"""Other rows under a frozen model: the run's own bytes for rows that it has seen, whatever happens on the way."""

import json
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import dask.array as da
import numpy as np
import pytest
import uvicorn
from conftest import Command, planted_rows, write_input
from distributed import Client
from test_resume import flip_bit
from threadpoolctl import threadpool_info, threadpool_limits
from typer.testing import CliRunner

from benchmarks.servers import dask_cluster
from distcluster import Model, load_model
from distcluster.cli.main import app
from distcluster.errors import CorruptError, JobError
from distcluster.execution.status import read_status
from distcluster.stages.freezing import freeze
from distcluster.stages.labelling import level_arrays
from distcluster.storage.inputs import open_input
from distcluster.storage.run import Run

ROWS = ("label", "probability", "top_label", "top_probability", "log_density", "support", "projection", "view_2d")
SEEN = 3000  # of the run's rows, the first of the new ones


@pytest.fixture(scope="module")
def rows(reference: Run) -> np.ndarray:
    """Some rows of the run, in another order, and rows that it has not seen."""
    seen = open_input(reference.job.input.url, "embeddings")[:SEEN][::-1]
    return np.concatenate([seen, planted_rows(2000, 8, seed=0)[0] + np.float32(0.01)])


@pytest.fixture(scope="module")
def exported(reference: Run, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The model alone."""
    target = tmp_path_factory.mktemp("exported") / "model"
    done = CliRunner().invoke(app, ["export", reference.url, str(target), "--to", "model"])
    assert done.exit_code == 0, done.output
    return str(target)


@pytest.fixture(scope="module")
def model(exported: str) -> Model:
    return load_model(exported)


def argv(model: str, source: Path, out: Path, *more: str) -> list[str]:
    quiet = ("--set", "deploy.dashboard_address=127.0.0.1:0")
    return [sys.executable, "-m", "distcluster", "predict", model, str(source), str(out), *quiet, *more]


def predict(model: str, source: Path, out: Path, *more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(argv(model, source, out, *more), capture_output=True, text=True, timeout=300, check=False)


def is_as_the_run_says(out: Path, reference: Run, expected: dict[str, bytes]) -> None:
    """Rows that the run has seen have its bytes; all rows those of ``expected``, which the first call fills."""
    found = Run(str(out))
    for name in (*ROWS, *(each.path for each in level_arrays(reference))):
        values = found.array(name)[:]
        assert values[:SEEN].tobytes() == reference.array(name)[:SEEN][::-1].tobytes(), name
        assert values.tobytes() == expected.setdefault(name, values.tobytes()), name


def test_rows_get_the_runs_bytes_from_the_run_and_from_the_model_alone_after_kills_and_on_any_workers(
    reference: Run, exported: str, rows: np.ndarray, tmp_path: Path
) -> None:
    source = write_input(tmp_path / "new.zarr", rows)
    expected: dict[str, bytes] = {}
    done = predict(reference.url, source, tmp_path / "from run", "--set", "deploy.n_workers=1")
    assert done.returncode == 0, done.stderr
    assert f"{len(rows):,} rows with a label; " in done.stdout
    assert "Drift: " in done.stdout
    told = CliRunner().invoke(app, ["drift", exported, str(tmp_path / "from run")])
    assert told.output.split("Drift: ")[1] == done.stdout.split("Drift: ")[1]
    is_as_the_run_says(tmp_path / "from run", reference, expected)
    out = tmp_path / "from model"
    sizes = ["--set", "deploy.n_workers=2", "--set", "assign.partition_rows=512"]
    for stage in ("find_neighbours", "label_rows"):
        process = subprocess.Popen(
            argv(exported, source, out, *sizes), start_new_session=True, stdout=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 120
        while not list(out.glob(f"commit/{stage}/*.json")) and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.002)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    done = predict(exported, source, out, *sizes)
    assert done.returncode == 0, done.stderr
    assert len(Run(str(out)).partitioning) != len(Run(str(tmp_path / "from run")).partitioning)
    is_as_the_run_says(out, reference, expected)
    again = predict(exported, source, out, *sizes)
    assert "nothing was left to do" in again.stdout, again.stderr


def test_a_prediction_of_few_rows_is_a_run_with_neither_report_nor_grid(
    exported: str, rows: np.ndarray, tmp_path: Path
) -> None:
    rows, out = rows[:3], tmp_path / "out"
    done = predict(exported, write_input(tmp_path / "new.zarr", rows), out)
    assert done.returncode == 0, done.stderr
    status = read_status(str(out))
    assert status.finished
    assert [stage.name for stage in status.stages] == ["scan", "find_neighbours", "project_rows", "label_rows"]
    done = CliRunner().invoke(app, ["export", str(out), str(tmp_path / "parquet")])
    assert done.exit_code == 0, done.output
    assert (load_model(str(out)).predict(rows) == Run(str(out)).array("label")[:]).all(), "it carries the model"
    other = Path(shutil.copytree(exported, tmp_path / "other"))
    settings, run_id = (other / "zarr.json").read_text(), Run(exported).settings.run_id
    (other / "zarr.json").write_text(settings.replace(run_id, "another"))
    done = predict(str(other), tmp_path / "new.zarr", out)
    assert done.returncode == 2
    assert f"the model: {run_id} in the run, another now" in done.stderr
    choose = ["choose", str(out), "--n-components", "8", "--covariance-type", "full"]
    for command in (["report", str(out)], choose, ["drift", str(other), str(out)]):
        refused = CliRunner().invoke(app, command)
        assert re.search("has another run's model|was not labelled by", str(refused.exception))


def test_a_damaged_copy_of_the_model_is_made_again(exported: str, rows: np.ndarray, tmp_path: Path) -> None:
    source, out = write_input(tmp_path / "new.zarr", rows), tmp_path / "out"
    assert predict(exported, source, out).returncode == 0
    before = Run(str(out)).array("label")[:]
    flip_bit(out / "model" / "anchors" / "c" / "0" / "0")
    shutil.rmtree(out / "commit" / "label_rows")
    shutil.rmtree(out / "commit" / "project_rows")
    done = predict(exported, source, out)
    assert done.returncode == 0, done.stderr
    assert (Run(str(out)).array("label")[:] == before).all()
    assert load_model(str(out)).n_features == rows.shape[1]


def test_a_damaged_model_labels_nothing(exported: str, rows: np.ndarray, tmp_path: Path) -> None:
    damaged = Path(shutil.copytree(exported, tmp_path / "model"))
    flip_bit(damaged / "model" / "field" / "c" / "0" / "0")
    with pytest.raises(CorruptError, match="model/field"):
        load_model(str(damaged))
    done = predict(str(damaged), write_input(tmp_path / "new.zarr", rows), tmp_path / "out")
    assert done.returncode == 1
    assert f"the model {damaged} is damaged: model/field" in done.stderr
    assert not (tmp_path / "out" / "commit" / "label_rows").exists()


def test_wrong_inputs_and_outputs_are_refused_before_anything_is_written(
    exported: str, finished: Command, rows: np.ndarray, tmp_path: Path
) -> None:
    source = write_input(tmp_path / "new.zarr", rows)
    narrow = write_input(tmp_path / "narrow.zarr", np.ascontiguousarray(rows[:, :5]))
    out = tmp_path / "out"
    for arguments, message in (
        ((exported, narrow, out), "the rows have 5 features, those that the model was fitted on have 16"),
        ((exported, tmp_path / "nothing", out), "nothing"),
        ((str(tmp_path / "nothing"), source, out), "there is no run at"),
        ((exported, source, out, "--set", "sample.seed=3"), "the model is as it is"),
        ((exported, source, finished.output), "was made for something else"),
        ((str(finished.output), source, finished.output, "--overwrite"), "lies inside the model's run"),
        ((exported, source, out, "--set", "deploy.kind=kubernetes"), "no scheduler is known"),
    ):
        done = predict(*arguments)
        assert done.returncode == 2, done.stderr
        assert message in done.stderr
    assert not out.exists()
    assert load_model(str(finished.output)).n_features == 16, "the model's run is still there"


def test_a_model_that_was_replaced_meanwhile_is_not_mixed_with_the_one_before(
    reference: Run, finished: Command, tmp_path: Path
) -> None:
    model = Run(str(finished.output))
    target = Run(str(tmp_path / "target"))
    with target.writing(20):
        target.create(replace(reference.settings, model=reference.settings.run_id))
        freeze(model, target)
        assert target.records.of_stage("fit_umap")
        target.records.forget("fit_umap")
        settings = (finished.output / "zarr.json").read_text()
        (finished.output / "zarr.json").write_text(settings.replace(reference.settings.run_id, "another"))
        with pytest.raises(JobError, match="now holds another model"):
            freeze(model, target)
        assert not target.records.of_stage("fit_umap")


def test_a_run_without_a_model_is_refused(finished: Command) -> None:
    (finished.output / "commit" / "publish_mixture" / "all.json").unlink()
    with pytest.raises(JobError, match="has no model yet"):
        load_model(str(finished.output))


# --- in this process --------------------------------------------------------------------------------------------


def test_a_model_in_memory_gives_the_runs_bytes(model: Model, reference: Run, rows: np.ndarray) -> None:
    found = model.assign(rows)
    for name in ROWS[:-1]:
        assert getattr(found, name)[:SEEN].tobytes() == reference.array(name)[:SEEN][::-1].tobytes(), name
    assert model.transform(rows[:SEEN], "view_2d").tobytes() == reference.array("view_2d")[:SEEN][::-1].tobytes()
    probability = model.predict_proba(rows)
    np.testing.assert_allclose(probability.sum(axis=1), 1.0)
    assert (probability.argmax(axis=1) == model.predict(rows)).all()
    assert (probability.max(axis=1).astype(np.float32) == found.probability).all()
    assert (model.score_samples(rows) == found.log_density).all()
    assert (model.support(rows) == found.support).all()
    assert (model.transform(rows) == found.projection).all()
    assert model.assign(rows[:4], top=5).top_label.shape == (4, 5)
    assert model.predict(rows[:0]).shape == (0,)
    assert model.run_id == reference.settings.run_id
    assert (pickle.loads(pickle.dumps(model)).predict(rows[:9]) == found.label[:9]).all()


def test_threads_share_a_model_and_the_process_has_its_threads_back(
    model: Model, rows: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Another test may have performed a task in this process.
    monkeypatch.setattr("distcluster.environment._borrowed.stays", False)
    alone, found = model.assign(rows), {}

    def work(number: int) -> None:
        here = numbers_of_threads()
        found[number] = [model.assign(rows[number::8]) for _ in range(3)]
        after[number] = here, numbers_of_threads()

    after: dict[int, tuple[list[int], list[int]]] = {}
    with threadpool_limits(2):
        before = numbers_of_threads()
        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        assert numbers_of_threads() == before
        with threadpool_limits(1):
            assert set(numbers_of_threads()) == {1}, "the process is its owner's again"
    openmp = [each["user_api"] == "openmp" for each in threadpool_info()]
    for here, now in after.values():  # BLAS is every thread's, and others may still be at work
        assert np.array(here)[openmp].tolist() == np.array(now)[openmp].tolist()
    for number, answers in found.items():
        for each in answers:
            assert each.probability.tobytes() == alone.probability[number::8].tobytes()


def numbers_of_threads() -> list[int]:
    """Of every library, as this thread has them."""
    return [each["num_threads"] for each in threadpool_info()]


def test_dask_arrays_are_answered_on_workers_lazily(model: Model, rows: np.ndarray, tmp_path: Path) -> None:
    chunked = da.from_array(rows, chunks=(700, 5))
    with dask_cluster(tmp_path, n_workers=2) as (address, _), Client(address):
        answers = {
            "label": model.predict(chunked),
            "log_density": model.score_samples(chunked),
            "support": model.support(chunked),
            "projection": model.transform(chunked),
        }
        assert all(isinstance(each, da.Array) for each in answers.values())
        found = model.assign(rows)
        for name, lazy in answers.items():
            expected = getattr(found, name)
            assert lazy.shape == expected.shape
            assert lazy.dtype == expected.dtype
            assert lazy.compute().tobytes() == expected.tobytes(), name
        assert (model.predict_proba(chunked).compute() == model.predict_proba(rows)).all()


def test_the_web_service_of_the_documentation_answers(
    exported: str, model: Model, rows: np.ndarray, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    page = (Path(__file__).parent.parent / "docs" / "predict.md").read_text()
    (code,) = (each for each in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "FastAPI" in each)
    shutil.copytree(exported, tmp_path / "models" / "products")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(code, names)
    server = uvicorn.Server(uvicorn.Config(names["app"], port=0, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.05)
        port = server.servers[0].sockets[0].getsockname()[1]
        with ThreadPoolExecutor(4) as clients:
            answers = list(clients.map(lambda some: asked(port, some), np.split(rows[:400], 8)))
    finally:
        server.should_exit = True
        thread.join()
    assert [label for each in answers for label in each["label"]] == model.predict(rows[:400]).tolist()


def asked(port: int, rows: np.ndarray) -> dict[str, list[float]]:
    """What the service says of some rows."""
    request = Request(f"http://127.0.0.1:{port}/label", json.dumps(rows.tolist()).encode(), method="POST")
    request.add_header("Content-Type", "application/json")
    with urlopen(request, timeout=60) as answer:
        found: dict[str, list[float]] = json.load(answer)
        return found


def test_rows_that_cannot_be_labelled_are_named(model: Model, rows: np.ndarray) -> None:
    wrong = rows[:4500].copy()
    wrong[4400, 2] = np.nan
    with pytest.raises(ValueError, match=r"row 4,400 .*cannot be labelled: NaN"):
        model.predict(wrong)
    with pytest.raises(ValueError, match=r"rows of shape \(n, 16\) are expected"):
        model.predict(rows[0])
    with pytest.raises(ValueError, match=r"rows of shape \(n, 16\) are expected"):
        model.predict(da.from_array(rows[:, :5]))
    with pytest.raises(ValueError, match="must be 1 or more"):
        model.assign(rows, top=0)
    with pytest.raises(ValueError, match="must be one of projection, view_2d"):
        model.transform(rows, "view_9d")


def test_invalid_rows_have_no_label_where_the_run_skips_them(
    new_command: Callable[..., Command], rows: np.ndarray, planted: tuple[Path, np.ndarray], tmp_path: Path
) -> None:
    known = open_input(str(planted[0]), "embeddings")[:].copy()
    known[7] = np.inf
    command = new_command(write_input(tmp_path / "known.zarr", known), input__on_invalid="skip")
    run = command.run_to_the_end()
    found = load_model(run.url).assign(known[:1000])
    assert found.label[7] == -1
    for name in ROWS[:-1]:
        assert getattr(found, name).tobytes() == run.array(name)[:1000].tobytes(), name
    out = tmp_path / "out"
    assert predict(run.url, write_input(tmp_path / "new.zarr", known[:1000]), out).returncode == 0
    assert (Run(str(out)).array("label")[:] == found.label).all()
