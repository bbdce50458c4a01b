"""Embeddings in files of other kinds, read where they lie, give the run that the same rows in Zarr give."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import obstore
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zarr
from conftest import Command, make_run, unequal
from source_files import RAW, ROWS, fixed, lists, write_lance, write_npys, write_parquets, write_raws

from distcluster.errors import JobError
from distcluster.export import export_run
from distcluster.job import RawLayout
from distcluster.job_file import parse_job
from distcluster.predicting import prediction_job
from distcluster.prepare import check_job
from distcluster.storage import object_file
from distcluster.storage.array_store import ArrayStore
from distcluster.storage.arrow_columns import ArrowEntries
from distcluster.storage.inputs import input_version, open_input
from distcluster.storage.items import open_column
from distcluster.storage.run import Run
from distcluster.storage.urls import absolute_url
from distcluster.url import Url


def sources(tmp_path: Path) -> dict[str, tuple[Path, np.ndarray]]:
    double, half = ROWS.astype(np.float64), ROWS.astype(np.float16)
    np.save(tmp_path / "one.npy", half)
    pq.write_table(pa.table({"v": lists(double)}), tmp_path / "one.parquet")
    return {
        "folder of fixed lists": (write_parquets(tmp_path / "fixed", ROWS, fixed, 12, 137), ROWS),
        "folder of float16 lists": (write_parquets(tmp_path / "half", half, fixed, 2, 5_000), half),
        "one file of lists": (tmp_path / "one.parquet", double),
        "Lance of fixed lists": (write_lance(f"{tmp_path}/fixed.lance", ROWS, fixed, 3), ROWS),
        "Lance of float16 lists": (write_lance(f"{tmp_path}/half.lance", half, fixed, 2), half),
        "Lance of lists, not called so": (write_lance(f"{tmp_path}/a place", double, lists, 1), double),
        "folder of npy": (write_npys(tmp_path / "npys", ROWS, 12), ROWS),
        "one npy": (tmp_path / "one.npy", half),
        "a pattern of npy": (write_npys(tmp_path / "more", ROWS, 12) / "img_emb_*.npy", ROWS),
        "folder of raw files": (write_raws(tmp_path / "raw", ROWS, 12, RAW.offset), ROWS),
        "one raw file": (write_raws(tmp_path / "one", ROWS, 1, RAW.offset) / "rows-0.f32", ROWS),
        "a pattern of raw files": (tmp_path / "r*" / "*.f32", ROWS),
    }


def test_any_rows_of_any_source_are_the_rows_as_stored(tmp_path: Path) -> None:
    for name, (place, rows) in sources(tmp_path).items():
        found = open_input(Url(str(place)), "embeddings", RAW if "raw" in name else None)
        assert (found.shape, found.dtype) == (rows.shape, rows.dtype), name
        for part in (slice(0, 5_000), slice(4_000, 4_001), slice(130, 2_000), slice(4_990, 6_000), slice(7, 7)):
            values = found[part]
            assert values.dtype == rows.dtype, name
            assert np.array_equal(values, rows[part]), (name, part)


def test_what_is_read_of_a_store_is_hardly_more_than_the_column(
    tmp_path: Path, s3: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    wide = np.random.default_rng(1).normal(size=(20_000, 64)).astype(np.float32)
    store = ArrayStore("s3://bucket").objects
    for file in sorted((write_parquets(tmp_path / "p", wide, fixed, 2, 4_000) / "data").iterdir()):
        obstore.put(store, f"docs/{file.name}", file)
    pq.write_table(pa.table({"emb": fixed(wide)}), tmp_path / "one.parquet", use_dictionary=False, compression="none")
    obstore.put(store, "one.parquet", tmp_path / "one.parquet")
    np.save(tmp_path / "wide.npy", wide)
    obstore.put(store, "wide.npy", tmp_path / "wide.npy")
    obstore.put(store, "wide.bin", wide.tobytes())
    read = []
    get = obstore.get_range
    monkeypatch.setattr(object_file.obstore, "get_range", lambda *a, **k: read.append(k["length"]) or get(*a, **k))
    groups = [
        pq.read_metadata(file).row_group(group) for file in (tmp_path / "p" / "data").iterdir() for group in range(3)
    ]
    of_column = sum(group.column(2).total_compressed_size for group in groups)
    assert groups[0].column(2).path_in_schema.startswith("emb")
    for url, size, most in (
        ("s3://bucket/docs", of_column, 2**22),
        ("s3://bucket/d*/*.parquet", of_column, 2**22),
        ("s3://bucket/one.parquet", wide.nbytes, 2**22),
        ("s3://bucket/wide.npy", wide.nbytes, 3_000 * 64 * 4),
        ("s3://bucket/wide.bin", wide.nbytes, 3_000 * 64 * 4),
    ):
        read.clear()
        found = open_input(Url(url), "embeddings", RawLayout("float32", 64, 0) if "bin" in url else None)
        assert all(np.array_equal(found[i : i + 3_000], wide[i : i + 3_000]) for i in range(0, 20_000, 3_000))
        assert size <= sum(read) <= 1.05 * size, url
        assert max(read) <= most, "a row group is not held whole"


def test_a_version_tells_of_every_change(tmp_path: Path, s3: None) -> None:
    store = ArrayStore("s3://bucket").objects
    place = write_parquets(tmp_path / "p", ROWS, fixed, 2, 1_000)
    (file, other) = sorted((place / "data").iterdir())
    in_store = [Url(f"s3://bucket/{name}") for name in ("one.parquet", "raw", "*.parquet", "**")]
    urls = [Url(str(file)), Url(str(place)), Url(str(place / "**" / "*.parquet")), *in_store]
    obstore.put(store, "one.parquet", file)
    obstore.put(store, "raw", b"1234")
    before = [input_version(url) for url in urls]
    assert None not in before
    assert [input_version(url) for url in urls] == before
    file.write_bytes(other.read_bytes())
    obstore.put(store, "one.parquet", file)
    obstore.put(store, "raw", b"5678")
    assert all(new != old for new, old in zip([input_version(url) for url in urls], before, strict=True))
    assert np.array_equal(open_input(urls[1], "emb")[:10], ROWS[2_500:2_510]), "what was opened before is not used"


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"id": [1, 2]}, "no column of lists"),
        ({"a": [[1.0], [2.0]], "b": [[1.0], [2.0]]}, "the columns of lists a, b"),
        ({"a": [["x"], ["y"]]}, "embeddings are numbers"),
        ({"a": [[1], [2]]}, "has dtype int64"),
        ({"a": pa.array([None, []], pa.list_(pa.float32()))}, "no row with values"),
    ],
)
def test_parquet_without_vectors_is_refused(columns: dict[str, Any], said: str, tmp_path: Path) -> None:
    pq.write_table(pa.table(columns), tmp_path / "x.parquet")
    with pytest.raises(JobError, match=said):
        open_input(Url(str(tmp_path / "x.parquet")), "embeddings")


def test_files_that_do_not_go_together_or_are_no_arrays_are_refused(tmp_path: Path) -> None:
    place = write_npys(tmp_path / "npys", ROWS, 3)
    for content, said in (
        (ROWS[:, :5], "one input has one kind of rows"),
        (ROWS.astype(np.float64), "one input has one kind of rows"),
        (ROWS[0], "must be .rows, features."),
        (np.asfortranarray(ROWS), "save it in C order"),
    ):
        np.save(place / "img_emb_2.npy", content)
        with pytest.raises(JobError, match=said):
            open_input(Url(str(place)), "embeddings")
    np.save(place / "img_emb_2.npy", ROWS)
    (place / "img_emb_2.npy").write_bytes((place / "img_emb_2.npy").read_bytes()[:-9])
    with pytest.raises(JobError, match="is cut short"):
        open_input(Url(str(place)), "embeddings")
    (place / "img_emb_2.npy").write_text("no array")
    with pytest.raises(JobError, match="no array that NumPy can read"):
        open_input(Url(str(place)), "embeddings")
    pq.write_table(pa.table({"v": lists(ROWS)}), tmp_path / "cut.parquet")
    (tmp_path / "cut.parquet").write_bytes((tmp_path / "cut.parquet").read_bytes()[:-100])
    with pytest.raises(JobError, match=r"cut\.parquet cannot be read"):
        open_input(Url(str(tmp_path / "cut.parquet")), "embeddings")


def test_what_is_declared_of_raw_files_must_fit_them_and_be_of_raw_files(tmp_path: Path) -> None:
    place = write_raws(tmp_path / "raw", ROWS, 3, 0)
    write_npys(tmp_path / "npys", ROWS, 2)
    zarr.create_array(str(tmp_path / "a.zarr"), data=ROWS)
    (tmp_path / "short").write_bytes(bytes(10))
    for name, layout, said in (
        ("raw", RawLayout("float32", 7, 0), r"rows-0.f32 of .*: that is no whole number of rows of 7 float32"),
        ("raw", RawLayout("float32", 6, 3), r"after the first 3\. Set input.dtype, input.features and input.offset"),
        ("short", RawLayout("int8", 1, 11), "10 bytes"),
        ("npys", RawLayout("float32", 6, 0), "img_emb_0.npy of .* says itself what it holds"),
        ("a.zarr", RawLayout("float32", 6, 0), "zarr.json of .* says itself what it holds"),
        ("none", RawLayout("float32", 6, 0), "there is no input at .*none"),
        ("raw/*.bin", RawLayout("float32", 6, 0), "there is no input at .*bin"),
    ):
        with pytest.raises(JobError, match=said):
            open_input(Url(str(tmp_path / name)), "embeddings", layout)
    with pytest.raises(JobError, match=r"holds nothing but values, set input\.dtype and"):
        open_input(Url(str(place / "rows-0.f32")), "embeddings")
    for keys, said in (
        ({"dtype": "float32"}, "need both dtype and features"),
        ({"offset": 8}, "need both dtype and features"),
        ({"dtype": "int64", "features": 6}, "'int8' or 'uint8', got 'int64'"),
    ):
        with pytest.raises(JobError, match=said):
            parse_job({"input": {"url": str(place)} | keys, "output": {"url": "run"}})


def test_rows_of_parquet_that_are_no_vectors_are_invalid_rows(tmp_path: Path) -> None:
    rows = [[1.0, 2.0], None, [1.0], [1.0, None], [3.0, 4.0]]
    pq.write_table(pa.table({"v": pa.array(rows, pa.list_(pa.float32()))}), tmp_path / "x.parquet")
    found = open_input(Url(str(tmp_path / "x.parquet")), "v")[:]
    assert np.isnan(found).any(axis=1).tolist() == [False, True, True, True, False]
    pq.write_table(pa.table({"v": pa.array([[1, 2], [3]], pa.list_(pa.int8()))}), tmp_path / "x.parquet")
    with pytest.raises(JobError, match=r"row 1 of .* is no list of 2 numbers"):
        open_input(Url(str(tmp_path / "x.parquet")), "v")[:]


def test_parquet_files_that_differ_in_width_or_columns_are_refused_by_their_footers(tmp_path: Path) -> None:
    def write(name: str, **columns: Any) -> None:
        pq.write_table(pa.table({"v": fixed(ROWS)} | columns), tmp_path / "docs" / f"{name}.parquet", 1_000)

    source = Url(str(tmp_path / "docs"))
    (tmp_path / "docs").mkdir()
    write("0", id=pa.nulls(5_000), year=pa.array([1999] * 5_000, pa.int16()), own=ROWS[:, 0], kind=["a"] * 5_000)
    write("1", id=["b"] * 5_000, year=np.full(5_000, 2001), kind=np.arange(5_000))
    assert open_input(source, "v").shape == (10_000, 6)
    assert open_column(source, "id", "input.id")[4_998:5_002].tolist() == ["", "", "b", "b"]
    year = open_column(source, "year", "input.id")
    assert isinstance(year, ArrowEntries)
    assert (year.kind, year[np.array([9_999, 0])].tolist()) == (pa.int64(), [2001, 1999])
    for name, said in (("own", "1.parquet of .* has no column 'own'"), ("kind", "values of int64, and of string")):
        with pytest.raises(JobError, match=said):
            open_column(source, name, "input.id")
    for vectors in (fixed(ROWS[:, :5]), lists(ROWS[:, :5])):
        write("1", v=vectors)
        with pytest.raises(JobError, match=r"1\.parquet of .* has lists of 5 values, and of 6"):
            open_input(source, "v")
    write("1", v=pa.array([None, [1.0]] * 2_500, pa.list_(pa.float32())))
    assert np.isnan(open_input(source, "v")[4_999:5_001]).any(axis=1).tolist() == [False, True]
    pq.write_table(pa.table({"v": fixed(ROWS)})[:0], tmp_path / "none.parquet")
    with pytest.raises(JobError, match="is empty"):
        open_input(Url(str(tmp_path / "none.parquet")), "v")


def test_links_to_files_are_known_by_their_own_names(tmp_path: Path) -> None:
    """The cache of Hugging Face's library holds links to files that are named by digests."""
    (tmp_path / "blobs").mkdir()
    (tmp_path / "snapshot").mkdir()
    pq.write_table(pa.table({"v": fixed(ROWS)}), tmp_path / "blobs" / "0a1b")
    link = tmp_path / "snapshot" / "train-0.parquet"
    link.symlink_to(Path("..") / "blobs" / "0a1b")
    for place in (link, link.parent):
        found = open_input(absolute_url(str(place)), "v")
        assert np.array_equal(found[:], ROWS)
        assert input_version(absolute_url(str(place))) is not None


# --- whole jobs ---------------------------------------------------------------------------------------------------


def test_a_run_from_parquet_has_the_bytes_of_one_from_zarr_and_its_ids_and_npy_gets_its_labels(
    reference: Run, new_command: Callable[..., Command], tmp_path: Path
) -> None:
    rows = zarr.open_group(reference.job.input.url)["embeddings"][:]
    parquet = write_parquets(tmp_path / "docs", rows, fixed, 3, 1_000)
    own = {
        "input__id": "id",
        "report__write": "always",
        "report__items": "input:text",
        "report__labels": ["input:kind"],
    }
    run = new_command(parquet, **own).run_to_the_end()
    assert unequal(reference, run) == []
    page = (Path(run.url) / "report" / "index.html").read_text()
    assert "item 17" in page or any(f"item {row}" in page for row in run.array("cluster/exemplar")[0].tolist())
    table = run.job.report
    found = pq.read_table(export_run(run, tmp_path / "out", "parquet", table, ["text", "kind"])).to_pandas()
    assert found.id.tolist() == [f"a{row}" for row in range(len(rows))]
    assert found.text.tolist() == [f"item {row}" for row in range(len(rows))]
    assert found.kind.tolist() == [row % 7 for row in range(len(rows))]
    assert np.array_equal(found.label, reference.array("label")[:])
    lines = export_run(run, tmp_path / "out.csv", "csv", table).read_text().splitlines()
    assert len(lines) == len(rows) + 1
    assert lines[1].startswith('"a0",0,')
    of_npy, of_raw, of_lance = (tmp_path / f"of {kind}" for kind in ("npy", "raw", "lance"))
    predict(run, write_npys(tmp_path / "npys", rows, 5), of_npy)
    predict(run, write_raws(tmp_path / "raw", rows, 3, 8), of_raw, "dtype=float32", "features=16", "offset=8")
    predict(run, write_lance(f"{tmp_path}/x.lance", rows, fixed, 3), of_lance)
    for name in ("label", "probability", "projection", "support"):
        for out in (of_npy, of_raw, of_lance):
            assert np.array_equal(Run(str(out)).array(name)[:], reference.array(name)[:]), (out, name)
    again = prediction_job(Run(str(of_raw)), str(tmp_path / "npys"), "out").input
    assert again.raw is None, "what was declared is of the old rows"
    assert prediction_job(run, str(parquet), "out").input.id == "id"
    assert Run(str(of_lance)).job.input.id == "id"
    assert prediction_job(run, reference.job.input.url, "out").input.id is None, "these rows have no such column"


def predict(run: Run, source: Path, out: Path, *of_input: str) -> None:
    keys = ["deploy.dashboard_address=127.0.0.1:0", "deploy.n_workers=1", *(f"input.{key}" for key in of_input)]
    argv = ["predict", run.url, str(source), str(out), *(word for key in keys for word in ("--set", key))]
    subprocess.run([sys.executable, "-m", "distcluster", *argv], check=True, timeout=300)


def test_an_id_can_be_named_when_the_run_is_there(tmp_path: Path) -> None:
    tables = {"output": {"url": str(tmp_path / "run")}, "sample": {"rows": 500, "mixture_rows": 500}}
    source = {"url": str(write_parquets(tmp_path / "docs", ROWS, fixed, 2, 1_000))}
    before = make_run(parse_job(tables | {"input": source}))
    after = make_run(parse_job(tables | {"input": source | {"id": "id"}}))
    assert after.settings.run_id == before.settings.run_id
    assert (before.job.input.id, Run(after.url).job.input.id) == (None, "id")


def test_columns_that_are_not_there_are_refused_before_any_work(tmp_path: Path) -> None:
    place = write_parquets(tmp_path / "docs", ROWS, fixed, 2, 1_000)
    for tables, said in (
        ({"input": {"id": "uid"}}, "input.id: there is no file, no Zarr array and no column at .*docs/uid"),
        ({"report": {"items": "input:title"}}, "report.items: .*no column at .*docs/title"),
        ({"report": {"labels": ["input:emb"]}}, "report.labels: .*no column at .*docs/emb"),
    ):
        job = {"input": {"url": str(place)}, "output": {"url": str(tmp_path / "run")}}
        for name, table in tables.items():
            job[name] = job.get(name, {}) | table
        with pytest.raises(JobError, match=said):
            check_job(parse_job(job))
    assert not (tmp_path / "run").exists()
