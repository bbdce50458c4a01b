"""The pods of a submission's scheduler, workers and driver."""

from collections.abc import Sequence

from distcluster.deploy import memory_bytes
from distcluster.kubernetes.job_events import event_variables
from distcluster.kubernetes.objects import Object
from distcluster.kubernetes.platform import put_on_platform
from distcluster.kubernetes.submission import (
    DASHBOARD_PORT,
    JOB_PATH,
    NANNY_PORT,
    SCHEDULER_PORT,
    SCRATCH_PATH,
    TLS_PATH,
    VOLUME_PATH,
    WORKER_HTTP_PORT,
    WORKER_PORT,
    Submission,
)
from distcluster.kubernetes.worker_job import WORKER_JOB

_DASK_SHARE = 0.85  # of a worker's memory: Dask must act before the kernel does, and the nanny needs some too
_MIB, _GIB = 2**20, 2**30
_IN_POD = ("python", "-m", "distcluster.kubernetes.in_pod")
SERVE, DRIVE = (*_IN_POD, "serve"), (*_IN_POD, "drive")
"""Before the command of scheduler and workers, and of the driver: they end when the job is over."""
_RETIRE_SECONDS = 60  # to hand over and leave; the pod's grace period is twice that


def scheduler_pod(submission: Submission) -> Object:
    """``dask scheduler``, with its dashboard."""
    args = [*SERVE, "dask", "scheduler", "--protocol", submission.scheme, "--port", str(SCHEDULER_PORT),
            "--dashboard-address", f":{DASHBOARD_PORT}", "--preload", "distcluster.kubernetes.dismissal"]  # fmt: skip
    container = _container(
        submission, "scheduler", args, "500m", submission.deploy.scheduler_memory,
        ports={"comm": SCHEDULER_PORT, "dashboard": DASHBOARD_PORT},
    )  # fmt: skip
    probe = {"httpGet": {"path": "/health", "port": "dashboard"}}
    container["readinessProbe"] = probe | {"periodSeconds": 5}
    container["livenessProbe"] = probe | {"initialDelaySeconds": 30, "periodSeconds": 20, "failureThreshold": 6}
    pod = _pod(submission, container, grace_seconds=30)
    pod["restartPolicy"] = "OnFailure"  # there, at once; the workers and the driver find it again by its Service
    return pod


def worker_pod(submission: Submission) -> Object:
    """``dask worker``, which hands over what it holds before it goes."""
    limit = int(memory_bytes(submission.deploy.worker_memory) * _DASK_SHARE) // _MIB
    args = [*SERVE, "dask", "worker", "--name", "$(DASK_WORKER_NAME)",
            "--protocol", submission.scheme, "--nthreads", str(submission.deploy.cpu),
            "--memory-limit", f"{limit}MiB", "--local-directory", SCRATCH_PATH,
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
    pod = _pod(submission, container, grace_seconds=2 * _RETIRE_SECONDS)
    pod["restartPolicy"] = "Never"  # a limit for each index asks for it
    return pod


def driver_pod(submission: Submission) -> Object:
    """``distcluster run`` with the job file, once: the Job makes another pod for another attempt."""
    args = [*DRIVE, "distcluster", "run", f"{JOB_PATH}/job.toml", "--set", "deploy.kind=kubernetes"]
    for override in submission.overrides:
        args += ["--set", override]
    if submission.deploy.log_format == "json":
        args.append("--json")
    container = _container(submission, "driver", args, "500m", submission.deploy.driver_memory)
    container["volumeMounts"].insert(0, {"name": "job", "mountPath": JOB_PATH, "readOnly": True})
    pod = _pod(submission, container, grace_seconds=30)
    pod["restartPolicy"] = "Never"  # a pod failure policy asks for it: every attempt keeps its log
    if submission.deploy.is_elastic:
        pod["automountServiceAccountToken"] = True
        container["env"] = [{"name": WORKER_JOB, "value": f"{submission.name}-worker"}, *container.get("env", [])]
    if submission.deploy.events:
        pod["automountServiceAccountToken"] = True
        container["env"] = [*event_variables(f"{submission.name}-driver"), *container.get("env", [])]
    return pod


def account_of(submission: Submission) -> str:
    """The service account of all pods."""
    return submission.deploy.service_account or submission.name


def _container(
    submission: Submission, name: str, args: Sequence[str], cpu: str, memory: str, ports: dict[str, int] | None = None
) -> Object:
    """A container of the image as the "restricted" Pod Security profile wants it."""
    quantity = _quantity(memory)
    env_from: list[Object] = [{"configMapRef": {"name": f"{submission.name}-settings"}}]
    if submission.deploy.secret is not None:
        env_from.append({"secretRef": {"name": submission.deploy.secret}})
    container: Object = {"name": name, "image": submission.image, "args": list(args), "envFrom": env_from}
    container["terminationMessagePolicy"] = "FallbackToLogsOnError"  # its last words, in `kubectl describe pod`
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
    mounts: list[Object] = [{"name": "scratch", "mountPath": SCRATCH_PATH}]
    if submission.deploy.tls:
        mounts.append({"name": "tls", "mountPath": TLS_PATH, "readOnly": True})
    if submission.deploy.volume is not None:
        mounts.append({"name": "data", "mountPath": VOLUME_PATH})
    return mounts


def _pod(submission: Submission, container: Object, grace_seconds: int) -> Object:
    pod = {
        "serviceAccountName": account_of(submission),
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": grace_seconds,
        "securityContext": {
            "runAsNonRoot": True,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": _volumes(submission, container["name"]),
    }
    return put_on_platform(submission, container["name"], pod)


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


def _quantity(memory: str) -> str:
    """Bytes as Kubernetes writes them, in whole mebibytes."""
    count = memory_bytes(memory)
    return f"{count // _GIB}Gi" if count % _GIB == 0 else f"{count // _MIB}Mi"
