"""The job file: one frozen record per TOML table, unknown keys refused."""

from importlib.util import find_spec
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import AfterValidator, Field, field_validator, model_validator

from distcluster.deploy import DeployTable
from distcluster.errors import JobError
from distcluster.naming import NamesTable, require_namer
from distcluster.numerics.mixture.candidate import COVARIANCE_TYPES, CovarianceType
from distcluster.numerics.mixture.selection import Rule
from distcluster.numerics.partition import BLOCK_ROWS, Partitioning
from distcluster.numerics.sampling import SubsampleSizes, resolve_sizes
from distcluster.numerics.shown_rows import SHOWN
from distcluster.table import PositiveInt, Table
from distcluster.url import Url


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


class RawLayout(NamedTuple):
    """How rows lie in a raw file."""

    dtype: str
    """Of the values, little-endian."""
    features: int
    """D, values in a row."""
    offset: int
    """Bytes before the first row."""


class InputTable(Table):
    """``[input]``: the embeddings."""

    url: Url
    """A Zarr array (N, D), or a group that holds one; Parquet, .npy or raw values, a file, a folder of files, or a
    pattern of files' names (*.parquet); a Lance dataset (``pip install 'distcluster[lance]'``). A local path, or a URL
    (s3://, gs://, az://, https://, ...)."""
    array: str = "embeddings"
    """The array's name, when `url` is a group; the column's of Parquet or Lance, where there are several of lists."""
    id: str | None = None
    """A column of the input that names rows: of Parquet or Lance, or an array (N,) beside the embeddings in a Zarr
    group. It is in exports, and what a person reads as the row where `report.items` says nothing else."""
    dtype: Literal["float16", "float32", "float64", "int8", "uint8"] | None = None
    """The type of the values of raw files, such as numpy.memmap writes, which do not say it themselves; little-endian.
    Absent for all other inputs."""
    features: PositiveInt | None = None
    """D, the values in a row of raw files; the number of rows follows from their sizes."""
    offset: Annotated[int, Field(ge=0)] = 0
    """Bytes before the first row of each raw file, as numpy.memmap's."""
    on_invalid: Literal["error", "skip"] = "error"
    """Rows with NaN or infinity, all zeros under cosine, too long for float32 under euclidean: stop, or give them label
    -1."""
    allow_missing_chunks: bool = False
    """Read chunks that are not there as the array's fill value, as Zarr does, instead of refusing the input: most often
    they are an upload that was cut short."""

    @model_validator(mode="after")
    def _declared(self) -> "InputTable":
        if (self.dtype is None) != (self.features is None) or (self.offset and self.dtype is None):
            raise ValueError("raw files need both dtype and features; offset goes with them, and with no other input")
        return self

    @property
    def raw(self) -> RawLayout | None:
        """How rows lie in raw files; None where the input says it itself."""
        if self.dtype is None or self.features is None:
            return None
        return RawLayout(self.dtype, self.features, self.offset)


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
    """k-means starts per k, of which the best goes on, where fits do not start from merged clusters."""
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
    """elbow: farthest below the chord of the BIC curve over log2 k; of the ks about it the largest whose clusters
    return in replicates about as well as any's. bic, icl and silhouette take the best value of the grid, stability
    (across replicates) the largest excess over the null."""
    replicates: Annotated[int, Field(ge=0, le=16, multiple_of=2)] = 4
    """Times that the whole pipeline is run again to measure stability, two on disjoint halves of the subsamples each
    time, and twice on a null; 0: never."""
    refine: bool = True
    """Continue the chosen mixture by EM over all rows, until it converges or for ``mixture.max_iter`` iterations."""

    @model_validator(mode="after")
    def _comparable(self) -> "SelectionTable":
        if self.rule == "stability" and self.replicates == 0:
            raise ValueError("replicates = 0: there is no stability to choose by; at least 2 can be compared")
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


class ReportTable(Table):
    """``[report]``: what is shown; no result depends on it."""

    write: Literal["always", "never"] = "always"
    """never: ``run`` leaves the report to ``distcluster report``."""
    items: Url | None = None
    """What a person reads as the row, one entry a row: a text file, JSON Lines, Parquet, or a Zarr array of strings;
    local path or URL. Entries that are paths of images below its directory are shown as thumbnails. "input:NAME" is a
    column of the input, as for `input.id`."""
    item_column: str = "text"
    """The field of JSON Lines, or the column of Parquet."""
    labels: tuple[Url, ...] = ()
    """Taxonomies to compare the clusters with: text files with a row's label a line, several with tabs between them, or
    Zarr arrays, of N strings or integers, (N, m) strings, or (N, C) indicators, whose attribute ``classes`` names the
    columns; an empty label is none. "input:NAME" is a column of the input."""
    remote_images: bool = False
    """Show thumbnails of entries that are URLs of images, too: whoever wrote the items then says what is asked for."""
    names: NamesTable | None = None
    """Who gives clusters names; by default they have words."""
    points: Literal["auto"] | Annotated[int, Field(ge=0, le=SHOWN)] = "auto"
    """Rows that the page's map draws as points besides those that can be read on it, at most, spread evenly; auto:
    250,000, with which the page can still be mailed."""
    tsne: bool = False
    """Show t-SNE of some rows beside UMAP and PCA, by openTSNE: ``pip install 'distcluster[tsne]'``."""
    performance: bool = False
    """Save Dask's performance report, with its task stream, as RUN/report/performance.html."""

    def beside(self, source: Url) -> "ReportTable":
        """The same, with columns of an input at their places below it.

        Examples
        --------
        >>> ReportTable(items="input:text").beside(Url("docs.parquet")).items
        'docs.parquet/text'
        """
        items = self.items and column_url(source, self.items)
        return self.model_copy(update={"items": items, "labels": tuple(column_url(source, u) for u in self.labels)})


def column_url(source: Url, name: Url) -> Url:
    """Where a column of an input lies, as an array in a group does, if a name begins with "input:"; else the name."""
    return source.joined(name.removeprefix(_OF_INPUT)) if name.startswith(_OF_INPUT) else name


_OF_INPUT = "input:"


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

    @model_validator(mode="after")
    def _with_columns(self) -> "Job":
        report = self.report
        if report.items is None and self.input.id is not None:
            report = report.model_copy(update={"items": Url(f"{_OF_INPUT}{self.input.id}")})
        object.__setattr__(self, "report", report.beside(self.input.url))  # frozen for others
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
    if table.names is not None:
        require_namer(table.names)
