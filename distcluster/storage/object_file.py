"""Objects of a store as files that others can read, and the objects of a folder in the order of their numbers."""

import contextlib
import io
import re
from typing import Any
from urllib.parse import urlsplit

import obstore

from distcluster.job import WRITABLE_SCHEMES
from distcluster.storage.urls import file_store, local_path, object_store
from distcluster.url import Url


class ObjectFile(io.RawIOBase):
    """An object, opened for reading: every read asks the store for just these bytes."""

    def __init__(self, store: Any, path: str, size: int) -> None:
        super().__init__()
        self._store, self._path, self._size, self._position = store, path, size, 0

    def readable(self) -> bool:
        """As ``io.RawIOBase``."""
        return True

    def seekable(self) -> bool:
        """As ``io.RawIOBase``."""
        return True

    def tell(self) -> int:
        """As ``io.RawIOBase``."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """As ``io.RawIOBase``."""
        self._position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        return self._position

    def readinto(self, buffer: Any) -> int:
        """As ``io.RawIOBase``."""
        length = min(len(buffer), self._size - self._position)
        if length <= 0:
            return 0
        content = obstore.get_range(self._store, self._path, start=self._position, length=length)
        buffer[:length] = memoryview(content)
        self._position += length
        return length


def objects_of(url: Url, suffix: str) -> tuple[Any, list[tuple[str, int]]]:
    """The objects that end in a suffix: the one that a URL names, or all below it; their store, paths and sizes.

    Numbers in names count as numbers, so that ``part_2`` comes before ``part_10``. Names that begin with a dot or an
    underscore are other programs' notes.
    """
    path = local_path(url)
    if not has_pattern(url) and (url.partition("?")[0] if path is None else url).lower().endswith(suffix):
        with contextlib.suppress(FileNotFoundError, IsADirectoryError):  # a folder may have such a name, too
            store, name = file_store(url)
            return store, [(name, obstore.head(store, name)["size"])]
    store, found = listed(url)
    own = [(each["path"], each["size"]) for each in found if each["path"].lower().endswith(suffix)]
    return store, sorted([each for each in own if not _HIDDEN.search(each[0])], key=lambda each: _natural(each[0]))


def listed(url: Url) -> tuple[Any, list[Any]]:
    """What lies below a URL, or fits it where it is a pattern, and its store; nothing where that cannot be listed."""
    folder, pattern = _parted(url)
    path = local_path(folder)
    if not path.is_dir() if path is not None else urlsplit(folder).scheme not in WRITABLE_SCHEMES:  # who cannot list
        return None, []
    store = object_store(folder)
    found = (item for batch in obstore.list(store) for item in batch)
    return store, [item for item in found if pattern is None or pattern.fullmatch(item["path"])]


def has_pattern(url: Url) -> bool:
    """Whether a URL names files by a pattern: ``*`` in a name, ``**`` for folders however deep."""
    return _parted(url)[1] is not None


def may_exist(url: Url) -> bool:
    """Whether there may be something at a URL: no where it is a local path that is not there."""
    path = local_path(_parted(url)[0])
    return path is None or path.exists()


def _parted(url: Url) -> tuple[Url, re.Pattern[str] | None]:
    """A URL's folder and what fits its pattern there; the URL where it has none, or is a file's own name."""
    folder, star, rest = url.partition("*")
    path = local_path(url)
    if not star or "?" in folder or (path is not None and path.exists()):
        return url, None
    folder, _, first = folder.rpartition("/")
    parts = re.split(r"(\*\*/|\*+)", f"{first}*{rest}")
    written = (_STARS.get(part, "[^/]*") if part.startswith("*") else re.escape(part) for part in parts)
    return Url(folder or ("/" if url.startswith("/") else ".")), re.compile("".join(written))


_STARS = {"**/": "(.*/)?"}
_HIDDEN = re.compile(r"(^|/)[._]")


def _natural(name: str) -> list[tuple[bool, int, str]]:
    return [(part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in re.split(r"(\d+)", name)]
