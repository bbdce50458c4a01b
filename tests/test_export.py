"""What other tools read is what the run holds."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import anndata
import joblib
import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import N_ROWS

from distcluster import export
from distcluster.errors import JobError
from distcluster.export import export_run
from distcluster.job import ReportTable
from distcluster.storage.run import Run


@pytest.mark.parametrize("name", ["items.txt", "items.jsonl"])
def test_parquet_holds_every_row_in_order_with_its_item(reference: Run, tmp_path: Path, name: str) -> None:
    line = '{{"text": "item {}"}}' if name.endswith("jsonl") else "item {}"
    (tmp_path / name).write_text("".join(line.format(i) + "\n" for i in range(N_ROWS - 3)))
    target = export_run(reference, tmp_path / "out", "parquet", ReportTable(items=str(tmp_path / name)))
    files = sorted(target.iterdir())
    assert len(files) == len(reference.partitioning)
    found = pq.read_table(target).to_pandas()
    assert found.row.tolist() == list(range(N_ROWS))
    for column in ("label", "probability", "stability", "log_density", "support"):
        np.testing.assert_array_equal(found[column], reference.array(column)[:])
    np.testing.assert_array_equal(found[["view_2d_x", "view_2d_y"]], reference.array("view_2d")[:])
    np.testing.assert_array_equal(found[[f"projection_{i}" for i in range(3)]], reference.array("projection")[:])
    assert found.item[:-3].tolist() == [f"item {i}" for i in range(N_ROWS - 3)]
    assert found.item[-3:].isna().all()
    K = len(reference.array("cluster/size")[:])
    sizes = reference.array("hierarchy/level_clusters")[:].tolist()
    assert [column for column in found if column.startswith("level_")] == [f"level_{k}" for k in sizes]
    assert sizes[0] == -(-K // 2)
    finer = "label"
    for k, of in zip(sizes, reference.array("hierarchy/level")[:], strict=True):
        assert (found[f"level_{k}"] == of[found.label]).all()
        assert found.groupby(finer)[f"level_{k}"].nunique().max() == 1, "levels nest"
        finer = f"level_{k}"


def test_scikit_learn_s_mixture_gives_the_run_s_labels(reference: Run, tmp_path: Path) -> None:
    model = joblib.load(export_run(reference, tmp_path / "model.joblib", "sklearn", ReportTable()))
    rows = reference.array("projection")[:].astype(np.float64)
    np.testing.assert_array_equal(model.predict(rows), reference.array("label")[:])
    np.testing.assert_allclose(model.score_samples(rows), reference.array("log_density")[:], rtol=1e-5, atol=1e-5)


@pytest.fixture
def items(tmp_path: Path) -> ReportTable:
    """Items of all rows but the last three."""
    path = tmp_path / "items.txt"
    path.write_text("".join(f"item {i}\n" for i in range(N_ROWS - 3)))
    return ReportTable(items=str(path))


def test_the_package_anndata_reads_what_the_run_holds(reference: Run, items: ReportTable, tmp_path: Path) -> None:
    found = anndata.read_zarr(export_run(reference, tmp_path / "run.zarr", "anndata", items))
    assert found.obs_names.tolist() == [str(row) for row in range(N_ROWS)]
    np.testing.assert_array_equal(found.X, reference.array("projection")[:])
    np.testing.assert_array_equal(found.obsm["X_umap"], reference.array("view_2d")[:])
    np.testing.assert_array_equal(found.obs["label"].astype(int), reference.array("label")[:])
    for column in ("probability", "log_density", "support"):
        np.testing.assert_array_equal(found.obs[column], reference.array(column)[:])
    assert found.obs["item"].tolist() == [f"item {row}" for row in range(N_ROWS - 3)] + [""] * 3
    np.testing.assert_array_equal(found.uns["mixture"]["means"], reference.array("model/mixture/means")[:])


def test_the_atlas_file_has_a_place_a_category_and_a_text(reference: Run, items: ReportTable, tmp_path: Path) -> None:
    found = pq.read_table(export_run(reference, tmp_path / "atlas.parquet", "atlas", items)).to_pandas()
    np.testing.assert_array_equal(found[["x", "y"]], reference.array("view_2d")[:])
    assert found.category.tolist() == [f"cluster {k}" for k in reference.array("label")[:]]
    assert found.text[0] == "item 0"
    assert found.row.tolist() == list(range(N_ROWS))


def test_the_atlas_labels_are_clusters_of_all_levels_named_by_their_words(
    reference: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "_NAMING_ROWS", 2000)  # names are of some rows, sizes and places of all
    label = reference.array("label")[:]
    (tmp_path / "items.txt").write_text("".join(f"thing word{k}k\n" for k in label))
    table = ReportTable(items=str(tmp_path / "items.txt"))
    found = pq.read_table(export_run(reference, tmp_path / "labels.parquet", "atlas-labels", table)).to_pandas()
    finest = found[found.level == found.level.max()]
    assert finest.priority.tolist() == reference.array("cluster/size")[:].tolist()
    assert all(f"word{k}k" in name for k, name in zip(finest.cluster, finest.text, strict=True))
    places = reference.array("view_2d")[:]
    for k, x, y in zip(finest.cluster, finest.x, finest.y, strict=True):
        np.testing.assert_allclose((x, y), places[label == k].mean(axis=0), rtol=1e-4)
    assert found.groupby("level").priority.sum().nunique() == 1
    assert found.groupby("level").size().tolist() == sorted(found.groupby("level").size())


def test_embedding_atlas_opens_it(reference: Run, items: ReportTable, tmp_path: Path) -> None:
    command = Path(sys.executable).with_name("embedding-atlas")  # an environment need not be on the PATH
    if not command.exists():
        pytest.skip("embedding-atlas is not installed: make test installs it without torch")
    file = export_run(reference, tmp_path / "atlas.parquet", "atlas", items)
    labels = export_run(reference, tmp_path / "labels.parquet", "atlas-labels", ReportTable())
    out = tmp_path / "application.zip"
    options = ["--x", "x", "--y", "y", "--text", "text", "--labels", str(labels), "--export-application", str(out)]
    environ = {**os.environ, "HOME": str(tmp_path)}
    subprocess.run([command, str(file), *options], check=True, timeout=300, env=environ, capture_output=True)
    with zipfile.ZipFile(out) as archive:
        metadata = json.loads(archive.read("data/metadata.json"))
        shown = metadata["props"]["data"]
        (tmp_path / "opened.parquet").write_bytes(archive.read("data/dataset.parquet"))
    assert shown["projection"] == {"x": "x", "y": "y"}
    assert shown["text"] == "text"
    table = pq.read_table(labels).to_pandas()
    assert json.dumps(table.text[0]) in json.dumps(metadata)
    opened = pq.read_table(tmp_path / "opened.parquet").to_pandas()
    assert opened.category.tolist() == [f"cluster {k}" for k in reference.array("label")[:]]


def test_an_unknown_format_and_a_target_that_is_there_are_refused(reference: Run, tmp_path: Path) -> None:
    with pytest.raises(JobError, match=r"--to xls: must be one of parquet, csv, anndata, atlas, sklearn"):
        export_run(reference, tmp_path / "out", "xls", ReportTable())
    with pytest.raises(JobError, match="is there already"):
        export_run(reference, tmp_path, "parquet", ReportTable())
