"""The page: what is shown, gathered from the run, and given to the template."""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from typing import Any

import jinja2
import numpy as np
import pandas as pd
from markupsafe import Markup

from distcluster.errors import JobError
from distcluster.job import ReportTable, require_extras
from distcluster.numerics.mixture.elbow import find_elbow
from distcluster.report.clusters import ClusterRow, cluster_rows, shown_item
from distcluster.report.compare import Comparison, compare
from distcluster.report.covariances import ellipses, tied_matrix
from distcluster.report.figures import MOST_CLASSES, Curve, curve_panel, heat_map, leaf_order, map_png, tree
from distcluster.report.forest import Forests, grow_forests
from distcluster.report.interactive_3d import turning_views
from distcluster.report.palette import colours
from distcluster.report.replicates import measure_stability
from distcluster.report.row_statistics import Survey, survey
from distcluster.report.subsample_rows import Drawn, read_drawn, silhouettes
from distcluster.report.summary import Summary, summarise
from distcluster.report.thumbnails import thumbnail
from distcluster.report.timings import stage_times
from distcluster.stages.choosing import SELECT_CANDIDATE
from distcluster.stages.flow import is_finished
from distcluster.stages.labelling import MEASURE_PROJECTION
from distcluster.stages.projecting import views
from distcluster.stages.refining import published_mixture
from distcluster.stages.searching import BUILD_INDEX
from distcluster.stages.subsampling import SUBSAMPLE
from distcluster.storage import layout
from distcluster.storage.items import read_items, require_items
from distcluster.storage.layout import ONE, PERFORMANCE, REPORT
from distcluster.storage.run import Run
from distcluster.storage.urls import absolute_url, public_url

_POINT_LETTERS = 80
_RECORD = "report"  # of the table that the last page was written with
_PANELS = (
    ("bic", "BIC", "nats a row, lower is better"),
    ("icl", "ICL", "nats a row, lower is better"),
    ("silhouette", "Silhouette", "all rows, higher is better"),
    ("stability", "Stability", "adjusted Rand index, higher is better"),
)
_STYLES = {"spherical": "c0", "diag": "c1", "tied": "c2", "full": "c3"}


def write_report(run: Run, table: ReportTable) -> str:
    """Write the report into the run.

    Parameters
    ----------
    run : Run
    table : ReportTable
        What a row is; the run remembers it for the next report.

    Returns
    -------
    str
        The page's URL.

    Raises
    ------
    JobError
        When the run is not finished, or a file of the table is not there.
    """
    page = render_page(run, table)
    run.store.put(REPORT, page.encode())
    run.commit(_RECORD, ONE, {"table": _public(table)})
    return f"{run.url.rstrip('/')}/{REPORT}"


def remembered_table(run: Run) -> ReportTable:
    """The table that the run's last report was written with."""
    record = run.records.read(_RECORD, ONE)
    return ReportTable() if record is None else ReportTable.model_validate_json(json.dumps(record.facts["table"]))


def _public(table: ReportTable) -> dict[str, Any]:
    """The table as another command can use it: absolute paths, no credentials."""
    stored = table.model_dump(mode="json")
    labels = [public_url(absolute_url(url)) for url in table.labels]
    return stored | {"items": public_url(absolute_url(table.items)) if table.items else None, "labels": labels}


def render_page(run: Run, table: ReportTable) -> str:
    """The report as HTML, one file that asks no network for anything.

    Rows are read by partition, twice, and items once: memory does not grow with N.
    """
    if not is_finished(run):
        raise JobError(f"the run {public_url(run.url)} is not finished: run its job to the end first.")
    if table.items is not None:
        require_items(table.items, table.item_column)
    require_extras(table)
    has_map = "view_2d" in views(run.job)
    arrays = {
        "size": run.read(layout.CLUSTER_SIZE),
        "mean_probability": run.read(layout.CLUSTER_PROBABILITY),
        "reproducibility": run.read(layout.CLUSTER_STABILITY),
        "exemplar": run.read(layout.EXEMPLAR),
        "exemplar_distance": run.read(layout.EXEMPLAR_DISTANCE),
    }
    K = len(arrays["size"])
    found = survey(run, K, has_map=has_map)
    drawn = read_drawn(run)
    texts = _texts(table, found, drawn, arrays["exemplar"])
    cosine = silhouettes(drawn.embedding, drawn.label, K)
    rows = cluster_rows(arrays, found, cosine, texts, has_items=table.items is not None)
    merges = run.read(layout.MERGE)
    comparisons = [compare(run, url, found, drawn.row) for url in table.labels]
    mixture, seed = published_mixture(run), run.job.sample.seed
    names = {row.label: f"{row.label}  {', '.join(row.words[:4])}" for row in rows}
    summary = summarise(run, ReportTable())
    return str(
        _template().render(
            summary=summary,
            verdict=_verdict(run),
            panels=_curves(run),
            has_replicates=bool(np.isfinite(arrays["reproducibility"]).any()),
            map_image=map_png(found.colour_sums) if found.colour_sums is not None else None,
            map_data=_map_data(found, texts, K) if has_map else None,
            turn_data=turning_views(drawn, K, comparisons, texts, seed if table.tsne else None),
            clusters=rows,
            stability=measure_stability(run),
            n_drawn=len(drawn.row),
            n_dimensions=drawn.projection.shape[1],
            ellipses=ellipses(mixture, drawn.projection, colours(K)),
            tied_matrix=tied_matrix(mixture),
            images=_images(rows, [*found.outliers.row, *found.ambiguous.row], texts, table.items),
            has_items=table.items is not None,
            comparisons=[
                _compared(each, leaf_order(merges, K), found.moments.size, drawn, seed) for each in comparisons
            ],
            n_spread=len(found.points),
            frequent=[_frequent(each, K) for each in comparisons],
            outliers=_outliers(found, texts, K),
            ambiguous=[row._asdict() | {"text": shown_item(row.row, texts)} for row in found.ambiguous.itertuples()],
            n_unsure=found.n_unsure,
            support_limit=BUILD_INDEX.facts_of(run).support_limit,
            tree=tree(merges, names, colours(K)),
            quality=_quality(run, summary),
            stages=stage_times(run),
            has_performance=run.store.has(PERFORMANCE),
            environment=run.settings.environment,
            job=job_toml(run.settings.job, table),
            url=public_url(run.url),
            run_id=run.settings.run_id,
            n_rows=run.partitioning.n_rows,
            written=datetime.now(UTC),
        )
    )


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("distcluster.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = _number
    return environment.get_template("page.html")


def _number(value: float, digits: int = 2) -> str:
    return "none" if value is None or not np.isfinite(value) else f"{value:,.{digits}f}"


def _texts(table: ReportTable, found: Survey, drawn: Drawn, exemplars: Any) -> Mapping[int, str]:
    """The items of all rows that are shown or read for words."""
    if table.items is None:
        return {}
    frames = (found.points, found.read, found.outliers, found.borderline, found.ambiguous)
    shown = [*(frame.row for frame in frames), drawn.row, exemplars[exemplars >= 0]]
    return read_items(table.items, (int(row) for row in np.unique(np.concatenate(shown))), table.item_column)


def _images(
    rows: Sequence[ClusterRow], outliers: Sequence[int], texts: Mapping[int, str], items: str | None
) -> dict[int, str]:
    """Thumbnails of the rows in the tables whose items are images, by row."""
    if items is None:
        return {}
    shown = {item.row for row in rows for item in (*row.typical, *row.borderline)} | set(outliers)
    images = {row: thumbnail(texts[row], items) for row in sorted(shown) if row in texts}
    return {row: image for row, image in images.items() if image}


# --- sections ---------------------------------------------------------------------------------------------------


def _verdict(run: Run) -> dict[str, Any]:
    facts = SELECT_CANDIDATE.facts_of(run)
    return {name: getattr(facts, name) for name in ("n_components", "covariance_type", "finding", "reason")}


def _curves(run: Run) -> list[Markup]:
    """A panel a criterion; BIC and ICL by twice the judging rows, so that their unit is nats a row."""
    facts = SELECT_CANDIDATE.facts_of(run)
    n_held_out = facts.n_held_out or run.partitioning.n_rows
    columns = ("n_components", "covariance_type", "error", "stability_null", *(name for name, *_ in _PANELS))
    rows = pd.DataFrame({name: run.read(layout.SELECTION[name]) for name in columns})
    rows = rows[rows.error == ""].sort_values("n_components", kind="stable")
    panels = []
    for name, title, unit in _PANELS:
        scale = 1.0 / (2 * n_held_out) if name in ("bic", "icl") else 1.0
        curves: list[Curve] = []
        near: Sequence[int] = ()
        for kind, style in _STYLES.items():
            of_kind = rows[rows.covariance_type == kind]
            ks, values = of_kind.n_components.tolist(), (scale * of_kind[name]).tolist()
            elbow = find_elbow(ks, values) if name == "bic" and len(ks) >= 2 else None
            if elbow is not None and kind == facts.covariance_type:
                near = elbow.near
            curves.append(Curve(kind, style, ks, values, elbow.n_components if elbow else 0))
            if name == "stability":
                curves.append(Curve(f"{kind}, null", f"{style} null", ks, of_kind.stability_null.tolist()))
        chosen = (facts.covariance_type, facts.n_components)
        panels.append(curve_panel(title, unit, curves, chosen=chosen, near=near))
    return [panel for panel in panels if panel]


def _outliers(found: Survey, texts: Mapping[int, str], K: int) -> list[dict[str, Any]]:
    return [
        {
            "row": int(row.row),
            "text": shown_item(row.row, texts),
            "support": float(row.support),
            "log_density": float(row.log_density),
            "label": int(row.label),
            "colour": colours(K)[int(row.label)],
        }
        for row in found.outliers.itertuples()
    ]


def _map_data(found: Survey, texts: Mapping[int, str], K: int) -> dict[str, Any]:
    """What the page's script draws over the map and shows under the pointer."""
    assert found.moments.extent is not None
    points = found.points
    middles = points.groupby("label")[["x", "y"]].median()
    return {
        "extent": np.round(found.moments.extent.astype(float), 4).tolist(),
        "x": np.round(points.x.to_numpy(float), 3).tolist(),
        "y": np.round(points.y.to_numpy(float), 3).tolist(),
        "label": points.label.tolist(),
        "probability": np.round(points.probability.to_numpy(float), 2).tolist(),
        "item": [shown_item(row, texts, _POINT_LETTERS) for row in points.row],
        "colours": colours(K),
        "middle": [[int(k), round(float(x), 3), round(float(y), 3)] for k, x, y in middles.itertuples()],
    }


def _compared(comparison: Comparison, order: Sequence[int], size: Any, drawn: Drawn, seed: int) -> dict[str, Any]:
    """A comparison with its heat map and its forests; clusters without rows are left out of the map."""
    features = {"the embeddings": drawn.embedding, "their projection": drawn.projection}
    forests = grow_forests(features, comparison.of_drawn, seed)
    return {
        "of": comparison,
        "heat": heat_map(comparison.table, comparison.classes, [k for k in order if size[k] > 0], comparison.n_rows),
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


def _frequent(comparison: Comparison, K: int) -> list[str]:
    """Of every cluster, its most frequent class and that class's share: the cluster's purity."""
    best, rows = comparison.table.argmax(axis=0), comparison.n_rows
    return [
        f"{comparison.classes[best[k]]} {comparison.table[best[k], k] / rows[k]:.0%}" if rows[k] else "none"
        for k in range(K)
    ]


def _quality(run: Run, summary: Summary) -> list[tuple[str, str]]:
    """The figures of the projection's fidelity, each with its name."""
    subsample, search, measured = (
        SUBSAMPLE.facts_of(run),
        BUILD_INDEX.facts_of(run).search,
        MEASURE_PROJECTION.facts_of(run),
    )
    trust = measured.trustworthiness
    return [
        ("Rows of the sample that UMAP saw", f"{subsample.sample:,}"),
        ("Rows of the draw that the mixtures saw", f"{subsample.mixture:,}"),
        ("Rows in neither draw, which judge", f"{subsample.n_held_out:,}"),
        ("Recall of the neighbour search", f"{search.recall:.1%}"),
        ("Trustworthiness on rows that UMAP did not see", "not measured" if trust is None else f"{trust:.3f}"),
        ("Mean log density of sample rows, nats", f"{measured.sample_log_density:.2f}"),
        ("Mean log density of other rows, nats", f"{measured.other_log_density:.2f}"),
        ("Smallest, median, largest cluster, rows", ", ".join(f"{size:,}" for size in summary.sizes)),
    ]


def job_toml(job: Mapping[str, Mapping[str, Any]], table: ReportTable) -> str:
    """The job as a file that runs it again; defaults are written out, what is unset is left out."""
    tables: Sequence[tuple[str, Mapping[str, Any]]] = [*job.items(), ("report", _public(table))]
    lines = []
    for name, keys in tables:
        # JSON's strings, numbers, booleans and lists are TOML's.
        values = [f"{key} = {json.dumps(value)}" for key, value in keys.items() if value is not None and value != []]
        if values:
            lines += [f"[{name}]", *values, ""]
    return "\n".join(lines).rstrip()
