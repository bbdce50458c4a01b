"""Small pictures of items that are paths or URLs of images."""

import io
import logging
from base64 import b64encode
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import PurePosixPath

import obstore
from PIL import Image, ImageOps

from distcluster.report.shown_items import IMAGE
from distcluster.storage.files import read_http
from distcluster.storage.urls import absolute_url, local_path, object_store, reason_of
from distcluster.url import Url

log = logging.getLogger("distcluster")

_FORMATS = {
    ".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".gif": "GIF", ".webp": "WEBP", ".bmp": "BMP", ".tif": "TIFF",
    ".tiff": "TIFF",
}  # fmt: skip
_SIDE = 96  # pixels; about 3 kB
_MOST_PIXELS = 30_000_000  # some hundred megabytes while it is made small
_SECONDS = 10.0  # for a server to answer in
_AT_ONCE = 4


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
    if PurePosixPath(item.partition("?")[0].partition("#")[0]).suffix.lower() not in _FORMATS:
        return ""
    try:
        content = _read(item, items_url, remote)
        with Image.open(io.BytesIO(content), formats=sorted(set(_FORMATS.values()))) as image:
            if image.width * image.height > _MOST_PIXELS:
                raise ValueError(f"{image.width} x {image.height} pixels are too many")
            small = ImageOps.exif_transpose(image).convert("RGB")
            small.thumbnail((_SIDE, _SIDE))
            file = io.BytesIO()
            small.save(file, "WEBP", quality=75)
    except Exception as error:  # whatever a server, a file or a decoder does: one picture is no reason for no report
        log.warning("%s cannot be shown: %s", Url(item), reason_of(error))
        return ""
    return IMAGE + b64encode(file.getvalue()).decode()


def _read(item: str, items_url: str, remote: bool) -> bytes:
    """An item's image.

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
        if not item.startswith(("http://", "https://")):  # others would be asked with the user's credentials
            raise ValueError("only http and https URLs are asked for")
        return read_http(item, _SECONDS)
    if directory is None:  # items in an object store have their images below them; its paths know no dots
        return bytes(obstore.get(object_store(root, seconds=_SECONDS), item).bytes())
    path = (directory / (local_path(item) or item)).resolve()
    if not path.is_relative_to(directory.resolve()):
        raise ValueError(f"it lies outside {directory}")
    return path.read_bytes()
