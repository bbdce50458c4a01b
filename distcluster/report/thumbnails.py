"""Small pictures of items that are paths or URLs of images."""

import io
import logging
from base64 import b64encode
from pathlib import PurePosixPath
from urllib.parse import urlsplit

from obstore.exceptions import BaseError
from PIL import Image, ImageOps

from distcluster.storage.files import read_bytes
from distcluster.storage.urls import public_url

log = logging.getLogger("distcluster")

_SUFFIXES = (".png", ".jpg", ".jpeg", ".gif", ".webp", ".bmp", ".tif", ".tiff")
_SIDE = 96  # pixels; about 3 kB


def thumbnail(item: str, items_url: str) -> str:
    """A picture of the item as a data URL; an empty string where it is no image's name or the image cannot be read.

    Parameters
    ----------
    item : str
        A URL, an absolute path, or a path relative to the directory of ``items_url``.
    items_url : str
    """
    if PurePosixPath(urlsplit(item).path).suffix.lower() not in _SUFFIXES:
        return ""
    is_relative = "://" not in item and not item.startswith(("/", "~"))
    url = f"{items_url.rpartition('/')[0] or '.'}/{item}" if is_relative else item
    try:
        with Image.open(io.BytesIO(read_bytes(url))) as image:
            small = ImageOps.exif_transpose(image).convert("RGB")
            small.thumbnail((_SIDE, _SIDE))
    except (OSError, BaseError, ValueError, Image.DecompressionBombError) as error:
        log.warning("%s cannot be shown: %s", public_url(url), error)
        return ""
    file = io.BytesIO()
    small.save(file, "WEBP", quality=75)
    return "data:image/webp;base64," + b64encode(file.getvalue()).decode()
