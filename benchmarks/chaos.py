"""Random kills of everything that takes part in a job, and whether the bytes are those of an undisturbed run.

    python -m benchmarks.chaos [--kills 50] [--partitions 200] [--seed 0] [--json FILE]

Scheduler, workers and client are processes of their own, and the run lies behind an S3 API. Workers, scheduler and
client are killed, told to leave, or stopped for some seconds and continued, at random moments, and the store fails for
some seconds in one of four ways; what is gone is started again, the client with the same command.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn
from unittest.mock import patch

import numpy as np
import zarr
from distributed.utils import open_port

from benchmarks.faulty_proxy import FAULTS, FaultyProxy, faulty_proxy
from benchmarks.servers import s3_api
from distcluster.environment import environment
from distcluster.errors import DONE, TRY_AGAIN
from distcluster.storage.run import Run

WORKERS = 2
BLOCK_ROWS = 256
RUN = "s3://bucket/{}"
STRIKES = (
    ("worker", signal.SIGKILL), ("worker", signal.SIGKILL), ("worker", signal.SIGTERM), ("worker", signal.SIGSTOP),
    ("scheduler", signal.SIGKILL), ("client", signal.SIGKILL), ("client", signal.SIGTERM), ("client", signal.SIGSTOP),
    *(("store", fault) for fault in FAULTS),
)  # fmt: skip


@dataclass
class Outcome:
    """What happened in the disturbed run."""

    seed: int
    strikes: Counter[str] = field(default_factory=Counter)
    starts: int = 0
    commits: int = 0
    redone: int = 0
    seconds: float = 0.0
    undisturbed_seconds: float = 0.0
    differing: list[str] = field(default_factory=list)


class Cluster:
    """A scheduler and workers, each in a session of its own, and all started again when they are gone."""

    def __init__(self, directory: Path, port: int) -> None:
        self._directory = directory
        self.address = f"tcp://127.0.0.1:{port}"
        self._argv = {
            "scheduler": ["scheduler", "--host", "127.0.0.1", "--port", str(port), "--no-dashboard"],
            **{f"worker {i}": self._worker() for i in range(WORKERS)},
        }
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def _worker(self) -> list[str]:
        options = ["--nthreads", "1", "--no-dashboard", "--death-timeout", "20", "--no-nanny"]
        return ["worker", self.address, *options, "--local-directory", str(self._directory)]

    def start_missing(self) -> None:
        """Start what has never been started, and what has gone."""
        for name, argv in self._argv.items():
            if name not in self.processes or self.processes[name].poll() is not None:
                # A task that has lost a few workers is usually to blame itself; here it is not.
                environ = {**os.environ, "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "1000"}
                self.processes[name] = subprocess.Popen(
                    [sys.executable, "-m", "dask", *argv],
                    stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True, env=environ,
                )  # fmt: skip

    def stop(self) -> None:
        """End all of them."""
        for process in self.processes.values():
            process.kill()
            process.wait()


@contextmanager
def faulty_store() -> Iterator[FaultyProxy]:
    """An S3 API behind a proxy that can misbehave; this process and those it starts find it by their environment."""
    with (
        s3_api() as environ,
        faulty_proxy(environ["AWS_ENDPOINT_URL"]) as (proxy, address),
        patch.dict(os.environ, environ | {"AWS_ENDPOINT_URL": address}),
    ):
        yield proxy


def write_job(directory: Path, partitions: int, output: str) -> Path:
    """A small job of many partitions that writes to a URL, and its input where there is none yet."""
    source = directory / "input.zarr"
    if not source.exists():
        chance = np.random.default_rng(0)
        centres, n_rows = chance.normal(scale=8.0, size=(8, 16)), partitions * BLOCK_ROWS
        rows = centres[chance.integers(8, size=n_rows)] + chance.normal(size=(n_rows, 16))
        zarr.create_array(str(source), name="embeddings", data=rows.astype(np.float32), chunks=(8192, 16))
    settings = {
        "input.url": str(source), "output.url": output, "sample.rows": 1500,
        "sample.mixture_rows": 3000, "projection.metric": "euclidean", "projection.n_epochs": 100,
        "projection.views": [2], "mixture.n_components": [2, 4, 8, 16], "mixture.n_init": 1, "selection.replicates": 0,
        "assign.block_rows": BLOCK_ROWS, "assign.partition_rows": BLOCK_ROWS, "deploy.lease_seconds": 5.0,
        "deploy.kind": "address",
    }  # fmt: skip
    job = directory / f"{output.rpartition('/')[2]}.toml"
    job.write_text("\n".join(f"{key} = {json.dumps(value)}" for key, value in settings.items()))
    return job


def start_client(job: Path, address: str) -> subprocess.Popen[str]:
    """The same command each time."""
    argv = [sys.executable, "-m", "distcluster", "run", str(job), "--scheduler", address]
    return subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True)


class Commits:
    """Counts how often every record of a run is written, by looking at what the store is asked."""

    def __init__(self, run: str) -> None:
        self._records = f"/{run.removeprefix('s3://')}/commit/"
        self.written = Counter[str]()

    def __call__(self, method: str, path: str) -> None:
        """See a request."""
        name = path.partition("?")[0]
        is_record = name.endswith(".json") and not name.endswith(("/zarr.json", "/error.json"))
        if method == "PUT" and name.startswith(self._records) and is_record and "/lease/" not in name:
            self.written[name] += 1


def disturb(job: Path, proxy: FaultyProxy, cluster: Cluster, kills: int, outcome: Outcome) -> None:
    """Run a job to its end under so many strikes."""
    chance, pending = random.Random(outcome.seed), list[tuple[float, subprocess.Popen[str]]]()
    proxy.watch = commits = Commits(RUN.format("disturbed"))
    client = start_client(job, cluster.address)
    outcome.starts += 1
    while True:
        time.sleep(chance.uniform(0.2, 2.0))
        for due, process in [each for each in pending if each[0] < time.monotonic()]:
            pending.remove((due, process))
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
        cluster.start_missing()
        if client.poll() is not None:
            _, said = client.communicate()
            if client.returncode == DONE:
                outcome.commits = len(commits.written)
                outcome.redone = commits.written.total() - outcome.commits
                return
            if client.returncode not in (TRY_AGAIN, 130, -signal.SIGKILL, -signal.SIGTERM):
                raise RuntimeError(f"seed {outcome.seed}: exit {client.returncode}: {said}")
            client = start_client(job, cluster.address)
            outcome.starts += 1
        elif outcome.strikes.total() < kills and commits.written:
            whom, how = chance.choice(STRIKES)
            if isinstance(how, str):
                proxy.start(how, chance.uniform(1, 8))
                outcome.strikes[f"{whom} {how}"] += 1
                continue
            name = f"worker {chance.randrange(WORKERS)}" if whom == "worker" else whom
            process = client if whom == "client" else cluster.processes[name]
            if process.poll() is None:
                process.send_signal(how)
                outcome.strikes[f"{whom} {how.name}"] += 1
                if how == signal.SIGSTOP:
                    pending.append((time.monotonic() + chance.uniform(1, 8), process))  # type: ignore[arg-type]


def measure(directory: Path, kills: int, partitions: int, seed: int) -> Outcome:
    """An undisturbed run and a disturbed one of the same job."""
    outcome = Outcome(seed)
    cluster = Cluster(directory, open_port("127.0.0.1"))
    with faulty_store() as proxy:
        try:
            cluster.start_missing()
            undisturbed = write_job(directory, partitions, RUN.format("undisturbed"))
            outcome.undisturbed_seconds = run_seconds(undisturbed, "--scheduler", cluster.address)
            started = time.monotonic()
            disturb(write_job(directory, partitions, RUN.format("disturbed")), proxy, cluster, kills, outcome)
            outcome.seconds = time.monotonic() - started
        finally:
            cluster.stop()
        proxy.start(FAULTS[0], 0)
        outcome.differing = differing(Run(RUN.format("undisturbed")), Run(RUN.format("disturbed")))
    return outcome


def run_seconds(job: Path, *options: str) -> float:
    """How long a job takes, from the command to its end.

    Raises
    ------
    RuntimeError
        When it does not end well.
    """
    started = time.perf_counter()
    argv = [sys.executable, "-m", "distcluster", "run", str(job), *options]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode != DONE:
        raise RuntimeError(f"exit {done.returncode}: {done.stderr}")
    return time.perf_counter() - started


def differing(expected: Run, found: Run) -> list[str]:
    """Arrays whose decoded bytes are not equal, of all that either run has."""
    ours, theirs = arrays(expected), arrays(found)
    unequal = {path for path in ours.keys() & theirs.keys() if ours[path][:].tobytes() != theirs[path][:].tobytes()}
    return sorted((ours.keys() ^ theirs.keys()) | unequal)


def arrays(run: Run) -> dict[str, zarr.Array]:
    """All arrays of a run that have not been emptied, by path."""
    nodes = {key: json.loads(run.store.get(key)) for key in run.store.keys_under("") if key.endswith("/zarr.json")}
    paths = [key.removesuffix("/zarr.json") for key, node in nodes.items() if node["node_type"] == "array"]
    return {path: run.array(path) for path in paths if not path.startswith(run.settings.dropped)}


def main() -> None:
    """Disturb, print, and fail where bytes differ."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--partitions", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        outcome = measure(Path(directory), arguments.kills, arguments.partitions, arguments.seed)
    for kind, count in sorted(outcome.strikes.items()):
        print(f"{kind:20} {count:3}")
    print(f"{outcome.starts} starts of the client; {outcome.redone} of {outcome.commits} commits were made again")
    print(f"{outcome.seconds:.0f} s, undisturbed {outcome.undisturbed_seconds:.0f} s")
    conclude(arguments.json, outcome.differing, vars(outcome))


def conclude(file: Path | None, differing: list[str], found: dict[str, Any]) -> NoReturn:
    """Say whether the bytes are equal, keep what was found as JSON, and fail where they differ."""
    print(f"differing arrays: {differing or 'none'}")
    if file:
        file.write_text(json.dumps(found | {"environment": environment()}, indent=2))
    sys.exit(bool(differing))


if __name__ == "__main__":
    main()
