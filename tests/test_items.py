"""Items read the same from every format."""

import json
import threading
from base64 import b64decode
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zarr
from PIL import Image

from distcluster.errors import JobError
from distcluster.report.shown_items import IMAGE
from distcluster.report.thumbnails import thumbnails
from distcluster.storage.items import read_items, require_items

TEXTS = [f"item {i}: Grüße, “quoted”" for i in range(2_500)]
ROWS = [0, 7, 1_000, 2_499]


def write(path: Path) -> str:
    """The texts in the format of the path's suffix."""
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps({"id": i, "text": text}) + "\n" for i, text in enumerate(TEXTS)))
    elif path.suffix == ".parquet":
        table = pa.table({"id": range(len(TEXTS)), "text": TEXTS})
        pq.write_table(table, path, row_group_size=1_000)
    elif path.suffix == ".zarr":
        zarr.create_array(path, data=np.array(TEXTS, np.dtypes.StringDType()), chunks=(600,))
    else:
        path.write_text("\n".join(TEXTS) + "\n")
    return str(path)


@pytest.mark.parametrize("name", ["items.txt", "items.jsonl", "items.parquet", "items.zarr"])
def test_every_format_gives_the_same_items(tmp_path: Path, name: str) -> None:
    url = write(tmp_path / name)
    require_items(url, "text")
    assert read_items(url, [*ROWS[::-1], 2_500, 7], "text") == {row: TEXTS[row] for row in ROWS}


@pytest.mark.parametrize("name", ["items.jsonl", "items.parquet"])
def test_a_missing_column_is_refused_with_those_that_are_there(tmp_path: Path, name: str) -> None:
    url = write(tmp_path / name)
    with pytest.raises(JobError, match=r"id, text, not 'title'") as error:
        require_items(url, "title")
    assert str(error.value).count("report.items") == 1  # one sentence, not one inside another


@pytest.mark.parametrize("name", ["items.txt", "items.jsonl", "items.parquet", "items.zarr"])
def test_missing_items_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(JobError, match=r"report\.items: there is no"):
        require_items(str(tmp_path / name), "text")


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A directory of items with images below it, and one image beside it."""
    (tmp_path / "own" / "pictures").mkdir(parents=True)
    for place in (tmp_path / "own" / "pictures" / "red.png", tmp_path / "beside.png"):
        Image.new("RGB", (400, 200), (200, 10, 10)).save(place)
    return tmp_path / "own"


def shown(name: str, directory: Path, remote: bool = False) -> str:
    return thumbnails({7: name}, str(directory / "items.txt"), remote=remote).get(7, "")


def test_image_names_become_thumbnails_and_others_do_not(pictures: Path, caplog: pytest.LogCaptureFixture) -> None:
    red = pictures / "pictures" / "red.png"
    for name in ("pictures/red.png", str(red), red.as_uri()):
        with Image.open(BytesIO(b64decode(shown(name, pictures).removeprefix(IMAGE)))) as small:
            assert small.size == (96, 48)
            assert np.abs(np.array(small)[24, 48].astype(int) - (200, 10, 10)).max() < 8
    assert shown("a red picture", pictures) == ""
    assert caplog.messages == []


@pytest.mark.parametrize("name", ["../beside.png", "{beside}", "file://{beside}", "pictures/link.png", "~/beside.png"])
def test_an_image_that_lies_elsewhere_is_not_read(
    name: str, pictures: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(pictures.parent))
    (pictures / "pictures" / "link.png").symlink_to(pictures.parent / "beside.png")
    assert shown(name.format(beside=pictures.parent / "beside.png"), pictures) == ""
    assert "cannot be shown: " in caplog.text


def test_what_is_no_image_costs_its_own_picture_only(pictures: Path, caplog: pytest.LogCaptureFixture) -> None:
    (pictures / "torn.jpg").write_bytes(b"no image")
    (pictures / "script.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    Image.new("1", (20_000, 20_000)).save(pictures / "huge.png")
    odd = ["torn.jpg", "none.png", "script.png", "huge.png", "\0.png", "pictures/red.png", "https://[gone]/page"]
    items = dict(enumerate(odd))
    assert thumbnails(items, str(pictures / "items.txt"), remote=False).keys() == {5}
    assert len(caplog.messages) == 5


def test_urls_are_asked_for_only_where_the_job_says_so(pictures: Path, caplog: pytest.LogCaptureFixture) -> None:
    asked: list[str] = []

    class Server(SimpleHTTPRequestHandler):
        def log_message(self, _format: str, *arguments: object) -> None:
            asked.append(self.path)

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Server, directory=str(pictures))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/pictures/red.png"
        assert shown(url, pictures) == ""
        assert asked == []
        assert "report.remote_images = true" in caplog.text
        assert shown(url, pictures, remote=True).startswith(IMAGE)
        assert "/pictures/red.png" in asked
        server.shutdown()
    for other in ("s3://bucket/red.png", "FILE:///etc/red.png", "ftp://host/red.png"):
        assert shown(other, pictures, remote=True) == ""
        assert "only http and https" in caplog.messages[-1]


def test_a_line_that_is_not_json_is_refused_with_its_row(tmp_path: Path) -> None:
    (tmp_path / "items.jsonl").write_text('{"text": "a"}\nnonsense\n')
    with pytest.raises(JobError, match=r"row 1 of .* is not JSON"):
        read_items(str(tmp_path / "items.jsonl"), [0, 1], "text")
