"""A submission as Kubernetes objects.

``k8s/base`` holds the same objects as files with comments, for sites that use kustomize alone; a test compares them.
"""

from typing import Any

from distcluster.errors import FAILED, WRONG
from distcluster.kubernetes.container_settings import container_settings
from distcluster.kubernetes.objects import Object, labels
from distcluster.kubernetes.platform import metadata_of_pods
from distcluster.kubernetes.pod_specs import account_of, driver_pod, scheduler_pod, worker_pod
from distcluster.kubernetes.submission import DASHBOARD_PORT, SCHEDULER_PORT, Submission


def render(submission: Submission) -> list[Object]:
    """Every object of a submission but the Secret with its certificate, in the order that they are created in.

    Parameters
    ----------
    submission : Submission

    Returns
    -------
    list of dict
        ServiceAccount, two ConfigMaps, NetworkPolicy, Service, and Jobs of scheduler, workers and driver; a Role and
        its RoleBinding for each right of the driver's: to change the number of workers, and to write events. The same
        submission always gives the same objects.
    """
    return [
        _service_account(submission),
        *(_right_to_scale(submission) if submission.deploy.is_elastic else []),
        *(_right_to_tell(submission) if submission.deploy.events else []),
        _settings(submission),
        _job_file(submission),
        _scheduler_service(submission),
        _network_policy(submission),
        _scheduler_job(submission),
        _worker_job(submission),
        _driver_job(submission),
    ]


def tls_secret(name: str, namespace: str | None, files: dict[str, str]) -> Object:
    """The Secret that a submission's pods read their certificate from: never part of a rendering.

    Parameters
    ----------
    name, namespace : str
        The submission's.
    files : dict of str to str
        ``ca.crt``, ``tls.crt`` and ``tls.key``.
    """
    metadata: Object = {"name": f"{name}-tls"} | ({} if namespace is None else {"namespace": namespace})
    metadata["labels"] = labels(name)
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": metadata,
        "type": "kubernetes.io/tls",
        "stringData": files,
    }


def _object(submission: Submission, api: str, kind: str, suffix: str, **content: Any) -> Object:
    metadata: Object = {"name": f"{submission.name}{suffix}"}
    if submission.deploy.namespace is not None:
        metadata["namespace"] = submission.deploy.namespace
    metadata["labels"] = submission.deploy.pods.labels | labels(submission.name)
    return {"apiVersion": api, "kind": kind, "metadata": metadata, **content}


def _service_account(submission: Submission) -> Object:
    """No token is mounted: nothing talks to Kubernetes, but a driver that has been given a right."""
    return _object(submission, "v1", "ServiceAccount", "", automountServiceAccountToken=False)


def _right(submission: Submission, suffix: str, rule: Object) -> list[Object]:
    """The driver, whose pod alone has the token, may do what the rule says."""
    api, name = "rbac.authorization.k8s.io", f"{submission.name}{suffix}"
    account = {"kind": "ServiceAccount", "name": account_of(submission), "namespace": submission.deploy.namespace}
    bound = {"roleRef": {"apiGroup": api, "kind": "Role", "name": name}, "subjects": [account]}
    return [
        _object(submission, f"{api}/v1", "Role", suffix, rules=[rule]),
        _object(submission, f"{api}/v1", "RoleBinding", suffix, **bound),
    ]


def _right_to_scale(submission: Submission) -> list[Object]:
    """Change one Job: that of its workers."""
    job = {"apiGroups": ["batch"], "resources": ["jobs"], "resourceNames": [f"{submission.name}-worker"]}
    return _right(submission, "-scale", job | {"verbs": ["get", "patch"]})


def _right_to_tell(submission: Submission) -> list[Object]:
    """Make events: a Role cannot say of what."""
    return _right(submission, "-events", {"apiGroups": [""], "resources": ["events"], "verbs": ["create"]})


def _settings(submission: Submission) -> Object:
    return _object(submission, "v1", "ConfigMap", "-settings", data=container_settings(submission))


def _job_file(submission: Submission) -> Object:
    return _object(submission, "v1", "ConfigMap", "-job", data={"job.toml": submission.job_text})


def _scheduler_service(submission: Submission) -> Object:
    ports = [
        {"name": "comm", "port": SCHEDULER_PORT, "targetPort": "comm"},
        {"name": "dashboard", "port": DASHBOARD_PORT, "targetPort": "dashboard"},
    ]
    return _object(
        submission, "v1", "Service", "-scheduler",
        spec={"selector": labels(submission.name, "scheduler"), "ports": ports},
    )  # fmt: skip


def _scheduler_job(submission: Submission) -> Object:
    """Not a Deployment, whose pods are started again whatever they end with: this one ends when the job is over."""
    spec = {
        "backoffLimit": _MANY,
        "podReplacementPolicy": "Failed",  # two schedulers behind one Service would split the workers
    }
    return _job(submission, "scheduler", _outliving(submission) | spec, scheduler_pod(submission))


def _worker_job(submission: Submission) -> Object:
    """Every worker is an index, so that none waits before it is replaced because others have died."""
    n_workers = submission.n_workers
    spec = {
        "completionMode": "Indexed", "completions": n_workers, "parallelism": n_workers, "backoffLimitPerIndex": _MANY,
    }  # fmt: skip
    return _job(submission, "worker", _outliving(submission) | spec, worker_pod(submission))


def _outliving(submission: Submission) -> Object:
    """Scheduler and workers have longer than the driver, so that its end is the job's."""
    seconds = submission.deploy.deadline_seconds + submission.deploy.idle_seconds
    return {"activeDeadlineSeconds": seconds, "ttlSecondsAfterFinished": submission.deploy.keep_seconds}


def _driver_job(submission: Submission) -> Object:
    spec = {
        "backoffLimit": submission.deploy.backoff_limit,
        "activeDeadlineSeconds": submission.deploy.deadline_seconds,
        "ttlSecondsAfterFinished": submission.deploy.keep_seconds,
        "podFailurePolicy": {"rules": _FAILURE_RULES},
    }
    return _job(submission, "driver", spec, driver_pod(submission))


def _job(submission: Submission, component: str, spec: Object, pod: Object) -> Object:
    template = {"metadata": metadata_of_pods(submission, component), "spec": pod}
    found = _object(submission, "batch/v1", "Job", f"-{component}", spec=spec | {"template": template})
    found["metadata"]["labels"] |= labels(submission.name, component)
    return found


_MANY = 1000  # deaths of a pod, before it is not replaced any more


_FAILURE_RULES: list[Object] = [
    # Failed for good, or a wrong job or input: trying again costs a cluster and changes nothing.
    {"action": "FailJob", "onExitCodes": {"containerName": "driver", "operator": "In", "values": [FAILED, WRONG]}},
    # A drained node is not the job's fault, and the next attempt resumes.
    {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
]


def _network_policy(submission: Submission) -> Object:
    """Only pods of the same submission come in; the dashboard has no password, so nobody else sees it."""
    own = {"matchLabels": labels(submission.name)}
    ingress: list[Object] = [{"from": [{"podSelector": own}]}]
    if submission.deploy.dashboard_namespace is not None:
        namespace = {"matchLabels": {"kubernetes.io/metadata.name": submission.deploy.dashboard_namespace}}
        ingress.append(
            {"from": [{"namespaceSelector": namespace}], "ports": [{"protocol": "TCP", "port": DASHBOARD_PORT}]}
        )
    return _object(
        submission, "networking.k8s.io/v1", "NetworkPolicy", "",
        spec={"podSelector": own, "policyTypes": ["Ingress"], "ingress": ingress},
    )  # fmt: skip
