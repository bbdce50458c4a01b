"""What a stranger or a typing error can give: each ends in a sentence, before any work."""

import json
import pickle
import zipfile
from pathlib import Path

import pytest
import zarr
from conftest import planted_rows, write_input
from typer.testing import CliRunner

from benchmarks.attack import attack
from distcluster.cli.main import app
from distcluster.cli.tables import status_table
from distcluster.cli.terminal import open_console
from distcluster.errors import JobError
from distcluster.execution.status import Status
from distcluster.job import InputTable
from distcluster.job_file import load_job
from distcluster.prepare import check_job
from distcluster.storage.run import Run
from distcluster.storage.urls import absolute_url, refuse_nested
from distcluster.url import Url, without_secrets

GOOD = planted_rows(400, 4)[0]


@pytest.fixture(autouse=True)
def _no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hosts that are not there are tried again for a second, not for minutes."""
    monkeypatch.setenv("DISTCLUSTER_STORE_SECONDS", "1")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    write_input(tmp_path / "in.zarr", GOOD)
    return tmp_path


def write_job(place: Path, text: str = "", **urls: str) -> Path:
    url = {"input": str(place / "in.zarr"), "output": str(place / "out")} | urls
    (place / "job.toml").write_text(
        "\n".join(f"{table}.url = {json.dumps(value)}" for table, value in url.items()) + f"\n{text}\n"
    )
    return place / "job.toml"


def test_random_damage_to_everything_that_is_read_ends_in_a_sentence(reference: Run) -> None:
    ends, findings = attack(Path(reference.url), each=30, seed=1)
    assert findings == []
    assert all(counts.total() == 30 and len(counts) > 1 for target, counts in ends.items() if target != "run")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = " + "[" * 5000, "is not TOML"),
        (f"sample.seed = 1{'0' * 5000}", "is not TOML"),
        ('deploy.memory_limit = "plenty"', "must be a size"),
        ("mixture.reg_covar = inf", "mixture.reg_covar: Input should be a finite number"),
        ("mixture.tol = nan", "mixture.tol"),
        ("projection.n_epochs = 1_000_000_000_000_000_000", "projection.n_epochs: Input should be less than"),
        ("mixture.n_init = 1_000_000_000", "mixture.n_init"),
        ("deploy.n_workers = 1_000_000_000", "deploy.n_workers"),
        ("assign.block_rows = 1_000_000_000_000", "assign.block_rows"),
        (r'report.items = "a\u0000b"', "hold no control characters"),
        ('deploy.kind = "address"', "no scheduler is known"),
    ],
)
@pytest.mark.parametrize("command", ["plan", "run"])
def test_a_wrong_job_is_refused_by_plan_and_run_alike(command: str, text: str, message: str, place: Path) -> None:
    done = CliRunner().invoke(app, [command, str(write_job(place, text))])
    assert isinstance(done.exception, JobError)
    assert message in str(done.exception)
    assert not (place / "out").exists()


@pytest.mark.parametrize(
    ("urls", "message"),
    [
        ({"output": "foo://bucket/run"}, "a run can be written to a local path or to"),
        ({"output": "memory://run"}, "a run can be written to a local path or to"),
        ({"output": "https://host/run"}, "a run can be written to a local path or to"),
        ({"output": "~nobody-has-this-name/run"}, "is no path"),
        ({"output": "a\0b"}, "hold no control characters"),
        ({"input": "foo://bucket/in"}, "cannot open foo://bucket/in as Zarr"),
        ({"input": "s3://"}, "s3://"),
        ({"input": ""}, "must be a path or a URL"),
    ],
)
def test_a_url_that_is_none_is_refused(urls: dict[str, str], message: str, place: Path) -> None:
    with pytest.raises(JobError) as error:
        check_job(load_job(write_job(place, **urls)))
    assert message in str(error.value)


@pytest.mark.parametrize("command", ["plan", "run"])
def test_plan_refuses_an_output_that_run_refuses(command: str, place: Path) -> None:
    (place / "out").mkdir()
    (place / "out" / "thesis.txt").write_text("mine")
    done = CliRunner().invoke(app, [command, str(write_job(place))])
    assert "holds something else (thesis.txt)" in str(done.exception)


# --- sizes ------------------------------------------------------------------------------------------------------


def declared(place: Path, shape: list[int], chunks: list[int]) -> Path:
    """An input that says that it has this shape, and has no chunk."""
    zarr.create_array(str(place / "huge.zarr"), shape=(10, 4), dtype="float32", chunks=(10, 4))
    file = place / "huge.zarr" / "zarr.json"
    metadata = json.loads(file.read_text())
    metadata["shape"], metadata["chunk_grid"]["configuration"]["chunk_shape"] = shape, chunks
    file.write_text(json.dumps(metadata))
    return file.parent


@pytest.mark.parametrize(
    ("shape", "chunks", "message"),
    [
        ([10**15, 4], [1000, 4], "partitions of"),
        ([1000, 10**9], [1000, 1000], "a worker needs"),
        ([1000, 16], [10**9, 10**6], "which is read whole, needs"),
        ([10**9, 4], [1, 4], "1,000,000,000 chunks of rows are not in"),
    ],
)
def test_a_shape_that_cannot_be_is_refused_with_its_figures(
    shape: list[int], chunks: list[int], message: str, place: Path
) -> None:
    with pytest.raises(JobError) as error:
        check_job(load_job(write_job(place, input=str(declared(place, shape, chunks)))))
    assert message in str(error.value)


def test_a_zip_whose_chunk_unpacks_to_more_than_a_chunk_is_refused(place: Path) -> None:
    with zarr.storage.ZipStore(place / "bomb.zip", mode="w") as store:
        zarr.create_array(store, name="embeddings", data=GOOD, chunks=(400, 16), compressors=None)
    with (
        zipfile.ZipFile(place / "bomb.zip") as good,
        zipfile.ZipFile(place / "bad.zip", "w", zipfile.ZIP_DEFLATED) as bad,
    ):
        for name in good.namelist():
            bad.writestr(name, bytes(50_000_000) if name.endswith("c/0/0") else good.read(name))
    assert (place / "bad.zip").stat().st_size < 100_000
    with pytest.raises(JobError, match=r"embeddings/c/0/0 in .* unpacks to 50,000,000 bytes"):
        check_job(load_job(write_job(place, input=str(place / "bad.zip"))))


def test_a_zip_whose_metadata_unpack_to_more_than_metadata_is_refused(place: Path) -> None:
    with zipfile.ZipFile(place / "bad.zip", "w", zipfile.ZIP_DEFLATED) as bad:
        bad.writestr("zarr.json", bytes(100_000_000))
    with pytest.raises(JobError, match=r"zarr.json in .* unpacks to 100,000,000 bytes"):
        check_job(load_job(write_job(place, input=str(place / "bad.zip"))))


@pytest.mark.parametrize("damage", [b"", b"garbage", None])
def test_a_chunk_that_cannot_be_read_names_its_rows(damage: bytes | None, place: Path) -> None:
    from distcluster.numerics.partition import Partitioning
    from distcluster.storage.inputs import open_input, read_block

    chunk = place / "in.zarr" / "embeddings" / "c" / "0" / "0"
    chunk.write_bytes(chunk.read_bytes()[:50] if damage is None else damage)
    array, parts = open_input(str(place / "in.zarr"), "embeddings"), Partitioning(400, 64, 512)
    with pytest.raises(JobError, match=r"rows 64 to 127 of .*in.zarr cannot be read"):
        read_block(array, "in.zarr", list(parts.blocks(parts[0]))[1])


# --- words ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "spelt", ["{in}/../in.zarr/out", "file://{in}/out", "file://{root}/x/../in.zarr/out", "{link}/o"]
)
def test_an_output_inside_the_input_is_seen_however_it_is_spelt(spelt: str, place: Path) -> None:
    (place / "link").symlink_to(place / "in.zarr")
    output = spelt.format_map({"in": place / "in.zarr", "root": place, "link": place / "link"})
    with pytest.raises(JobError, match="lies inside the input"):
        refuse_nested(str(place / "in.zarr"), output)


def test_a_file_url_is_a_path(tmp_path: Path) -> None:
    assert absolute_url(f"file://{tmp_path}/a%20b/../c") == str(tmp_path / "c")


SECRETS = (
    "https://me:pw@host/a?sig=s3cr3t", "zip://a.zarr::https://me:pw@host/b.zip?sig=s3cr3t", "s3://key:pw@bucket/in#s3cr3t",
    "simplecache::s3://pw@bucket/in?s3cr3t", "https://me:pw('s3cr3t@host/x",
)  # fmt: skip


@pytest.mark.parametrize("url", SECRETS)
def test_no_credential_of_a_url_is_shown(url: str, place: Path) -> None:
    shown = Url(url)
    table = InputTable(url=shown)
    of_url = (str(shown), repr(shown), f"{shown:>9}", "%s" % shown, table.model_dump_json(), repr(table))  # noqa: UP031
    for text in (*of_url, without_secrets(f"cannot open {url}: gone"), without_secrets(f"'{url}'")):
        assert "s3cr3t" not in text
        assert "pw" not in text
    if not url.startswith("s3://"):
        done = CliRunner().invoke(app, ["plan", str(write_job(place, input=url))])
        assert "s3cr3t" not in str(done.exception)
    travelled = pickle.loads(pickle.dumps(absolute_url(shown)))
    assert (type(travelled), travelled.whole, table.url.whole) == (Url, url, url)


def test_what_strangers_wrote_cannot_steer_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    open_console().print(status_table(Status([], False, "bad \x1b]0;title\x07 \x9b2J"), bars=False))
    said = capsys.readouterr().out
    assert "bad " in said
    assert not set("\x1b\x07\x9b") & set(said)
