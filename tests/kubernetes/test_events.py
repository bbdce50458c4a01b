"""Events of the driver's Job: a real run, a Kubernetes API of this machine, and what the real kubectl shows of them."""

import logging
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.request import ProxyHandler, build_opener

import pytest
from cluster import NAMESPACE, Cluster, served
from conftest import Command, SilentReporter
from test_manifests import DEFAULT, needs_kubectl
from test_platform import ELASTIC, submission
from test_rendered import pods

from distcluster.api import run_job
from distcluster.errors import JobError, SchedulerLostError
from distcluster.execution import told_events
from distcluster.execution.connect import new_certificate
from distcluster.execution.told_events import as_events
from distcluster.job_file import load_job, parse_job
from distcluster.kubernetes.dask_operator import for_operator
from distcluster.kubernetes.job_events import EVENTS_JOB, DriverJob, EventWriter, event_variables, find_event_writer
from distcluster.kubernetes.manifests import render
from distcluster.kubernetes.objects import of_component
from distcluster.kubernetes.own_api import Endpoint
from distcluster.kubernetes.submit import prepare
from distcluster.storage.run import Run

JOB = DriverJob("first-driver", "17", NAMESPACE, "first-driver-x")


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """A cluster that holds a submission, and on which sessions of this process write."""
    (tmp_path / "token").write_text("secret\n")
    with served(tmp_path) as (found, configuration):
        monkeypatch.setenv("KUBECONFIG", str(configuration))
        for each in render(prepare(DEFAULT, name="first")):
            if each["kind"] == "Job":
                found.put("batch/v1/jobs", each["metadata"]["name"], each)
        url = f"{str(found.url).rstrip('/')}/api/v1/namespaces/{NAMESPACE}/events"
        at = Endpoint(url, tmp_path / "token", build_opener(ProxyHandler({})))
        monkeypatch.setattr(told_events, "find_event_writer", lambda: EventWriter(at, JOB))
        yield found


@needs_kubectl
def test_describe_shows_what_a_run_has_done(cluster: Cluster, new_command: Callable[..., Command]) -> None:
    command = new_command()
    command.argv()
    run = run_job(load_job(command.directory / "output.toml"), SilentReporter())
    reasons = [each["reason"] for each in cluster.stored("Event")]
    assert reasons == ["StageDone"] * (len(reasons) - 1) + ["Verdict"]
    assert len(reasons) > 10
    described = subprocess.run(["kubectl", "describe", "job", JOB.name], capture_output=True, text=True, check=True)
    (scan,) = [line for line in described.stdout.splitlines() if "scan: " in line]
    assert f"scan: {run.partitioning.n_rows:,} rows in " in scan
    assert scan.split()[0] == "Normal"
    assert "distcluster" in scan
    assert " clusters. " in described.stdout


def test_trouble_is_one_event_a_minute_and_a_failure_the_last(cluster: Cluster, reference: Run) -> None:
    def work() -> None:
        with as_events(reference, SilentReporter()):
            for number in range(3):
                logging.getLogger("distcluster").warning("s3://key:secret@bucket is away, %d", number)
            raise SchedulerLostError("the scheduler was lost")

    with pytest.raises(SchedulerLostError):
        work()
    found = [(each["type"], each["reason"], each["message"]) for each in cluster.stored("Event")]
    assert found == [
        ("Warning", "Trouble", found[0][2]),
        ("Warning", "SessionFailed", "SchedulerLostError: the scheduler was lost"),
    ]
    assert "is away, 0" in found[0][2]
    assert "secret" not in found[0][2]


def test_a_cluster_that_takes_no_events_stops_nothing(
    cluster: Cluster, reference: Run, caplog: pytest.LogCaptureFixture
) -> None:
    cluster.is_away = True
    with caplog.at_level("INFO", "distcluster"), as_events(reference, SilentReporter()) as told:
        for stage in ("scan", "subsample"):
            told.start(stage, 1, 0, "tasks")
            told.finish(stage, 1.0)
    assert [each.message for each in caplog.records] == [
        "an event of the Job could not be written: HTTP Error 503: Service Unavailable"
    ]


@pytest.mark.parametrize("sizes", [{"namespace": "team"}, ELASTIC])
def test_the_right_to_write_events_is_one_pods_on_both_backends(sizes: dict[str, Any]) -> None:
    plain = render(submission({}, events=True, service_account="cloud", **sizes))
    operated = for_operator(submission({}, events=True, **sizes), render(submission({}, events=True, **sizes)))
    for objects in (plain, operated):
        (role,) = [each for each in objects if each["metadata"]["name"] == "first-events" and each["kind"] == "Role"]
        assert role["rules"] == [{"apiGroups": [""], "resources": ["events"], "verbs": ["create"]}]
        (binding,) = [
            each for each in objects if each["kind"] == "RoleBinding" and each["roleRef"]["name"] == "first-events"
        ]
        account = "cloud" if objects is plain else "first"
        assert binding["subjects"] == [{"kind": "ServiceAccount", "name": account, "namespace": "team"}]
        found = {labels["app.kubernetes.io/component"]: pod for labels, pod in pods(objects)}
        assert [role for role, pod in found.items() if pod["automountServiceAccountToken"]] == ["driver"]
        (container,) = of_component(objects, "driver")["spec"]["template"]["spec"]["containers"]
        assert [each for each in event_variables("first-driver") if each not in container["env"]] == []


def test_events_that_could_not_be_are_refused() -> None:
    with pytest.raises(JobError, match=r"deploy\.events needs deploy\.namespace"):
        prepare(DEFAULT, ["deploy.events=true"])
    tables = {"input": {"url": "a"}, "output": {"url": "b"}, "deploy": {"kind": "address", "events": True}}
    with pytest.raises(JobError, match="has none"):
        parse_job(tables)


def test_a_pod_without_a_token_does_its_job(
    reference: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(EVENTS_JOB, "first-driver")
    for each in event_variables("first-driver")[1:]:
        monkeypatch.setenv(each["name"], "it")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    reporter = SilentReporter()
    with as_events(reference, reporter) as told:
        assert told is reporter
    assert "no events of the Job can be written: " in caplog.text


def test_a_pod_writes_where_its_variables_say_so(tmp_path: Path) -> None:
    assert find_event_writer({}) is None
    (tmp_path / "namespace").write_text("team")
    (tmp_path / "ca.crt").write_text(new_certificate()["ca.crt"])
    environ = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "KUBERNETES_SERVICE_PORT": "443"}
    found = find_event_writer(environ | {each["name"]: "it" for each in event_variables("first-driver")}, tmp_path)
    assert found is not None
    found.close()
