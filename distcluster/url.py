"""A URL that prints itself without what only a store should see: user, password, query, fragment."""

import re
from typing import Any, Self
from urllib.parse import urlsplit, urlunsplit

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema


class Url(str):
    """A URL, a chain of them as fsspec has it, or a local path.

    Its characters are the whole, for those that open it. What ``str``, ``repr``, ``format``, an f-string, a log or a
    dumped job show has neither user nor password, query nor fragment, which may be credentials or a signature.

    Examples
    --------
    >>> url = Url("zip://a.zarr::https://me:pw@host/b.zip?sig=abc")
    >>> print(url)
    zip://a.zarr::https://host/b.zip
    >>> url.whole
    'zip://a.zarr::https://me:pw@host/b.zip?sig=abc'
    """

    __slots__ = ()

    def __new__(cls, text: str) -> Self:
        """A Url of a Url is whole: its ``str`` would not be."""
        return super().__new__(cls, str.__str__(text))

    @property
    def whole(self) -> str:
        """As a string that hides nothing."""
        return str.__str__(self)

    def joined(self, name: str) -> "Url":
        """What lies below it, a query kept at the end.

        Examples
        --------
        >>> Url("https://host/rows.parquet?sig=abc").joined("text").whole
        'https://host/rows.parquet/text?sig=abc'
        """
        place, mark, query = self.whole.partition("?")
        return Url(f"{place.rstrip('/')}/{name}{mark}{query}")

    def parted(self) -> "tuple[Url, str]":
        """What it lies below, and its name there: the reverse of ``joined``."""
        place, mark, query = self.whole.partition("?")
        above, _, name = place.rstrip("/").rpartition("/")
        return Url(f"{above or '/'}{mark}{query}"), name

    def __str__(self) -> str:
        return "::".join(_shown(link) for link in self.split("::"))

    def __repr__(self) -> str:
        return repr(str(self))

    def __format__(self, spec: str) -> str:
        return format(str(self), spec)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(
            cls._usable, core_schema.str_schema(), serialization=core_schema.to_string_ser_schema()
        )

    @classmethod
    def _usable(cls, text: str) -> Self:
        """Refuse what no store takes, and what a terminal or a log would obey."""
        if not text or not text.isprintable():
            raise ValueError("must be a path or a URL, and hold no control characters")
        urlsplit(text)  # a ValueError says what is wrong with its host
        return cls(text)


def _shown(url: str) -> str:
    if "://" not in url:
        return url
    try:
        parts = urlsplit(url)
    except ValueError:  # brackets that are no address
        return f"{url.partition('://')[0]}://..."
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def without_secrets(text: str) -> str:
    """A text of others, its URLs as they are shown: stores put whole URLs into their messages.

    Examples
    --------
    >>> without_secrets("GET https://me:pw@host/x/zarr.json?signature=abc: 403")
    'GET https://host/x/zarr.json: 403'
    >>> without_secrets("use a URL (s3://, gs://)")
    'use a URL (s3://, gs://)'
    """
    text = _USER.sub("", text)
    return _URL.sub(lambda found: f"{Url(found[0].rstrip(_STOPS))}{found[0][len(found[0].rstrip(_STOPS)) :]}", text)


_STOPS = ":,.;"  # of a sentence, after a URL
_USER = re.compile(r"(?<=://)[^/\s]*@")  # a password may hold quotes and brackets
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://(?![,;])[^\s'\"<>()]+")
