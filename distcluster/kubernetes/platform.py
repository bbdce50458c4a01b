"""What a platform asks of pods, ``[deploy.pods]``, put into what is rendered."""

from typing import Any

from distcluster.kubernetes.objects import Object, labels
from distcluster.kubernetes.submission import CA_PATH, Submission

_QUEUE = "kueue.x-k8s.io"
_CERTIFICATE_VARIABLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "AWS_CA_BUNDLE")
_STAY = {"cluster-autoscaler.kubernetes.io/safe-to-evict": "false", "karpenter.sh/do-not-disrupt": "true"}
"""Scheduler and driver are one each: nodes are not tidied up under them. Workers hand over and move."""
_INSIDE = ("localhost", "127.0.0.1", ".svc", ".cluster.local")


def platform_settings(submission: Submission) -> dict[str, str]:
    """Environment variables of all containers: the proxy, the certificates' file, and what the job names."""
    pods = submission.deploy.pods
    found: dict[str, str] = {}
    if pods.proxy is not None:
        without = ",".join([*_INSIDE, f"{submission.name}-scheduler", *pods.no_proxy])
        for name, value in (("HTTP_PROXY", str(pods.proxy)), ("HTTPS_PROXY", str(pods.proxy)), ("NO_PROXY", without)):
            found |= {name: value, name.lower(): value}  # libraries differ in which they read
    if pods.ca_bundle is not None:
        found |= dict.fromkeys(_CERTIFICATE_VARIABLES, f"{CA_PATH}/{pods.ca_bundle.key}")
    return found | pods.environment


def metadata_of_pods(submission: Submission, role: str) -> Object:
    """Labels and annotations of a role's pods."""
    pods = submission.deploy.pods
    found: Object = {"labels": pods.labels | labels(submission.name, role)}
    annotations = pods.annotations | ({} if role == "worker" else _STAY)
    if pods.queue is not None:
        # Not the Jobs carry the queue's name, but all pods as one group: Kueue would admit one Job after the other.
        found["labels"] |= {f"{_QUEUE}/queue-name": pods.queue, f"{_QUEUE}/pod-group-name": submission.name}
        annotations[f"{_QUEUE}/pod-group-total-count"] = str(submission.n_workers + 2)
    return found | ({"annotations": annotations} if annotations else {})


def is_queued(job: Object) -> bool:
    """Whether Kueue says when a Job's pods start."""
    return f"{_QUEUE}/queue-name" in job["spec"]["template"]["metadata"].get("labels", {})


def put_on_platform(submission: Submission, role: str, pod: Object) -> Object:
    """The pod of a role, with what the platform asks of it."""
    pods = submission.deploy.pods
    pod |= _placed(submission, role)
    if pods.image_pull_secrets:
        pod["imagePullSecrets"] = [{"name": name} for name in pods.image_pull_secrets]
    if pods.priority_class is not None:
        pod["priorityClassName"] = pods.priority_class
    if pods.user != "any":
        pod["securityContext"] |= dict.fromkeys(("runAsUser", "runAsGroup", "fsGroup"), pods.user)
    (container,) = pod["containers"]
    if pods.environment_from:
        container["env"] = container.get("env", []) + [
            {"name": name, "valueFrom": {"secretKeyRef": each.model_dump()}}
            for name, each in pods.environment_from.items()
        ]
    if pods.cpu_limit is not None:
        container["resources"]["limits"]["cpu"] = str(pods.cpu_limit)
    if pods.ephemeral_storage is not None:
        for bound in container["resources"].values():
            bound["ephemeral-storage"] = pods.ephemeral_storage
        (scratch,) = [each for each in pod["volumes"] if each["name"] == "scratch"]
        scratch["emptyDir"]["sizeLimit"] = pods.ephemeral_storage
    if pods.ca_bundle is not None:
        pod["volumes"].append({"name": "ca", "configMap": {"name": pods.ca_bundle.name}})
        container["volumeMounts"].append({"name": "ca", "mountPath": CA_PATH, "readOnly": True})
    return pod


def _placed(submission: Submission, role: str) -> Object:
    pods = submission.deploy.pods
    tables = [pods, pods.workers] if role == "worker" else [pods]
    selector: dict[str, str] = {}
    affinity: dict[str, Any] = {}
    for table in tables:
        selector |= table.node_selector
        affinity = table.affinity or affinity
    counted = {"labelSelector": {"matchLabels": labels(submission.name, role)}}
    found: Object = {
        # Also where there is none: kustomize components can add to a list, but not to nothing.
        "tolerations": [each.model_dump(exclude_none=True) for table in tables for each in table.tolerations],
        "nodeSelector": selector,
        "affinity": affinity,
        "topologySpreadConstraints": [
            each.model_dump() | counted for table in tables for each in table.topology_spread
        ],
    }
    return {key: value for key, value in found.items() if value or key == "tolerations"}
