"""A submission for sites with the dask-kubernetes operator: a DaskCluster in the place of two Jobs and a Service."""

from typing import Any

from distcluster.deploy import WorkersTable
from distcluster.kubernetes.objects import COMPONENT, Object, of_component
from distcluster.kubernetes.pod_specs import DRIVE, SERVE
from distcluster.kubernetes.submission import DASHBOARD_PORT, SCHEDULER_PORT, Submission
from distcluster.kubernetes.worker_job import WORKER_JOB

_ROUTES = (
    "distributed.http.scheduler.prometheus",
    "distributed.http.scheduler.info",
    "distributed.http.scheduler.json",
    "distributed.http.scheduler.api",
    "distributed.http.health",
    "distributed.http.proxy",
    "distributed.http.statics",
)


def for_operator(submission: Submission, plain: list[Object]) -> list[Object]:
    """A submission's objects with a DaskCluster, from which the operator makes scheduler and workers.

    The driver stays our own Job: the operator's DaskJob runs it as a bare pod, which is never tried again.

    Parameters
    ----------
    submission : Submission
    plain : list of dict
        As ``manifests.render`` gives them, whatever components have changed in them.

    Returns
    -------
    list of dict
        One DaskCluster instead of two Jobs and a Service. The operator starts its pods again whatever they end with,
        and deletes them when they are idle: they do not leave by themselves.
    """
    scheduler, worker = (of_component(plain, role) for role in ("scheduler", "worker"))
    labelled = {key: text for key, text in worker["metadata"]["labels"].items() if key != COMPONENT}
    cluster: Object = {
        "apiVersion": "kubernetes.dask.org/v1",
        "kind": "DaskCluster",
        "metadata": worker["metadata"] | {"name": submission.name, "labels": labelled},
        "spec": {
            "idleTimeout": submission.deploy.idle_seconds,
            "worker": {"replicas": worker["spec"]["parallelism"]} | _pods(submission, worker),
            "scheduler": _pods(submission, scheduler) | {"service": _service(submission)},
        },
    }
    driver = of_component(plain, "driver")["spec"]["template"]["spec"]
    for container in driver["containers"]:
        container["args"] = _without(DRIVE, container.get("args", []))
    rest = [each for each in plain if each not in (scheduler, worker) and each["kind"] != "Service"]
    added: list[Object] = [cluster]
    if submission.deploy.workers is not None and submission.deploy.is_elastic:
        driver["automountServiceAccountToken"] = submission.deploy.events  # the operator asks for workers itself
        for container in driver["containers"]:
            container["env"] = [each for each in container["env"] if each["name"] != WORKER_JOB]
        rest = [each for each in rest if each["metadata"]["name"] != f"{submission.name}-scale"]
        added.append(_autoscaler(submission.deploy.workers, cluster["metadata"]))
    for each in rest:
        if each["metadata"]["name"] == f"{submission.name}-settings":
            # The operator scales down through the api route; without it, it kills the newest workers, busy or not.
            each["data"]["DASK_DISTRIBUTED__SCHEDULER__HTTP__ROUTES"] = _list_of(_ROUTES)
    return [*rest, *added]


def _autoscaler(workers: WorkersTable, metadata: Object) -> Object:
    """The operator's own, which asks the scheduler; it may take a task's worker, and the task runs again elsewhere."""
    spec = {"cluster": metadata["name"], "minimum": workers.min, "maximum": workers.max}
    return {"apiVersion": "kubernetes.dask.org/v1", "kind": "DaskAutoscaler", "metadata": metadata, "spec": spec}


def _pods(submission: Submission, job: Object) -> dict[str, Any]:
    template = job["spec"]["template"]
    del template["spec"]["restartPolicy"]
    for container in template["spec"]["containers"]:
        container["args"] = _without(SERVE, container.get("args", []))
        # The operator would set tcp://, and sets the worker's name, which its own scaling goes by.
        container["env"] = [
            {"name": "DASK_SCHEDULER_ADDRESS", "value": submission.scheduler_address},
            *(each for each in container.get("env", []) if each["name"] != "DASK_WORKER_NAME"),
        ]
    return {"metadata": template["metadata"], "spec": template["spec"]}


def _without(first: tuple[str, ...], args: list[str]) -> list[str]:
    return args[len(first) :] if tuple(args[: len(first)]) == first else args


def _service(submission: Submission) -> Object:
    """The operator names it as ours is named; its selector is by the labels that the operator adds."""
    ports = [("tcp-comm", SCHEDULER_PORT, "comm"), ("http-dashboard", DASHBOARD_PORT, "dashboard")]
    return {
        "type": "ClusterIP",
        "selector": {"dask.org/cluster-name": submission.name, "dask.org/component": "scheduler"},
        "ports": [
            {"name": name, "port": port, "targetPort": target, "protocol": "TCP"} for name, port, target in ports
        ],
    }


def _list_of(names: tuple[str, ...]) -> str:
    """A list as Dask's configuration reads it from the environment."""
    return "[" + ", ".join(f'"{name}"' for name in names) + "]"
