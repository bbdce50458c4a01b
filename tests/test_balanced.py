"""Balanced samples: as even as can be, the same rows for the same seed, in every format with rows."""

from collections.abc import Callable
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import zarr
from conftest import BLOCK_ROWS, FEW, N_ROWS, Command, Once
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from distcluster import JobError, open_run
from distcluster.cli.main import app
from distcluster.curation import Wanted, choose_rows
from distcluster.export import export_run
from distcluster.job import ReportTable
from distcluster.numerics.balanced import even_shares, nested_shares
from distcluster.storage.run import Run

sizes = st.lists(st.integers(0, 40), min_size=1, max_size=12)


@given(sizes, st.data())
def test_shares_are_as_even_as_the_clusters_allow(available: list[int], data: st.DataObject) -> None:
    wanted = data.draw(st.integers(0, sum(available)))
    shares = even_shares(available, wanted)
    assert shares.sum() == wanted
    assert (shares <= available).all()
    cut = shares[shares < available]
    assert len(cut) == 0 or shares.max() - cut.min() <= 1, "no cluster gives two rows more than one that has more"
    more = even_shares(available, min(wanted + 1, sum(available)))
    assert (more >= shares).all()


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 2), st.integers(0, 1)), min_size=1), st.data())
def test_shares_of_a_hierarchy_are_even_at_its_top(clusters: list[tuple[int, int, int]], data: st.DataObject) -> None:
    available, middle, top = (np.array(each) for each in zip(*clusters, strict=True))
    wanted = data.draw(st.integers(0, int(available.sum())))
    shares = nested_shares(available, [top, 2 * middle + top], wanted)
    assert shares.sum() == wanted
    assert (shares <= available).all()
    of_top = np.bincount(top, available, 2), np.bincount(top, shares, 2)
    np.testing.assert_array_equal(even_shares(of_top[0].astype(int), wanted), of_top[1])


@pytest.fixture(scope="module")
def command(
    new_command: Callable[..., Command], planted: tuple[Path, np.ndarray], once: Once
) -> Callable[..., Command]:
    """Make a command on some of the planted rows, which have a column beside them."""

    def make_input(directory: Path) -> None:
        group = zarr.open_group(str(directory / "input.zarr"), mode="w")
        group.create_array("embeddings", data=zarr.open_group(str(planted[0]))["embeddings"][:4096])
        group.create_array("length", data=np.arange(4096) * 3)

    source = once("with-a-column", make_input) / "input.zarr"
    few = {"sample__rows": 400, "sample__mixture_rows": 400, **FEW}
    return lambda **changes: new_command(source, **few, **changes)


@pytest.fixture(scope="module")
def small(command: Callable[..., Command]) -> Run:
    """A run of such rows."""
    return command().run_to_the_end()


@pytest.fixture(scope="module")
def export(reference: Run, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Export the reference by the command line."""

    def run(*options: str) -> Path:
        target = tmp_path_factory.mktemp("exported") / "out"
        done = CliRunner().invoke(app, ["export", str(reference.url), str(target), *options])
        assert done.exit_code == 0, done.output
        return target

    return run


def test_a_balanced_export_has_so_many_rows_of_each_cluster(reference: Run, export: Callable[..., Path]) -> None:
    label = reference.array("label")[:]
    size = np.bincount(label)
    n = 8 * int(np.sort(size)[1])  # more than the smallest cluster's share
    found = pq.read_table(export("--balanced", str(n))).to_pandas()
    assert len(found) == n
    assert found.row.is_monotonic_increasing
    assert found.row.is_unique
    np.testing.assert_array_equal(np.bincount(found.label, minlength=len(size)), even_shares(size, n))
    np.testing.assert_array_equal(found.label, label[found.row])
    np.testing.assert_array_equal(found.support, reference.array("support")[:][found.row])


def test_a_sample_by_a_level_is_even_over_its_clusters_and_within_each(
    reference: Run, export: Callable[..., Path]
) -> None:
    ks, levels = reference.array("hierarchy/level_clusters")[:].tolist(), reference.array("hierarchy/level")[:]
    coarsest = min(ks)
    found = pd.read_csv(export("--balanced", "1000", "--level", str(coarsest), "--to", "csv"))
    of_level = found.groupby(f"level_{coarsest}").size()
    assert len(of_level) == coarsest
    assert of_level.max() - of_level.min() <= 1
    size = np.bincount(reference.array("label")[:])
    nested = [levels[ks.index(k)] for k in sorted(ks)]
    np.testing.assert_array_equal(np.bincount(found.label), nested_shares(size, nested, 1000))


def test_the_seed_alone_decides_and_more_rows_hold_the_fewer(
    reference: Run, small: Run, command: Callable[..., Command]
) -> None:
    rows = choose_rows(reference, Wanted(500))
    assert rows.tobytes() == choose_rows(reference, Wanted(500)).tobytes()
    assert set(rows) < set(choose_rows(reference, Wanted(900)))
    other = choose_rows(reference, Wanted(500, seed=1))
    assert len(set(rows) & set(other)) < 100
    other_partitions = command(assign__partition_rows=8 * BLOCK_ROWS).run_to_the_end()
    assert len(other_partitions.partitioning) < len(small.partitioning)
    assert choose_rows(small, Wanted(777)).tobytes() == choose_rows(other_partitions, Wanted(777)).tobytes()


def test_all_formats_with_rows_have_the_same_ones(reference: Run, export: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "items.txt").write_text("".join(f"item {i}\n" for i in range(N_ROWS)))
    options = ("--balanced", "600", "--seed", "3", "--items", str(tmp_path / "items.txt"))
    table = pq.read_table(export(*options)).to_pandas()
    assert table.item.tolist() == [f"item {row}" for row in table.row]
    atlas = pq.read_table(export(*options, "--to", "atlas")).to_pandas()
    assert atlas.row.tolist() == table.row.tolist()
    found = anndata.read_zarr(export(*options, "--to", "anndata"))
    assert found.obs_names.tolist() == [str(row) for row in table.row]
    np.testing.assert_array_equal(found.X, reference.array("projection")[:][table.row])
    assert found.obs["item"].tolist() == table.item.tolist()
    in_python = open_run(str(reference.url)).balanced(600, seed=3)
    assert in_python.index.tolist() == table.row.tolist()
    np.testing.assert_array_equal(in_python.probability, table.probability)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--balanced", "0"), "--balanced 0: must be 1 or more."),
        (("--balanced", "99999999"), f"--balanced 99,999,999: the run has {N_ROWS:,} rows with a label."),
        (("--balanced", "10", "--level", "77"), "--level 77: the run has no such level of its hierarchy; it has "),
        (("--balanced", "10", "--seed", "-1"), "--seed -1: must be 0 or more."),
        (("--level", "4"), "--level goes with --balanced."),
        (("--balanced", "10", "--to", "model"), "go with --to parquet, csv, anndata, atlas."),
        (("--without-duplicates", "0.3"), "near duplicates within 0.3 have not been looked for in "),
    ],
)
def test_a_sample_that_cannot_be_is_refused_before_anything_is_written(
    reference: Run, tmp_path: Path, options: tuple[str, ...], message: str
) -> None:
    done = CliRunner().invoke(app, ["export", str(reference.url), str(tmp_path / "out"), *options])
    assert isinstance(done.exception, JobError)
    assert message in str(done.exception)
    assert list(tmp_path.iterdir()) == []


def test_columns_of_the_input_come_along(small: Run, tmp_path: Path) -> None:
    target = export_run(small, tmp_path / "out", "parquet", ReportTable(), ["length"], Wanted(100))
    found = pq.read_table(target).to_pandas()
    assert (found.length == 3 * found.row).all()
    assert len(found) == 100
