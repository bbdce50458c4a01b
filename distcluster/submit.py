"""Submit a job to Kubernetes, through kubectl and nothing else."""

import re
import secrets
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from distcluster.job import Job, JobError, load_job
from distcluster.manifests import VOLUME_PATH, Submission

_NAME = re.compile(r"[a-z]([-a-z0-9]{0,38}[a-z0-9])?")


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
    urls = {"input.url": job.input.url, "output.url": job.output.url, "report.items": job.report.items}
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
