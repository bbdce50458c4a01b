"""Following a submission: watches by the real kubectl against a Kubernetes API of this machine."""

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from cluster import NAMESPACE, Cluster, served
from submissions import NAME, ROLES, RUNNING, SCHEDULED, command, start_all, submitted, terminated, waiting
from test_manifests import DEFAULT, needs_kubectl

from distcluster.kubernetes.follow import follow
from distcluster.kubernetes.forward import DashboardForward
from distcluster.kubernetes.kubectl import Kubectl, KubectlError
from distcluster.kubernetes.objects import COMPONENT
from distcluster.kubernetes.outcome import Outcome
from distcluster.kubernetes.submitted import Submitted

pytestmark = needs_kubectl


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    with served(tmp_path) as (found, configuration):
        monkeypatch.setenv("KUBECONFIG", str(configuration))
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
        yield found


def test_every_attempts_log_is_shown_once(cluster: Cluster) -> None:
    def again(there: Cluster) -> None:
        there.set_status(f"{NAME}-driver-1", {"phase": "Failed", "containerStatuses": [terminated(75)]})
        there.start_pod("driver", "2", RUNNING)
        there.logs[f"{NAME}-driver-2"] = ["2026-11-23T12:00:09.000000000Z second"]

    kubectl = submitted(cluster)
    cluster.script = [start_all, again, lambda there: there.end_job("Complete")]
    shown: list[str] = []
    assert follow(kubectl, NAME, lambda _: None, shown.append) == Outcome(0, "")
    assert shown == ["driver 1 says hello", "second"]


def test_many_pods_with_one_trouble_are_one_sentence_however_often_it_is_looked(cluster: Cluster) -> None:
    def end(there: Cluster) -> None:
        there.end_job("Complete")

    kubectl = submitted(cluster)
    for number in range(40):
        message = f"0/{number} nodes: no memory."
        cluster.start_pod("worker", str(number), {"phase": "Pending", "conditions": [SCHEDULED | {"message": message}]})
    cluster.script = [lambda _: None, lambda _: None, end]
    said: list[str] = []
    follow(kubectl, NAME, said.append, said.append, lambda _: cluster.go_on(), tick_seconds=0.1)
    told = [sentence for sentence in said if "finds no node" in sentence]
    assert len(told) == 1
    assert told[0].startswith(f"Each of 40 pods, such as {NAME}-worker-0, finds no node: 0/0 nodes")


def test_an_image_that_cannot_be_pulled_is_given_up(cluster: Cluster) -> None:
    kubectl = submitted(cluster)
    cluster.start_pod("driver", "1", {"phase": "Pending", "containerStatuses": [waiting("ImagePullBackOff")]})
    said: list[str] = []
    ended = follow(kubectl, NAME, said.append, said.append, tick_seconds=0.01, patience_seconds=0.5)
    assert ended.code == 2
    assert sum("cannot get its image" in sentence for sentence in said) == 1


def test_a_cluster_that_does_not_answer_is_asked_again_and_then_given_up(tmp_path: Path, cluster: Cluster) -> None:
    said: list[str] = []
    unknown = Kubectl(context="nowhere")
    with pytest.raises(KubectlError, match="nowhere"):
        follow(unknown, NAME, said.append, said.append, tick_seconds=0.01, patience_seconds=0.3)
    assert sum("No answer, trying on" in sentence for sentence in said) == 1


def end_job(there: Cluster) -> None:
    there.end_job("Complete")


def n_requests(cluster: Cluster, verb: str) -> int:
    return cluster.requested.count(f"{verb} /api/v1/namespaces/{NAMESPACE}/pods")


def test_pods_are_watched_and_not_asked_for_again_and_again(cluster: Cluster) -> None:
    kubectl, looks = submitted(cluster), 0

    def look_on(seen: Submitted) -> None:
        nonlocal looks
        looks += len(seen.pods) == 4
        if looks in (1, 100):
            cluster.end_job("Complete" if looks == 100 else "Suspended")

    cluster.script = [start_all]
    assert follow(kubectl, NAME, lambda _: None, lambda _: None, look_on, tick_seconds=0.01) == Outcome(0, "")
    assert (looks >= 100, n_requests(cluster, "GET") < 10, n_requests(cluster, "WATCH")) == (True, True, 1)


def test_what_happens_between_two_watches_is_seen(cluster: Cluster) -> None:
    def cut(there: Cluster) -> None:
        there.cut()
        there.set_status(f"{NAME}-worker-a", {"phase": "Failed", "containerStatuses": [terminated(137, "OOMKilled")]})
        there.objects["v1/pods", NAMESPACE, f"{NAME}-worker-b"].delete()

    def look_on(seen: Submitted) -> None:
        if sum("more than its memory" in sentence for sentence in said) and len(seen.pods) == 3:
            cluster.end_job("Complete")

    kubectl, said = submitted(cluster), list[str]()
    cluster.script = [start_all, cut]
    assert follow(kubectl, NAME, said.append, lambda _: None, look_on) == Outcome(0, "")
    assert [sentence for sentence in said if "does not work" in sentence or "No answer" in sentence] == []
    assert n_requests(cluster, "WATCH") > 1


def test_where_watching_is_forbidden_pods_are_looked_at_now_and_then_and_a_sentence_says_so(cluster: Cluster) -> None:
    kubectl, said = submitted(cluster), list[str]()
    cluster.unwatchable = {"pods", "jobs", "events"}
    start_all(cluster)
    cluster.logs[f"{NAME}-driver-1"] = []

    def tell(sentence: str) -> None:
        said.append(sentence)
        if "Watching" in sentence:
            cluster.end_job("Complete")

    assert follow(kubectl, NAME, tell, lambda _: None) == Outcome(0, "")
    (sentence, *_) = [sentence for sentence in said if "Watching" in sentence]
    assert "forbidden: cannot watch resource" in sentence
    assert not any("events" in sentence for sentence in said), "they are not missed"


def test_a_cluster_that_is_away_for_a_moment_is_told_of_and_then_followed_again(cluster: Cluster) -> None:
    kubectl, said, shown = submitted(cluster), list[str](), list[str]()

    def leave(there: Cluster) -> None:
        there.is_away = True

    def tell(sentence: str) -> None:
        said.append(sentence)
        if "No answer" in sentence:
            cluster.is_away = False
            cluster.logs[f"{NAME}-driver-1"].append("2026-11-23T12:00:01.000000002Z 23 components")
            cluster.script = [end_job]

    cluster.script = [start_all, leave]
    assert follow(kubectl, NAME, tell, shown.append) == Outcome(0, "")
    assert sum("away for a minute" in sentence for sentence in said) == 1
    assert shown == ["driver 1 says hello", "23 components"]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_no_kubectl_outlives_who_follows(cluster: Cluster, how: signal.Signals) -> None:
    def kubectls() -> list[str]:
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get("KUBECONFIG") == os.environ["KUBECONFIG"] and "kubectl" in process.cmdline():
                    found.append(" ".join(process.cmdline()))
        return found

    cluster.script = [start_all]
    process = command("submit", str(DEFAULT), "--name", NAME)
    assert process.stdout is not None
    assert process.stdout.readline() == "driver 1 says hello\n"
    assert sum("--watch" in line for line in kubectls()) >= 3
    process.send_signal(how)
    process.communicate(timeout=60)
    deadline = time.monotonic() + 20
    while kubectls():
        assert time.monotonic() < deadline, kubectls()
        time.sleep(0.05)
    assert cluster.started == set(ROLES)


FORWARD = """#!/bin/sh
echo "$$ $*" >> "$CALLS"
echo "Forwarding from 127.0.0.1"
exec sleep 600
"""


def test_the_dashboards_port_is_forwarded_again_where_it_broke_off_and_not_when_it_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "kubectl").write_text(FORWARD)
    (tmp_path / "kubectl").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    (tmp_path / "calls").touch()
    scheduler = {"metadata": {"labels": {COMPONENT: "scheduler"}}, "status": {"phase": "Running"}}
    seen, said = Submitted(None, [scheduler], []), list[str]()
    forward = DashboardForward(Kubectl(), f"{NAME}-scheduler", said.append)

    def call(number: int) -> tuple[int, str]:
        """Process and arguments, once it was told that the port is open."""
        deadline = time.monotonic() + 30
        while not said or len(lines := (tmp_path / "calls").read_text().splitlines()) < number:
            assert time.monotonic() < deadline
            forward.keep_open(seen)
            time.sleep(0.02)
        process, _, arguments = lines[number - 1].partition(" ")
        return int(process), arguments

    first, arguments = call(1)
    assert arguments.startswith(f"port-forward service/{NAME}-scheduler ")
    os.kill(first, signal.SIGKILL)
    second, again = call(2)
    assert again == arguments, "a person's page stays where it is"
    forward.close()
    assert not psutil.pid_exists(second)
    assert len(said) == 1
