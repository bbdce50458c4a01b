"""Rows projected by umap-learn's ``transform`` and by distcluster, on one sample model, one thread each, in one run.

    python -m benchmarks.projection [--rows 10000] [--sample 30000] [--data FILE.npy] [--labels FILE.npy]
                                    [--metric cosine] [--pca P] [--json FILE]

Without ``--data`` the rows are the demo's. umap-learn searches its own index, as it must; distcluster projects among
the same anchors, so that the places can be compared. Times are CPU seconds of the one thread that works, medians of
three, compilation left out, the search included. Labels are those of one mixture of 40 full components, fitted on
umap-learn's places.
"""

import argparse
import json
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table
from sklearn.decomposition import PCA
from sklearn.manifold import trustworthiness
from sklearn.metrics import adjusted_rand_score
from sklearn.mixture import GaussianMixture

from distcluster.environment import environment, pin_to_one_thread
from distcluster.numerics.neighbors import NeighbourIndex, build_index, nearest, open_index
from distcluster.numerics.prepared_rows import prepare
from distcluster.numerics.projection import project
from distcluster.numerics.repulsion import repulsion_field
from distcluster.numerics.umap_fit import curve_parameters
from distcluster.storage.inputs import open_input

DEMO = Path(__file__).parents[1] / "jobs" / "demo"
K, DIMENSIONS, COMPONENTS, CHUNK_ROWS, TRUE_ROWS = 15, 5, 40, 1_000, 2_000

Array = npt.NDArray[Any]


@dataclass
class Side:
    """What one side was measured to do; times in microseconds per row."""

    us_per_row: float
    recall: float
    trustworthiness: float
    ari: float | None
    labels_changed_by_chunking: float
    labels_unlike_itself: float


@dataclass
class Result:
    """Both sides, and how their labels differ."""

    data: str
    rows: int
    sample: int
    features: int
    metric: str
    ours: Side
    umap: Side
    us_search: float
    us_layout: float
    bytes_changed_by_chunking: bool
    labels_unlike_umap: float
    labels_unlike_umap_on_its_neighbours: float
    index: dict[str, Any]
    index_seconds: float
    environment: dict[str, str] = field(default_factory=environment)

    def flat(self) -> dict[str, Any]:
        """As one table: ours by plain names, umap-learn's with ``umap_`` before them."""
        facts = asdict(self)
        ours, umap = facts.pop("ours"), facts.pop("umap")
        return (
            {"ratio": umap["us_per_row"] / ours["us_per_row"]}
            | ours
            | {f"umap_{name}": value for name, value in umap.items()}
            | facts
        )


def timed(function: Callable[[], Any]) -> tuple[float, Any]:
    """Median CPU seconds of three calls, and the last result."""
    seconds = []
    for _ in range(3):
        started = time.process_time()
        result = function()
        seconds.append(time.process_time() - started)
    return float(np.median(seconds)), result


def in_chunks(function: Callable[[Array], Array], rows: Array) -> Array:
    """The results of a thousand rows at a time."""
    return np.concatenate([function(rows[i : i + CHUNK_ROWS]) for i in range(0, len(rows), CHUNK_ROWS)])


def true_neighbours(sample: Array, rows: Array) -> Array:
    """By float64 products, all sample rows compared."""
    norms = np.square(sample.astype(np.float64)).sum(axis=1)
    closeness = norms - 2 * rows.astype(np.float64) @ sample.T.astype(np.float64)
    return np.argsort(closeness, axis=1)[:, :K]


def recall(found: Array, truth: Array) -> float:
    """Share of the true neighbours of the first rows that were found."""
    return float((found[: len(truth), :, None] == truth[:, None, :]).sum() / truth.size)


def read(data: str | None, labels: str | None) -> tuple[Array, Array | None]:
    """Embeddings and, where there are any, one label a row."""
    if data is None:
        rows = open_input(str(DEMO / "embeddings.zarr.zip"), "embeddings")[:]
        return np.asarray(rows, np.float32), np.array((DEMO / "labels.txt").read_text().splitlines())
    return np.load(data).astype(np.float32), np.load(labels) if labels else None


@dataclass
class Projected:
    """The same rows, placed by one side: at once, once more (umap-learn with another seed), and in chunks."""

    found: Array
    distance: Array
    places: Array
    again: Array
    chunked: Array
    search_seconds: float
    layout_seconds: float


def by_umap(model: Any, rows: Array) -> Projected:
    """By umap-learn's ``transform``, which searches and places at once."""
    model.transform(rows[:100])  # compiles
    places = {}
    for seed in (42, 43):
        model.transform_seed = seed
        seconds, places[seed] = timed(lambda: model.transform(rows))
    chunked = in_chunks(model.transform, rows)
    epsilon = 0.24 if model._knn_search_index._angular_trees else 0.12  # as UMAP.transform does
    found, distance = model._knn_search_index.query(rows, K, epsilon=epsilon)
    return Projected(found.astype(np.int32), distance.astype(np.float32), places[42], places[43], chunked, 0.0, seconds)


@dataclass
class Ours:
    """What distcluster projects with, made from umap-learn's model."""

    index: NeighbourIndex
    metric: str
    anchors: Array
    field: Array
    mean_distance: float

    def find(self, rows: Array) -> tuple[Array, Array]:
        """The nearest sample rows of each row, and their distances."""
        return nearest(self.index, np.ascontiguousarray(rows), K, self.metric)

    def place(self, found: Array, distance: Array) -> Array:
        """Coordinates of rows with these neighbours."""
        a, b = curve_parameters(0.0)
        return project(found, distance, self.anchors, self.field, a=a, b=b, mean_distance=self.mean_distance)

    def transform(self, rows: Array) -> Array:
        """Coordinates of rows."""
        return self.place(*self.find(rows))


def by_distcluster(ours: Ours, rows: Array) -> Projected:
    """By distcluster, search and layout apart."""
    ours.transform(rows[:100])  # compiles
    search_seconds, (found, distance) = timed(lambda: ours.find(rows))
    layout_seconds, places = timed(lambda: ours.place(found, distance))
    again, chunked = ours.transform(rows), in_chunks(ours.transform, rows)
    return Projected(found, distance, places, again, chunked, search_seconds, layout_seconds)


def indexed(model: Any, sample: Array, rows: Array, arguments: argparse.Namespace) -> tuple[Ours, Array, float]:
    """Our side of a model, the rows as it searches for them, and the CPU seconds that its index took."""
    if arguments.pca:
        pca = PCA(arguments.pca, random_state=0).fit(sample)
        sample, rows = (np.ascontiguousarray(pca.transform(each), np.float32) for each in (sample, rows))
    started = time.process_time()
    data, facts = build_index(sample, rows[-1_000:], K, arguments.metric)
    seconds = time.process_time() - started
    anchors = np.ascontiguousarray(model.embedding_, np.float32)
    mean_distance = float(model._knn_dists[:, 1:].mean())
    index = open_index(data, facts, sample)
    return Ours(index, arguments.metric, anchors, repulsion_field(anchors), mean_distance), rows, seconds


def compare(arguments: argparse.Namespace) -> Result:
    """Fit both sides on one sample, project the same rows, and compare."""
    from umap import UMAP  # after the threads are pinned

    everything, labels = read(arguments.data, arguments.labels)
    everything = prepare(everything.reshape(len(everything), -1), arguments.metric)
    n_sample = min(arguments.sample, len(everything) * 2 // 3)
    order = np.random.default_rng(0).permutation(len(everything))[: n_sample + arguments.rows]
    sample, rows = everything[order[:n_sample]], everything[order[n_sample:]]
    true = None if labels is None else labels[order[n_sample:]]
    truth = true_neighbours(sample, rows[:TRUE_ROWS])
    us = 1e6 / len(rows)

    model = UMAP(
        n_neighbors=K, n_components=DIMENSIONS, min_dist=0.0, metric=arguments.metric, random_state=0, n_jobs=1
    )
    model.fit(sample)
    umap = by_umap(model, rows)
    side, queries, index_seconds = indexed(model, sample, rows, arguments)
    ours = by_distcluster(side, queries)
    mixture = GaussianMixture(COMPONENTS, covariance_type="full", random_state=0).fit(umap.places.astype(np.float64))

    def unlike(these: Array, those: Array) -> float:
        return float((mixture.predict(these.astype("f8")) != mixture.predict(those.astype("f8"))).mean())

    def measured(one: Projected) -> Side:
        return Side(
            (one.search_seconds + one.layout_seconds) * us,
            recall(one.found, truth),
            float(trustworthiness(rows[:TRUE_ROWS], one.places[:TRUE_ROWS], n_neighbors=K)),
            None if true is None else float(adjusted_rand_score(true, mixture.predict(one.places.astype(np.float64)))),
            unlike(one.places, one.chunked),
            unlike(one.places, one.again),
        )

    on_its_neighbours = side.place(umap.found, umap.distance)
    return Result(
        data=Path(arguments.data).stem if arguments.data else "demo",
        rows=len(rows),
        sample=n_sample,
        features=sample.shape[1],
        metric=arguments.metric,
        ours=measured(ours),
        umap=measured(umap),
        us_search=ours.search_seconds * us,
        us_layout=ours.layout_seconds * us,
        bytes_changed_by_chunking=ours.places.tobytes() != ours.chunked.tobytes(),
        labels_unlike_umap=float(np.mean([unlike(ours.places, each) for each in (umap.places, umap.again)])),
        labels_unlike_umap_on_its_neighbours=float(
            np.mean([unlike(on_its_neighbours, each) for each in (umap.places, umap.again)])
        ),
        index=asdict(side.index.facts),
        index_seconds=index_seconds,
    )


def show(result: Result) -> None:
    """Print the table."""
    ours, umap = asdict(result.ours), asdict(result.umap)
    table = Table("", "umap-learn", "distcluster", box=None)
    for name, value in ours.items():
        if value is not None:
            table.add_row(name, f"{umap[name]:.4g}", f"{value:.4g}")
    console = Console()
    console.print(f"{result.rows:,} rows of {result.data} among {result.sample:,} x {result.features}, {result.metric}")
    console.print(table)
    console.print(
        f"ratio {result.flat()['ratio']:.2f}; ours: search {result.us_search:.1f} us, layout {result.us_layout:.1f} us,"
        f" index {result.index} in {result.index_seconds:.1f} s\n"
        f"labels unlike umap-learn's: {result.labels_unlike_umap:.4f}; on umap-learn's neighbours: "
        f"{result.labels_unlike_umap_on_its_neighbours:.4f}"
    )


def main() -> None:
    """Parse, measure, show."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--sample", type=int, default=30_000)
    parser.add_argument("--data", help=".npy of embeddings, one a row; the demo's when absent")
    parser.add_argument("--labels", help=".npy of one label a row")
    parser.add_argument("--metric", choices=["cosine", "euclidean"], default="cosine")
    parser.add_argument("--pca", type=int, help="search among this many principal components")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")  # umap-learn's and scikit-learn's
    pin_to_one_thread()
    result = compare(arguments)
    show(result)
    if arguments.json:
        arguments.json.write_text(json.dumps(result.flat(), indent=2) + "\n")


if __name__ == "__main__":
    main()
