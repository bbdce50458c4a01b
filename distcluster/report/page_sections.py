"""The sections of the page, in their order: what the template shows in each, by the template's names."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from distcluster.report.clusters import Item, shown_item
from distcluster.report.compare import Comparison
from distcluster.report.covariances import ellipses, tied_matrix
from distcluster.report.criteria_panels import criteria_panels
from distcluster.report.figures import MOST_CLASSES, heat_map, leaf_order, map_png, tree
from distcluster.report.findings import Findings
from distcluster.report.forest import Forests, grow_forests
from distcluster.report.held_rows import KINDS, held_rows, known
from distcluster.report.interactive_3d import interactive_views
from distcluster.report.job_text import job_toml
from distcluster.report.palette import colours
from distcluster.report.predecessors import read_lineage
from distcluster.report.prediction import drift_lines, summarise_appended
from distcluster.report.replicates import measure_stability
from distcluster.report.timings import stage_times
from distcluster.stages.choosing import SELECT_CANDIDATE
from distcluster.stages.fitting import START_KMEANS
from distcluster.stages.labelling import MEASURE_PROJECTION
from distcluster.stages.searching import BUILD_INDEX
from distcluster.stages.subsampling import SUBSAMPLE
from distcluster.storage import layout

_NAME_WORDS, _TREE_WORDS = 2, 4  # of a cluster without a name, on the map and in the tree

Shown = dict[str, Any]


def verdict(findings: Findings) -> Shown:
    """The choice and its reason."""
    facts = SELECT_CANDIDATE.facts_of(findings.run)
    return {
        "summary": findings.summary,
        "verdict": {name: getattr(facts, name) for name in ("n_components", "covariance_type", "finding")},
        "has_replicates": any(np.isfinite(each.stability) for each in findings.clusters),
        "url": str(findings.run.url),
    }


def curves(findings: Findings) -> Shown:
    """The criteria of all candidates, and what the replicates say of the chosen one."""
    return {"panels": criteria_panels(findings.run), "stability": measure_stability(findings.run)}


def appended(findings: Findings) -> Shown:
    """The rows that were appended last, beside those that were there before."""
    run = findings.run
    if not run.settings.appended or run.around is not None:
        return {"appended": None}
    summary = summarise_appended(run)
    assert summary.before is not None
    shares = zip(summary.size / max(summary.n_rows, 1), summary.before / summary.before.sum(), strict=True)
    return {
        "appended": summary,
        "appended_since": run.settings.appended[-1],
        "appended_shares": list(shares),
        "drift": drift_lines(summary.drift),
    }


def row_map(findings: Findings) -> Shown:
    """All rows of the two-dimensional view, and where the names of clusters stand on it."""
    statistics = findings.statistics
    if statistics.colour_sums is None:
        return {"map_image": None, "map_data": None, "n_pictured": findings.summary.n_rows}
    assert statistics.moments.extent is not None
    middles = statistics.points.groupby("label")[["x", "y"]].median()
    n_pictured = int(statistics.colour_sums[..., 3].sum())
    data = {
        "n_pictured": n_pictured,
        "extent": np.round(statistics.moments.extent.astype(float), 4).tolist(),
        "middle": [[int(k), round(float(x), 3), round(float(y), 3)] for k, x, y in middles.itertuples()],
    }
    return {"map_image": map_png(statistics.colour_sums), "map_data": data, "n_pictured": n_pictured}


def crosswalk(findings: Findings) -> Shown:
    """Of a choice: which clusters of the run around it each of its clusters is made of."""
    run = findings.run
    if run.around is None:
        return {"crosswalk": None}
    table, size = run.read(layout.CROSSWALK), findings.statistics.moments.size
    order = [k for k in leaf_order(_merges(findings), findings.n_components) if size[k] > 0]
    return {
        "crosswalk": heat_map(table, [f"run's cluster {k}" for k in range(len(table))], order, size),
        "around": str(run.around.url),
        "n_around": len(table),
    }


def three_dimensions(findings: Findings) -> Shown:
    """Views that a reader can turn."""
    views = interactive_views(
        findings.subsample,
        findings.n_components,
        findings.comparisons,
        findings.shown.texts,
        findings.seed if findings.table.tsne else None,
    )
    return {"views_3d": views}


def cluster_table(findings: Findings) -> Shown:
    """Every cluster, with thumbnails of the items of this table and of the outliers'."""
    return {
        "clusters": findings.clusters,
        "n_subsample": len(findings.subsample.row),
        "images": findings.shown.images,
        "has_items": bool(findings.shown.source),
        "frequent": [_frequent(each, findings.n_components) for each in findings.comparisons],
    }


def rows(findings: Findings) -> Shown:
    """The rows that can be searched, listed and seen on the map one by one."""
    held, points = held_rows(findings.statistics, findings.comparisons, findings.shown.texts)
    of_cluster = {
        each.label: {"name": each.name or ", ".join(each.words[:_NAME_WORDS]), "stability": known(each.stability, 2)}
        for each in findings.clusters
    }
    data = held | {
        "clusters": of_cluster,
        "colours": colours(findings.n_components),
        "kinds_of": KINDS,
        "points": points.columns,
    }
    n_drawn = len(held["row"]) + points.columns["n"]
    return {"held": data, "kinds": KINDS, "points": points.text, "n_drawn": n_drawn}


def _frequent(comparison: Comparison, K: int) -> list[str]:
    """Of every cluster, its most frequent class and that class's share: the cluster's purity."""
    best, rows = comparison.table.argmax(axis=0), comparison.n_rows
    return [
        f"{comparison.classes[best[k]]} {comparison.table[best[k], k] / rows[k]:.0%}" if rows[k] else "none"
        for k in range(K)
    ]


def lineage(findings: Findings) -> Shown:
    """What became of a previous run's clusters."""
    return {"lineage": read_lineage(findings.run)}


def shape(findings: Findings) -> Shown:
    """The components as ellipses."""
    mixture = findings.mixture
    return {
        "ellipses": ellipses(mixture, findings.subsample.projection, colours(findings.n_components)),
        "tied_matrix": tied_matrix(mixture),
    }


def taxonomies(findings: Findings) -> Shown:
    """The comparisons, each with its heat map and its forests."""
    return {
        "comparisons": [_compared(each, findings) for each in findings.comparisons],
        "n_spread": len(findings.statistics.points),
        "n_dimensions": findings.subsample.projection.shape[1],
    }


def _compared(comparison: Comparison, findings: Findings) -> Shown:
    size = findings.statistics.moments.size
    order = [k for k in leaf_order(_merges(findings), findings.n_components) if size[k] > 0]
    features = {"the embeddings": findings.subsample.embedding, "their projection": findings.subsample.projection}
    forests = grow_forests(features, comparison.of_subsample, findings.seed)
    return {
        "of": comparison,
        "heat": heat_map(comparison.table, comparison.classes, order, comparison.n_rows),
        "has_several": comparison.table.sum() > comparison.n_rows.sum(),
        "n_hidden": max(len(comparison.classes) - MOST_CLASSES, 0),
        "forests": forests,
        "confusions": _confusions(forests, comparison.classes) if forests else [],
    }


def _confusions(forests: Forests, classes: Sequence[str]) -> list[tuple[str, Markup]]:
    """A heat map a forest: of every true class (a column, by number), the share predicted as each class."""
    names = [f"{i} {classes[code]}" for i, code in enumerate(forests.classes)]
    columns = list(range(min(len(forests.classes), MOST_CLASSES)))
    return [
        (each.name, heat_map(each.confusion, names, columns, each.confusion.sum(axis=0), square_of="class"))
        for each in forests.predictions
    ]


def outliers(findings: Findings) -> Shown:
    """The rows that the UMAP subsample represents least, and those that the mixture is least sure of."""
    statistics, texts, fills = findings.statistics, findings.shown.texts, colours(findings.n_components)
    far = [
        {
            "row": int(row.row),
            "text": shown_item(row.row, texts),
            "support": float(row.support),
            "log_density": float(row.log_density),
            "label": int(row.label),
            "colour": fills[int(row.label)],
        }
        for row in statistics.outliers.itertuples()
    ]
    return {
        "outliers": far,
        "ambiguous": [
            row._asdict() | {"text": shown_item(row.row, texts)} for row in statistics.ambiguous.itertuples()
        ],
        "n_unsure": statistics.n_unsure,
        "support_limit": BUILD_INDEX.facts_of(findings.run).support_limit,
    }


def near_duplicates(findings: Findings) -> Shown:
    """What a search for duplicates has found within each distance, and the largest groups."""
    texts = findings.shown.texts

    def told(members: list[tuple[int, float]]) -> list[Item]:
        first, *others = ((row, shown_item(row, texts), distance) for row, distance in members)
        return [Item(*first[:2]), *(Item(row, text, f"{distance:.2g}") for row, text, distance in others)]

    return {
        "duplicates": [
            {"summary": each.summary, "groups": list(zip(each.summary.largest, map(told, each.members), strict=True))}
            for each in findings.duplicates
        ]
    }


def hierarchy(findings: Findings) -> Shown:
    """The tree over the components, and the clusters of each level."""
    names = {
        each.label: f"{each.label}  {each.name or ', '.join(each.words[:_TREE_WORDS])}" for each in findings.clusters
    }
    return {
        "tree": tree(_merges(findings), names, colours(findings.n_components)),
        "levels": findings.levels,
    }


def _merges(findings: Findings) -> Any:
    return findings.run.read(layout.MERGE)


_START = {True: "merged clusters, for groups differ in extent", False: "k-means' clusters"}


def fidelity(findings: Findings) -> Shown:
    """The figures of the projection's fidelity, each with its name."""
    run, summary = findings.run, findings.summary
    subsample, measured = SUBSAMPLE.facts_of(run), MEASURE_PROJECTION.facts_of(run)
    trust = measured.trustworthiness
    quality = [
        ("Rows of the UMAP subsample", f"{subsample.sample:,}"),
        ("Rows of the mixture subsample", f"{subsample.mixture:,}"),
        ("Held-out rows", f"{subsample.n_held_out:,}"),
        ("Fits of mixtures started from", _START[START_KMEANS.facts_of(run, findings.n_components).are_merged]),
        ("Recall of the neighbour search", f"{BUILD_INDEX.facts_of(run).search.recall:.1%}"),
        ("Trustworthiness on rows outside the UMAP subsample", "not measured" if trust is None else f"{trust:.3f}"),
        ("Mean log density of the UMAP subsample, nats per row", f"{measured.sample_log_density:.2f}"),
        ("Mean log density of other rows, nats per row", f"{measured.other_log_density:.2f}"),
        ("Smallest, median, largest cluster, rows", ", ".join(f"{size:,}" for size in summary.sizes)),
    ]
    return {"quality": quality}


def provenance(findings: Findings) -> Shown:
    """When and by what the run was made."""
    run = findings.run
    return {
        "stages": stage_times(run),
        "has_performance": run.store.has(layout.PERFORMANCE),
        "environment": run.settings.environment,
        "job": job_toml(run.settings.job, findings.table, findings.shown.source),
        "run_id": run.settings.run_id,
        "names": findings.names,
    }


SECTIONS: Sequence[Callable[[Findings], Shown]] = (
    verdict, appended, curves, crosswalk, row_map, three_dimensions, cluster_table, rows, lineage, shape, taxonomies,
    outliers, near_duplicates, hierarchy, fidelity, provenance,
)  # fmt: skip
"""As they follow each other on the page."""
