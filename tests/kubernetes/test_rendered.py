"""Everything that k8s/ and `submit` render: valid under strict schemas, and its parts fit together."""

import copy
import json
import os
import re
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from dask.utils import parse_bytes
from dask_kubernetes.operator.controller import controller
from test_manifests import DEFAULT, K8S, kustomize, needs_kubectl

from distcluster.execution.metrics import StageMetrics
from distcluster.kubernetes.manifests import render
from distcluster.kubernetes.objects import to_yaml
from distcluster.kubernetes.submit import prepare

VERSIONS = ("1.29", "1.33", "1.37")
DIRECTORIES = ("base", "overlays/dev", "overlays/prod", "operator/cluster", "operator/job")
OPERATORS = ("DaskCluster", "DaskJob")
CUSTOM = (*OPERATORS, "PodMonitor")
"""Kinds that Kubernetes itself does not know."""
COMPONENTS = ("s3", "pvc", "spot", "prometheus", "podmonitor")
SUBMISSIONS: dict[str, list[str]] = {
    "plain": [],
    "volume": ["deploy.volume=shared", "deploy.namespace=team", "deploy.cpu=4", "deploy.worker_memory=32GiB"],
    "secret": ["deploy.secret=keys", "deploy.tls=false", "deploy.dashboard_namespace=monitoring"],
    "elastic": ["deploy.workers.min=2", "deploy.workers.max=20", "deploy.namespace=team"],
}
GIVEN = {"Secret": {"distcluster-tls", "distcluster-s3", "keys", "job-tls"}, "PersistentVolumeClaim": {"shared"}}
"""What the documentation says to make first."""

QUANTITY = re.compile(r"\d+(\.\d+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?")
UNITS = {"m": 1e-3, "": 1, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}

Objects = list[dict[str, Any]]


def with_component(directory: Path, component: str) -> Objects:
    """The base with one component on top."""
    base, added = (os.path.relpath(K8S / part, directory.resolve()) for part in ("base", f"components/{component}"))
    (directory / "kustomization.yaml").write_text(yaml.safe_dump({"resources": [base], "components": [added]}))
    return kustomize(directory)


@pytest.fixture(
    params=[
        *(pytest.param(("directory", name), id=name, marks=needs_kubectl) for name in DIRECTORIES),
        *(pytest.param(("component", name), id=f"components/{name}", marks=needs_kubectl) for name in COMPONENTS),
        *(pytest.param(("submission", name), id=f"submit-{name}") for name in SUBMISSIONS),
    ]
)
def objects(request: pytest.FixtureRequest, tmp_path: Path) -> Objects:
    kind, name = request.param
    if kind == "directory":
        return kustomize(K8S / name)
    if kind == "component":
        return with_component(tmp_path, name)
    return list(yaml.safe_load_all(to_yaml(render(prepare(DEFAULT, deploy=SUBMISSIONS[name], name="job")))))


def pods(objects: Objects) -> Iterator[tuple[dict[str, str], dict[str, Any]]]:
    """Labels and specification of every pod that the objects make."""
    for each in objects:
        if "template" in each.get("spec", {}):
            yield each["spec"]["template"]["metadata"]["labels"], each["spec"]["template"]["spec"]
        for role, found in operated(each).items():
            # The operator adds these two labels.
            added = {"dask.org/cluster-name": each["metadata"]["name"], "dask.org/component": role}
            yield found["metadata"]["labels"] | added, found["spec"]


def operated(each: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The operator's pods by the role that it gives them; none of other objects."""
    if each["kind"] not in OPERATORS:
        return {}
    if each["kind"] == "DaskCluster":
        return {role: each["spec"][role] for role in ("scheduler", "worker")}
    cluster = each["spec"]["cluster"]["spec"]
    return {"scheduler": cluster["scheduler"], "worker": cluster["worker"], "job-runner": each["spec"]["job"]}


def selects(selector: dict[str, str], labels: dict[str, str]) -> bool:
    return bool(selector) and selector.items() <= labels.items()


def value_of(quantity: str) -> float:
    assert QUANTITY.fullmatch(quantity), f"no quantity: {quantity}"
    number = re.match(r"[\d.]+", quantity)
    assert number is not None
    return float(number[0]) * UNITS[quantity[number.end() :]]


@pytest.mark.parametrize("version", VERSIONS)
def test_strict_schemas_accept_every_object(objects: Objects, version: str) -> None:
    for each in objects:
        if each["kind"] not in CUSTOM:
            kubernetes_validate.validate(each, version, strict=True)


def test_strict_schemas_refuse_a_misspelt_key() -> None:
    for each in render(prepare(DEFAULT, name="job")):
        if each["kind"] == "Job":
            each["spec"]["template"]["spec"]["containers"][0]["envform"] = []
            with pytest.raises(kubernetes_validate.ValidationError):
                kubernetes_validate.validate(each, VERSIONS[0], strict=True)


def closed(schema: Any) -> Any:
    """A resource definition's schema as JSON Schema that refuses unknown fields."""
    if isinstance(schema, list):
        return [closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: closed(value) for key, value in schema.items()}
    if isinstance(found.get("properties"), dict) and not found.get("x-kubernetes-preserve-unknown-fields"):
        found.setdefault("additionalProperties", False)
    if found.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    return found


def operators_schema(kind: str) -> Any:
    crd = files("dask_kubernetes") / f"operator/deployment/helm/dask-kubernetes-operator/crds/{kind.lower()}.yaml"
    schema = closed(yaml.safe_load(crd.read_text())["spec"]["versions"][0]["schema"]["openAPIV3Schema"])
    # Every resource has these three, whatever its definition lists.
    schema["properties"] |= {"metadata": {"type": "object"}, "apiVersion": {}, "kind": {}}
    return schema


@needs_kubectl
@pytest.mark.parametrize(("kind", "directory"), [("DaskCluster", "cluster"), ("DaskJob", "job")])
def test_the_operators_schemas_accept_its_variants_and_refuse_a_misspelt_key(kind: str, directory: str) -> None:
    (found,) = [each for each in kustomize(K8S / "operator" / directory) if each["kind"] in OPERATORS]
    schema = operators_schema(kind)
    jsonschema.validate(found, schema)
    for role in operated(found):
        wrong = copy.deepcopy(found)
        operated(wrong)[role]["spec"]["containers"][0]["envform"] = []
        with pytest.raises(jsonschema.ValidationError, match="envform"):
            jsonschema.validate(wrong, schema)


@needs_kubectl
def test_the_operators_own_code_leaves_our_addresses_names_and_labels() -> None:
    (job,) = [each for each in kustomize(K8S / "operator" / "job") if each["kind"] == "DaskJob"]
    name, runner = job["metadata"]["name"], job["spec"]["job"]
    worker = job["spec"]["cluster"]["spec"]["worker"]
    made = [
        controller.build_job_pod_spec(name, name, "team", runner["spec"], {}, runner["metadata"]["labels"]),
        controller.build_worker_deployment_spec(
            f"{name}-default", "team", name, "uuid", worker["spec"], {}, worker["metadata"]["labels"]
        )["spec"]["template"],
    ]
    for pod in made:
        (container,) = pod["spec"]["containers"]
        environ = {each["name"]: each["value"] for each in container["env"]}
        assert environ["DASK_SCHEDULER_ADDRESS"] == f"tls://{name}-scheduler:8786"
        assert selects({"app.kubernetes.io/instance": name}, pod["metadata"]["labels"])
    assert "$(DASK_WORKER_NAME)" in container["args"]
    assert "DASK_WORKER_NAME" in environ


def test_selectors_select_pods_and_ports_exist(objects: Objects) -> None:
    found = list(pods(objects))
    for each in objects:
        spec = each.get("spec", {})
        assert each["kind"] != "PodDisruptionBudget", "one that counts a Job's pods lets no node be drained"
        if each["kind"] == "PodMonitor":
            assert all(selects(spec["selector"]["matchLabels"], labels) for labels, _ in found)
            open_ports = {port["name"] for _, pod in found for c in pod["containers"] for port in c.get("ports", [])}
            assert {endpoint["port"] for endpoint in spec["podMetricsEndpoints"]} <= open_ports
        if each["kind"] == "NetworkPolicy":
            assert all(selects(spec["podSelector"]["matchLabels"], labels) for labels, _ in found)
        service = spec if each["kind"] == "Service" else operated(each).get("scheduler", {}).get("service")
        if service:
            behind = [pod for labels, pod in found if selects(service["selector"], labels)]
            assert len(behind) == 1
            names = {port["name"] for container in behind[0]["containers"] for port in container["ports"]}
            assert {port["targetPort"] for port in service["ports"]} <= names
    for _, pod in found:
        (container,) = pod["containers"]
        names = {port["name"] for port in container.get("ports", [])}
        probes = [container[probe] for probe in ("readinessProbe", "livenessProbe") if probe in container]
        assert {probe["httpGet"]["port"] for probe in probes} <= names


def test_every_reference_exists(objects: Objects) -> None:
    there = {kind: set(names) for kind, names in GIVEN.items()}
    for each in objects:
        there.setdefault(each["kind"], set()).add(each["metadata"]["name"])
    for _, pod in pods(objects):
        (container,) = pod["containers"]
        assert pod["serviceAccountName"] in there["ServiceAccount"]
        for source in container["envFrom"]:
            for key, kind in (("configMapRef", "ConfigMap"), ("secretRef", "Secret")):
                assert key not in source or source[key]["name"] in there[kind]
        for volume in pod["volumes"]:
            assert "configMap" not in volume or volume["configMap"]["name"] in there["ConfigMap"]
            assert "secret" not in volume or volume["secret"]["secretName"] in there["Secret"]
            claim = volume.get("persistentVolumeClaim", {}).get("claimName")
            assert claim is None or claim in there["PersistentVolumeClaim"]
        assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
    for each in objects:
        address = each.get("data", {}).get("DASK_SCHEDULER_ADDRESS")
        if address is not None:
            host, _, port = address.partition("://")[2].partition(":")
            assert host in there.get("Service", set()) | {
                f"{name}-scheduler" for kind in OPERATORS for name in there.get(kind, ())
            }
            assert port == "8786"


def test_pods_are_restricted_and_their_images_pinned(objects: Objects) -> None:
    """The rules of the "restricted" Pod Security profile that concern these pods, one by one."""
    for _, pod in pods(objects):
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] > 0
        assert pod["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault"
        # Of all pods only a driver that chooses the number of its workers talks to Kubernetes.
        is_elastic = any(each["name"] == "DISTCLUSTER_WORKER_JOB" for each in pod["containers"][0].get("env", []))
        assert pod["automountServiceAccountToken"] is is_elastic
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
        allowed = {"configMap", "emptyDir", "secret", "persistentVolumeClaim", "projected", "name"}
        assert all(set(volume) <= allowed for volume in pod["volumes"])
        for container in pod["containers"]:
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert context["readOnlyRootFilesystem"] is True
            assert not {"privileged", "procMount"} & set(context)
            assert re.search(r"(:(?!latest$)[\w.-]+|@sha256:[0-9a-f]{64})$", container["image"])


def test_memory_is_limited_as_requested_and_dasks_limit_lies_below(objects: Objects) -> None:
    workers = 0
    for _, pod in pods(objects):
        (container,) = pod["containers"]
        resources = container["resources"]
        memory = value_of(resources["limits"]["memory"])
        assert value_of(resources["requests"]["memory"]) == memory
        assert value_of(resources["requests"]["cpu"]) > 0
        if container["name"] == "worker":
            workers += 1
            limit = parse_bytes(container["args"][container["args"].index("--memory-limit") + 1])
            assert 0.7 * memory < limit < 0.9 * memory
            hook = container["lifecycle"]["preStop"]["exec"]["command"]
            assert pod["terminationGracePeriodSeconds"] > float(hook[hook.index("--timeout") + 1])
            assert hook[:3] == ["python", "-m", "distcluster.kubernetes.retire"]
    assert workers == 1


def test_the_grafana_dashboard_asks_for_metrics_that_there_are() -> None:
    pytest.importorskip("prometheus_client", reason="not installed")
    collected = {family.name for family in StageMetrics(list).collect()}
    dashboard = json.loads((K8S / "grafana.json").read_text())
    asked = {
        name for panel in dashboard["panels"] for name in re.findall(r"distcluster_\w+", panel["targets"][0]["expr"])
    }
    assert asked == collected
