"""Near duplicates: every pair within the distance is found, wherever its rows lie, and nothing else."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import zarr
from conftest import BLOCK_ROWS, FEW, Command, Once, planted_rows, write_input
from distributed import Client
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial.distance import cdist
from test_resume import flip_bit
from typer.testing import CliRunner

from benchmarks.servers import dask_cluster
from distcluster import JobError, open_run
from distcluster.cli.main import app
from distcluster.errors import WRONG
from distcluster.job import ReportTable
from distcluster.numerics.near_pairs import code_rows, cosine_distances, fit_sketch, join_near
from distcluster.report.made import made_of
from distcluster.report.near_duplicates import duplicates
from distcluster.report.page import render_page
from distcluster.storage.run import Run

N, D = 6_000, 1e-4
NATURAL = 4e-3  # a distance at which many rows of the balls are connected

EXACT, SCALED, NEAR = [5, 700, 3_100, 5_990], [40, 2_000], [41, 4_500]
CHAIN = [60, 5_000, 1_100, 3_500, 2_300]  # each within the distance of the next only
ZEROS, INVALID = [70, 4_000], [80, 3_000]


def planted_duplicates() -> np.ndarray:
    """Balls with duplicates of every kind between partitions, blocks and clusters."""
    rows, _ = planted_rows(N, 4)
    random = np.random.default_rng(1)
    rows[EXACT] = rows[EXACT[0]]
    rows[SCALED[1]] = 3.0 * rows[SCALED[0]]
    rows[NEAR[1]] = rows[NEAR[0]] * (1 + 0.003 * random.normal(size=16))
    first, other = np.eye(16)[:2] * 60.0
    for place, row in enumerate(CHAIN):
        angle = 0.9 * np.sqrt(2 * D) * place
        rows[row] = np.cos(angle) * first + np.sin(angle) * other
    rows[ZEROS] = 0.0
    rows[INVALID] = np.nan
    return rows


def by_brute_force(rows: np.ndarray, distance: float) -> dict[int, int]:
    """The first row of the group of every row that is in one."""
    valid = np.flatnonzero(np.isfinite(rows).all(axis=1))
    x = rows[valid].astype(np.float64)
    length = np.linalg.norm(x, axis=1, keepdims=True)
    unit = x / np.where(length > 0, length, 1.0)
    near = np.zeros((len(x), len(x)), bool)
    if distance > 0:
        for start in range(0, len(x), 500):
            apart = cdist(unit[start : start + 500], unit, "sqeuclidean") / 2  # by differences, in double precision
            near[start : start + 500] = apart <= distance
        is_zero = length[:, 0] == 0
        near &= ~is_zero & ~is_zero[:, None]
    _, equal = np.unique(x, axis=0, return_inverse=True)
    near |= equal.reshape(-1)[:, None] == equal.reshape(-1)
    _, group = connected_components(coo_matrix(near), directed=False)
    first = pd.Series(valid).groupby(group).transform("min").to_numpy()
    size = np.bincount(group)[group]
    return {int(row): int(of) for row, of, n in zip(valid, first, size, strict=True) if n > 1}


def search(run: Path | str, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(argv(run, *options), capture_output=True, text=True, timeout=300, check=False)


def argv(run: Path | str, *options: str) -> list[str]:
    return [sys.executable, "-m", "distcluster", "duplicates", str(run), *options]


def contents(run: Run, distance: float) -> list[bytes]:
    return [run.array(f"duplicates/{distance}/{name}")[:].tobytes() for name in ("row", "representative", "distance")]


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """What a caller in Python works on."""
    with dask_cluster(tmp_path_factory.mktemp("dask"), n_workers=1) as (address, _), Client(address) as client:
        yield client


@pytest.fixture(scope="module")
def new_run(new_command: Callable[..., Command], once: Once) -> Callable[..., Command]:
    """Make a command on the rows with duplicates, whose ids are names."""

    def make_input(directory: Path) -> None:
        write_input(directory / "input.zarr", planted_duplicates())
        names = np.array([f"row {i}" for i in range(N)], np.dtypes.StringDType())
        zarr.create_array(str(directory / "input.zarr"), name="name", data=names)

    source = once("duplicates", make_input) / "input.zarr"
    few: dict[str, Any] = {"sample__rows": 400, "sample__mixture_rows": 400, "input__on_invalid": "skip", **FEW}
    return lambda **changes: new_command(source, **(few | {"input__id": "name"} | changes))


@pytest.fixture(scope="module")
def unsearched(new_run: Callable[..., Command]) -> Run:
    """A finished run of six partitions."""
    return new_run().run_to_the_end()


@pytest.fixture(scope="module")
def found(unsearched: Run, client: Client, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A copy of it that was searched at three distances."""
    run = Run(str(shutil.copytree(unsearched.url, tmp_path_factory.mktemp("found") / "run")))
    for distance in (0.0, D, NATURAL):
        open_run(run.url).duplicates(distance, client=client, progress=False)
    return run


@pytest.mark.parametrize("distance", [0.0, D, NATURAL])
def test_all_duplicates_are_found_and_nothing_else(found: Run, distance: float) -> None:
    expected = by_brute_force(planted_duplicates(), distance)
    table = duplicates(found, distance)
    assert dict(zip(table.row, table.representative, strict=True)) == expected
    assert table.group.tolist() == sorted(table.group)
    assert table.groupby("group").representative.nunique().eq(1).all()
    firsts = table.drop_duplicates("group").representative
    assert firsts.is_monotonic_increasing
    assert table.id.tolist() == [f"row {row}" for row in table.row]
    assert (table.cluster.to_numpy() == found.array("label")[:][table.row]).all()


def test_every_kind_of_duplicate_that_was_planted_is_found(found: Run) -> None:
    table = duplicates(found, D).set_index("row")
    for rows in (EXACT, SCALED, NEAR, CHAIN, ZEROS):
        assert set(table.loc[rows].representative) == {rows[0]}
    assert not table.index.isin(INVALID).any()
    assert table.distance[EXACT + ZEROS].eq(0.0).all()
    assert 0.0 <= table.distance[SCALED[1]] < 1e-14  # what float32 rounds
    far = 1 - np.cos(0.9 * np.sqrt(2 * D) * 4)
    assert table.distance[CHAIN[4]] == pytest.approx(far, rel=1e-5)
    assert far > D
    equal = duplicates(found, 0.0)
    assert equal.row.tolist() == EXACT + ZEROS


def test_other_partitions_and_workers_find_the_same_bytes(
    found: Run, new_run: Callable[..., Command], client: Client
) -> None:
    other = new_run(assign__partition_rows=4 * BLOCK_ROWS).run_to_the_end()
    for distance in (D, NATURAL):
        opened = open_run(other.url.whole)
        table = opened.duplicates(distance, client=client, progress=False)
        pd.testing.assert_frame_equal(table, duplicates(found, distance))
        assert contents(other, distance) == contents(found, distance)


def test_a_search_that_was_killed_goes_on_and_damage_is_made_again(found: Run, unsearched: Run, tmp_path: Path) -> None:
    run = Run(str(shutil.copytree(unsearched.url, tmp_path / "run")))
    process = subprocess.Popen(argv(run.url, "--distance", str(D)), start_new_session=True, stdout=subprocess.DEVNULL)
    records = Path(run.url.whole) / "commit/compare_rows" / str(D)
    deadline = time.monotonic() + 120
    while not list(records.glob("*.json")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.001)
    assert process.poll() is None
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    before = {each.name: each.read_text() for each in records.glob("*.json")}
    hashed = Path(run.url.whole) / "partial/hash_rows/3.npz"
    flip_bit(hashed)
    done = search(run.url, "--distance", str(D), "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["worked"]
    assert before
    assert {name: (records / name).read_text() for name in before} == before, "committed work was done again"
    assert contents(run, D) == contents(found, D)


def test_what_was_found_is_told_and_written(found: Run, tmp_path: Path) -> None:
    options = ("--distance", str(D), "--csv", str(tmp_path / "near.csv"), "--parquet", str(tmp_path / "near.parquet"))
    done = search(found.url, *options)
    assert done.returncode == 0, done.stderr
    table = duplicates(found, D)
    groups, rows = table.group.nunique(), len(table)
    said = " ".join(done.stdout.split())
    assert "These duplicates are known; nothing was left to do." in said
    assert f"{groups} groups of {rows} rows within a cosine distance of 0.0001." in said
    assert f"{rows - groups} of {N - 2:,} rows ({(rows - groups) / (N - 2):.1%}) could go." in said
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "near.csv"), table, check_dtype=False)
    pd.testing.assert_frame_equal(pq.read_table(tmp_path / "near.parquet").to_pandas(), table, check_dtype=False)
    again = search(found.url, *options)
    assert again.returncode == WRONG
    assert "is there already: choose another place, or remove it." in again.stderr


def test_the_report_shows_the_groups_with_their_items(found: Run, tmp_path: Path) -> None:
    items = tmp_path / "items.txt"
    items.write_text("\n".join(f"item {row}." for row in range(N)) + "\n")
    page = render_page(found, ReportTable(items=str(items)))
    section = page[page.index('<section id="duplicates"') : page.index('<section id="hierarchy"')]
    of_distance = dict(zip((0.0, D, NATURAL), section.split("<h3>")[1:], strict=True))
    for distance, told in of_distance.items():
        table = duplicates(found, distance)
        groups, rows = table.group.nunique(), len(table)
        assert f"{groups:,} groups of {rows:,} rows; {rows - groups:,} of {N - 2:,} rows" in told
    assert all(f"item {row}." in of_distance[0.0] for row in EXACT + ZEROS)
    chain = of_distance[D][: of_distance[D].index(f"item {CHAIN[0]}.") + 1_000]
    farthest_first = [chain.index(f"item {row}.") for row in (CHAIN[0], CHAIN[4], CHAIN[3], CHAIN[2])]
    assert farthest_first == sorted(farthest_first)
    assert f"item {CHAIN[1]}." not in of_distance[D]


def test_a_search_makes_the_report_another_one(found: Run, unsearched: Run, tmp_path: Path) -> None:
    copy = Run(str(shutil.copytree(unsearched.url, tmp_path / "run")))
    assert made_of(copy, ReportTable()) == made_of(unsearched, ReportTable())
    assert made_of(found, ReportTable()) != made_of(unsearched, ReportTable())
    assert "Near duplicates" not in render_page(unsearched, ReportTable())


@pytest.mark.parametrize("distance", ["-0.1", "1", "nan"])
def test_a_distance_that_cannot_be_is_refused(found: Run, distance: str) -> None:
    done = search(found.url, "--distance", distance)
    assert done.returncode == WRONG
    assert "must be 0, for equal rows, or a cosine distance below 1, such as 0.01." in " ".join(done.stderr.split())


def test_duplicates_that_were_not_looked_for_are_no_empty_table(found: Run) -> None:
    with pytest.raises(JobError, match=r"near duplicates within 0\.5 have not been looked for"):
        duplicates(found, 0.5)


def test_what_is_exported_without_duplicates_has_the_first_of_each_group(found: Run, tmp_path: Path) -> None:
    copies = {row for row, first in by_brute_force(planted_duplicates(), D).items() if row != first}
    done = CliRunner().invoke(app, ["export", found.url.whole, str(tmp_path / "all"), "--without-duplicates", str(D)])
    assert done.exit_code == 0, done.output
    table = pq.read_table(tmp_path / "all").to_pandas()
    assert table.row.tolist() == sorted(set(range(N)) - copies)
    labelled = N - len(INVALID) - len(copies)
    balanced = open_run(found.url.whole).balanced(labelled, without_duplicates=D)
    assert set(balanced.index) == set(table.row) - set(INVALID)
    assert balanced.id.tolist() == [f"row {row}" for row in balanced.index]
    with pytest.raises(JobError, match=f"the run has {labelled:,} rows with a label that are no copies"):
        open_run(found.url.whole).balanced(labelled + 1, without_duplicates=D)


def test_a_choice_has_its_run_s_duplicates_and_a_prediction_its_own(found: Run, client: Client, tmp_path: Path) -> None:
    run = open_run(shutil.copytree(found.url, tmp_path / "run"))
    choice = run.choose(3, "diag", fit=True, client=client, progress=False)
    there = choice.duplicates(D, client=client, progress=False)
    pd.testing.assert_frame_equal(there.drop(columns="cluster"), duplicates(found, D).drop(columns="cluster"))
    assert there.cluster.max() <= 2
    rows = planted_duplicates()[3_000:]
    write_input(tmp_path / "new.zarr", rows)
    command = [
        sys.executable,
        "-m",
        "distcluster",
        "predict",
        run.url,
        str(tmp_path / "new.zarr"),
        str(tmp_path / "out"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    table = open_run(str(tmp_path / "out")).duplicates(D, client=client, progress=False)
    assert dict(zip(table.row, table.representative, strict=True)) == by_brute_force(rows, D)


def test_appended_rows_are_looked_for_among_all(
    new_run: Callable[..., Command], client: Client, tmp_path: Path
) -> None:
    rows = planted_duplicates()
    rows[INVALID] = rows[[1, 2]]
    source = write_input(tmp_path / "input.zarr", rows)
    command = new_run(input__id=None, input__on_invalid="error")
    command.source, command.settings = source, {k: v for k, v in command.settings.items() if k != "input.id"}
    run = open_run(command.run_to_the_end().url.whole)
    before = run.duplicates(D, client=client, progress=False)
    array = zarr.open_array(f"{source}/embeddings")
    array.append(rows[[123]])
    command.run_to_the_end("--append")
    after = open_run(run.url).duplicates(D, client=client, progress=False)
    assert N not in set(before.row)
    assert after.set_index("row").representative[N] == 123
    assert len(after) == len(before) + 2


# --- the kernels ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n_features", "distance"), [(3, 1e-3), (40, 0.05), (300, 0.3)])
def test_pairs_across_two_sets_are_those_of_brute_force(n_features: int, distance: float) -> None:
    """For codes of all features and of some axes, on rows that lie near a subspace."""
    random = np.random.default_rng(n_features)
    rows = random.normal(size=(1_500, 8)) @ random.normal(size=(8, n_features))
    rows = (rows[:, :n_features] + 0.3 * random.normal(size=rows.shape)).astype(np.float32)
    sketch = fit_sketch(rows[::3], distance)
    left, right = (code_rows(np.arange(1_500)[part], rows[part], sketch) for part in (slice(0, 700), slice(700, None)))
    pairs = np.concatenate(
        [join_near(left, left, sketch, distance), join_near(right, right, sketch, distance),
         join_near(left, right, sketch, distance)]
    )  # fmt: skip
    assert (cosine_distances(rows[pairs[:, 0]], rows, pairs[:, 1]) <= distance).all()
    _, group = connected_components(coo_matrix((np.ones(len(pairs)), pairs.T), (1_500, 1_500)), directed=False)
    expected = by_brute_force(rows, distance)
    first = pd.Series(np.arange(1_500)).groupby(group).transform("min").to_numpy()
    size = np.bincount(group)[group]
    assert len(expected) > 90
    assert {row: int(first[row]) for row in range(1_500) if size[row] > 1} == expected
