"""Every wrong job, input or output: exit code 2, the values and the remedy, and no result written."""

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from conftest import FEW, Command, make_run, planted_rows, unequal, write_input

from distcluster.errors import JobError
from distcluster.job_file import load_job, parse_job
from distcluster.stages.subsampling import SUBSAMPLE, SubsampleFacts, as_float32
from distcluster.storage.inputs import open_input
from distcluster.storage.run import Run

GOOD = planted_rows(400, 4)[0]


def job(source: Path, output: Path, **settings: Any) -> dict[str, Any]:
    tables: dict[str, Any] = {"input": {"url": str(source)}, "output": {"url": str(output)}}
    for key, value in settings.items():
        table, _, field = key.partition("__")
        tables.setdefault(table, {})[field] = value
    return tables


def write_array(path: Path, values: np.ndarray) -> Path:
    zarr.create_array(str(path), data=values)
    return path


INPUTS: dict[str, tuple[Callable[[Path], Path], str]] = {
    "no file": (lambda path: path, "there is no input at"),
    "no array": (lambda path: (zarr.open_group(str(path), mode="w"), path)[1], "'embeddings'; it holds nothing"),
    "1-D": (lambda path: write_array(path, np.zeros(9, np.float32)), "has 1 dimension, shape (9,)"),
    "3-D": (lambda path: write_array(path, np.zeros((9, 2, 2), np.float32)), "has 3 dimensions, shape (9, 2, 2)"),
    "int64": (lambda path: write_array(path, np.zeros((9, 2), np.int64)), "has dtype int64"),
    "complex": (lambda path: write_array(path, np.zeros((9, 2), np.complex64)), "has dtype complex64"),
    "text": (lambda path: write_array(path, np.array([["a"]], np.dtypes.StringDType())), "has dtype StringDType"),
    "no rows": (lambda path: write_array(path, np.zeros((0, 4), np.float32)), "is empty: shape (0, 4)"),
    "no features": (lambda path: write_array(path, np.zeros((4, 0), np.float32)), "is empty: shape (4, 0)"),
    "few rows": (lambda path: write_input(path, GOOD[:20]), "20 valid rows give a UMAP subsample of 10"),
    "a .npz": (lambda path: (np.savez(f"{path}.npz", GOOD), path.with_suffix(".npz"))[1], "distcluster ingest"),
    "not Zarr": (lambda path: (path.mkdir(), (path / "x").write_text("x"), path)[2], "cannot open"),
}  # fmt: skip


@pytest.mark.parametrize("name", INPUTS)
def test_a_wrong_input_is_refused_and_nothing_is_written(name: str, tmp_path: Path) -> None:
    make, message = INPUTS[name]
    source = make(tmp_path / "input")
    with pytest.raises(JobError) as error:
        make_run(parse_job(job(source, tmp_path / "output")))
    assert message in str(error.value)
    assert not (tmp_path / "output").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mixture__n_component": 3}, "mixture.n_component: no such key; did you mean 'n_components'?"),
        ({"mixtures__n_components": [3]}, "mixtures: no such table; did you mean 'mixture'?"),
        ({"sample__seed": "zero"}, "sample.seed: Input should be a valid integer, got 'zero'"),
        ({"sample__rows": 0}, "sample.rows"),
        (
            {"sample__rows": "many"},
            "Input should be 'auto', got 'many'; or: Input should be a valid integer, got 'many'",
        ),
        ({"mixture__covariance_type": ["full", "round"]}, "mixture.covariance_type"),
        ({"mixture__n_components": [4, 4]}, "4 given more than once"),
        ({"assign__partition_rows": 50_000}, "must be block_rows (16,384) times"),
        ({"projection__metric": "manhattan"}, "projection.metric"),
        ({"report__points": 3_000_000}, "report.points: Input should be 'auto', got 3000000; or: Input should be less"),
        ({"deploy__tls_ca_file": "ca.pem"}, "tls_ca_file, tls_client_cert and tls_client_key go together"),
        ({"input__url": None}, "input.url"),
    ],
)
def test_a_wrong_job_file_names_the_key_and_the_value(settings: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(JobError) as error:
        parse_job(job(tmp_path / "input", tmp_path / "output", **settings))
    assert message in str(error.value)


def test_all_offenders_are_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(JobError) as error:
        parse_job(job(tmp_path, tmp_path, sample__seed=-1, mixture__tol=0.0, nothing__at=1))
    assert len(str(error.value).splitlines()) == 4


def test_a_job_file_that_is_missing_or_no_toml_is_refused(tmp_path: Path) -> None:
    with pytest.raises(JobError, match="cannot read the job file"):
        load_job(tmp_path / "job.toml")
    (tmp_path / "job.toml").write_text("[input\n")
    with pytest.raises(JobError, match="is not TOML"):
        load_job(tmp_path / "job.toml")


def test_set_wins_over_the_file_and_is_checked(tmp_path: Path) -> None:
    file = tmp_path / "job.toml"
    file.write_text('[input]\nurl = "a"\n[output]\nurl = "b"\n[sample]\nseed = 1\n')
    overridden = load_job(file, ["sample.seed=7", "output.url=s3://bucket/run", "mixture.n_components=[3, 5]"])
    assert (overridden.sample.seed, overridden.output.url) == (7, "s3://bucket/run")
    assert overridden.mixture.n_components == (3, 5)
    with pytest.raises(JobError, match=r"expected table\.key=value"):
        load_job(file, ["seed=7"])


def test_an_output_inside_the_input_or_around_it_is_refused(tmp_path: Path) -> None:
    source = write_input(tmp_path / "input", GOOD)
    for output, message in (
        (source / "run", "lies inside the input"),
        (source, "lies inside"),
        (tmp_path, "inside the output"),
    ):
        with pytest.raises(JobError, match=message):
            make_run(parse_job(job(source, output)))


def test_an_output_that_holds_something_else_is_refused(tmp_path: Path) -> None:
    source = write_input(tmp_path / "input", GOOD)
    occupied, other = tmp_path / "occupied", tmp_path / "other"
    occupied.mkdir()
    (occupied / "thesis.txt").write_text("mine")
    zarr.open_group(str(other), mode="w")
    with pytest.raises(JobError, match=r"holds something else \(thesis.txt\)"):
        make_run(parse_job(job(source, occupied)))
    with pytest.raises(JobError, match="Zarr that distcluster did not make"):
        make_run(parse_job(job(source, other)))
    with pytest.raises(JobError, match="is a file"):
        make_run(parse_job(job(source, occupied / "thesis.txt")))


def test_an_output_made_for_another_job_or_input_names_every_difference(tmp_path: Path) -> None:
    output = tmp_path / "output"
    run = make_run(parse_job(job(write_input(tmp_path / "input", GOOD), output)))
    with run.writing(20):
        run.commit(SUBSAMPLE.name, "all", asdict(SubsampleFacts(1, 1, 0, 2, 0, 1, spread=1.0, added=0)))
    other = write_input(tmp_path / "other", GOOD[:300].astype(np.float16))
    with pytest.raises(JobError) as error:
        make_run(parse_job(job(other, output, sample__seed=3, mixture__tol=0.1, deploy__n_workers=1)))
    for line in (
        "sample.seed: 0 in the run, 3 in the job",
        "mixture.tol: 0.001 in the run, 0.1 in the job",
        "the input's shape: (400, 16) in the run, (300, 16) now",
        "the input's dtype: float32 in the run, float16 now",
    ):
        assert line in str(error.value)
    assert "n_workers" not in str(error.value)


def test_an_output_of_another_format_version_is_refused(tmp_path: Path) -> None:
    source, output = write_input(tmp_path / "input", GOOD), tmp_path / "output"
    make_run(parse_job(job(source, output)))
    root = json.loads((output / "zarr.json").read_text())
    root["attributes"]["distcluster"]["format_version"] = 99
    (output / "zarr.json").write_text(json.dumps(root))
    with pytest.raises(JobError, match="format version 99"):
        make_run(parse_job(job(source, output)))


@pytest.mark.parametrize(("n_rows", "pca"), [(400, 16), (20, 15)])  # as many as features; and as sample rows
def test_more_principal_components_than_the_rows_have_are_refused(tmp_path: Path, n_rows: int, pca: int) -> None:
    source = write_input(tmp_path / "input", GOOD[:n_rows])
    wrong = job(source, tmp_path / "output", projection__pca=pca, projection__n_neighbors=5, sample__rows=15)
    with pytest.raises(JobError, match=f"projection.pca = {pca} must be less than"):
        make_run(parse_job(wrong))
    assert not (tmp_path / "output").exists()


def test_missing_items_are_refused(tmp_path: Path) -> None:
    source = write_input(tmp_path / "input", GOOD)
    for name in ("items.txt", "nowhere/items.txt"):
        with pytest.raises(JobError, match=r"report\.items: there is no file"):
            make_run(parse_job(job(source, tmp_path / "output", report__items=str(tmp_path / name))))


def damaged_rows() -> np.ndarray:
    rows = planted_rows(6000, 4)[0]
    rows[17, 3] = np.nan
    rows[1800, 0] = np.inf
    rows[5999] = 0.0
    return rows


def test_invalid_rows_stop_the_job_with_their_number_and_can_be_skipped(
    new_command: Callable[..., Command], tmp_path: Path
) -> None:
    source = write_input(tmp_path / "input", damaged_rows())
    command = new_command(source, projection__metric="cosine", **FEW)
    done = command.run()
    assert done.returncode == 2
    said = " ".join(done.stderr.split())
    assert "3 of 6,000 rows cannot be clustered; the first: 17 (NaN), 1800 (infinite), 5999 (only zeros)" in said
    assert 'set input.on_invalid = "skip"' in done.stderr
    assert not list((command.output / "label").glob("c/*"))
    command.settings["input.on_invalid"] = "skip"  # the remedy works at once, on the same output
    run = command.run_to_the_end()
    label, invalid = run.array("label")[:], [17, 1800, 5999]
    assert np.flatnonzero(label < 0).tolist() == invalid
    assert np.flatnonzero(np.isnan(run.array("probability")[:])).tolist() == invalid
    assert np.isnan(run.array("projection")[:][invalid]).all()
    assert not set(invalid) & set(run.array("sample/row")[:]) | set(invalid) & set(run.array("sample/mixture_row")[:])


def test_an_input_mended_in_place_is_scanned_again(new_command: Callable[..., Command], tmp_path: Path) -> None:
    source = write_input(tmp_path / "input", damaged_rows())
    command = new_command(source, **FEW)
    assert command.run().returncode == 2
    zarr.open_array(str(source), path="embeddings", mode="r+")[:] = planted_rows(6000, 4)[0]
    command.run_to_the_end()


def test_a_constant_input_is_refused(new_command: Callable[..., Command], tmp_path: Path) -> None:
    done = new_command(write_input(tmp_path / "input", np.ones((4000, 8), np.float32))).run()
    assert done.returncode == 2
    assert "hold only 1 distinct ones" in done.stderr


def test_an_input_that_was_only_copied_is_the_same_input_and_one_that_changed_is_refused(
    new_command: Callable[..., Command], tmp_path: Path
) -> None:
    rows = planted_rows(4000, 4)[0]
    source = write_input(tmp_path / "input", rows)
    command = new_command(source, **FEW)
    command.run_to_the_end()
    command.source = write_input(tmp_path / "copy", rows)
    assert command.run().returncode == 0
    command.source = source
    array = zarr.open_array(str(source), path="embeddings", mode="r+")
    array[3000, 5] += 1.0
    done = command.run()
    assert done.returncode == 2
    assert "rows 2,560 to 3,071" in done.stderr
    assert "the input was changed" in done.stderr


def test_a_run_has_no_credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from distcluster.url import Url

    assert str(Url("s3://key:secret@bucket/run?X-Amz-Signature=abc")) == "s3://bucket/run"
    assert Run(str(tmp_path / "nothing")).find_settings() is None


@pytest.mark.parametrize("scale", [1e19, 1e30, 1e-25, 1e-40])
def test_values_that_float32_cannot_compare_are_refused_with_their_size(
    scale: float, new_command: Callable[..., Command], tmp_path: Path
) -> None:
    rows = (planted_rows(4000, 4)[0] * scale).astype(np.float32)
    done = new_command(write_input(tmp_path / "input", rows)).run()
    assert done.returncode == 2, done.stderr
    said = " ".join(done.stderr.split())
    if scale > 1:
        assert "4,000 of 4,000 rows cannot be clustered; the first: 0 (its squared length" in said
    else:
        assert re.search(r"rows lie about \de-\d\d from their mean: squared, such distances vanish in float32", said)


def test_scaled_rows_are_clustered_under_cosine(new_command: Callable[..., Command], tmp_path: Path) -> None:
    rows = planted_rows(4000, 4)[0]
    runs = [
        new_command(
            write_input(tmp_path / f"{scale}", rows * np.float32(scale)), projection__metric="cosine",
            mixture__n_components=[4], report__write="always",
        ).run_to_the_end()
        for scale in (1.0, 2.0**80)
    ]  # fmt: skip
    assert unequal(*runs) == []  # a power of two changes no bit of a direction


@pytest.mark.parametrize("kind", ["group", "zip"])
def test_a_missing_chunk_is_refused_unless_it_is_allowed(kind: str, tmp_path: Path) -> None:
    source = write_input(tmp_path / "input", planted_rows(4000, 4)[0])
    (source / "embeddings" / "c" / "2" / "0").unlink()
    if kind == "zip":
        source = Path(shutil.make_archive(str(tmp_path / "input"), "zip", source))
    with pytest.raises(JobError, match=r"1 chunks of rows are not in .*, the first with rows 2,000 to 2,999"):
        make_run(parse_job(job(source, tmp_path / "output")))
    assert not (tmp_path / "output").exists()
    make_run(parse_job(job(source, tmp_path / "output", input__allow_missing_chunks=True)))


def test_values_in_the_other_order_of_bytes_are_read(tmp_path: Path) -> None:
    rows = planted_rows(400, 4)[0]
    source = write_input(tmp_path / "input", rows.astype(">f4"), zarr_format=2)
    assert make_run(parse_job(job(source, tmp_path / "output"))).settings.input.dtype in (">f4", "float32")
    np.testing.assert_array_equal(as_float32(np.asarray(open_input(str(source), "embeddings")[:])), rows)
