"""Small pictures of items that are paths or URLs of images."""

import io
import logging
from base64 import b64encode
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from PIL import Image, ImageOps

from distcluster.report.shown_items import IMAGE
from distcluster.storage.faults import reason_of
from distcluster.storage.files import read_bytes
from distcluster.storage.urls import absolute_url, local_path, public_url

log = logging.getLogger("distcluster")

_FORMATS = {
    ".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".gif": "GIF", ".webp": "WEBP", ".bmp": "BMP", ".tif": "TIFF",
    ".tiff": "TIFF",
}  # fmt: skip
_SIDE = 96  # pixels; about 3 kB
_MOST_PIXELS = 50_000_000  # 150 MB while it is made small
_SECONDS = 10.0  # for a server to answer in
_AT_ONCE = 8


def thumbnails(items: Mapping[int, str], items_url: str, *, remote: bool) -> dict[int, str]:
    """Pictures as data URLs, by row; rows whose item is no image's name, or an image that cannot be had, are absent.

    Parameters
    ----------
    items : mapping of int to str
        By row: paths below the directory of ``items_url``, or URLs.
    items_url : str
    remote : bool
        Whether URLs may be asked for. Local paths that lead elsewhere are never read: items can come from a stranger.
    """
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        made = threads.map(partial(_thumbnail, items_url=items_url, remote=remote), items.values())
        return {row: image for row, image in zip(items, made, strict=True) if image}


def _thumbnail(item: str, items_url: str, remote: bool) -> str:
    if PurePosixPath(urlsplit(item).path if "://" in item else item).suffix.lower() not in _FORMATS:
        return ""
    try:
        content = read_bytes(_place(item, items_url, remote), seconds=_SECONDS)
        with Image.open(io.BytesIO(content), formats=sorted(set(_FORMATS.values()))) as image:
            if image.width * image.height > _MOST_PIXELS:
                raise ValueError(f"{image.width} x {image.height} pixels are too many")
            small = ImageOps.exif_transpose(image).convert("RGB")
            small.thumbnail((_SIDE, _SIDE))
            file = io.BytesIO()
            small.save(file, "WEBP", quality=75)
    except Exception as error:  # whatever a server, a file or a decoder does: one picture is no reason for no report
        log.warning("%s cannot be shown: %s", public_url(item), reason_of(error))
        return ""
    return IMAGE + b64encode(file.getvalue()).decode()


def _place(item: str, items_url: str, remote: bool) -> str:
    """Where an item's image is.

    Raises
    ------
    ValueError
        When it is not to be read.
    """
    root = absolute_url(items_url).rpartition("/")[0] or "/"
    directory = local_path(root)
    if "://" in item and not item.startswith("file://"):
        if not remote:
            raise ValueError("report.remote_images = true allows to ask for URLs")
        return item
    if directory is None:  # items in an object store have their images below them
        if item.startswith(("/", "file://")) or ".." in PurePosixPath(item).parts:
            raise ValueError(f"it lies outside {public_url(root)}")
        return f"{root}/{item}"
    path = (directory / (local_path(item) or item)).resolve()
    if not path.is_relative_to(directory.resolve()):
        raise ValueError(f"it lies outside {directory}")
    return str(Path(path))
