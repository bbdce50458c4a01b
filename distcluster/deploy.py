"""``[deploy]``: where a job runs, on this machine, on a Dask scheduler, or as pods."""

from typing import Annotated, Literal

from pydantic import AfterValidator, ByteSize, Field, TypeAdapter, ValidationError, model_validator

from distcluster.pod_table import PodTable
from distcluster.table import PositiveInt, Table


def memory_bytes(memory: str) -> int:
    """Bytes of a size such as "4GiB" or "500 MB".

    Raises
    ------
    ValueError
        When it is no size.
    """
    return int(TypeAdapter(ByteSize).validate_python(memory))


def _sized(memory: str) -> str:
    try:
        count = memory_bytes(memory)
    except ValidationError as error:
        raise ValueError('must be a size such as "4GiB"') from error
    if count < _LEAST_MEMORY:
        raise ValueError("is too little for Python and its libraries: at least 256MiB")
    return memory


def _pinned(image: str) -> str:
    name = image.rpartition("/")[2]
    if "@sha256:" not in name and (":" not in name or name.endswith(":latest")):
        raise ValueError("must name a version, as in registry/distcluster:0.1.0: retries could run other code")
    return image


_LEAST_MEMORY = 256 * 2**20
_DNS_LABEL = r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"
Memory = Annotated[str, AfterValidator(_sized)]


class WorkersTable(Table):
    """``[deploy.workers]``: as many worker pods as there are tasks, between two numbers; absent: ``n_workers``."""

    min: Annotated[int, Field(ge=1, le=10_000)]
    """As many are always there: enough for the stages of one task or a few."""
    max: Annotated[int, Field(ge=1, le=10_000)]
    """As many are there while partitions and candidates wait. Idle ones leave after a minute."""

    @model_validator(mode="after")
    def _in_order(self) -> "WorkersTable":
        if self.min > self.max:
            raise ValueError(f"min = {self.min} is more than max = {self.max}")
        return self


class DeployTable(Table):
    """``[deploy]``: where it runs; no result depends on it."""

    kind: Literal["local", "address", "kubernetes"] = "local"
    """local: worker processes on this machine; address: an existing Dask scheduler; kubernetes: pods that
    ``distcluster submit`` makes."""
    n_workers: Annotated[int, Field(ge=1, le=10_000)] | None = None
    """Worker processes of one thread each, or worker pods; absent: one per core, or 2 pods."""
    workers: WorkersTable | None = None
    """``[deploy.workers]``: a number of worker pods that follows the tasks. The driver's pod gets the right to change
    the Job of its workers."""
    memory_limit: Memory | None = None
    """Memory of one local worker, e.g. "4GiB"; absent: the machine's memory divided by the workers."""
    address: str | None = None
    """The scheduler, e.g. tcp://10.0.0.5:8786, when kind is address; absent: DASK_SCHEDULER_ADDRESS names it."""
    tls_ca_file: str | None = None
    """Authority that signed the scheduler's certificate (PEM); absent: as Dask's configuration says."""
    tls_client_cert: str | None = None
    """Our certificate (PEM)."""
    tls_client_key: str | None = None
    """Its key (PEM)."""
    lease_seconds: Annotated[float, Field(ge=2, le=3600)] = 20.0
    """A run has one writer. One that dies on another machine is given up after this long, and the next may begin."""
    dashboard_address: str = "127.0.0.1:8787"
    """Where a local dashboard listens; another port is taken when this one is busy."""
    image: Annotated[str, AfterValidator(_pinned)] | None = None
    """Image of all pods, with a tag or a digest; absent: distcluster:VERSION, as k8s/Dockerfile builds it."""
    namespace: Annotated[str, Field(pattern=_DNS_LABEL)] | None = None
    """Where the pods run; absent: the namespace of kubectl's context."""
    worker_memory: Memory = "4GiB"
    """Memory of a worker pod, requested and limited; Dask gets 85 % of it. See ``distcluster plan``."""
    scheduler_memory: Memory = "1GiB"
    """Memory of the scheduler pod: tasks are few thousands at a time, whatever the number of rows."""
    driver_memory: Memory = "2GiB"
    """Memory of the driver pod: it imports what the workers do, and holds no rows."""
    cpu: PositiveInt = 1
    """Cores that a worker pod requests, and tasks that it runs at a time; a task uses one."""
    volume: Annotated[str, Field(pattern=_DNS_LABEL)] | None = None
    """A PersistentVolumeClaim that all pods mount at /data (ReadWriteMany, unless one node runs them all)."""
    secret: Annotated[str, Field(pattern=_DNS_LABEL)] | None = None
    """A Secret whose keys become environment variables of all pods: AWS_ACCESS_KEY_ID and the like."""
    service_account: Annotated[str, Field(pattern=_DNS_LABEL)] | None = None
    """A service account for all pods, where the cloud gives it rights on the stores; absent: one without any."""
    tls: bool = True
    """Encrypt and authenticate all that Dask's parts say to each other."""
    dashboard_namespace: Annotated[str, Field(pattern=_DNS_LABEL)] | None = None
    """A namespace whose pods may open the dashboard, which has no password; absent: by port-forward only."""
    deadline_seconds: PositiveInt = 7 * 24 * 3600
    """A job that runs longer is stopped, retries included; a week, so that a job that hangs does not cost for ever."""
    keep_seconds: Annotated[int, Field(ge=0)] = 1800
    """How long a finished job's objects and logs stay, where nobody follows it and cleans up. Its pods have ended."""
    idle_seconds: Annotated[int, Field(ge=60)] = 1800
    """Scheduler and workers leave at once when the driver is done, and after this long when it went without a word and
    no other came: longer than Kubernetes takes to try again, ten minutes at most, and to find a node."""
    backoff_limit: Annotated[int, Field(ge=0, le=1000)] = 6
    """How often a driver that ends with 75, or is killed, is tried again; it resumes. Drained nodes do not count."""
    log_format: Literal["text", "json"] = "text"
    """json: pods log lines of JSON, for platforms that collect them, and the driver its progress and result."""
    events: bool = False
    """true: the driver writes events that `kubectl describe job NAME-driver` shows: the end of each stage, trouble, the
    verdict or the failure. Its pod gets the right to make events in the namespace, whatever they are about."""
    pods: PodTable = PodTable()
    """``[deploy.pods]``: what the platform asks of pods."""

    @model_validator(mode="after")
    def _complete(self) -> "DeployTable":
        files = (self.tls_ca_file, self.tls_client_cert, self.tls_client_key)
        if any(files) and not all(files):
            raise ValueError("tls_ca_file, tls_client_cert and tls_client_key go together")
        if self.workers is not None and self.n_workers is not None:
            raise ValueError("n_workers and workers both say how many: keep one")
        if self.events and self.kind == "address":
            raise ValueError('events are of the Job that `distcluster submit` makes, and kind = "address" has none')
        if self.is_elastic and self.pods.queue is not None:
            raise ValueError("a queue admits all pods together, and workers.min < workers.max: set n_workers")
        if self.pods.cpu_limit is not None and self.pods.cpu_limit < self.cpu:
            raise ValueError(f"pods.cpu_limit = {self.pods.cpu_limit} is less than cpu = {self.cpu}: raise it")
        return self

    @property
    def is_elastic(self) -> bool:
        """Whether the number of worker pods is to change while the job runs."""
        return self.workers is not None and self.workers.min < self.workers.max
