"""The job file: one frozen record per TOML table, unknown keys refused."""

from importlib.util import find_spec
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ByteSize,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)

from distcluster.errors import JobError
from distcluster.numerics.mixture.candidate import COVARIANCE_TYPES, CovarianceType
from distcluster.numerics.mixture.selection import Rule
from distcluster.numerics.partition import BLOCK_ROWS, Partitioning
from distcluster.numerics.sampling import SubsampleSizes, resolve_sizes
from distcluster.url import Url

PositiveInt = Annotated[int, Field(ge=1, le=10**12)]


def _writable(url: Url) -> Url:
    scheme = url.partition("://")[0] if "://" in url else "file"
    if scheme not in WRITABLE_SCHEMES:
        raise ValueError(f"a run can be written to a local path or to {', '.join(sorted(WRITABLE_SCHEMES))}")
    return url


def _refuse_repeats(values: tuple[Any, ...]) -> tuple[Any, ...]:
    repeated = sorted({str(value) for value in values if values.count(value) > 1})
    if repeated:
        raise ValueError(f"{', '.join(repeated)} given more than once")
    return values


WRITABLE_SCHEMES = frozenset({"file", "s3", "s3a", "gs", "az", "adl", "azure", "abfs", "abfss"})
"""URL schemes that a run can be written to."""


class Table(BaseModel):
    """A TOML table."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class InputTable(Table):
    """``[input]``: the embeddings."""

    url: Url
    """A Zarr array (N, D), or a group that holds one: local path, or a URL (s3://, gs://, az://, https://, ...)."""
    array: str = "embeddings"
    """The array's name, when `url` is a group."""
    on_invalid: Literal["error", "skip"] = "error"
    """Rows with NaN or infinity, all zeros under cosine, too long for float32 under euclidean: stop, or give them label
    -1."""
    allow_missing_chunks: bool = False
    """Read chunks that are not there as the array's fill value, as Zarr does, instead of refusing the input: most often
    they are an upload that was cut short."""


class OutputTable(Table):
    """``[output]``: the run."""

    url: Annotated[Url, AfterValidator(_writable)]
    """Where the run's Zarr group is made, or resumed: local path or s3://, gs://, az:// URL."""


class PredictTable(Table):
    """``[predict]``: label the input by a model that is there, instead of making one."""

    model: Url | None = None
    """A finished run, or an exported model; the tables sample, projection, mixture and selection are its own."""


class SampleTable(Table):
    """``[sample]``: the subsamples that models are fitted on."""

    rows: Literal["auto"] | PositiveInt = "auto"
    """S, rows of the UMAP subsample; auto: min(50,000, N/2). More rows see rarer groups and cost fit time."""
    mixture_rows: Literal["auto"] | PositiveInt = "auto"
    """M, rows of the mixture subsample, disjoint from the UMAP subsample where N allows; auto: min(100,000, N/4)."""
    top_up: bool = False
    """Search all rows once before the fits, and add rows of groups that the sample holds only few of to both
    subsamples, at most a tenth of S to each: rare groups can become clusters, for the time of one more search."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Seed of the subsamples, of UMAP, of k-means and of the row kernel."""


class ProjectionTable(Table):
    """``[projection]``: UMAP; the names are umap-learn's."""

    n_components: Annotated[int, Field(ge=1, le=64)] = 5
    """d, dimensions of the space that is clustered. 2 to 10: mixtures need few, neighbourhoods need some."""
    n_neighbors: Annotated[int, Field(ge=2, le=200)] = 15
    """Neighbours of a row in the UMAP subsample: small sees detail, large sees the whole."""
    min_dist: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    """Least distance of rows in the projection; 0 keeps clusters dense, which is what a mixture wants."""
    metric: Literal["cosine", "euclidean"] = "cosine"
    """Distance between embeddings; cosine suits sentence and image models, euclidean raw features."""
    pca: PositiveInt | None = None
    """Principal components that neighbours are searched among; absent: all features. Fewer is faster and finds fewer of
    the true neighbours (docs/method.md)."""
    n_epochs: Annotated[int, Field(ge=1, le=100_000)] | None = None
    """Epochs of UMAP's fit; absent: 300 up to 10,000 subsample rows, beyond 120, or 200 in up to three dimensions, as
    views have (umap-learn: 500 and 200)."""
    optimizer: Literal["batch", "umap-learn"] = "batch"
    """Who fits UMAP: "batch", all rows at once in every epoch; or umap-learn, one pair after another, in one thread."""
    views: tuple[Literal[2, 3], ...] = (2, 3)
    """Extra projections for looking, never clustered; [] makes none."""

    @field_validator("views")
    @classmethod
    def _distinct(cls, views: tuple[int, ...]) -> tuple[int, ...]:
        return _refuse_repeats(views)


class MixtureTable(Table):
    """``[mixture]``: the grid of candidates; the names are scikit-learn's."""

    n_components: Literal["auto"] | Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = "auto"
    """The ks to try (1 is always added); auto: 2, 3, 4, 6, 8, 11, 16 ... 128, as far as the rows allow."""
    covariance_type: Annotated[tuple[CovarianceType, ...], Field(min_length=1)] = COVARIANCE_TYPES
    """The covariance types to try."""
    n_init: Annotated[int, Field(ge=1, le=1000)] = 5
    """k-means starts per k, of which the best starts the four mixtures of that k."""
    max_iter: Annotated[int, Field(ge=1, le=100_000)] = 100
    """EM iterations at most."""
    tol: Annotated[float, Field(gt=0.0, allow_inf_nan=False)] = 1e-3
    """EM stops when the mean log-likelihood gains less than this, nats per row."""
    reg_covar: Annotated[float, Field(ge=0.0, allow_inf_nan=False)] = 1e-6
    """Added to the diagonal of every covariance, squared units of the projection."""
    previous: Annotated[Url, AfterValidator(_writable)] | None = None
    """A finished run, or a prediction, whose cluster ids the new ones follow, by the rows in blocks that are equal in
    both; absent: ids are the fit's own."""

    @field_validator("n_components", "covariance_type")
    @classmethod
    def _distinct(cls, values: Any) -> Any:
        return values if values == "auto" else _refuse_repeats(values)


class SelectionTable(Table):
    """``[selection]``: how one candidate is chosen."""

    rule: Rule = "elbow"
    """elbow: farthest below the chord of the BIC curve over log2 k. bic, icl and silhouette take
    the best value of the grid, stability (across replicates) the largest excess over the null."""
    replicates: Annotated[int, Field(ge=0, le=8)] = 2
    """Times that the whole pipeline is run again on small subsamples, and on a null, to measure stability; 0: never."""
    refine: bool = True
    """Continue the chosen mixture by EM over all rows, until it converges or for ``mixture.max_iter`` iterations."""

    @model_validator(mode="after")
    def _comparable(self) -> "SelectionTable":
        if self.replicates == 1 or (self.rule == "stability" and self.replicates == 0):
            raise ValueError(
                f"replicates = {self.replicates}: at least 2 can be compared with each other, 0 makes none"
            )
        return self


class AssignTable(Table):
    """``[assign]``: what is written for every row, and in which units."""

    top: Annotated[int, Field(ge=1, le=64)] = 3
    """Number of most probable components stored for each row."""
    levels: Literal["auto"] | Annotated[tuple[Annotated[int, Field(ge=2)], ...], AfterValidator(_refuse_repeats)] = (
        "auto"
    )
    """Numbers of clusters that the hierarchy is cut into, for labels that nest; auto: half as many, and again, to 2.
    Those that are not below the chosen mixture's number of components are left out; [] makes none."""
    block_rows: Annotated[int, Field(ge=16, le=2**24)] = BLOCK_ROWS
    """Rows of a storage chunk and of a partial sum; smaller only for small inputs and tests."""
    partition_rows: PositiveInt | None = None
    """Rows of a task: block_rows times a power of two; absent: chosen from N and D. Results do not depend on it."""

    @model_validator(mode="after")
    def _aligned(self) -> "AssignTable":
        if self.partition_rows is not None:
            Partitioning(1, self.block_rows, self.partition_rows)
        return self


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


class DeployTable(Table):
    """``[deploy]``: where it runs; no result depends on it."""

    kind: Literal["local", "address", "kubernetes"] = "local"
    """local: worker processes on this machine; address: an existing Dask scheduler; kubernetes: pods that
    ``distcluster submit`` makes."""
    n_workers: Annotated[int, Field(ge=1, le=10_000)] | None = None
    """Worker processes of one thread each, or worker pods; absent: one per core, or 2 pods."""
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
    """How long a finished job's pods stay, where nobody follows it and cleans up; workers cost meanwhile."""

    @model_validator(mode="after")
    def _complete(self) -> "DeployTable":
        files = (self.tls_ca_file, self.tls_client_cert, self.tls_client_key)
        if any(files) and not all(files):
            raise ValueError("tls_ca_file, tls_client_cert and tls_client_key go together")
        return self


class ReportTable(Table):
    """``[report]``: what is shown; no result depends on it."""

    write: Literal["always", "never"] = "always"
    """never: ``run`` leaves the report to ``distcluster report``."""
    items: Url | None = None
    """What a person reads as the row, one entry a row: a text file, JSON Lines, Parquet, or a Zarr array of strings;
    local path or URL. Entries that are paths of images below its directory are shown as thumbnails."""
    item_column: str = "text"
    """The field of JSON Lines, or the column of Parquet."""
    labels: tuple[Url, ...] = ()
    """Taxonomies to compare the clusters with: text files with a row's label a line, several with tabs between them, or
    Zarr arrays, of N strings or integers, (N, m) strings, or (N, C) indicators, whose attribute ``classes`` names the
    columns; an empty label is none."""
    remote_images: bool = False
    """Show thumbnails of entries that are URLs of images, too: whoever wrote the items then says what is asked for."""
    tsne: bool = False
    """Show t-SNE of some rows beside UMAP and PCA, by openTSNE: ``pip install 'distcluster[tsne]'``."""
    performance: bool = False
    """Save Dask's performance report, with its task stream, as RUN/report/performance.html."""


class Job(Table):
    """A whole job file."""

    input: InputTable
    output: OutputTable
    predict: PredictTable = PredictTable()
    sample: SampleTable = SampleTable()
    projection: ProjectionTable = ProjectionTable()
    mixture: MixtureTable = MixtureTable()
    selection: SelectionTable = SelectionTable()
    assign: AssignTable = AssignTable()
    deploy: DeployTable = DeployTable()
    report: ReportTable = ReportTable()

    @model_validator(mode="after")
    def _with_model(self) -> "Job":
        given = [table for table in MODEL_TABLES if table in self.model_fields_set]
        if self.predict.model is not None and given:
            raise ValueError(f"predict.model: {', '.join(given)} cannot be given: they are the model's")
        return self


MODEL_TABLES = ("sample", "projection", "mixture", "selection")
"""What a job with ``predict.model`` takes from the model."""


def subsample_sizes(job: Job, n_valid: int) -> SubsampleSizes:
    """The sizes of both subsamples, once the number of valid rows is known.

    Raises
    ------
    JobError
        When the rows are too few for the job.
    """
    try:
        return resolve_sizes(job.sample.rows, job.sample.mixture_rows, n_valid, job.projection.n_neighbors)
    except ValueError as error:
        raise JobError(str(error)) from error


def require_extras(table: ReportTable) -> None:
    """Refuse a report that needs a package which is not installed: before the work, not after it.

    Raises
    ------
    JobError
    """
    if table.tsne and find_spec("openTSNE") is None:
        raise JobError("report.tsne needs the package openTSNE: pip install 'distcluster[tsne]'")
