"""Small planted data, and jobs run as a user runs them: by the command line, with real worker processes."""

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest
import zarr
from groups import ByGroup, place_of
from playwright.sync_api import Browser, sync_playwright

from benchmarks.servers import changed_environment, s3_api
from distcluster.environment import environment
from distcluster.job import Job
from distcluster.prepare import check_job, prepared_run
from distcluster.stages.refining import PUBLISH_MIXTURE
from distcluster.storage.run import Run

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs, and what they start, ignore it
hypothesis.settings.register_profile("shared machine", deadline=None)  # several processes test at the same time
hypothesis.settings.load_profile("shared machine")


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByGroup:
    """Say which tests share a process."""
    return ByGroup(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the groups that take longest."""
    items.sort(key=lambda item: place_of(item.path))


BLOCK_ROWS = 512
N_ROWS = 8 * 4 * BLOCK_ROWS - 100  # 32 blocks, the last one short
RESULTS = (
    "label", "probability", "stability", "top_label", "top_probability", "log_density", "support", "projection",
    "view_2d", "sample/row", "sample/mixture_row", "model/sample", "model/index/graph", "model/anchors",
    "model/field", "model/view_2d/anchors", "model/view_2d/field",
    "model/stability/point", "model/stability/label", "model/stability/share", "cluster/stability",
    "model/mixture/weights", "model/mixture/means", "model/mixture/covariances",
    "selection/log_likelihood", "selection/bic", "selection/icl", "selection/silhouette", "selection/n_iter",
    "selection/aic", "selection/log_likelihood_all", "selection/bic_all", "selection/silhouette_euclidean",
    "selection/silhouette_euclidean_error", "selection/component/rows", "selection/component/mean",
    "cluster/size", "cluster/mean_probability", "cluster/exemplar", "cluster/exemplar_distance",
    "hierarchy/merge", "hierarchy/value",
)  # fmt: skip


def planted_rows(n_rows: int, n_clusters: int, n_features: int = 16, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Gaussian balls of unit spread at random centres, ten apart or so: (N, D) float32, and the ball of each row."""
    random = np.random.default_rng(seed)
    centres = random.normal(scale=8.0, size=(n_clusters, n_features))
    truth = random.integers(n_clusters, size=n_rows)
    return (centres[truth] + random.normal(size=(n_rows, n_features))).astype(np.float32), truth


def write_input(path: Path, rows: np.ndarray, **options: Any) -> Path:
    """A Zarr group that holds ``embeddings``."""
    options = {"chunks": (1000, rows.shape[1])} | options
    zarr.create_array(str(path), name="embeddings", data=rows, **options)
    return path


def make_run(job: Job, *, overwrite: bool = False) -> Run:
    """The run of a job, made or opened; for reading once it is there."""
    with prepared_run(check_job(job, overwrite=overwrite)) as run:
        return run


@dataclass
class Command:
    """A job file and the command line on it."""

    directory: Path
    source: Path | str
    output: Path
    settings: dict[str, Any] = field(default_factory=dict)
    environ: dict[str, str | None] = field(default_factory=dict)

    def argv(self, *arguments: str) -> list[str]:
        """The command, its job file freshly written."""
        job = self.directory / f"{self.output.name}.toml"
        lines = [f"input.url = {json.dumps(str(self.source))}", f"output.url = {json.dumps(str(self.output))}"]
        lines += [f"{key} = {json.dumps(value)}" for key, value in self.settings.items()]
        job.write_text("\n".join(lines) + "\n")
        return [sys.executable, "-m", "distcluster", "run", str(job), *arguments]

    def process_environment(self) -> dict[str, str]:
        """The environment of this process with the command's changes."""
        return changed_environment(self.environ)

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run it, however it ends."""
        return subprocess.run(
            self.argv(*arguments),
            env=self.process_environment(),
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    def run_to_the_end(self, *arguments: str) -> Run:
        """Run it, and insist on success."""
        done = self.run(*arguments)
        assert done.returncode == 0, done.stderr + done.stdout
        return Run(str(self.output))

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start it in a session of its own, for a test to kill."""
        return subprocess.Popen(
            self.argv(*arguments),
            env=self.process_environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def n_committed(self, stage: str) -> int:
        """Items of a stage that are committed so far."""
        return len(list((self.output / "commit" / stage).glob("*.json")))

    def wait_for(self, process: subprocess.Popen[str], stage: str, items: int = 1) -> bool:
        """Wait until so many items of a stage are committed; whether they were before the process ended."""
        while self.n_committed(stage) < items:
            if process.poll() is not None:
                return False
            time.sleep(0.002)
        return True


SMALL: dict[str, Any] = {
    "sample.rows": 1500,
    "sample.mixture_rows": 1500,
    "projection.metric": "euclidean",
    "projection.n_components": 3,
    "projection.n_epochs": 100,
    "projection.views": [2],
    "mixture.n_components": [2, 3, 4, 6, 8, 11, 16, 23],
    "mixture.n_init": 1,
    "selection.replicates": 0,
    "assign.block_rows": BLOCK_ROWS,
    "assign.partition_rows": 2 * BLOCK_ROWS,
    "deploy.n_workers": 2,
    "deploy.dashboard_address": "127.0.0.1:0",
}
"""A whole job in some seconds."""
FEW: dict[str, Any] = {
    "mixture__n_components": [4], "mixture__covariance_type": ["full"], "projection__views": [],
}  # fmt: skip
"""For ``new_command``, where a run has to come to its end and neither the grid nor a view is looked at."""


Once = Callable[[str, Callable[[Path], object]], Path]


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Once:
    """Make a directory that all processes of the tests share: the first one that asks makes it, the others wait."""
    own = tmp_path_factory.getbasetemp()
    shared = own if worker_id == "master" else own.parent

    def make_once(name: str, make: Callable[[Path], object]) -> Path:
        directory, made = shared / f"once-{name}", shared / f"once-{name}.made"
        with (shared / f"once-{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not made.exists():
                shutil.rmtree(directory, ignore_errors=True)  # it failed in another process
                directory.mkdir()
                make(directory)
                made.touch()
        return directory

    return make_once


@pytest.fixture(scope="session")
def planted(once: Once) -> tuple[Path, np.ndarray]:
    """The input of most end-to-end tests: eight well separated balls, and the ball of each row."""
    rows, truth = planted_rows(N_ROWS, 8)
    return once("planted", lambda directory: write_input(directory / "input.zarr", rows)) / "input.zarr", truth


@pytest.fixture(scope="session")
def other_kernels() -> dict[str, str | None]:
    """A change of the environment with which OpenBLAS takes another kernel family than in this process.

    Without a family that the environment names, where it names one; else with one that every x86-64 since 2013 has.
    """
    program = "from distcluster.environment import environment; print(environment()['OpenBLAS kernels'])"
    for name in (None, "Haswell", "Nehalem"):
        changes = {"OPENBLAS_CORETYPE": name}
        found = subprocess.run(
            [sys.executable, "-c", program],
            env=changed_environment(changes),
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        if found != environment()["OpenBLAS kernels"]:
            return changes
    raise AssertionError(f"OpenBLAS has no kernels but {found} on this machine")


@pytest.fixture(scope="session")
def new_command(planted: tuple[Path, np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Command]:
    """Make a command with a fresh output on the planted input, one worker; who looks at reports or at workers asks."""

    def make(source: Path | str | None = None, environ: dict[str, str | None] | None = None, **changes: Any) -> Command:
        directory = tmp_path_factory.mktemp("run")
        changed = {key.replace("__", "."): value for key, value in changes.items()}
        settings = SMALL | {"report.write": "never", "deploy.n_workers": 1} | changed
        return Command(directory, source or planted[0], directory / "output", settings, environ or {})

    return make


@pytest.fixture(scope="session")
def undisturbed(planted: tuple[Path, np.ndarray], once: Once) -> Command:
    """The command that made the reference; what it printed is in the file ``printed`` beside its output."""

    def command(directory: Path) -> Command:
        return Command(directory, planted[0], directory / "output", SMALL)

    def make(directory: Path) -> None:
        done = command(directory).run()
        assert done.returncode == 0, done.stderr + done.stdout
        (directory / "printed").write_text(done.stdout)

    return command(once("reference", make))


@pytest.fixture(scope="session")
def reference(undisturbed: Command) -> Iterator[Run]:
    """A finished run that nothing disturbed, two workers, partitions of two blocks; for tests to read."""
    run = Run(str(undisturbed.output))
    assert len(run.partitioning) == 16
    leases = [path.read_text() for path in Path(run.url).glob("commit/lease/*.json")]
    yield run
    now = [path.read_text() for path in Path(run.url).glob("commit/lease/*.json")]
    assert now == leases, "a test has written to the run that all share"


@pytest.fixture(scope="session")
def long_refinement(new_command: Callable[..., Command]) -> Callable[..., Command]:
    """Commands whose refinement takes fifteen iterations."""

    def make(partition_rows: int = 4 * BLOCK_ROWS, **settings: object) -> Command:
        return new_command(
            mixture__n_components=[23], mixture__covariance_type=["full"], mixture__tol=1e-9, mixture__max_iter=15,
            selection__rule="bic", assign__partition_rows=partition_rows, **({"deploy__n_workers": 2} | settings),
        )  # fmt: skip

    return make


@pytest.fixture(scope="session")
def refined(long_refinement: Callable[..., Command], once: Once) -> Run:
    """Such a run that nothing disturbed."""

    def make(directory: Path) -> None:
        replace(long_refinement(), output=directory / "output").run_to_the_end()

    run = Run(str(once("refined", make) / "output"))
    assert PUBLISH_MIXTURE.facts_of(run).n_iter > 10
    return run


@pytest.fixture
def finished(undisturbed: Command, tmp_path: Path) -> Command:
    """The command of the reference and a copy of its output, for a test to damage."""
    output = tmp_path / "finished"
    shutil.copytree(undisturbed.output, output)
    return replace(undisturbed, directory=tmp_path, output=output)


@pytest.fixture(scope="session")
def demo(once: Once) -> Run:
    """The demo's run, made as ``make demo`` makes it, in a place of its own."""

    def make(directory: Path) -> None:
        settings = ["--set", f"output.url={directory / 'run'}", "--set", "deploy.dashboard_address=127.0.0.1:0"]
        command = [sys.executable, "-m", "distcluster", "run", "jobs/demo.toml", *settings]
        root = Path(__file__).parent.parent
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=500, check=False)
        assert done.returncode == 0, done.stderr + done.stdout

    return Run(str(once("demo", make) / "run"))


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Debian's Chromium; of a module, because its event loop is in the way of others."""
    chromium = shutil.which("chromium")
    if chromium is None and "CI" not in os.environ:
        pytest.skip("needs Debian's package chromium")
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield running
        running.close()


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """A real S3 API on this machine with a bucket, and the environment that points at it."""
    with s3_api() as environ:
        for key, value in environ.items():
            monkeypatch.setenv(key, value)
        yield environ


class SilentReporter:
    """A reporter that remembers the lines that began, and does something when one begins."""

    def __init__(self, at_start: Callable[[], None] = lambda: None) -> None:
        self.lines: list[str] = []
        self._at_start = at_start

    def dashboard(self, link: str) -> None:
        """As a reporter."""

    def start(self, stage: str, total: int, done: int, unit: str) -> None:
        """As a reporter."""
        self.lines.append(f"{stage}: {done} of {total} {unit}")
        self._at_start()

    def advance(self, stage: str, amount: int) -> None:
        """As a reporter."""

    def finish(self, stage: str, seconds: float) -> None:
        """As a reporter."""


def unequal(a: Run, b: Run) -> list[str]:
    """Result arrays whose bytes differ."""
    return [name for name in RESULTS if a.array(name)[:].tobytes() != b.array(name)[:].tobytes()]
