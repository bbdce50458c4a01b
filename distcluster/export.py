"""A run's results in other tools' formats."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.parquet as pq
import zarr

from distcluster.curation import Part, Wanted, choose_rows, read_parts
from distcluster.errors import JobError
from distcluster.job import ReportTable
from distcluster.numerics.mixture.parameters import to_sklearn
from distcluster.numerics.partition import Partitioning
from distcluster.numerics.shown_rows import columns_of, spread_evenly
from distcluster.report.names import kept_names
from distcluster.report.words import distinguishing_words
from distcluster.stages.choosing import SELECT_CANDIDATE
from distcluster.stages.flow import require_finished
from distcluster.stages.freezing import freeze
from distcluster.stages.labelling import level_arrays
from distcluster.stages.projecting import views
from distcluster.stages.refining import published_mixture
from distcluster.stages.stage import partitions
from distcluster.storage import layout
from distcluster.storage.input_columns import InputColumn, open_input_column, readable_id
from distcluster.storage.items import read_items
from distcluster.storage.run import Run

Rows = npt.NDArray[np.int64]

_LEASE_SECONDS = 60.0
_NAMING_ROWS, _NAME_WORDS = 100_000, 3  # rows whose items name clusters, words of a name
_AXES = ("x", "y", "z")
_MEASURES = {each.path: each for each in (layout.PROBABILITY, layout.STABILITY, layout.LOG_DENSITY, layout.SUPPORT)}
_ATLAS = ("x", "y", "category", "text")
_ALL = Wanted()


def export_run(
    run: Run, target: Path, form: str, table: ReportTable, columns: Sequence[str] = (), wanted: Wanted = _ALL
) -> Path:
    """Write a finished run's results to a place of its own.

    Parameters
    ----------
    run : Run
    target : Path
        Must not be there yet: a directory for "parquet", "anndata" and "model", a file for the others.
    form : str
        One of ``FORMATS``.
    table : ReportTable
        What a row is.
    columns : sequence of str
        Columns of the input that "parquet" and "csv" are to have, too.
    wanted : Wanted
        The rows, of formats with rows.

    Returns
    -------
    Path
        ``target``.

    Raises
    ------
    JobError
        When the format is unknown, the run is not finished, the target is there already, or there are no such rows.
    """
    table = table.beside(run.input_url)
    if form not in FORMATS:
        raise JobError(f"--to {form}: must be one of {', '.join(FORMATS)}.")
    require_finished(run)
    if target.exists():
        raise JobError(f"{target} is there already: choose another place, or remove it.")
    if columns and form not in _TABLES:
        raise JobError(f"--columns goes with --to {' and --to '.join(_TABLES)}.")
    if wanted != _ALL and form not in _OF_ROWS:
        raise JobError(f"--balanced and --without-duplicates go with --to {', '.join(_OF_ROWS)}.")
    opened = {name: open_input_column(run, name, "--columns") for name in columns}
    rows = None if wanted == _ALL else choose_rows(run, wanted)
    target.parent.mkdir(parents=True, exist_ok=True)
    if form in _TABLES:
        _TABLES[form](target, _frames(run, table, opened, rows))
    elif form in _DRAWN:
        _DRAWN[form](run, target, table, rows)
    else:
        _OTHERS[form](run, target, table)
    return target


def _frames(run: Run, table: ReportTable, columns: Mapping[str, InputColumn], rows: Rows | None) -> Iterator[pa.Table]:
    """All that a person may want of the rows, a partition at a time."""
    name_of_id, names = readable_id(run), kept_names(run).clusters
    ids = {"id": open_input_column(run, name_of_id, "input.id")} if name_of_id is not None else {}
    for part in read_parts(run, table, rows):
        own = _columns(part)
        own |= {each.path.replace("/", "_"): part.read(each) for each in level_arrays(run)}
        if names:
            own["name"] = pa.array([names.get(int(label)) for label in own["label"]], pa.string())
        if part.texts is not None:
            own["item"] = pa.array(part.texts, pa.string())
        others = {f"input_{name}" if name in own | ids else name: column for name, column in columns.items()}
        yield pa.table({shown: _of_input(column, part) for shown, column in (ids | others).items()} | own)


def _of_input(column: InputColumn, part: Part) -> pa.Array:
    """What a column of the input has of a part's rows."""
    if isinstance(column, zarr.Array):
        kind = pa.string() if column.dtype.kind in "TUO" else pa.from_numpy_dtype(column.dtype)
    else:
        kind = column.kind
    values = np.asarray(column[part.partition.rows])[part.here].tolist()
    is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    return pa.array(values if is_text else [None if value == "" else value for value in values], kind)


def _write_parquet(target: Path, frames: Iterator[pa.Table]) -> None:
    """One file a partition, in the order of the rows."""
    target.mkdir()
    for index, frame in enumerate(frames):
        pq.write_table(frame, target / f"part-{index:05}.parquet")


def _write_csv(target: Path, frames: Iterator[pa.Table]) -> None:
    first = next(frames)
    with csv.CSVWriter(target, first.schema) as writer:
        for frame in chain([first], frames):
            writer.write_table(frame)


def _columns(part: Part) -> dict[str, Any]:
    """The columns of a part's rows: what was written, one column a coordinate."""
    columns: dict[str, Any] = {"row": part.rows}
    columns |= {name: part.read(array) for name, array in ({"label": layout.LABEL} | _MEASURES).items()}
    for view, d in views(part.run.job).items():
        values = part.read(layout.SPACES[view])
        columns |= {f"{view}_{axis}": values[:, i] for i, axis in zip(range(d), _AXES, strict=False)}
    projection = part.read(layout.PROJECTION)
    return columns | {f"projection_{i}": projection[:, i] for i in range(projection.shape[1])}


def _export_sklearn(run: Run, target: Path, _table: ReportTable) -> None:
    """scikit-learn's own GaussianMixture, by joblib: it labels rows of the projection."""
    with target.open("xb") as file:
        joblib.dump(to_sklearn(published_mixture(run)), file)


def _export_atlas(run: Run, target: Path, table: ReportTable, rows: Rows | None) -> None:
    """One Parquet file for Apple's embedding-atlas: ``embedding-atlas FILE --x x --y y --text text``.

    It opens single files only, and draws what has a place: skipped rows are left out.
    """
    if "view_2d" not in views(run.job):
        raise JobError("the run has no two-dimensional view (projection.views), which embedding-atlas draws.")
    given, K = kept_names(run).clusters, published_mixture(run).candidate.n_components
    names = np.array([" ".join(filter(None, (f"cluster {k}", given.get(k)))) for k in range(K)])
    writer = None
    try:
        for part in read_parts(run, table, rows):
            columns, texts = _columns(part), part.texts
            label = columns["label"]
            category = pa.DictionaryArray.from_arrays(pa.array(np.maximum(label, 0), pa.int32()), pa.array(names))
            text = pa.array(texts if texts is not None else [f"row {row}" for row in columns["row"]], pa.string())
            shown = dict(zip(_ATLAS, (columns["view_2d_x"], columns["view_2d_y"], category, text), strict=True))
            also = {name: columns[name] for name in ("row", "label", *_MEASURES)}
            frame = pa.table(shown | also).filter(pa.array(label >= 0))
            writer = writer or pq.ParquetWriter(target, frame.schema)
            writer.write_table(frame)
    finally:
        if writer is not None:
            writer.close()


def _export_atlas_labels(run: Run, target: Path, table: ReportTable) -> None:
    """The label table of embedding-atlas (``--labels FILE``): every cluster of every level at the mean of its rows.

    ``level`` is 0 for the coarsest, which it shows from afar, and ``priority`` the number of rows. A cluster's name is
    its three most distinguishing words where items are given.
    """
    if "view_2d" not in views(run.job):
        raise JobError("the run has no two-dimensional view (projection.views), which embedding-atlas draws.")
    K = published_mixture(run).candidate.n_components
    size, some = np.zeros(K, np.int64), []
    place = np.zeros((K, 3))  # sums of x and y of the rows that the report shows, and their number
    for rows, of_partition in run.read_items([layout.SHOWN_ROWS, layout.PARTIAL_SIZE], partitions(run)):
        size += of_partition
        for i, weight in enumerate((rows["x"], rows["y"], None)):
            place[:, i] += np.bincount(rows["label"], weight, K)
        some.append(columns_of(rows, ["row", "label"]))
    named = spread_evenly(np.concatenate(some), _NAMING_ROWS)
    texts = read_items(table.items, named["row"].tolist(), table.item_column) if table.items else {}
    ks, of_levels = run.read(layout.LEVEL_CLUSTERS).tolist(), run.read(layout.LEVEL)
    cuts = [*zip(ks[::-1], of_levels[::-1], strict=True), (K, np.arange(K, dtype=np.int32))]
    columns: dict[str, list[Any]] = {name: [] for name in ("x", "y", "text", "level", "priority", "cluster")}
    given = kept_names(run)
    named_texts = [texts.get(int(row), "") for row in named["row"]]
    for level, (k, of) in enumerate(cuts):
        words = distinguishing_words(named_texts, of[named["label"]], k, _NAME_WORDS)
        of_level = given.clusters if level == len(cuts) - 1 else given.levels.get(k, {})
        for number in range(k):
            own = of == number
            x, y, count = place[own].sum(axis=0)
            if count:
                name = of_level.get(number) or ", ".join(words[number]) or f"cluster {number}"
                found = (x / count, y / count, name, level, int(size[own].sum()), number)
                for column, value in zip(columns, found, strict=True):
                    columns[column].append(value)
    pq.write_table(pa.table(columns), target)


# --- AnnData ----------------------------------------------------------------------------------------------------


def _export_anndata(run: Run, target: Path, table: ReportTable, rows: Rows | None) -> None:
    """AnnData's layout on Zarr (its on-disk format 0.1.0, Zarr version 2, which every anndata since 0.8 reads).

    Written by partition, which the package anndata cannot do: ``X`` is the projection, ``obs`` has a row's results,
    ``obsm`` the views (``X_umap`` is the one in two dimensions), ``uns`` the mixture.
    """
    parts, d, chosen = run.partitioning, run.job.projection.n_components, published_mixture(run)
    parts = parts if rows is None else replace(parts, n_rows=len(rows))
    root: Any = zarr.open_group(target, mode="w-", zarr_format=2)
    root.attrs.update(_encoded("anndata", "0.1.0"))
    maps = {"X_umap" if view == "view_2d" else f"X_{view}": (view, wide) for view, wide in views(run.job).items()}
    columns = ["label", *_MEASURES, *(["item"] if table.items else [])]
    obs, obsm = _frame(root, "obs", columns), _dict(root, "obsm")
    _rows(root, "X", parts, "float32", d)
    for name, (_, wide) in maps.items():
        _rows(obsm, name, parts, "float32", wide)
    _rows(obs, "_index", parts, "str")
    for name in columns[1:]:
        _rows(obs, name, parts, "str" if name == "item" else "float32")
    label = obs.create_group("label")
    label.attrs.update(_encoded("categorical", "0.2.0") | {"ordered": False})
    _rows(label, "codes", parts, "int32")  # -1 is what a skipped row has in both
    _whole(label, "categories", np.arange(chosen.candidate.n_components).astype(str).astype(object))
    var = _frame(root, "var", [])
    _whole(var, "_index", np.array([f"umap_{i}" for i in range(d)], object))
    for part in read_parts(run, table, rows):
        place = part.place
        root["X"][place] = part.read(layout.PROJECTION)
        for name, (view, _) in maps.items():
            obsm[name][place] = part.read(layout.SPACES[view])
        obs["_index"][place] = part.rows.astype(str).astype(object)
        label["codes"][place] = part.read(layout.LABEL)
        for name, array in _MEASURES.items():
            obs[name][place] = part.read(array)
        if part.texts is not None:
            obs["item"][place] = np.array([text or "" for text in part.texts], object)
    mixture = _dict(_dict(root, "uns"), "mixture")
    for name in layout.MIXTURE:
        _whole(mixture, name, getattr(chosen, name))
    _whole(mixture, "reason", np.array([SELECT_CANDIDATE.facts_of(run).reason], object))


def _encoded(kind: str, version: str) -> dict[str, Any]:
    return {"encoding-type": kind, "encoding-version": version}


def _dict(parent: Any, name: str) -> Any:
    group = parent.create_group(name)
    group.attrs.update(_encoded("dict", "0.1.0"))
    return group


def _frame(parent: Any, name: str, columns: list[str]) -> Any:
    group = parent.create_group(name)
    group.attrs.update(_encoded("dataframe", "0.2.0") | {"_index": "_index", "column-order": columns})
    return group


def _rows(parent: Any, name: str, parts: Partitioning, dtype: str, *tail: int) -> None:
    """An array with an entry a row, to be filled by partition: whole chunks each."""
    array = parent.create_array(
        name, shape=(parts.n_rows, *tail), chunks=(min(parts.block_rows, parts.n_rows), *tail), dtype=dtype
    )
    array.attrs.update(_encoded("string-array" if dtype == "str" else "array", "0.2.0"))


def _whole(parent: Any, name: str, values: Any) -> None:
    array = parent.create_array(name, shape=values.shape, dtype="str" if values.dtype == object else values.dtype)
    array[...] = values
    array.attrs.update(_encoded("string-array" if values.dtype == object else "array", "0.2.0"))


# --- the model --------------------------------------------------------------------------------------------------


def _export_model(run: Run, target: Path, _table: ReportTable) -> None:
    """What labels other rows, laid out as in the run: ``distcluster predict`` and ``load_model`` read it like one."""
    frozen = Run(str(target))
    with frozen.writing(_LEASE_SECONDS):
        frozen.create(replace(run.settings, around=None))  # all of a choice's model is copied
        freeze(run, frozen, with_rows=not run.is_prediction)
    frozen.store.delete(frozen.store.keys_under(layout.LEASE))


_TABLES = {"parquet": _write_parquet, "csv": _write_csv}
_DRAWN: dict[str, Callable[[Run, Path, ReportTable, Rows | None], None]] = {
    "anndata": _export_anndata,
    "atlas": _export_atlas,
}
_OTHERS: dict[str, Callable[[Run, Path, ReportTable], None]] = {
    "sklearn": _export_sklearn,
    "atlas-labels": _export_atlas_labels,
    "model": _export_model,
}
_OF_ROWS = (*_TABLES, *_DRAWN)
FORMATS = (*_OF_ROWS, *_OTHERS)
"""What a run can be exported to."""
