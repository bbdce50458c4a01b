"""The real image and the rendered manifests, played by podman: faults while a job runs change no byte of it."""

import contextlib
import fcntl
import os
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from zipfile import ZipFile

import pytest
from conftest import unequal
from play import Machine, machine
from played import Played

from distcluster.execution.worker_check import SILENT_SECONDS
from distcluster.kubernetes.outcome import Outcome, outcome
from distcluster.kubernetes.submitted import Submitted
from distcluster.storage.run import Run
from jobs import PLANTED, write_job

ROOT = Path(__file__).parents[2]
IMAGE = f"localhost/distcluster:{version('distcluster')}"
USER = 10001
STORE_PORT = 5000


def missing() -> str | None:
    """Why this machine cannot play pods."""
    programs = ("podman", "runc", "unshare", "nsenter")
    absent = [name for name in programs if shutil.which(name) is None]
    if absent:
        return f"not on this machine: {', '.join(absent)}"
    return None if os.geteuid() == 0 else "network namespaces want root"


def without_image() -> str | None:
    """Why there is no image of these sources, once nobody is making one."""
    with contextlib.suppress(FileNotFoundError), (ROOT / "build" / "image" / "lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
    label = '{{index .Labels "distcluster.sources"}}'
    inspect = ["podman", "image", "inspect", "--format", label, IMAGE]
    built = subprocess.run(inspect, check=False, capture_output=True, text=True)
    if built.returncode != 0:
        return f"no image {IMAGE}: make image"
    now = subprocess.run([ROOT / "k8s" / "build.sh", "sources"], check=True, capture_output=True, text=True)
    return None if built.stdout == now.stdout else f"{IMAGE} was made from other sources: make image"


_MISSING = missing()
pytestmark = [pytest.mark.skipif(_MISSING is not None, reason=str(_MISSING)), pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def image() -> None:
    """The image, which is made while other tests run."""
    reason = without_image()
    if reason is not None:
        pytest.skip(reason)


@pytest.fixture(scope="module")
def played(
    image: None, planted: tuple[Path, Any], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Machine, Path]]:
    """A machine, and the directory that its pods see as /data, with the input and an undisturbed local run in it."""
    data = tmp_path_factory.mktemp("data")
    shutil.copytree(planted[0], data / "input.zarr")
    for name in ("items.txt", "labels.txt"):
        (data / "demo").mkdir(exist_ok=True)
        shutil.copy(ROOT / "jobs" / "demo" / name, data / "demo")
    with ZipFile(ROOT / "jobs" / "demo" / "embeddings.zarr.zip") as archive:
        archive.extractall(data / "demo" / "embeddings.zarr")
    for path in (data, *data.rglob("*")):
        os.chown(path, USER, USER)
    # A short path: podman refuses one of over 50 letters when it starts a killed container again.
    with TemporaryDirectory(ignore_cleanup_errors=True) as directory, machine(Path(directory)) as opened:
        (data / "local.out").write_text(run_locally(opened, write_job(data, "local", IMAGE, PLANTED)))
        yield opened, data


def run_locally(opened: Machine, job: Path) -> str:
    """Run the job in one container, with workers of its own and no network; what it prints."""
    command = ["distcluster", "run", f"/data/{job.name}", "--set", "deploy.kind=local"]
    mounts = ["--volume", f"{job.parent}:/data", "--read-only", "--tmpfs", "/scratch:mode=1777"]
    variables = ("HOME=/scratch", "NUMBA_CACHE_DIR=/scratch/numba", "NUMBA_DEBUG_CACHE=1")
    environ = [f"--env={each}" for each in variables]
    return opened.podman("run", "--rm", "--network=none", *mounts, *environ, IMAGE, *command)


def demo_job(directory: str) -> dict[str, Any]:
    """The demo's settings, its files in a directory that pods can see."""
    text = (
        (ROOT / "jobs" / "demo.toml").read_text().replace("jobs/demo/", f"{directory}/").replace(".zarr.zip", ".zarr")
    )
    return {f"{table}.{key}": value for table, keys in tomllib.loads(text).items() for key, value in keys.items()}


def nothing(machine: Machine, pods: Played) -> None:
    pass


def kill_worker(machine: Machine, pods: Played) -> None:
    machine.kill(pods.workers[0])
    pods.replace_worker(0)


def drain_worker(machine: Machine, pods: Played) -> None:
    machine.podman("exec", pods.workers[0], *pods.hand_over)
    machine.kill(pods.workers[0])
    pods.replace_worker(0)


SWALLOW = """
import time
from pathlib import Path

commands = {each: (each / "cmdline").read_bytes() for each in Path("/proc").glob("[0-9]*")}
(worker,) = [each for each, command in commands.items() if command.endswith(b"--multiprocessing-fork\\0")]
(worker / "oom_score_adj").write_text("1000")  # rather it than us
held = []
while worker.exists() and (worker / "cmdline").read_bytes() and len(held) < 400:
    held.append(b"x" * 2**22)
    time.sleep(0.01)  # it takes a moment to go, and what it leaves must not be swallowed too
"""
"""All that is left of a container's memory. Its worker itself would be stopped by Dask before the kernel does."""


def fill_worker(machine: Machine, pods: Played) -> None:
    before = machine.oom_kills(pods.workers[0])
    # The worker is the first to go; what swallows may follow while the kernel still takes the worker's memory back.
    machine.podman("exec", pods.workers[0], "python", "-c", SWALLOW, check=False)
    assert machine.oom_kills(pods.workers[0]) > before


def pause_worker(machine: Machine, pods: Played) -> None:
    machine.podman("pause", pods.workers[0])
    time.sleep(10)
    machine.podman("unpause", pods.workers[0])


def cut_worker(machine: Machine, pods: Played) -> None:
    machine.set_link(pods.workers[0], "down")


def kill_scheduler(machine: Machine, pods: Played) -> None:
    machine.kill(pods.scheduler)


SIDECARS = {"ended": "exit 7", "mesh": "exec sleep infinity"}
"""Beside the driver of the undisturbed job: what they end with is nothing, and nobody waits for them."""

FAULTS: dict[str, tuple[str, Callable[[Machine, Played], None], list[int]]] = {
    "undisturbed": ("nothing", nothing, [0]),
    "worker-killed": ("kill -9 of a worker", kill_worker, [0]),
    "worker-drained": ("a worker drained: preStop, then killed", drain_worker, [0]),
    "worker-out-of-memory": ("a worker killed by the kernel: no memory left", fill_worker, [0]),
    "worker-paused": ("a worker frozen for 10 s", pause_worker, [0]),
    "worker-cut": ("a worker's network cut, for good", cut_worker, [0]),
    "scheduler-killed": ("kill -9 of the scheduler", kill_scheduler, [75, 0]),
}
"""In words, what happens in the middle of the job, and the exit codes of the driver's attempts."""


@pytest.fixture(scope="module")
def fault_table() -> Iterator[dict[str, tuple[list[int], float, bool]]]:
    """Exit codes, seconds from the fault to the job's end, and whether the bytes are equal; left in build/faults.md."""
    found: dict[str, tuple[list[int], float, bool]] = {}
    yield found
    lines = [
        "| fault | driver's exit codes | seconds to the job's end | of them lost | bytes equal |",
        "|---|---|--:|--:|---|",
    ]
    usual = found.get("undisturbed", ([], float("nan"), True))[1]
    for name, (codes, seconds, equal) in found.items():
        cells = [FAULTS[name][0], ", then ".join(map(str, codes)), f"{seconds:.0f}", f"{seconds - usual:.0f}"]
        lines.append(f"| {' | '.join(cells)} | {'yes' if equal else 'NO'} |")
    (ROOT / "build").mkdir(exist_ok=True)
    (ROOT / "build" / "faults.md").write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_changes_no_byte(
    played: tuple[Machine, Path], fault_table: dict[str, tuple[list[int], float, bool]], fault: str
) -> None:
    opened, data = played
    _, strike, expected = FAULTS[fault]
    sidecars = SIDECARS if fault == "undisturbed" else {}
    pods = Played(opened, write_job(data, fault, IMAGE, PLANTED), sidecars=sidecars)
    try:
        pods.wait_until_half_done()
        started = time.monotonic()
        strike(opened, pods)
        codes = pods.exit_codes()
        seconds = time.monotonic() - started
        assert codes == expected, pods.log()
        if fault != "worker-cut":  # whom nobody can tell
            assert pods.leave() == [0, 0, 0]
        if sidecars:
            ended = outcome(Submitted({}, [pods.drivers_pod()], []))
            assert ended == Outcome(0, "The driver is over. mesh runs on in its pod, and is not waited for.")
    finally:
        pods.stop()
    different = unequal(Run(str(data / "local")), Run(str(data / fault)))
    fault_table[fault] = codes, seconds, not different
    assert different == []


def test_a_prediction_whose_worker_is_frozen_at_its_start_gives_seen_rows_their_bytes(
    played: tuple[Machine, Path],
) -> None:
    opened, data = played
    settings = {"input.url": "/data/input.zarr", "predict.model": "/data/local"}
    job = write_job(data, "predicted", IMAGE, settings)
    pods = Played(opened, job, early=lambda pods: opened.podman("pause", pods.workers[0]))
    try:
        pods.wait(lambda: "does not answer and is left out" in pods.log(), SILENT_SECONDS + 30)
        opened.podman("unpause", pods.workers[0])
        assert pods.exit_codes() == [0], pods.log()
        assert pods.leave() == [0, 0, 0]
    finally:
        pods.stop()
    run, predicted = Run(str(data / "local")), Run(str(data / "predicted"))
    for name in ("label", "probability", "log_density", "support", "projection"):
        assert (predicted.array(name)[:] == run.array(name)[:]).all(), name


TRANSFER = """
import sys
from pathlib import Path
import obstore
endpoint, direction, directory = sys.argv[1:]
store = obstore.store.S3Store("bucket", endpoint=endpoint, access_key_id="key", secret_access_key="secret",
                              region="us-east-1", client_options={"allow_http": True})
if direction == "up":
    from urllib.request import Request, urlopen
    urlopen(Request(f"{endpoint}/bucket", method="PUT")).close()
    for path in Path(directory).rglob("*"):
        if path.is_file():
            obstore.put(store, f"demo/{path.relative_to(directory)}", path.read_bytes())
else:
    for item in [each for batch in obstore.list(store, prefix="run") for each in batch]:
        path = Path(directory, item["path"])
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(obstore.get(store, item["path"]).bytes())
"""
"""Between a directory and the bucket, from where the bucket is reached."""


@pytest.fixture
def bucket(played: tuple[Machine, Path]) -> Iterator[str]:
    """The endpoint of an S3 API beside the pods, the demo's files in its bucket."""
    opened, data = played
    server = opened.start_process(
        sys.executable, "-m", "moto.server", "-H", "0.0.0.0", "-p", str(STORE_PORT),
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        while not opened.run("ss", "--listening", "--tcp", "--no-header", f"sport = {STORE_PORT}"):
            assert server.poll() is None
            time.sleep(0.2)
        opened.run(sys.executable, "-c", TRANSFER, f"http://127.0.0.1:{STORE_PORT}", "up", str(data / "demo"))
        yield f"http://{opened.gateway()}:{STORE_PORT}"
    finally:
        server.kill()
        server.wait()


def test_the_demo_from_s3_to_s3_gives_the_bytes_of_a_local_run_though_the_store_is_away_at_times(
    played: tuple[Machine, Path], bucket: str, tmp_path: Path
) -> None:
    opened, data = played
    few: dict[str, Any] = {"mixture__n_components": [2, 4, 8, 16, 32], "projection__n_epochs": 50}
    few |= {"sample__rows": 3000, "sample__mixture_rows": 3000, "selection__replicates": 2}  # it is about the store
    run_locally(opened, write_job(data, "demo-local", IMAGE, demo_job("/data/demo"), **few))
    changes = few | {"output__url": "s3://bucket/run", "deploy__secret": "keys"}
    changes["assign__partition_rows"] = 4096  # the API is slow, and the bytes the same
    keys = {"AWS_ENDPOINT_URL": bucket, "AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}
    keys |= {"AWS_REGION": "us-east-1"}
    job = write_job(data, "s3", IMAGE, demo_job("s3://bucket/demo"), **changes)

    def begin_without_store(pods: Played) -> None:
        opened.set_port(STORE_PORT, "down")
        pods.secret["DISTCLUSTER_STORE_SECONDS"] = "3"  # the driver's alone: workers ask a slow API under load

    pods = Played(opened, job, keys, early=begin_without_store)
    try:
        assert pods.exit_code() == 75, pods.log()
        opened.set_port(STORE_PORT, "up")
        del pods.secret["DISTCLUSTER_STORE_SECONDS"]  # five minutes: the next outage is shorter
        pods.driver = pods.start_driver()
        take_picture(opened, pods, tmp_path)
        pods.wait(lambda: "find_neighbours" in pods.log(), 300)
        opened.set_port(STORE_PORT, "down")
        time.sleep(8)
        opened.set_port(STORE_PORT, "up")
        assert pods.exit_codes() == [0], pods.log()
        opened.run(sys.executable, "-c", TRANSFER, f"http://127.0.0.1:{STORE_PORT}", "down", str(tmp_path))
    finally:
        pods.stop()
    assert unequal(Run(str(data / "demo-local")), Run(str(tmp_path / "run"))) == []


def take_picture(opened: Machine, pods: Played, directory: Path) -> None:
    """Leave a picture of the dashboard in the middle of the job in build/screenshots."""
    chromium = shutil.which("chromium")
    if chromium is None:
        return
    from playwright.sync_api import sync_playwright

    inside = directory / "chromium"
    inside.write_text(f'#!/bin/sh\nexec {" ".join(opened.inside())} {chromium} "$@"\n')
    inside.chmod(0o755)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=inside, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        pods.wait(lambda: "Dashboard:" in pods.log(), 120)
        page.goto(f"http://{opened.address(pods.scheduler)}:8787/status")
        pods.wait(lambda: "find_neighbours" in pods.log(), 300)
        page.screenshot(path=ROOT / "build" / "screenshots" / "dashboard.png")
        browser.close()


def test_the_container_may_write_nowhere_else_and_is_not_root(played: tuple[Machine, Path]) -> None:
    opened, _ = played
    script = "id -u; touch /opt/distcluster/x /etc/x 2>/dev/null && echo writable; python -c 'import pip' 2>/dev/null"
    printed = opened.podman("run", "--rm", "--network=none", "--read-only", IMAGE, "sh", "-c", script, check=False)
    assert printed.split() == [str(USER)]


def test_no_kernel_is_compiled_but_in_the_image(played: tuple[Machine, Path]) -> None:
    printed = (played[1] / "local.out").read_text()
    assert "[cache] data loaded" in printed
    assert [line for line in printed.splitlines() if "[cache] data saved" in line] == []
