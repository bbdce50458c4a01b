"""What other tools read is what the run holds."""

from pathlib import Path

import joblib
import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import N_ROWS

from distcluster.export import export_run
from distcluster.job import JobError, ReportTable
from distcluster.run import Run


@pytest.mark.parametrize("name", ["items.txt", "items.jsonl"])
def test_parquet_holds_every_row_in_order_with_its_item(reference: Run, tmp_path: Path, name: str) -> None:
    line = '{{"text": "item {}"}}' if name.endswith("jsonl") else "item {}"
    (tmp_path / name).write_text("".join(line.format(i) + "\n" for i in range(N_ROWS - 3)))
    target = export_run(reference, tmp_path / "out", "parquet", ReportTable(items=str(tmp_path / name)))
    files = sorted(target.iterdir())
    assert len(files) == len(reference.partitioning)
    found = pq.read_table(target).to_pandas()
    assert found.row.tolist() == list(range(N_ROWS))
    for column in ("label", "probability", "log_density", "support"):
        np.testing.assert_array_equal(found[column], reference.array(column)[:])
    np.testing.assert_array_equal(found[["view_2d_x", "view_2d_y"]], reference.array("view_2d")[:])
    np.testing.assert_array_equal(found[[f"projection_{i}" for i in range(3)]], reference.array("projection")[:])
    assert found.item[:-3].tolist() == [f"item {i}" for i in range(N_ROWS - 3)]
    assert found.item[-3:].isna().all()


def test_scikit_learn_s_mixture_gives_the_run_s_labels(reference: Run, tmp_path: Path) -> None:
    model = joblib.load(export_run(reference, tmp_path / "model.joblib", "sklearn", ReportTable()))
    rows = reference.array("projection")[:].astype(np.float64)
    np.testing.assert_array_equal(model.predict(rows), reference.array("label")[:])
    np.testing.assert_allclose(model.score_samples(rows), reference.array("log_density")[:], rtol=1e-5, atol=1e-5)


def test_an_unknown_format_and_a_target_that_is_there_are_refused(reference: Run, tmp_path: Path) -> None:
    with pytest.raises(JobError, match=r"--to csv: must be one of parquet, sklearn"):
        export_run(reference, tmp_path / "out", "csv", ReportTable())
    with pytest.raises(JobError, match="is there already"):
        export_run(reference, tmp_path, "parquet", ReportTable())
