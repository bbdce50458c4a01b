"""An object store in memory that speaks S3, answers after a while, and counts what it is asked.

    python -m benchmarks.object_store PORT_FILE

A record that is put with the metadata ``like: KEY`` brings the objects that it names with it: they have the content of
those that the record ``KEY`` names, in their order. So a task that is only simulated needs one request, and is counted
as the requests that it stands for (the metadata ``stands-for``).
"""

import asyncio
import itertools
import json
import re
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from subprocess import Popen
from typing import Any
from urllib.request import Request, urlopen
from xml.sax.saxutils import escape, unescape

import xxhash
from aiohttp import web
from sortedcontainers import SortedDict

from benchmarks.servers import SILENT, s3_environment, wait_for_http
from benchmarks.traffic import kind_of, owner_of

_PAGE = 1_000  # keys of an answer, as S3 has it
_LARGEST = 2**30


class Objects:
    """Keys with their content, entity tag and time."""

    def __init__(self) -> None:
        self.latency = 0.0
        self.found: SortedDict = SortedDict()
        self.gone: dict[str, Any] = {}  # deleted: a record can still be like one that named them
        self.uploads: dict[str, dict[int, bytes]] = {}
        self.asked: Counter[str] = Counter()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """One request, a round trip later."""
        key, query = request.match_info["key"], request.query
        body = await request.read()
        self.asked[f"{owner_of(request.path_qs)} {kind_of(request.method, request.path_qs)}"] += 1
        await asyncio.sleep(self.latency)
        if request.method == "GET" and "list-type" in query:
            return self._listed(query)
        if request.method == "POST" and "delete" in query:
            keys = re.findall(r"<Key>(.*?)</Key>", body.decode())
            for each in keys:
                self._forget(unescape(each))
            gone = "".join(f"<Deleted><Key>{each}</Key></Deleted>" for each in keys)
            return web.Response(text=f"<DeleteResult>{gone}</DeleteResult>")
        if request.method == "DELETE":
            self._forget(key)
            return web.Response(status=204)
        if request.method in ("PUT", "POST"):
            return self._put(request, key, body)
        if key not in self.found:
            return web.Response(status=404, text="<Error><Code>NoSuchKey</Code></Error>")
        return _got(request, *self.found[key])

    def _put(self, request: web.Request, key: str, body: bytes) -> web.Response:
        upload = request.query.get("uploadId", key)
        if "uploads" in request.query:
            self.uploads[upload] = {}
            number = f"<UploadId>{escape(upload)}</UploadId>"
            return web.Response(text=f"<InitiateMultipartUploadResult>{number}</InitiateMultipartUploadResult>")
        if "partNumber" in request.query:
            self.uploads[upload][int(request.query["partNumber"])] = body
            return web.Response(headers={"ETag": '"part"'})
        if request.method == "POST":
            body = b"".join(part for _, part in sorted(self.uploads.pop(upload).items()))
        if request.headers.get("If-None-Match") == "*" and key in self.found:
            return web.Response(status=412, text="<Error><Code>PreconditionFailed</Code></Error>")
        like = request.headers.get("x-amz-meta-like")
        tag = self.keep(key, body, like)
        if like is not None:
            self.asked[f"{owner_of(request.path)} simulated"] += int(request.headers["x-amz-meta-stands-for"])
        text = f"<CompleteMultipartUploadResult><ETag>{tag}</ETag></CompleteMultipartUploadResult>"
        return web.Response(text=text, headers={"ETag": tag})

    def keep(self, key: str, body: bytes, like: str | None = None) -> str:
        """Take an object; with a record's key, objects like that record's too."""
        tag = f'"{xxhash.xxh3_64_hexdigest(body + key.encode())}"'
        self.found[key] = (body, tag, datetime.now(UTC))
        if like is not None:
            self._copy(key, json.loads(body), like)
        return tag

    def _forget(self, key: str) -> None:
        if key in self.found:
            self.gone[key] = self.found.pop(key)

    def _copy(self, key: str, record: dict[str, Any], like: str) -> None:
        here, there = key.partition("/commit/")[0], like.partition("/commit/")[0]
        copied = json.loads(self.found[like][0])["objects"]
        for new, old in zip(record["objects"], copied, strict=True):
            self.found[f"{here}/{new}"] = self.found.get(f"{there}/{old}") or self.gone[f"{there}/{old}"]

    def _listed(self, query: Any) -> web.Response:
        prefix = query.get("prefix", "")
        after = query.get("continuation-token") or query.get("start-after") or prefix
        keys = self.found.irange(after, f"{prefix}\U0010ffff", inclusive=(after == prefix, False))
        page = list(itertools.islice(keys, _PAGE + 1))
        contents = "".join(
            f"<Contents><Key>{escape(each)}</Key><LastModified>{self.found[each][2]:%Y-%m-%dT%H:%M:%S.%fZ}"
            f"</LastModified><ETag>{escape(self.found[each][1])}</ETag><Size>{len(self.found[each][0])}</Size></Contents>"
            for each in page[:_PAGE]
        )
        more = f"<NextContinuationToken>{escape(page[_PAGE - 1])}</NextContinuationToken>" if len(page) > _PAGE else ""
        return web.Response(
            text=f"<ListBucketResult><IsTruncated>{str(bool(more)).lower()}</IsTruncated>{more}{contents}"
            "</ListBucketResult>"
        )


def _got(request: web.Request, body: bytes, tag: str, time: datetime) -> web.Response:
    """An object, or the range of it that is asked for."""
    headers = {"ETag": tag, "Last-Modified": f"{time:%a, %d %b %Y %H:%M:%S GMT}"}
    if wanted := re.fullmatch(r"bytes=(\d*)-(\d*)", request.headers.get("Range", "")):
        first, last = wanted.groups()
        start = int(first) if first else max(0, len(body) - int(last))
        stop = min(int(last) + 1, len(body)) if first and last else len(body)
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(body)}"
        return web.Response(status=206, body=body[start:stop], headers=headers)
    if request.method == "HEAD":
        return web.Response(headers=headers | {"Content-Length": str(len(body))})
    return web.Response(body=body, headers=headers)


@contextmanager
def object_store(directory: Path) -> Iterator[dict[str, str]]:
    """A store as a process of its own: the environment that points at it."""
    file = directory / "port"
    process = Popen([sys.executable, "-m", "benchmarks.object_store", str(file)], **SILENT)
    try:
        while not file.exists() or not file.read_text():
            assert process.poll() is None, "the store did not start"
            asyncio.run(asyncio.sleep(0.05))
        endpoint = f"http://127.0.0.1:{file.read_text()}"
        wait_for_http(f"{endpoint}/-/asked")
        yield s3_environment(endpoint)
    finally:
        process.terminate()
        process.wait(timeout=30)


def asked(environ: dict[str, str], *, latency: float | None = None) -> Counter[str]:
    """Requests so far, by owner and kind; what follows is answered after so many seconds."""
    query = "" if latency is None else f"?latency={latency}"
    with urlopen(f"{environ['AWS_ENDPOINT_URL']}/-/asked{query}") as answer:
        return Counter(json.load(answer))


def give(environ: dict[str, str], records: list[tuple[str, dict[str, Any], str]]) -> None:
    """Put records in bulk, each with its key and that of the record that it is like; no time passes."""
    body = json.dumps(records).encode()
    urlopen(Request(f"{environ['AWS_ENDPOINT_URL']}/-/take", body, {"Content-Type": "application/json"})).close()


async def _serve(file: Path) -> None:
    objects = Objects()

    async def tell(request: web.Request) -> web.Response:
        objects.latency = float(request.query.get("latency", objects.latency))
        return web.json_response(objects.asked)

    async def take(request: web.Request) -> web.Response:
        """Records in bulk, at once: each with its key and that of the record that it is like."""
        for key, record, like in await request.json():
            objects.keep(key, json.dumps(record).encode(), like)
        return web.Response()

    app = web.Application(client_max_size=_LARGEST)
    app.router.add_get("/-/asked", tell)
    app.router.add_post("/-/take", take)
    app.router.add_route("*", "/bucket{slash:/?}{key:.*}", objects.answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    file.write_text(str(runner.addresses[0][1]))
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_serve(Path(sys.argv[1])))
