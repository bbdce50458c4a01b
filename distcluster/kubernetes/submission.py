"""A submission: all that its objects depend on, and the ports and paths that its pods agree on."""

from dataclasses import dataclass
from importlib.metadata import version

from distcluster.deploy import DeployTable
from distcluster.kubernetes.objects import PART_OF

SCHEDULER_PORT, DASHBOARD_PORT = 8786, 8787
WORKER_PORT, NANNY_PORT, WORKER_HTTP_PORT = 8788, 8789, 8790

VOLUME_PATH = "/data"
"""Where pods mount ``deploy.volume``."""
JOB_PATH = "/etc/distcluster/job"
"""The directory of the job file, for the driver."""
TLS_PATH = "/etc/distcluster/tls"
"""The directory of the certificate."""
CA_PATH = "/etc/distcluster/ca"
"""The directory of ``deploy.pods.ca_bundle``."""
SCRATCH_PATH = "/scratch"
"""The only directory that pods may write to, besides the volume; emptied with the pod."""


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
    def n_workers(self) -> int:
        """Worker pods; at first, where their number follows the tasks."""
        return self.deploy.workers.min if self.deploy.workers else self.deploy.n_workers or 2

    @property
    def scheme(self) -> str:
        """Dask's transport."""
        return "tls" if self.deploy.tls else "tcp"

    @property
    def scheduler_address(self) -> str:
        """What workers and the driver connect to."""
        return f"{self.scheme}://{self.name}-scheduler:{SCHEDULER_PORT}"
