"""Clusters named by a function or a language model: asked once for each, whatever happens in between."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from conftest import Command

import distcluster
from distcluster.errors import JobError
from distcluster.export import export_run
from distcluster.job import ReportTable
from distcluster.report.page import render_page, write_report
from distcluster.storage.run import Run


class Model(BaseHTTPRequestHandler):
    """An API like OpenAI's, that answers with the number of the question until it has answered ``enough``."""

    asked: list[str]
    enough: int

    def do_POST(self) -> None:
        """Answer a question."""
        question = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        is_known = self.path == "/v1/chat/completions" and question["model"] == "small"
        is_known &= len(self.asked) < self.enough
        self.send_response(200 if is_known else 404)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        if is_known:
            self.asked.append(question["messages"][0]["content"])
            content = f'"Name <{len(self.asked)}>".\nAnd more.'
            answer = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": content}}
            said = {"id": "1", "object": "chat.completion", "created": 0, "model": "small", "choices": [answer]}
            self.wfile.write(json.dumps(said).encode())

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def model() -> Iterator[tuple[type[Model], str]]:
    """The server's class, whose attributes a test reads and sets, and its address."""
    kind = type("Server", (Model,), {"asked": [], "enough": 1000})
    server = ThreadingHTTPServer(("127.0.0.1", 0), kind)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield kind, f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    server.server_close()


@pytest.fixture
def run(finished: Command) -> Run:
    return Run(str(finished.output))


def test_every_cluster_is_asked_for_once_and_its_name_is_on_the_page_in_exports_and_in_python(
    run: Run, model: tuple[type[Model], str], tmp_path: Path
) -> None:
    server, url = model
    table = ReportTable(names={"model": "small", "url": url, "prompt": "What is {words} of\n{items}?"})
    server.enough = 2
    write_report(run, table)
    K = len(run.array("cluster/size")[:])
    assert len(server.asked) == 2 < K
    assert json.loads(run.store.get("report/names.json") or b"")["clusters"] == {"0": "Name <1>", "1": "Name <2>"}
    server.enough = 1000
    write_report(run, table)
    n_asked = len(server.asked)
    assert n_asked > K, "levels have names, too"
    assert len(set(server.asked)) == n_asked
    assert server.asked[0].startswith("What is  of\n- row ")
    write_report(run, table)
    assert len(server.asked) == n_asked
    page = render_page(run, ReportTable())
    assert "Name &lt;1&gt;" in page
    assert f"Given by small at {url}" in page
    exported = pq.read_table(export_run(run, tmp_path / "rows", "parquet", ReportTable())).to_pandas()
    assert (exported.name == [f"Name <{label + 1}>" for label in exported.label]).all()
    assert distcluster.open_run(run.url.whole).clusters.name.tolist() == [f"Name <{k + 1}>" for k in range(K)]


def test_a_function_names_them_from_the_command_line(run: Run, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("def name(prompt):\n    return f'{len(prompt)} letters'\n")
    command = [sys.executable, "-m", "distcluster", "report", run.url.whole, "--names-function"]
    done = subprocess.run([*command, "mine:name"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "letters" in (run.store.get("report/index.html") or b"").decode()
    missing = subprocess.run([*command, "mine:other"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert missing.returncode == 2
    assert "report.names.function: mine:other cannot be imported" in " ".join(missing.stderr.split())


@pytest.mark.parametrize(
    ("names", "wrong"),
    [
        ({}, "wants one of model and function"),
        ({"model": "a", "function": "b:c"}, "wants one of model and function"),
        ({"function": "b"}, "module:function"),
        ({"model": "a", "prompt": "{cluster}"}, "no braces but those"),
    ],
)
def test_a_wrong_table_is_refused(names: dict[str, str], wrong: str) -> None:
    with pytest.raises((ValueError, JobError), match=wrong):
        ReportTable(names=names)
