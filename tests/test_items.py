"""Items read the same from every format."""

import json
from base64 import b64decode
from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zarr
from PIL import Image

from distcluster.errors import JobError
from distcluster.report.thumbnails import thumbnail
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
    with pytest.raises(JobError, match=r"id, text, not 'title'"):
        require_items(url, "title")


@pytest.mark.parametrize("name", ["items.txt", "items.jsonl", "items.parquet", "items.zarr"])
def test_missing_items_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(JobError, match=r"report\.items: there is no"):
        require_items(str(tmp_path / name), "text")


def test_image_names_become_thumbnails_and_others_do_not(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "pictures").mkdir()
    Image.new("RGB", (400, 200), (200, 10, 10)).save(tmp_path / "pictures" / "red.png")
    (tmp_path / "pictures" / "torn.jpg").write_bytes(b"no image")
    items = str(tmp_path / "items.txt")
    for name in ("pictures/red.png", str(tmp_path / "pictures" / "red.png"), (tmp_path / "pictures/red.png").as_uri()):
        data = thumbnail(name, items)
        with Image.open(BytesIO(b64decode(data.removeprefix("data:image/webp;base64,")))) as small:
            assert small.size == (96, 48)
            assert np.abs(np.array(small)[24, 48].astype(int) - (200, 10, 10)).max() < 8
    assert thumbnail("a red picture", items) == ""
    assert caplog.messages == []
    assert thumbnail("pictures/torn.jpg", items) == thumbnail("pictures/none.png", items) == ""
    assert len(caplog.messages) == 2


def test_a_line_that_is_not_json_is_refused_with_its_row(tmp_path: Path) -> None:
    (tmp_path / "items.jsonl").write_text('{"text": "a"}\nnonsense\n')
    with pytest.raises(JobError, match=r"row 1 of .* is not JSON"):
        read_items(str(tmp_path / "items.jsonl"), [0, 1], "text")
