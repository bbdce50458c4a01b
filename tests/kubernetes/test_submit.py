"""Submitting, following, cancelling: the command line and the real kubectl against a Kubernetes API of this machine."""

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cluster import NAMESPACE, Cluster, Object, served
from submissions import NAME, ROLES, SCHEDULED, command, run, start_all, submitted, terminated, waiting
from test_manifests import DEFAULT, needs_kubectl

from distcluster.kubernetes.follow import follow
from distcluster.kubernetes.kubectl import Kubectl, KubectlError
from distcluster.kubernetes.outcome import outcome
from distcluster.kubernetes.submit import apply, objects_of, prepare
from distcluster.kubernetes.submitted import look
from distcluster.kubernetes.troubles import sentences, troubles

pytestmark = needs_kubectl


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    with served(tmp_path) as (found, configuration):
        monkeypatch.setenv("KUBECONFIG", str(configuration))
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
        yield found


def test_a_job_is_applied_followed_to_its_end_and_cleaned_up(cluster: Cluster) -> None:
    def log_more(there: Cluster) -> None:
        there.logs[f"{NAME}-driver-1"].append("2026-11-23T12:00:01.000000002Z 23 components")

    def end(there: Cluster) -> None:
        there.set_status(f"{NAME}-driver-1", {"phase": "Succeeded", "containerStatuses": [terminated(0)]})
        there.end_job("Complete")
        assert {each["metadata"]["name"] for each in there.stored("Secret")} == {f"{NAME}-tls"}
        owned = [each for kind in ("Secret", "Service", "ConfigMap") for each in there.stored(kind)]
        assert {each["metadata"]["ownerReferences"][0]["uid"] for each in owned} == {there.job["metadata"]["uid"]}

    cluster.script = [start_all, log_more, end]
    code, printed, errors = run("submit", str(DEFAULT), "--name", NAME)
    assert code == 0, errors
    assert printed == "driver 1 says hello\n23 components\n"
    assert f"Submitted as {NAME}." in errors
    assert f"kubectl port-forward service/{NAME}-scheduler 8787" in errors
    assert "pods running: scheduler 1/1, worker 2/2, driver 1/1" in errors
    assert [kind for kind in ("Job", "Pod", "Secret", "ConfigMap") if cluster.stored(kind)] == []
    code, printed, _ = run("logs", NAME, "--all")
    assert code == 0
    assert [line for line in printed.splitlines() if "hello" in line] == [
        f"2026-11-23T12:00:01.000000001Z {pod} says hello"
        for pod in ("driver 1", "scheduler a", "worker a", "worker b")
    ]


@pytest.mark.parametrize("step", [1, 10])
def test_a_submit_that_is_killed_leaves_nothing_running_that_nobody_dismisses(cluster: Cluster, step: int) -> None:
    seen: list[set[str]] = []

    def strike(there: Cluster) -> None:
        seen.append(there.started)
        if len(seen) == step:
            process.kill()

    cluster.after_write = strike
    process = command("submit", str(DEFAULT), "--name", NAME)
    process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL
    assert len(seen) <= step + 1  # kubectl may have been under way
    assert all(found == set(ROLES[: len(found)]) for found in seen), "no workers without a scheduler that watches"
    assert cluster.started == ({"scheduler"} if step == 10 else set())
    run("cancel", NAME)
    assert [kind for kind in ("Job", "Secret", "ConfigMap") if cluster.stored(kind)] == []


def test_with_a_queue_nothing_is_suspended_by_us(cluster: Cluster) -> None:
    submitted(cluster, "deploy.pods.queue=batch")
    assert cluster.started == set(ROLES)
    assert not any(request.startswith("PATCH") for request in cluster.requested)


@pytest.mark.parametrize(
    ("backend", "kinds"), [("manifests", ["Role", "RoleBinding"]), ("operator", ["DaskAutoscaler"])]
)
def test_what_makes_workers_follow_the_tasks_comes_and_goes_with_the_job(
    cluster: Cluster, backend: str, kinds: list[str]
) -> None:
    elastic = ["deploy.workers={ min = 1, max = 9 }", f"deploy.namespace={NAMESPACE}"]
    apply(Kubectl(), objects_of(prepare(DEFAULT, elastic, name=NAME), backend=backend))
    there = ("Role", "RoleBinding", "DaskAutoscaler")
    assert [kind for kind in there if cluster.stored(kind)] == kinds
    Kubectl().delete("job", f"{NAME}-driver")
    assert [kind for kind in there if cluster.stored(kind)] == []


def test_two_submissions_of_one_file_have_two_names(cluster: Cluster) -> None:
    names = {prepare(DEFAULT).name for _ in range(20)}
    assert len(names) == 20


@pytest.mark.parametrize(
    ("exit_codes", "reason", "expected", "sentence"),
    [
        ([2], "PodFailurePolicy", 2, ""),
        ([75, 1], "PodFailurePolicy", 1, ""),
        ([75] * 7, "BackoffLimitExceeded", 75, "failed too often"),
        ([], "DeadlineExceeded", 75, "deadline_seconds"),
    ],
)
def test_the_exit_code_is_the_drivers_last(
    cluster: Cluster, exit_codes: list[int], reason: str, expected: int, sentence: str
) -> None:
    kubectl = submitted(cluster)
    for attempt, code in enumerate(exit_codes):
        cluster.start_pod("driver", str(attempt), {"phase": "Failed", "containerStatuses": [terminated(code)]})
    cluster.end_job("Failed", reason)
    said: list[str] = []
    ended = follow(kubectl, NAME, said.append, said.append)
    assert ended.code == expected
    assert sentence in ended.sentence


DISRUPTED = {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI", "message": "Drained."}
RESTARTED = {"name": "it", "state": {"running": {}}, "lastState": terminated(137, "OOMKilled")["state"]}


@pytest.mark.parametrize(
    ("status", "words"),
    [
        ({"phase": "Pending", "conditions": [SCHEDULED]}, ["finds no node: 0/3 nodes", "deploy.worker_memory"]),
        ({"phase": "Pending", "containerStatuses": [waiting("ErrImagePull", "not found")]}, ["not found", "--image"]),
        ({"phase": "Pending", "containerStatuses": [waiting("ImagePullBackOff", "Back-off")]}, ["distcluster:0.1.0."]),
        (
            {"phase": "Pending", "containerStatuses": [waiting("CreateContainerConfigError", "secret no")]},
            ["secret no"],
        ),
        ({"phase": "Running", "containerStatuses": [waiting("CrashLoopBackOff")]}, ["logs --all"]),
        ({"phase": "Running", "containerStatuses": [RESTARTED]}, ["more than its memory (4Gi)", "worker_memory"]),
        ({"phase": "Failed", "containerStatuses": [terminated(137, "OOMKilled")]}, ["more than its memory (4Gi)"]),
        ({"phase": "Failed", "reason": "Evicted", "message": "disk."}, ["was evicted: disk.", "deploy.worker_memory"]),
        ({"phase": "Running", "conditions": [DISRUPTED]}, ["taken from its node: Drained."]),
    ],
)
def test_a_pods_trouble_becomes_one_sentence_with_the_remedy(
    cluster: Cluster, status: Object, words: list[str]
) -> None:
    kubectl = submitted(cluster)
    cluster.start_pod("worker", "a", status)
    (sentence,) = sentences(troubles(look(kubectl, NAME)))
    assert sentence.startswith(f"{NAME}-worker-a ")
    assert [word for word in words if word not in sentence] == []


def test_what_keeps_pods_from_being_made_is_told_and_other_events_are_not(cluster: Cluster) -> None:
    kubectl = submitted(cluster)
    for number, (name, reason) in enumerate((("driver", "FailedCreate"), ("worker", "Pulled"), ("other", "Failed"))):
        event = {"involvedObject": {"name": f"{NAME}-{name}"}, "reason": reason, "message": "exceeded quota"}
        cluster.put("v1/events", str(number), event)
    assert sentences(troubles(look(kubectl, NAME))) == [f"{NAME}-driver FailedCreate: exceeded quota"]


SIDECAR = {"name": "istio-proxy", "state": {"running": {}}, "lastState": {"terminated": {"reason": "OOMKilled"}}}


@pytest.mark.parametrize(("code", "ended"), [(0, 0), (2, 2), (75, None)])
def test_a_sidecar_neither_lends_its_state_nor_holds_up_the_end(cluster: Cluster, code: int, ended: int | None) -> None:
    kubectl = submitted(cluster)
    cluster.start_pod("driver", "1", {"phase": "Running", "containerStatuses": [SIDECAR, terminated(code)]})
    seen = look(kubectl, NAME)
    for pod in seen.pods:
        pod["spec"]["containers"].insert(0, {"name": SIDECAR["name"]})
    assert troubles(seen) == []
    found = outcome(seen)
    assert (None if found is None else found.code) == ended
    assert found is None or "istio-proxy runs on" in found.sentence


def test_control_c_detaches_attach_comes_back_and_cancel_stops(cluster: Cluster) -> None:
    cluster.script = [start_all]
    process = command("submit", str(DEFAULT), "--name", NAME)
    assert process.stdout is not None
    assert process.stdout.readline() == "driver 1 says hello\n"
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert f"`distcluster attach {NAME}" in errors
    assert "run the same command again" not in errors
    assert cluster.started == set(ROLES)
    code, printed, _ = run("jobs")
    assert code == 0
    assert NAME in printed
    process = command("attach", NAME, "--namespace", NAMESPACE)
    assert process.stdout is not None
    assert process.stdout.readline() == "driver 1 says hello\n"
    assert run("cancel", NAME)[0] == 0
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "somebody cancelled it" in errors
    assert cluster.stored("Pod") == []
    assert run("attach", NAME)[0] == 2


def test_what_the_job_expects_and_is_not_there_is_named_before_anything_is_made(cluster: Cluster) -> None:
    deploy = ["deploy.volume=shared", "deploy.secret=keys"]
    arguments = [part for each in deploy for part in ("--set", each)]
    code, _, errors = run("submit", str(DEFAULT), *arguments)
    assert code == 2
    assert 'deploy.volume = "shared": no persistentvolumeclaim shared' in errors
    assert 'deploy.secret = "keys"' in errors
    assert not any(request.startswith("POST") for request in cluster.requested)


def test_a_refused_object_leaves_nothing_behind(cluster: Cluster) -> None:
    cluster.put("v1/services", f"{NAME}-scheduler", {})
    with pytest.raises(KubectlError, match="Already Exists"):
        submitted(cluster)
    assert [each for kind in ("Job", "ConfigMap") for each in cluster.stored(kind)] == []


def test_an_overlay_changes_what_is_applied_and_its_claims_outlive_the_job(cluster: Cluster) -> None:
    components = [DEFAULT.parents[1] / "components" / name for name in ("pvc", "spot")]
    objects = objects_of(prepare(DEFAULT, name=NAME), components)
    apply(Kubectl(), objects)
    (claim,) = cluster.stored("PersistentVolumeClaim")
    assert "ownerReferences" not in claim["metadata"]
    workers: Any = next(each for each in cluster.stored("Job") if each["metadata"]["name"] == f"{NAME}-worker")
    assert workers["spec"]["template"]["spec"]["tolerations"]
    Kubectl().delete("job", f"{NAME}-driver")
    assert cluster.stored("Job") == []
    assert len(cluster.stored("PersistentVolumeClaim")) == 1


def test_the_operators_cluster_goes_with_the_job_too(cluster: Cluster) -> None:
    apply(Kubectl(), objects_of(prepare(DEFAULT, name=NAME), backend="operator"))
    (made,) = cluster.stored("DaskCluster")
    assert made["metadata"]["name"] == NAME
    assert len(cluster.stored("Job")) == 1
    Kubectl().delete("job", f"{NAME}-driver")
    assert cluster.stored("DaskCluster") == []


def test_without_kubectl_it_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(KubectlError, match="not on this machine"):
        Kubectl().get("pods")
