"""The page on the Dask dashboard in a real browser; a picture of it during a run is left in build/screenshots."""

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import numpy as np
from conftest import Command, unequal
from playwright.sync_api import Browser, Page

from benchmarks.servers import dask_cluster
from distcluster.storage.run import Run

PICTURES = Path(__file__).parent.parent / "build" / "screenshots"
COLUMN = """([source, name]) => [...[...Bokeh.documents[0].all_models]
    .find((model) => model.name == source).get_column(name)]"""


def opened(browser: Browser, link: str) -> tuple[Page, list[str]]:
    """A page of the dashboard, and what its console complains of."""
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    said: list[str] = []
    page.on("console", lambda each: said.append(each.text) if each.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto(link)
    page.wait_for_function("() => window.Bokeh && Bokeh.documents.length > 0")
    return page, said


def wait_for(link: str) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            urlopen(link).close()
        except HTTPError:
            time.sleep(0.1)
        else:
            return
    raise TimeoutError(link)


def column(page: Page, source: str, name: str) -> list[Any]:
    """A column of what a figure is drawn from."""
    return page.evaluate(COLUMN, [source, name])


def wait_for_more(page: Page, source: str, name: str, than: int) -> None:
    page.wait_for_function(f"(of) => ({COLUMN})(of).length > {than}", arg=[source, name], timeout=240_000)


@contextmanager
def started(command: Command, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """The command, killed where the test fails before its end."""
    with command.start(*arguments) as process:
        try:
            yield process
        finally:
            process.kill()


def test_a_run_on_another_scheduler_is_shown_while_it_works_and_after_its_client_has_gone(
    browser: Browser, new_command: Callable[..., Command], reference: Run, tmp_path: Path
) -> None:
    command = new_command(report__write="always", report__performance=True)
    with dask_cluster(tmp_path, n_workers=2) as (address, _):
        port = json.loads((tmp_path / "scheduler.json").read_text())["services"]["dashboard"]
        link = f"http://127.0.0.1:{port}/distcluster"
        with started(command, "--scheduler", address) as process:
            wait_for(link)
            page, said = opened(browser, link)
            wait_for_more(page, "bic-full", "k", than=1)
            PICTURES.mkdir(parents=True, exist_ok=True)
            page.screenshot(path=PICTURES / "live.png")
            assert process.poll() is None, "the picture is to be of a run that works"
            _, error = process.communicate(timeout=200)
            assert process.returncode == 0, error
        page.close()
        late, said_late = opened(browser, link)
        done = dict(zip(column(late, "stages", "stage"), column(late, "stages", "share"), strict=True))
        late.screenshot(path=PICTURES / "live-after.png")
        assert {
            done[stage]
            for stage in ("scan", "project_rows", "fit_candidates", "refine", "label_rows", "summarise_clusters")
        } == {1.0}
        assert late.locator("a[href=distcluster]").inner_text() == "Distcluster"
        ks = column(late, "silhouette-tied", "k")
        late.close()
        status, said_status = opened(browser, link.replace("distcluster", "status"))
        assert status.locator("a[href=distcluster]").is_visible()
        status.close()
    assert said + said_late + said_status == []
    run = Run(str(command.output))
    np.testing.assert_array_equal(ks, [2, 3, 4, 6, 8, 11, 16, 23])
    assert unequal(reference, run) == []
    report = Path(run.url) / "report"
    assert 'href="performance.html"' in (report / "index.html").read_text()
    page, _ = opened(browser, (report / "performance.html").as_uri())  # Dask's page: its console is Dask's
    page.get_by_text("Task Stream").wait_for()
    page.get_by_text(f"output.url = {run.url}").wait_for()
    page.close()
