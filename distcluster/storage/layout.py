"""What a run holds and where: every array, by the stage that writes it, and the paths of everything else.

``docs/store-layout.md`` is this module for people; a test compares them.
"""

from functools import cache

from distcluster.storage.run_arrays import ItemArray, RowArray
from distcluster.storage.selection_columns import SELECTION_COLUMNS

FORMAT_VERSION = 10
"""Raised with every change of the run layout; a run of another version is refused."""

ROOT = "zarr.json"
PROBE = "commit/.probe-"
ERROR = "commit/error.json"
LEASE = "commit/lease"
"""The writer's lease, by its number: it outlives the run that it was taken for."""

REPORT = "report/index.html"
SHOWN_ITEMS, NAMES = "report/items.json", "report/names.json"  # what the last report showed of items; names of clusters
REPORT_MADE = "report/made.json"  # what it was made of
PERFORMANCE = "report/performance.html"  # Dask's own, where a job asks for it
LOGS = "log"  # of sessions

CHOICES = "choice"
"""Where choices of other candidates lie, each a run of its own: ``choice/full-8``."""

GROUPS = ("commit", "partial", "model", "sample", "selection", "cluster", "report", LOGS)
"""Zarr groups that a new run has, so that other libraries can walk it."""

OBJECTS = (ROOT, ERROR, REPORT, REPORT_MADE, PERFORMANCE, SHOWN_ITEMS, NAMES, *(f"{each}/zarr.json" for each in GROUPS))
"""What a run holds beside what its stages write."""


def in_object(path: str) -> tuple[str, str] | None:
    """The object that holds an array which is no Zarr array, and its name in there.

    Examples
    --------
    >>> in_object("partial/scan/3.npz/row"), in_object("model/anchors")
    (('partial/scan/3.npz', 'row'), None)
    """
    key, found, name = path.partition(".npz/")
    return (f"{key}.npz", name) if found else None


NAN = float("nan")
_MIXTURE_SHAPES = {"weights": "(K,)", "means": "(K, d)", "covariances": "scikit-learn's"}


def _mixture(path: str, stage: str, meaning: str) -> dict[str, ItemArray]:
    """The three arrays of a mixture's parameters."""
    return {
        name: ItemArray(f"{path}/{name}", stage, shape, "float64", f"{name} of {meaning}")
        for name, shape in _MIXTURE_SHAPES.items()
    }


def _partial(stage: str, name: str, shape: str, dtype: str) -> ItemArray:
    """What an item of a stage leaves for later stages alone."""
    return ItemArray(f"partial/{stage}/{{item}}.npz/{name}", stage, shape, dtype)


def _partials(stage: str, **arrays: str) -> dict[str, ItemArray]:
    """The same of several arrays by name, each with its shape and dtype."""
    return {name: _partial(stage, name, *kind.rsplit(" ", 1)) for name, kind in arrays.items()}


# --- subsampling ------------------------------------------------------------------------------------------------

CHECKSUM = RowArray("input/checksum", "scan", "(blocks,)", "uint64", 0, "XXH3 of each block of the input, as stored")
SCANNED_ROW = _partial("scan", "row", "(n,)", "int64")
SCANNED_VECTOR = _partial("scan", "vector", "(n, D)", "float32")
SCANNED = "partial/scan"
FIRST_INDEX = _partials(
    "probe_sample", sample="(S', D) float32", scale="(S',) float32", graph="(bytes,) uint8", mean="(D,) float32",
    components="(D, components) float32",
)  # fmt: skip
RARE_ROW = _partial("find_rare", "row", "(n,)", "int64")
RARE_VECTOR = _partial("find_rare", "vector", "(n, D)", "float32")

SAMPLE_ROW = ItemArray("sample/row", "subsample", "(S,)", "int64", "rows of the UMAP subsample, in the order drawn")
MIXTURE_ROW = ItemArray(
    "sample/mixture_row", "subsample", "(M,)", "int64", "rows of the mixture subsample, in the order drawn"
)
SAMPLE = ItemArray(
    "model/sample", "subsample", "(S', D)", "float32", "the UMAP subsample's distinct rows, unit length under cosine"
)
MIXTURE_SAMPLE = ItemArray(
    "model/mixture_sample", "subsample", "(M, D)", "float32", "the mixture subsample, unit length under cosine"
)

# --- search and projection --------------------------------------------------------------------------------------

PCA_MEAN = ItemArray("model/pca/mean", "fit_pca", "(D,)", "float32", "where `projection.pca` asks for it")
PCA_COMPONENTS = ItemArray("model/pca/components", "fit_pca", "(D, P)", "float32", "orthonormal columns")
INDEX = {
    "graph": ItemArray(
        "model/index/graph", "build_index", "(bytes,)", "uint8",
        "the faiss graph over the sample; empty for an exact search",
    ),
    "mean": ItemArray("model/index/mean", "build_index", "(features,)", "float32", "of the basis of the 8-bit codes"),
    "components": ItemArray(
        "model/index/components", "build_index", "(features, components)", "float32",
        "that basis; no columns where codes are of the features",
    ),
}  # fmt: skip
SAMPLE_NEIGHBOURS = ItemArray(
    "model/sample_neighbours/index", "build_index", "(S', n_neighbors)", "int32", "the sample's neighbours in itself"
)
SAMPLE_DISTANCES = ItemArray(
    "model/sample_neighbours/distance", "build_index", "(S', n_neighbors)", "float32", "their distances"
)
SAMPLE_SCALE = ItemArray(
    "model/sample_scale", "build_index", "(S',)", "float32", "each sample row's distance to the last of them"
)
ANCHORS = ItemArray("model/anchors", "fit_umap", "(S', d)", "float32", "UMAP's coordinates of the sample")
FIELD = ItemArray("model/field", "fit_umap", "(d + 2, groups)", "float32", "groups of anchors: mean, softening, share")
VIEW_ANCHORS = ItemArray("model/{item}/anchors", "fit_views", "(S', 2 or 3)", "float32", "the same for a view")
VIEW_FIELD = ItemArray("model/{item}/field", "fit_views", "(nodes, …)", "float32", "the same for a view, and boxes")
NEIGHBOURS = "neighbours"
NEIGHBOUR_INDEX = RowArray(
    "neighbours/index", "find_neighbours", "(N, n_neighbors)", "int32", -1,
    "nearest sample rows; emptied when `project_rows` is complete",
)  # fmt: skip
NEIGHBOUR_DISTANCE = RowArray(
    "neighbours/distance", "find_neighbours", "(N, n_neighbors)", "float32", NAN, "their distances; emptied too"
)
MIXTURE_POINTS = _partial("project_subsample", "points", "(n, d)", "float32")
PROJECTION = RowArray("projection", "project_rows", "(N, d)", "float32", NAN, "the space that is clustered")
VIEW_2D = RowArray("view_2d", "project_rows", "(N, 2)", "float32", NAN, "for looking")
VIEW_3D = RowArray("view_3d", "project_rows", "(N, 3)", "float32", NAN, "for looking")
SUPPORT = RowArray(
    "support", "project_rows", "(N,)", "float32", NAN,
    "distance to the nearest sample row over the sample's own scale there; one in a thousand sample rows lies above "
    "`support_limit` in `commit/build_index/all.json`",
)  # fmt: skip
SPACES = {"projection": PROJECTION, "view_2d": VIEW_2D, "view_3d": VIEW_3D}
"""The arrays of a job's projections, by name."""

# --- the grid ---------------------------------------------------------------------------------------------------

KMEANS_LABEL = _partial("start_kmeans", "label", "(M,)", "int32")
CANDIDATE = _mixture("selection/fit/{item}", "fit_candidates", "every candidate, as TYPE-K")
REPLICATE_FITTED = _partial("replicate", "fitted", "(n, d)", "float32")
REPLICATE_COMMON = _partial("replicate", "common", "(n, d)", "float32")
REPLICATE_ROWS = _partial("replicate", "rows", "(n, D)", "float32")
REPLICATE_LABEL = _partial("recluster", "label", "(candidates, n)", "int16")
SCORED_CRITERIA = _partial("score_candidates", "criteria", "(candidates, 4)", "float64")
SCORED_COMPONENTS = _partial("score_candidates", "components", "(sum of K, d + 2)", "float64")
SCORED_SCATTER = _partial("score_candidates", "scatter", "(d + 1, d + 1)", "float64")
COMPONENT_SUMS = _partial("sum_components", "components", "(sum of K, d + 2)", "float64")
CRITERIA_SUMS = _partial("sum_components", "criteria", "(candidates, 4)", "float64")
SCATTER = _partial("sum_components", "scatter", "(d + 1, d + 1)", "float64")
COMPONENT_ROWS = ItemArray(
    "selection/component/rows", "sum_components", "(sum of K,)", "int64",
    "rows that each component labels, of the fitted candidates (no `error`) in the table's order",
)  # fmt: skip
COMPONENT_MEAN = ItemArray(
    "selection/component/mean", "sum_components", "(sum of K, d)", "float64", "their mean; NaN where there is no row"
)
SILHOUETTE_SUMS = _partial("sum_silhouettes", "silhouettes", "(candidates,)", "float64")
SELECTION = {
    name: ItemArray(f"selection/{name}", "select_candidate", "(candidates,)", dtype, meaning)
    for name, (dtype, meaning) in SELECTION_COLUMNS.items()
}
"""The selection table, by column: the fields of ``numerics.mixture.criteria.Criteria``."""

# --- the chosen mixture -----------------------------------------------------------------------------------------

EXPECTATION = _partial("refine_expect", "sums", "(K + 1, features)", "float64")
STEP = _mixture("partial/refine_maximise/{item}.npz", "refine_maximise", "an iteration over all rows")
_LINEAGE = {
    "component": ("(K,)", "int32", "the chosen candidate's component that each cluster is"),
    "counts": ("(previous K, K)", "int64", "common rows by the previous run's label and by this one's"),
    "predecessor": ("(K,)", "int32", "the previous cluster that most of a cluster comes from; -1 where it has none"),
    "event": ("(K,)", "string", "kept, born, split or merged; unseen where no row of the mixture subsample is in it"),
    "previous_event": ("(previous K,)", "string", "kept, died, split or merged; unseen without a common row"),
}
LINEAGE = {name: ItemArray(f"lineage/{name}", "match_clusters", *rest) for name, rest in _LINEAGE.items()}
"""What became of a previous run's clusters, where `mixture.previous` names one."""

MIXTURE = _mixture("model/mixture", "publish_mixture", "the chosen mixture, refined")
CLUSTER_STABILITY = ItemArray(
    "cluster/stability", "measure_stability", "(K,)", "float64",
    "the cluster's best Jaccard index in a replicate, averaged; NaN without replicates",
)  # fmt: skip
_ROW_STABILITY = {
    "point": ("(n, d)", "float32", "places of the rows that all replicates label; none without replicates"),
    "label": ("(n,)", "int32", "their clusters"),
    "share": ("(n,)", "float32", "share of the replicates in which the cluster held the row"),
}
ROW_STABILITY = {
    name: ItemArray(f"model/stability/{name}", "measure_stability", *rest) for name, rest in _ROW_STABILITY.items()
}
"""The parameters of ``numerics.row_stability.RowStability``, by name."""

MERGE = ItemArray(
    "hierarchy/merge", "merge_components", "(K - 1, 4)", "float64",
    "the tree over components: the two that are merged, the number of the merge, components below it (SciPy's linkage)",
)  # fmt: skip
MERGE_RULE = ItemArray("hierarchy/rule", "merge_components", "(K - 1,)", "string", '"entropy" or "ward"')
MERGE_VALUE = ItemArray(
    "hierarchy/value", "merge_components", "(K - 1,)", "float64", "nats per row of the pair, or Ward's distance"
)
LEVEL_CLUSTERS = ItemArray(
    "hierarchy/level_clusters", "merge_components", "(levels,)", "int64",
    "clusters of each level, as `assign.levels` says: half as many as of the level before, the first half of K",
)  # fmt: skip
LEVEL = ItemArray("hierarchy/level", "merge_components", "(levels, K)", "int32", "each component's cluster, by level")
LEVEL_EXEMPLAR = ItemArray(
    "hierarchy/level_exemplar", "summarise_clusters", "(sum of level_clusters, 10)", "int64",
    "rows that show what each cluster of each level holds, the most typical of its components in turns",
)  # fmt: skip

# --- results ----------------------------------------------------------------------------------------------------

LABEL = RowArray("label", "label_rows", "(N,)", "int32", -1, "most responsible component; -1 for a skipped row")
PROBABILITY = RowArray("probability", "label_rows", "(N,)", "float32", NAN, "its responsibility; NaN for such a row")
TOP_LABEL = RowArray(
    "top_label", "label_rows", "(N, top)", "int32", -1,
    "the `assign.top` components with the largest responsibilities, descending; -1 where K is smaller",
)  # fmt: skip
TOP_PROBABILITY = RowArray("top_probability", "label_rows", "(N, top)", "float32", NAN, "their responsibilities")
LOG_DENSITY = RowArray("log_density", "label_rows", "(N,)", "float32", NAN, "log p(row), nats: low is unusual; or NaN")
STABILITY = RowArray(
    "stability", "label_rows", "(N,)", "float32", NAN,
    "share of the replicates in which the cluster held the row, by the five nearest rows of its cluster in "
    "`model/stability`; NaN without replicates, or where there are none",
)  # fmt: skip
LEVELS = "level"  # where labels of coarser levels lie, by their number of clusters
LEVEL_LABEL = RowArray(
    f"{LEVELS}/{{item}}", "label_rows", "(N,)", "int32", -1,
    "for each of `hierarchy/level_clusters`: the cluster of a row where so many are told apart; -1 for a skipped row",
)  # fmt: skip
ASSIGNMENT = {each.path: each for each in (LABEL, PROBABILITY, TOP_LABEL, TOP_PROBABILITY, LOG_DENSITY)}
"""The arrays of ``numerics.mixture.assignment.Assignment``, by field."""
PARTIAL_SIZE = _partial("label_rows", "size", "(K,)", "int64")
PARTIAL_PROBABILITY = _partial("label_rows", "probability", "(K,)", "float64")
PARTIAL_EXEMPLAR = _partial("label_rows", "exemplar", "(K, 10)", "int64")
PARTIAL_EXEMPLAR_DISTANCE = _partial("label_rows", "exemplar_distance", "(K, 10)", "float32")
CLUSTER_SIZE = ItemArray("cluster/size", "summarise_clusters", "(K,)", "int64", "rows with that label")
CLUSTER_PROBABILITY = ItemArray(
    "cluster/mean_probability", "summarise_clusters", "(K,)", "float64", "the mean of their probability"
)
EXEMPLAR = ItemArray(
    "cluster/exemplar", "summarise_clusters", "(K, 10)", "int64",
    "rows nearest to the mean; -1 where there are fewer",
)  # fmt: skip
EXEMPLAR_DISTANCE = ItemArray(
    "cluster/exemplar_distance", "summarise_clusters", "(K, 10)", "float32",
    "their Mahalanobis distance; infinity where there are fewer",
)  # fmt: skip
_HELD_OUT = {"label": "int32", "log_density": "float32", "support": "float32"}
HELD_OUT = {
    name: ItemArray(
        f"cluster/held_out/{name}", "summarise_clusters", "(n,)", dtype,
        "of at most 20,000 rows in neither subsample, or of any where these are fewer than 1,000",
    )
    for name, dtype in _HELD_OUT.items()
}  # fmt: skip
SHOWN_ROWS = _partial("label_rows", "shown", "(n,)", "a row's results")
NOTABLE_ROWS = _partial("label_rows", "notable", "(n,)", "a row's results")
MOMENT_SUMS = _partial("label_rows", "moments", "(K, d + 2)", "float64")
CROSSED_LABELS = _partial("cross_labels", "counts", "(chosen K, K)", "int64")
CROSSWALK = ItemArray(
    "crosswalk", "sum_crosswalk", "(chosen K, K)", "int64",
    "of a choice: rows by the label of the run around it, and by the choice's",
)  # fmt: skip

# --- near duplicates --------------------------------------------------------------------------------------------

HASHED = _partials("hash_rows", row="(n,) int64", hash="(n, 2) uint64")
SKETCH = _partials("sketch_rows", axes="(D, p) float64", centres="(cells, width) float32")
NEAR_PAIRS = _partial("compare_rows", "pairs", "(n, 2)", "int64")
GROUPED = _partials("group_duplicates", row="(n,) int64", first="(n,) int64")
GATHERED = _partials("gather_firsts", row="(n,) int64", vector="(n, D) float32")
FIRST_DISTANCE = _partial("measure_duplicates", "distance", "(n,)", "float64")
_DUPLICATES = {
    "row": ("int64", "by distance: rows that are equal or near to others, where `distcluster duplicates` was run"),
    "representative": ("int64", "the first row of each one's group"),
    "distance": ("float64", "cosine distance to it"),
}
DUPLICATES = {
    name: ItemArray(f"duplicates/{{item}}/{name}", "publish_duplicates", "(n,)", *rest)
    for name, rest in _DUPLICATES.items()
}


@cache
def arrays() -> tuple[RowArray | ItemArray, ...]:
    """Every array of a run, in the order of this module."""
    found = [each for value in globals().values() for each in (value.values() if isinstance(value, dict) else [value])]
    return tuple(dict.fromkeys(each for each in found if isinstance(each, RowArray | ItemArray)))
