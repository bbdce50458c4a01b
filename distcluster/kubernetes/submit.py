"""Submit a job to Kubernetes, through kubectl and nothing else."""

import re
import secrets
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from distcluster.deploy import DeployTable
from distcluster.errors import JobError
from distcluster.job import Job
from distcluster.job_file import load_job
from distcluster.kubernetes.dask_operator import for_operator
from distcluster.kubernetes.kubectl import Kubectl, KubectlError
from distcluster.kubernetes.manifests import render
from distcluster.kubernetes.objects import Object, of_component
from distcluster.kubernetes.overlays import overlaid
from distcluster.kubernetes.platform import is_queued
from distcluster.kubernetes.submission import VOLUME_PATH, Submission

_NAME = re.compile(r"[a-z]([-a-z0-9]{0,38}[a-z0-9])?")

BACKENDS: dict[str, Callable[[Submission, list[Object]], list[Object]]] = {
    "manifests": lambda _, plain: plain,
    "operator": for_operator,
}
"""Plain objects, or the dask-kubernetes operator's."""

_NEVER_OWNED = ("Namespace", "PersistentVolumeClaim")  # what an overlay may add, and must outlive the job


def prepare(
    job_file: Path, overrides: Sequence[str] = (), deploy: Sequence[str] = (), name: str | None = None
) -> Submission:
    """Read a job file and check all that can be checked without a cluster or the stores.

    Parameters
    ----------
    job_file : Path
    overrides : sequence of str
        ``table.key=value`` assignments; the driver gets them too.
    deploy : sequence of str
        Assignments to ``[deploy]`` that only the rendering needs.
    name : str, optional
        The submission's; absent: the job file's with six random digits, so that no two meet. What resumes is the
        output, not the name.

    Raises
    ------
    JobError
        When the job is wrong, or pods could not see its input or output.
    """
    job = load_job(job_file, [*overrides, *deploy, "deploy.kind=kubernetes"])
    _refuse_unseen(job)
    if job.deploy.is_elastic and job.deploy.namespace is None:
        raise JobError(
            "deploy.workers.min < max needs deploy.namespace or --namespace: what lets the driver ask Kubernetes for "
            "more workers names it."
        )
    if job.deploy.events and job.deploy.namespace is None:
        raise JobError("deploy.events needs deploy.namespace or --namespace: what lets the driver write them names it.")
    name = name or f"{_slug(job_file.stem)}-{secrets.token_hex(3)}"
    if not _NAME.fullmatch(name):
        raise JobError(
            f"--name {name}: must be at most 40 lower-case letters, digits and hyphens, starting with a letter"
        )
    return Submission(name, job_file.read_text(), tuple(overrides), job.deploy)


def _slug(stem: str) -> str:
    """A file's name as the start of a DNS label."""
    slug = re.sub(r"[^a-z0-9]+", "-", stem.lower()).strip("-")[:30].strip("-")
    return slug if re.match(r"[a-z]", slug) else f"job-{slug}".strip("-")


def _refuse_unseen(job: Job) -> None:
    """Local paths mean something on this machine only, unless they lie on the volume that all pods mount."""
    urls = {"input.url": job.input.url, "output.url": job.output.url, "predict.model": job.predict.model}
    urls |= {"report.items": job.report.items, "mixture.previous": job.mixture.previous}
    urls |= {f"report.labels[{index}]": url for index, url in enumerate(job.report.labels)}
    unseen = [f"{key} = {url!r}" for key, url in urls.items() if url is not None and not _is_seen(url, job)]
    if unseen:
        raise JobError(
            "pods cannot see these files of this machine:\n"
            + "\n".join(f"  {line}" for line in unseen)
            + f"\nUse URLs of an object store (s3://, gs://, az://), or paths below {VOLUME_PATH} and deploy.volume."
        )


def _is_seen(url: str, job: Job) -> bool:
    parts = urlsplit(url)
    if parts.scheme and parts.scheme != "file":
        return True
    path = PurePosixPath(parts.path)
    return job.deploy.volume is not None and path.is_relative_to(VOLUME_PATH) and ".." not in path.parts


def objects_of(submission: Submission, overlays: Sequence[Path] = (), backend: str = "manifests") -> list[Object]:
    """The submission's objects for a backend, with kustomize components on top.

    Raises
    ------
    KubectlError
        When kustomize refuses a component, or kubectl is not there.
    JobError
        When a component changes nothing.
    """
    return overlaid(render(submission), overlays, partial(BACKENDS[backend], submission))


def refuse_missing(kubectl: Kubectl, deploy: DeployTable) -> None:
    """Look for what the job expects in its namespace: pods that wait for it would say so to nobody.

    Raises
    ------
    JobError
        When the volume's claim, a Secret, the service account or another object that the job names is not there.
    KubectlError
        When the cluster does not answer.
    """
    pods = deploy.pods
    wanted = {
        "volume": ("persistentvolumeclaim", deploy.volume),
        "secret": ("secret", deploy.secret),
        "service_account": ("serviceaccount", deploy.service_account),
        "pods.priority_class": ("priorityclass", pods.priority_class),
        "pods.ca_bundle.name": ("configmap", None if pods.ca_bundle is None else pods.ca_bundle.name),
        "pods.queue": ("localqueues.kueue.x-k8s.io", pods.queue),
        **{f"pods.image_pull_secrets[{i}]": ("secret", name) for i, name in enumerate(pods.image_pull_secrets)},
        **{f"pods.environment_from.{key}": ("secret", each.name) for key, each in pods.environment_from.items()},
    }
    missing = [
        f'  deploy.{key} = "{name}": no {kind.partition(".")[0]} {name}'
        for key, (kind, name) in wanted.items()
        if name is not None and not kubectl.exists(kind, name)
    ]
    if missing:
        where = "the context's namespace" if kubectl.namespace is None else f"namespace {kubectl.namespace}"
        raise JobError(f"not in {where}, make it first:\n" + "\n".join(missing))


def apply(kubectl: Kubectl, objects: Sequence[Object]) -> None:
    """Create a submission's objects; all of them, or none.

    The driver's Job comes first and owns the others: whoever deletes it, we or Kubernetes some time after its end,
    deletes scheduler, workers and certificate with it. All Jobs are suspended until everything is there, so that
    nothing runs where we are killed meanwhile, and start in an order in which workers are never without a scheduler
    that dismisses them. Where a queue holds the pods, ``suspend`` is left alone: none starts before the last is there.

    Raises
    ------
    KubectlError
        When the cluster refuses one of them.
    """
    driver = of_component(objects, "driver")
    kept = [each for each in objects if each["kind"] in _NEVER_OWNED]
    others = [each for each in objects if each is not driver and each["kind"] not in _NEVER_OWNED]
    started = [] if is_queued(driver) else [each["metadata"]["name"] for each in [*others, driver] if _is_job(each)]
    kubectl.create(each for each in kept if not kubectl.exists(each["kind"].lower(), each["metadata"]["name"]))
    (created,) = kubectl.create([_held(driver, started)])
    name = driver["metadata"]["name"]
    try:
        owner = {"apiVersion": driver["apiVersion"], "kind": "Job", "name": name, "uid": created["metadata"]["uid"]}
        owned = {"ownerReferences": [owner]}
        kubectl.create(_held(each, started) | {"metadata": each["metadata"] | owned} for each in others)
        for each in started:
            kubectl.patch("job", each, {"spec": {"suspend": False}})
    except (KubectlError, KeyboardInterrupt):
        kubectl.delete("job", name)
        raise


def _is_job(each: Object) -> bool:
    return bool(each["kind"] == "Job")


def _held(each: Object, started: Sequence[str]) -> Object:
    """The object, suspended where it is one of those that are started later."""
    if not _is_job(each) or each["metadata"]["name"] not in started:
        return each
    return each | {"spec": each["spec"] | {"suspend": True}}
