"""A submission as Kubernetes objects: plain data, and its YAML.

``k8s/base`` holds the same objects as files with comments, for sites that use kustomize alone; a test compares them.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import yaml

from distcluster.errors import FAILED, WRONG
from distcluster.job import DeployTable, memory_bytes

Object = dict[str, Any]

PART_OF = "distcluster"
SCHEDULER_PORT, DASHBOARD_PORT = 8786, 8787
WORKER_PORT, NANNY_PORT, WORKER_HTTP_PORT = 8788, 8789, 8790

VOLUME_PATH = "/data"
"""Where pods mount ``deploy.volume``."""

_JOB_PATH = "/etc/distcluster/job"
_TLS_PATH = "/etc/distcluster/tls"
_SCRATCH_PATH = "/scratch"
_DASK_SHARE = 0.85  # of a worker's memory: Dask must act before the kernel does, and the nanny needs some too
_MIB, _GIB = 2**20, 2**30
_RETIRE_SECONDS = 60  # to hand over and leave; the pod's grace period is twice that
_TLS_ROLES = ("SCHEDULER", "WORKER", "CLIENT")

SETTINGS: dict[str, str] = {
    # A cut connection is noticed after 11 s instead of 30; Dask refuses less.
    "DASK_DISTRIBUTED__COMM__TIMEOUTS__TCP": "11s",
    # A pod's name resolves some seconds after the pod starts.
    "DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "30s",
    # 0 by default: one lost packet of a restarting node would fail a task.
    "DASK_DISTRIBUTED__COMM__RETRY__COUNT": "3",
    # Worker deaths that a task survives; 3 by default, which two drained nodes and a bad one use up.
    "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "5",
    # Unset by default: a job whose workers never come back would wait for ever.
    "DASK_DISTRIBUTED__SCHEDULER__NO_WORKERS_TIMEOUT": "900s",
    # A worker that hangs is given up after this; shorter would hit long native calls.
    "DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL": "300s",
    # Tasks keep nothing in a worker's memory, so a full worker that pauses would pause for ever; at 95 % of its memory
    # the nanny starts it anew, and its task runs again.
    "DASK_DISTRIBUTED__WORKER__MEMORY__PAUSE": "False",
    # One log of many pods is sorted by time.
    "DASK_DISTRIBUTED__ADMIN__LOG_FORMAT": "%(asctime)s %(name)s %(levelname)s %(message)s",
    # The root file system is read-only: all that programs want to write goes to the scratch volume.
    "DASK_TEMPORARY_DIRECTORY": _SCRATCH_PATH,
    "HOME": _SCRATCH_PATH,
    "MPLCONFIGDIR": f"{_SCRATCH_PATH}/matplotlib",
    "NUMBA_CACHE_DIR": f"{_SCRATCH_PATH}/numba",
    # One thread a task: sums over threads depend on their number. The nanny does not pin numba, nor the driver.
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "NUMBA_NUM_THREADS": "1",
    # Logs are read while the job runs.
    "PYTHONUNBUFFERED": "1",
}
"""Environment of every container: Dask's configuration, and where and how libraries run."""


@dataclass(frozen=True, slots=True)
class Submission:
    """All that a rendering depends on."""

    name: str
    """Prefix of every object's name, at most 40 characters: unique in the namespace."""
    job_text: str
    """The job file, byte for byte."""
    overrides: tuple[str, ...]
    """``table.key=value`` assignments that the driver applies to it."""
    deploy: DeployTable
    """The job's ``[deploy]``."""

    @property
    def image(self) -> str:
        """The image of all roles."""
        return self.deploy.image or f"{PART_OF}:{version(PART_OF)}"

    @property
    def scheme(self) -> str:
        """Dask's transport."""
        return "tls" if self.deploy.tls else "tcp"

    @property
    def scheduler_address(self) -> str:
        """What workers and the driver connect to."""
        return f"{self.scheme}://{self.name}-scheduler:{SCHEDULER_PORT}"


def to_yaml(objects: Iterable[Object]) -> str:
    """The objects as YAML documents, multi-line strings as blocks, keys in the order they were given."""
    return yaml.dump_all(objects, Dumper=_Dumper, sort_keys=False, width=120)


class _Dumper(yaml.SafeDumper):
    """PyYAML's safe dumper without aliases, which kubectl reads and people do not."""

    def ignore_aliases(self, _data: Any) -> bool:
        return True


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _represent_text)


# --- plain manifests --------------------------------------------------------------------------------------------


def render(submission: Submission) -> list[Object]:
    """Every object of a submission but the Secret with its certificate, in the order that they are created in.

    Parameters
    ----------
    submission : Submission

    Returns
    -------
    list of dict
        ServiceAccount, two ConfigMaps, Service, two Deployments, Job, PodDisruptionBudget, NetworkPolicy. The same
        submission always gives the same objects.
    """
    return [
        _service_account(submission),
        _settings(submission),
        _job_file(submission),
        _scheduler_service(submission),
        _deployment(submission, "scheduler", 1, _scheduler_pod(submission)),
        _deployment(submission, "worker", submission.deploy.n_workers or 2, _worker_pod(submission)),
        _driver_job(submission),
        _disruption_budget(submission),
        _network_policy(submission),
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


def labels(name: str, component: str | None = None) -> dict[str, str]:
    """Labels of a submission's objects; with a component, of one role's."""
    common = {"app.kubernetes.io/name": PART_OF, "app.kubernetes.io/instance": name}
    return common if component is None else common | {"app.kubernetes.io/component": component}


def _object(submission: Submission, api: str, kind: str, suffix: str, **content: Any) -> Object:
    metadata: Object = {"name": f"{submission.name}{suffix}"}
    if submission.deploy.namespace is not None:
        metadata["namespace"] = submission.deploy.namespace
    metadata["labels"] = labels(submission.name)
    return {"apiVersion": api, "kind": kind, "metadata": metadata, **content}


def _service_account(submission: Submission) -> Object:
    """No role is bound to it and no token mounted: nothing in the job talks to Kubernetes."""
    return _object(submission, "v1", "ServiceAccount", "", automountServiceAccountToken=False)


def _settings(submission: Submission) -> Object:
    settings = SETTINGS | {"DASK_SCHEDULER_ADDRESS": submission.scheduler_address}
    return _object(submission, "v1", "ConfigMap", "-settings", data=settings | _tls_settings(submission))


def _tls_settings(submission: Submission) -> dict[str, str]:
    if not submission.deploy.tls:
        return {}
    files = {"CA_FILE": "ca.crt"}
    for role in _TLS_ROLES:
        files |= {f"{role}__CERT": "tls.crt", f"{role}__KEY": "tls.key"}
    return {
        "DASK_DISTRIBUTED__COMM__DEFAULT_SCHEME": "tls",
        "DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION": "True",
        **{f"DASK_DISTRIBUTED__COMM__TLS__{key}": f"{_TLS_PATH}/{file}" for key, file in files.items()},
    }


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


def _deployment(submission: Submission, component: str, replicas: int, pod: Object) -> Object:
    selector = labels(submission.name, component)
    spec: Object = {"replicas": replicas, "selector": {"matchLabels": selector}}
    if component == "scheduler":
        spec["strategy"] = {"type": "Recreate"}  # two schedulers behind one Service would split the workers
    spec["template"] = {"metadata": {"labels": selector}, "spec": pod}
    found = _object(submission, "apps/v1", "Deployment", f"-{component}", spec=spec)
    found["metadata"]["labels"] = selector
    return found


def _scheduler_pod(submission: Submission) -> Object:
    args = ["dask", "scheduler", "--protocol", submission.scheme, "--port", str(SCHEDULER_PORT),
            "--dashboard-address", f":{DASHBOARD_PORT}"]  # fmt: skip
    container = _container(
        submission, "scheduler", args, "500m", submission.deploy.scheduler_memory,
        ports={"comm": SCHEDULER_PORT, "dashboard": DASHBOARD_PORT},
    )  # fmt: skip
    probe = {"httpGet": {"path": "/health", "port": "dashboard"}}
    container["readinessProbe"] = probe | {"periodSeconds": 5}
    container["livenessProbe"] = probe | {"initialDelaySeconds": 30, "periodSeconds": 20, "failureThreshold": 6}
    return _pod(submission, container, grace_seconds=30)


def _worker_pod(submission: Submission) -> Object:
    limit = int(memory_bytes(submission.deploy.worker_memory) * _DASK_SHARE) // _MIB
    args = ["dask", "worker", "--name", "$(DASK_WORKER_NAME)",
            "--protocol", submission.scheme, "--nthreads", str(submission.deploy.cpu),
            "--memory-limit", f"{limit}MiB", "--local-directory", _SCRATCH_PATH,
            "--worker-port", str(WORKER_PORT), "--nanny-port", str(NANNY_PORT),
            "--dashboard-address", f":{WORKER_HTTP_PORT}", "--death-timeout", "120"]  # fmt: skip
    container = _container(
        submission, "worker", args, str(submission.deploy.cpu), submission.deploy.worker_memory,
        ports={"comm": WORKER_PORT, "nanny": NANNY_PORT, "http": WORKER_HTTP_PORT},
    )  # fmt: skip
    container["env"] = [{"name": "DASK_WORKER_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]
    container["readinessProbe"] = {"httpGet": {"path": "/health", "port": "http"}, "periodSeconds": 10}
    retire = ["python", "-m", "distcluster.kubernetes.retire", "--timeout", str(_RETIRE_SECONDS)]
    container["lifecycle"] = {"preStop": {"exec": {"command": retire}}}
    return _pod(submission, container, grace_seconds=2 * _RETIRE_SECONDS)


def _driver_job(submission: Submission) -> Object:
    pod = _pod(submission, _driver_container(submission), grace_seconds=30)
    pod["restartPolicy"] = "Never"  # a pod failure policy asks for it: every attempt keeps its log
    labelled = labels(submission.name, "driver")
    found = _object(
        submission, "batch/v1", "Job", "-driver",
        spec={
            "backoffLimit": 6,
            "activeDeadlineSeconds": submission.deploy.deadline_seconds,
            "ttlSecondsAfterFinished": submission.deploy.keep_seconds,
            "podFailurePolicy": {"rules": _FAILURE_RULES},
            "template": {"metadata": {"labels": labelled}, "spec": pod},
        },
    )  # fmt: skip
    found["metadata"]["labels"] = labelled
    return found


_FAILURE_RULES: list[Object] = [
    # Failed for good, or a wrong job or input: trying again costs a cluster and changes nothing.
    {"action": "FailJob", "onExitCodes": {"containerName": "driver", "operator": "In", "values": [FAILED, WRONG]}},
    # A drained node is not the job's fault, and the next attempt resumes.
    {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
]


def _driver_container(submission: Submission) -> Object:
    args = ["distcluster", "run", f"{_JOB_PATH}/job.toml", "--set", "deploy.kind=kubernetes"]
    for override in submission.overrides:
        args += ["--set", override]
    container = _container(submission, "driver", args, "500m", submission.deploy.driver_memory)
    container["volumeMounts"].insert(0, {"name": "job", "mountPath": _JOB_PATH, "readOnly": True})
    return container


def _container(
    submission: Submission, name: str, args: Sequence[str], cpu: str, memory: str, ports: dict[str, int] | None = None
) -> Object:
    """A container of the image as the "restricted" Pod Security profile wants it."""
    quantity = _quantity(memory)
    env_from: list[Object] = [{"configMapRef": {"name": f"{submission.name}-settings"}}]
    if submission.deploy.secret is not None:
        env_from.append({"secretRef": {"name": submission.deploy.secret}})
    container: Object = {"name": name, "image": submission.image, "args": list(args), "envFrom": env_from}
    if ports:
        container["ports"] = [{"name": key, "containerPort": port} for key, port in ports.items()]
    # Memory that is requested but not limited, or the other way round, is what gets pods evicted. Processor time is
    # requested only: a limit throttles, and protects nobody.
    container["resources"] = {"requests": {"cpu": cpu, "memory": quantity}, "limits": {"memory": quantity}}
    container["securityContext"] = {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
    }
    container["volumeMounts"] = _mounts(submission)
    return container


def _mounts(submission: Submission) -> list[Object]:
    mounts: list[Object] = [{"name": "scratch", "mountPath": _SCRATCH_PATH}]
    if submission.deploy.tls:
        mounts.append({"name": "tls", "mountPath": _TLS_PATH, "readOnly": True})
    if submission.deploy.volume is not None:
        mounts.append({"name": "data", "mountPath": VOLUME_PATH})
    return mounts


def _pod(submission: Submission, container: Object, grace_seconds: int) -> Object:
    return {
        "serviceAccountName": submission.deploy.service_account or submission.name,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": grace_seconds,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 10001,
            "runAsGroup": 10001,
            "fsGroup": 10001,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": _volumes(submission, container["name"]),
    }


def _volumes(submission: Submission, role: str) -> list[Object]:
    volumes: list[Object] = []
    if role == "driver":
        volumes.append({"name": "job", "configMap": {"name": f"{submission.name}-job"}})
    volumes.append({"name": "scratch", "emptyDir": {"sizeLimit": "10Gi"}})
    if submission.deploy.tls:
        volumes.append({"name": "tls", "secret": {"secretName": f"{submission.name}-tls", "defaultMode": 0o440}})
    if submission.deploy.volume is not None:
        volumes.append({"name": "data", "persistentVolumeClaim": {"claimName": submission.deploy.volume}})
    return volumes


def _disruption_budget(submission: Submission) -> Object:
    """One worker at a time, so that each can hand over; the scheduler and the driver never hold up a drain."""
    selector = {"matchLabels": labels(submission.name, "worker")}
    return _object(
        submission, "policy/v1", "PodDisruptionBudget", "-worker", spec={"maxUnavailable": 1, "selector": selector}
    )


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


def _quantity(memory: str) -> str:
    """Bytes as Kubernetes writes them, in whole mebibytes."""
    count = memory_bytes(memory)
    return f"{count // _GIB}Gi" if count % _GIB == 0 else f"{count // _MIB}Mi"
