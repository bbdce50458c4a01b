"""What a platform asks of pods: every combination of keys is valid, and reaches the pods of both backends."""

import copy
import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from test_manifests import DEFAULT, K8S, needs_kubectl
from test_rendered import operators_schema, pods

from distcluster.deploy import DeployTable
from distcluster.errors import JobError
from distcluster.job_file import load_job
from distcluster.kubernetes.container_settings import container_settings
from distcluster.kubernetes.dask_operator import for_operator
from distcluster.kubernetes.manifests import render
from distcluster.kubernetes.objects import Object, of_component
from distcluster.kubernetes.submission import Submission
from distcluster.kubernetes.submit import objects_of, prepare

VERSIONS = [f"1.{minor}" for minor in range(29, 38)]

BATCH = {"key": "dedicated", "operator": "Equal", "value": "batch", "effect": "NoSchedule"}
SPOT = {"key": "example.com/spot", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 60}
IN_ZONE = {"matchExpressions": [{"key": "topology.kubernetes.io/zone", "operator": "In", "values": ["a"]}]}
NEAR = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [IN_ZONE]}}}
PLACEMENT: dict[str, list[Any]] = {
    "node_selector": [{"pool": "batch"}, {"kubernetes.io/arch": "amd64", "disk": ""}],
    "tolerations": [[BATCH], [{"operator": "Exists"}, SPOT]],
    "affinity": [NEAR],
    "topology_spread": [[{"topologyKey": "kubernetes.io/hostname"}]],
}
KEYS: dict[str, list[Any]] = PLACEMENT | {
    "image_pull_secrets": [["registry"], ["one", "two.three"]],
    "priority_class": ["low"],
    "labels": [{"team": "search", "example.com/cost-centre": "17"}],
    "annotations": [{"sidecar.istio.io/inject": "false", "note": "any text, even\nlines"}],
    "environment": [{"TZ": "UTC", "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "9"}],
    "environment_from": [{"TOKEN": {"name": "keys", "key": "token"}}],
    "cpu_limit": [2, 64],
    "ephemeral_storage": ["20Gi"],
    "user": ["any", 1000],
    "ca_bundle": [{"name": "authorities", "key": "ca-bundle.crt"}],
    "proxy": ["http://proxy.example.com:3128"],
    "queue": ["batch"],
}
TABLES = st.fixed_dictionaries(
    {},
    optional={key: st.sampled_from(values) for key, values in KEYS.items()}
    | {"workers": st.fixed_dictionaries({}, optional={k: st.sampled_from(v) for k, v in PLACEMENT.items()})},
)
ALL = {key: values[0] for key, values in KEYS.items()} | {"workers": {"tolerations": [SPOT]}}


def submission(table: dict[str, Any], **deploy: Any) -> Submission:
    deploy = {"kind": "kubernetes", "cpu": 2, "pods": table} | deploy
    return Submission("first", "", (), DeployTable.model_validate_json(json.dumps(deploy)))


@cache
def validator(kind: str) -> jsonschema.Draft7Validator:
    """A schema of the operator's, read once: it is a megabyte of YAML."""
    return jsonschema.Draft7Validator(operators_schema(kind))


SIZES: list[dict[str, Any]] = [
    {},
    {"n_workers": 7},
    {"workers": {"min": 3, "max": 3}},
    {"workers": {"min": 1, "max": 40}, "namespace": "team"},
    {"events": True, "namespace": "team"},
    {"events": True, "workers": {"min": 1, "max": 40}, "namespace": "team"},
]


@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(table=TABLES, sizes=st.sampled_from(SIZES), version=st.sampled_from(VERSIONS))
def test_every_combination_of_keys_is_valid_for_both_backends(
    table: dict[str, Any], sizes: dict[str, Any], version: str
) -> None:
    is_elastic = sizes.get("workers", {}).get("max") == 40
    if is_elastic:
        table.pop("queue", None)  # refused, below
    plain = render(submission(table, **sizes))
    for each in plain:
        kubernetes_validate.validate(each, version, strict=True)
    operated = for_operator(submission(table, **sizes), plain)
    found = [each for each in operated if each["kind"] in ("DaskCluster", "DaskAutoscaler")]
    assert len(found) == 1 + is_elastic
    for each in found:
        validator(each["kind"]).validate(each)


ELASTIC: dict[str, Any] = {"workers": {"min": 2, "max": 20}, "namespace": "team"}


def test_a_number_of_workers_that_follows_the_tasks_gives_one_pod_one_right() -> None:
    objects = render(submission({}, **ELASTIC, service_account="cloud"))
    role, binding = (next(each for each in objects if each["kind"] == kind) for kind in ("Role", "RoleBinding"))
    assert role["rules"] == [
        {"apiGroups": ["batch"], "resources": ["jobs"], "resourceNames": ["first-worker"], "verbs": ["get", "patch"]}
    ]
    assert binding["roleRef"]["name"] == role["metadata"]["name"]
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": "cloud", "namespace": "team"}]
    found = {labels["app.kubernetes.io/component"]: pod for labels, pod in pods(objects)}
    assert [role for role, pod in found.items() if pod["automountServiceAccountToken"]] == ["driver"]
    assert of_component(objects, "worker")["spec"]["completions"] == 2
    operated = for_operator(submission({}, **ELASTIC), render(submission({}, **ELASTIC)))
    (scaler,) = [each for each in operated if each["kind"] == "DaskAutoscaler"]
    (cluster,) = [each for each in operated if each["kind"] == "DaskCluster"]
    assert scaler["spec"] == {"cluster": cluster["metadata"]["name"], "minimum": 2, "maximum": 20}
    assert cluster["spec"]["worker"]["replicas"] == 2
    assert not [each for each in operated if each["kind"] in ("Role", "RoleBinding")]
    assert not [pod for _, pod in pods(operated) if pod["automountServiceAccountToken"]]


def test_one_number_of_workers_is_rendered_as_ever() -> None:
    same = {"workers": {"min": 7, "max": 7}}
    assert render(submission({}, **same)) == render(submission({}, n_workers=7))


@pytest.mark.parametrize(
    ("deploy", "message"),
    [
        ({"workers": {"min": 3, "max": 2}}, "min = 3 is more than max = 2"),
        ({"workers": {"min": 1, "max": 2}, "n_workers": 2}, "keep one"),
        ({"workers": {"min": 1, "max": 2}, "pods": {"queue": "batch"}}, "admits all pods together"),
    ],
)
def test_numbers_of_workers_that_cannot_be_are_refused(deploy: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        DeployTable.model_validate_json(json.dumps(deploy))


def test_without_a_namespace_the_right_could_not_be_given() -> None:
    workers = ["deploy.workers.min=1", "deploy.workers.max=2"]
    with pytest.raises(JobError, match=r"needs deploy\.namespace"):
        prepare(DEFAULT, workers)
    assert prepare(DEFAULT, workers, ["deploy.namespace=team"]).n_workers == 1


def test_all_keys_reach_the_pods_of_both_backends() -> None:
    plain = render(submission(ALL))
    operated = for_operator(submission(ALL), copy.deepcopy(plain))
    for objects in (plain, operated):
        found = {labels["app.kubernetes.io/component"]: (labels, pod) for labels, pod in pods(objects)}
        assert set(found) == {"scheduler", "worker", "driver"}
        for role, (labels, pod) in found.items():
            (container,) = pod["containers"]
            assert labels["team"] == "search"
            assert pod["imagePullSecrets"] == [{"name": "registry"}]
            assert (pod["priorityClassName"], pod["nodeSelector"], pod["affinity"]) == ("low", {"pool": "batch"}, NEAR)
            assert pod["tolerations"] == [BATCH, *([SPOT] if role == "worker" else [])]
            (spread,) = pod["topologySpreadConstraints"]
            assert spread["labelSelector"]["matchLabels"].items() <= labels.items()
            assert not {"runAsUser", "runAsGroup", "fsGroup"} & set(pod["securityContext"])
            assert (
                container["resources"]["limits"] | {"cpu": "2", "ephemeral-storage": "20Gi"}
                == (container["resources"]["limits"])
            )
            secrets = {each["name"]: each.get("valueFrom", {}).get("secretKeyRef") for each in container["env"]}
            assert secrets["TOKEN"] == {"name": "keys", "key": "token"}
            assert {"name": "ca", "mountPath": "/etc/distcluster/ca", "readOnly": True} in container["volumeMounts"]
        (variables,) = [each["data"] for each in objects if each["metadata"]["name"] == "first-settings"]
        assert variables["SSL_CERT_FILE"] == "/etc/distcluster/ca/ca-bundle.crt"
        assert variables["https_proxy"] == "http://proxy.example.com:3128"
        assert "first-scheduler" in variables["NO_PROXY"].split(",")
        assert variables["TZ"] == "UTC"
        assert variables["DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES"] == "9"
        assert all(each["metadata"]["labels"]["team"] == "search" for each in objects)


def test_with_a_queue_all_pods_are_one_group_and_no_job_is_admitted_alone() -> None:
    objects = render(submission({"queue": "batch"}, n_workers=7))
    for role in ("scheduler", "worker", "driver"):
        found = of_component(objects, role)
        metadata = found["spec"]["template"]["metadata"]
        assert metadata["labels"]["kueue.x-k8s.io/queue-name"] == "batch"
        assert metadata["labels"]["kueue.x-k8s.io/pod-group-name"] == "first"
        assert metadata["annotations"]["kueue.x-k8s.io/pod-group-total-count"] == "9"
        assert "kueue.x-k8s.io/queue-name" not in found["metadata"]["labels"]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"labels": {"app.kubernetes.io/name": "mine"}}, "pods find each other"),
        ({"environment": {"DASK_SCHEDULER_ADDRESS": "tcp://elsewhere"}}, "pods find each other"),
        ({"environment": {"A": "1"}, "environment_from": {"A": {"name": "a", "key": "a"}}}, "keep one"),
        ({"proxy": "http://me:secret@proxy:3128"}, "in the open"),
        ({"no_proxy": ["example.com"]}, "needs a proxy"),
        ({"cpu_limit": 1}, "less than cpu = 2"),
        ({"affinity": {"nodeAfinity": {}}}, "nodeAfinity: must be of"),
        ({"tolerations": [{"operator": "Exists", "value": "a"}]}, "has no value"),
        ({"tolerations": [{"value": "a"}]}, "needs a key"),
        ({"tolerations": [BATCH | {"tolerationSeconds": 1}]}, "NoExecute"),
        ({"ephemeral_storage": "plenty"}, "ephemeral_storage"),
    ],
)
def test_what_cannot_be_meant_is_refused(table: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        submission(table)


def test_a_wrong_key_within_a_table_is_named_with_the_nearest_one(tmp_path: Path) -> None:
    job = tmp_path / "job.toml"
    job.write_text(
        DEFAULT.read_text() + '[deploy.pods]\nque = "a"\nuser = "root"\ntolerations = [{ kee = "a" }]\n'
        'environment_from.A = { name = "a", kex = "b" }\n'
    )
    with pytest.raises(JobError) as refused:
        load_job(job, ["deploy.pods.labels.team=7"])
    said = str(refused.value)
    assert "deploy.pods.que: no such key; did you mean 'queue'?" in said
    assert "deploy.pods.tolerations.kee: no such key; did you mean 'key'?" in said
    assert "deploy.pods.environment_from.A.kex: no such key; did you mean 'key'?" in said
    assert "deploy.pods.user: " in said
    assert "deploy.pods.labels: Input should be a valid string, got 7" in said


OVERLAY = """
apiVersion: kustomize.config.k8s.io/v1alpha1
kind: Component
patches:
- target: {kind: %s}
  patch: |
    - {op: add, path: %s, value: %s}
"""


def overlay(directory: Path, kind: str, path: str, value: Any) -> Path:
    directory.mkdir()
    (directory / "kustomization.yaml").write_text(OVERLAY % (kind, path, json.dumps(value)))
    return directory


@needs_kubectl
@pytest.mark.parametrize("backend", ["manifests", "operator"])
def test_overlays_that_add_tolerations_all_count_for_both_backends(tmp_path: Path, backend: str) -> None:
    kept = 'deploy.pods.tolerations=[{ key = "kept", operator = "Exists" }]'
    own = overlay(tmp_path / "own", "Job", "/spec/template/spec/tolerations", [BATCH])
    overlays = [K8S / "components" / "spot", own]
    found = {
        labels["app.kubernetes.io/component"]: [each["key"] for each in pod["tolerations"]]
        for labels, pod in pods(objects_of(prepare(DEFAULT, deploy=[kept], name="first"), overlays, backend))
    }
    spot = ["cloud.google.com/gke-spot", "kubernetes.azure.com/scalesetpriority"]
    assert found["worker"] == ["kept", *spot, "dedicated"]
    assert found["scheduler"] == found["driver"] == ["kept", "dedicated"]


@needs_kubectl
def test_an_overlay_that_changes_nothing_is_refused_and_one_for_the_operator_is_not(tmp_path: Path) -> None:
    given = prepare(DEFAULT, name="first")
    lost = overlay(tmp_path / "lost", "StatefulSet", "/spec/replicas", 3)
    late = overlay(tmp_path / "late", "DaskCluster", "/spec/idleTimeout", 60)
    for directory, backend in ((lost, "manifests"), (lost, "operator"), (late, "manifests")):
        with pytest.raises(JobError, match="changes nothing"):
            objects_of(given, [directory], backend)
    (cluster,) = [each for each in objects_of(given, [late], "operator") if each["kind"] == "DaskCluster"]
    assert cluster["spec"]["idleTimeout"] == 60


def test_a_submission_without_keys_asks_for_nothing() -> None:
    pod: Object = of_component(render(submission({})), "worker")["spec"]["template"]["spec"]
    absent = {"imagePullSecrets", "priorityClassName", "nodeSelector", "affinity", "topologySpreadConstraints"}
    assert not absent & set(pod)
    assert pod["securityContext"]["runAsUser"] == 10001


LOGS = """
import logging
import distributed
logging.getLogger("distributed.worker").info("s3://key:secret@bucket/a\\nand more")
logging.getLogger("distcluster").info("too little to tell")
"""


def test_logs_of_pods_are_lines_of_json_where_they_are_asked_for(tmp_path: Path) -> None:
    asked = submission({}, log_format="json")
    driver = of_component(render(asked), "driver")["spec"]["template"]["spec"]["containers"][0]
    assert driver["args"][-1] == "--json"
    variables = os.environ | {key: text for key, text in container_settings(asked).items() if "LOG" in key}
    done = subprocess.run([sys.executable, "-c", LOGS], env=variables, capture_output=True, text=True, check=True)
    (line,) = [json.loads(each) for each in done.stderr.splitlines()]
    assert (line["level"], line["logger"]) == ("info", "distributed.worker")
    assert line["message"].endswith("bucket/a\nand more")
    assert "secret" not in line["message"]
    command = [sys.executable, "-m", "distcluster", "run", str(tmp_path / "none.toml"), "--json"]
    wrong = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
    assert wrong.returncode == json.loads(wrong.stdout)["exit_code"] == 2
    assert "cannot read the job file" in json.loads(wrong.stderr)["message"]
