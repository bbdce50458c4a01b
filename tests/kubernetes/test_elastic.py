"""The number of workers follows the tasks: a real job, real scheduler and workers, a Kubernetes API of this machine."""

import asyncio
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.request import ProxyHandler, build_opener

import dask
import numpy as np
import pytest
from cluster import NAMESPACE, Cluster, Object, served
from conftest import Command, SilentReporter, unequal
from distributed import Client
from test_manifests import DEFAULT

from benchmarks.servers import SILENT, changed_environment
from distcluster.api import run_job
from distcluster.deploy import DeployTable
from distcluster.execution import elastic
from distcluster.execution.connect import new_certificate
from distcluster.execution.dashboard import TOPIC
from distcluster.job_file import load_job
from distcluster.kubernetes.in_pod import dismiss
from distcluster.kubernetes.manifests import render
from distcluster.kubernetes.objects import of_component
from distcluster.kubernetes.own_api import Endpoint
from distcluster.kubernetes.submit import prepare
from distcluster.kubernetes.worker_job import WorkerJob, find_worker_job
from distcluster.stages.labelling import LABEL_ROWS
from distcluster.storage.run import Run

MOST = 3
ELASTIC = {"kind": "kubernetes", "namespace": NAMESPACE, "workers": {"min": 1, "max": MOST}}
IN_POD = [sys.executable, "-m", "distcluster.kubernetes.in_pod", "serve", sys.executable, "-m", "dask"]


class Pods:
    """What Kubernetes does with the Jobs of scheduler and workers, but for containers."""

    def __init__(self, cluster: Cluster, directory: Path) -> None:
        self._cluster, self._directory = cluster, directory
        self._job: Object = of_component(cluster.stored("Job"), "worker")
        self._name = self._job["metadata"]["name"]
        self.scheduler = self._start("scheduler", "--port", "0", "--host", "127.0.0.1", "--dashboard-address", ":0",
                                     "--preload", "distcluster.kubernetes.dismissal",
                                     "--scheduler-file", str(directory / "file"))  # fmt: skip
        while not (directory / "file").exists():
            time.sleep(0.05)
        self.address = json.loads((directory / "file").read_text())["address"]
        self.workers: list[subprocess.Popen[bytes]] = []
        self.running: list[int] = []
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._control)
        self._thread.start()

    def _start(self, *arguments: str) -> subprocess.Popen[bytes]:
        own = self._directory / f"{arguments[0]}{len(list(self._directory.iterdir()))}"
        own.mkdir()
        environ = {"DASK_TEMPORARY_DIRECTORY": str(own), "DISTCLUSTER_N_WORKERS": "1"}
        return subprocess.Popen([*IN_POD, *arguments], env=changed_environment(environ), **SILENT)

    def _control(self) -> None:
        while not self._is_over.wait(0.05):
            spec = self.spec
            for index in range(len(self.workers), spec["completions"]):
                self.workers.append(
                    self._start("worker", self.address, "--name", f"{self._name}-{index}", "--no-dashboard")
                )
            ended = [each.poll() for each in self.workers]
            running = ended.count(None)
            if not self.running or self.running[-1] != running:
                self.running.append(running)
            status = {"status": {"succeeded": ended.count(0)}}
            self._cluster.objects["batch/v1/jobs", NAMESPACE, self._name].patch(status)

    @property
    def spec(self) -> Object:
        """What is asked for now."""
        spec: Object = of_component(self._cluster.stored("Job"), "worker")["spec"]
        assert spec["completions"] == spec["parallelism"], "an Indexed Job changes both or none"
        return spec

    def wait_for_workers(self) -> None:
        """Until as many are connected as there may be."""
        with Client(self.address) as client:
            client.wait_for_workers(MOST, timeout=180)

    def stop(self) -> None:
        """End what is left."""
        self._is_over.set()
        self._thread.join()
        for each in (*self.workers, self.scheduler):
            each.terminate()
        for each in (*self.workers, self.scheduler):
            each.wait(timeout=120)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with served(tmp_path) as (found, _):
        deploy = [f"deploy.workers.{key}={value}" for key, value in ELASTIC["workers"].items()]  # type: ignore[attr-defined]
        for each in render(prepare(DEFAULT, deploy=[*deploy, f"deploy.namespace={NAMESPACE}"], name="first")):
            if each["kind"] == "Job":
                found.put("batch/v1/jobs", each["metadata"]["name"], each)
        yield found


@pytest.fixture
def pods(cluster: Cluster, tmp_path: Path) -> Iterator[Pods]:
    (tmp_path / "pods").mkdir()
    running = Pods(cluster, tmp_path / "pods")
    try:
        yield running
    finally:
        running.stop()


@pytest.fixture
def job(cluster: Cluster, tmp_path: Path) -> WorkerJob:
    """The workers' Job as a pod would find it, but for the encryption."""
    (tmp_path / "token").write_text("secret\n")
    url = f"{str(cluster.url).rstrip('/')}/apis/batch/v1/namespaces/{NAMESPACE}/jobs/first-worker"
    return WorkerJob(Endpoint(url, tmp_path / "token", build_opener(ProxyHandler({}))))


def told(address: str) -> dict[str, Any]:
    """What a scheduler was told of the stages of its run."""
    stages: dict[str, Any] = {}
    with Client(address) as client:
        for _, event in client.get_events(TOPIC):
            stages |= event.get("stages", {})
    return stages


def test_workers_come_for_stages_of_many_tasks_and_go_for_those_of_one(
    reference: Run, new_command: Callable[..., Command], pods: Pods, job: WorkerJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = new_command(deploy__kind="kubernetes", deploy__workers__min=1, deploy__workers__max=MOST)
    del command.settings["deploy.n_workers"]
    command.argv()
    monkeypatch.setattr(elastic, "find_worker_job", lambda: job)
    monkeypatch.setattr(elastic, "LOOK_SECONDS", 0.1)
    monkeypatch.setattr(elastic, "CALM_SECONDS", 0.3)

    waited: list[str] = []

    def wait_for_all() -> None:
        """When all have been asked for, which is in the scan, or on a busy machine later: it may be over too soon."""
        if not waited and pods.spec["completions"] >= MOST:
            waited.append(reporter.lines[-1])
            waiting = threading.Thread(target=pods.wait_for_workers)  # the driver's loop stands still meanwhile
            waiting.start()
            waiting.join()

    reporter = SilentReporter(wait_for_all)
    with dask.config.set({"scheduler-address": pods.address}):
        run = run_job(load_job(command.directory / "output.toml"), reporter)
        found = told(pods.address)
        written, read = found["label_rows"]["bytes_written"], found["scan"]["bytes_read"]
        asyncio.run(dismiss(30))
    assert written == sum(sum(each.record.objects.values()) for each in LABEL_ROWS.committed(run).values())
    assert read == np.prod(run.settings.input.shape) * np.dtype(run.settings.input.dtype).itemsize
    assert [each.wait(timeout=180) for each in (pods.scheduler, *pods.workers)] == [0] * (len(pods.workers) + 1)
    assert pods.spec["completions"] == len(pods.workers)
    assert max(pods.running) == MOST
    assert len(pods.workers) > MOST, "for a stage of one task some have left, and others have come for the next"
    assert unequal(reference, run) == []


def test_a_worker_that_has_a_task_stays_whatever_its_index(pods: Pods, job: WorkerJob, tmp_path: Path) -> None:
    table = DeployTable.model_validate_json(json.dumps(ELASTIC))
    left = MOST

    async def work() -> str:
        nonlocal left
        async with Client(pods.address, asynchronous=True) as client:
            follower = asyncio.create_task(elastic.follow_tasks(client, job, table, lambda: left, 0.2, 0.6))
            await client.wait_for_workers(MOST, timeout=180)
            busy = sorted(each["name"] for each in (await client.scheduler.identity(n_workers=-1))["workers"].values())
            wait = ["sh", "-c", f"until test -e {tmp_path / 'enough'}; do sleep 0.05; done"]
            done = client.submit(subprocess.run, wait, workers=busy[-1:], pure=False)
            while not any((await client.processing()).values()):
                await asyncio.sleep(0.05)
            left = 1
            while len(await client.nthreads()) > 1:
                await asyncio.sleep(0.05)
            (tmp_path / "enough").touch()
            await done
            follower.cancel()
            (stayed,) = (await client.scheduler.identity(n_workers=-1))["workers"].values()
            return f"{stayed['name']} of {busy}"

    stayed = asyncio.run(work())
    assert stayed.startswith(f"first-worker-{MOST - 1} "), stayed


def test_a_cluster_that_refuses_leaves_the_workers_as_they_are_and_is_told_of_once(
    cluster: Cluster, pods: Pods, job: WorkerJob, caplog: pytest.LogCaptureFixture
) -> None:
    table = DeployTable.model_validate_json(json.dumps(ELASTIC))
    unknown = WorkerJob(replace(job.at, url=job.at.url.replace("first-worker", "other")))

    async def work() -> None:
        async with Client(pods.address, asynchronous=True) as client:
            follower = asyncio.create_task(elastic.follow_tasks(client, unknown, table, lambda: MOST, 0.1, 0.3))
            while sum(request.endswith("/jobs/other") for request in cluster.requested) < 3:
                assert not follower.done()
                await asyncio.sleep(0.05)
            follower.cancel()

    asyncio.run(work())
    assert [each.message for each in caplog.records if "stays as it is" in each.message] == [
        "the number of workers stays as it is: HTTP Error 404: Not Found"
    ]
    assert len(pods.workers) == 1


def test_a_pod_without_the_right_asks_for_nothing_and_one_with_it_finds_its_job(tmp_path: Path) -> None:
    assert find_worker_job({}) is None
    (tmp_path / "namespace").write_text("team")
    (tmp_path / "ca.crt").write_text(new_certificate()["ca.crt"])
    environ = {"DISTCLUSTER_WORKER_JOB": "first-worker", "KUBERNETES_SERVICE_PORT": "443"}
    for host, shown in (("10.0.0.1", "10.0.0.1"), ("fd00::1", "[fd00::1]")):
        found = find_worker_job(environ | {"KUBERNETES_SERVICE_HOST": host}, tmp_path)
        assert found is not None
        assert found.at.url == f"https://{shown}:443/apis/batch/v1/namespaces/team/jobs/first-worker"
