"""Lance datasets, read where they lie: columns, versions, bytes, and what is said of those that cannot be read."""

import sys
from pathlib import Path

import lance
import numpy as np
import pyarrow as pa
import pytest
from conftest import s3_api
from source_files import RAW, ROWS, fixed, lists, write_lance

from distcluster.errors import JobError, StorageError
from distcluster.job_file import parse_job
from distcluster.numerics.partition import RowRange
from distcluster.prepare import check_job
from distcluster.storage import lance_files
from distcluster.storage.inputs import input_version, open_input, read_block
from distcluster.storage.items import open_column
from distcluster.storage.urls import store_options
from distcluster.url import Url


def test_a_lance_dataset_has_columns_and_rows_that_are_no_vectors_and_stays_at_the_version_it_was_opened_at(
    tmp_path: Path,
) -> None:
    source = Url(str(write_lance(f"{tmp_path}/x.lance", ROWS, fixed, 3)))
    opened, before = open_input(source, "emb"), input_version(source)
    ids = open_column(source, "id", "input.id")
    assert ids.shape == (5_000,)
    assert ids[1_666:1_668].tolist() == ["a1666", "a1667"]
    assert ids.oindex[np.array([4_999, 3, 3, 0])].tolist() == ["a4999", "a3", "a3", "a0"]
    with pytest.raises(JobError, match=r"no column at .*x\.lance/emb"):
        open_column(source, "emb", "input.id")
    rows = pa.array([None, [1.0] * 6, [1.0, None, *[1.0] * 4]], pa.list_(pa.float32(), 6))
    lance.write_dataset(pa.table({"id": ["b", None, "c"], "emb": rows, "is_old": [False] * 3}), source, mode="append")
    assert opened.shape == (5_000, 6)
    assert input_version(source) != before
    grown = open_input(source, "emb")
    assert np.isnan(grown[4_999:]).any(axis=1).tolist() == [False, True, False, True]
    assert open_column(source, "id", "input.id")[5_000:].tolist() == ["b", "", "c"]
    lance.write_dataset(pa.table({"v": lists(ROWS[:2, :0]), "w": lists(ROWS[:2])}), source, mode="overwrite")
    for name, said in (("v", "no row with values in 'v'"), ("emb", "the columns of lists v, w, and none is 'emb'")):
        with pytest.raises(JobError, match=said):
            open_input(source, name)


def test_a_lance_dataset_that_cannot_be_read_is_refused_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = write_lance(f"{tmp_path}/x.lance", ROWS, fixed, 2)
    with pytest.raises(JobError, match="says itself what it holds"):
        open_input(Url(str(place)), "emb", RAW)
    with pytest.raises(JobError, match=r"Lance datasets are read from local paths, s3://"):
        open_input(Url("https://127.0.0.1:9/x.lance"), "emb")
    opened = open_input(Url(str(place)), "emb")
    for file in (place / "data").iterdir():
        file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(JobError, match=r"rows 0 to 9 of .*x\.lance cannot be read: Generic") as told:
        read_block(open_input(Url(str(place)), "emb"), Url(str(place)), RowRange(0, 0, 10))
    assert ".rs:" not in str(told.value)
    assert opened.shape == (5_000, 6)
    monkeypatch.setitem(sys.modules, "lance", None)
    job = {"input": {"url": str(write_lance(f"{tmp_path}/y.lance", ROWS, fixed, 2))}, "output": {"url": "run"}}
    with pytest.raises(JobError, match=r"y\.lance is a Lance dataset.* pip install 'distcluster\[lance\]'"):
        check_job(parse_job(job))


def test_of_a_store_hardly_more_is_read_than_the_rows_and_one_that_goes_away_is_told_from_wrong_data(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wide = np.random.default_rng(1).normal(size=(20_000, 64)).astype(np.float32)
    source, block = Url("s3://bucket/wide.lance"), RowRange(0, 0, 3_000)
    monkeypatch.setattr(lance_files, "store_options", lambda url: store_options(url) | {"client_retry_timeout": "1"})
    with s3_api() as environ:
        for key, value in environ.items():
            monkeypatch.setenv(key, value)
        write_lance(source, wide, fixed, 1, storage_options=store_options(source))
        before = lance.bytes_read_counter()
        found = open_input(source, "emb")
        assert all(np.array_equal(found[i : i + 3_000], wide[i : i + 3_000]) for i in range(0, 20_000, 3_000))
        assert wide.nbytes <= lance.bytes_read_counter() - before <= 1.05 * wide.nbytes
        before = lance.bytes_read_counter()
        assert np.array_equal(found[7_000:7_100], wide[7_000:7_100])
        assert lance.bytes_read_counter() - before <= 0.01 * wide.nbytes
        assert np.array_equal(open_input(Url("s3a://bucket/wide.lance"), "emb")[:5], wide[:5])
        assert open_column(source, "id", "input.id")[7:9].tolist() == ["a7", "a8"]
    with pytest.raises(StorageError, match=r"the storage failed: Generic S3 error.* run again to resume"):
        read_block(found, source, block)
