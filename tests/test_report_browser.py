"""The report as a person sees it: the demo's, in Debian's Chromium; pictures of it are left in build/screenshots."""

from itertools import pairwise
from pathlib import Path

import pandas as pd
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page
from report_page import DESK, PHONE, opened, place_of_the_first_row, with_points

from distcluster.job import ReportTable
from distcluster.report.page import render_page
from distcluster.storage.run import Run

ROOT = Path(__file__).parent.parent
PICTURES = ROOT / "build" / "screenshots"


@pytest.fixture(scope="module")
def page_file(browser: Browser, demo: Run) -> Path:
    """The demo's report, as its run wrote it."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    return Path(demo.url) / "report" / "index.html"


def unfold(page: Page) -> None:
    page.locator("details").evaluate_all("(all) => all.forEach((each) => { each.open = true; })")


@pytest.mark.parametrize(
    ("name", "scheme", "size", "section"),
    [
        ("top", "light", DESK, "#verdict"),
        ("curves", "light", DESK, "#curves"),
        ("map", "light", (1280, 1200), "#map"),
        ("map-zoomed", "light", (1280, 1200), "#map"),
        ("map-dark-zoomed", "dark", (1280, 1200), "#map"),
        ("map-phone-zoomed", "light", PHONE, "#map"),
        ("table", "light", DESK, "#clusters"),
        ("taxonomies", "light", DESK, "#taxonomies"),
        ("views-3d", "light", (1280, 1100), "#views-3d"),
        ("shape", "light", DESK, "#shape"),
        ("dark", "dark", (1280, 1200), "#map"),
        ("phone", "light", PHONE, "#verdict"),
        ("phone-table", "light", PHONE, "#clusters"),
    ],
)
def test_it_draws_without_a_word_on_the_console(
    browser: Browser, page_file: Path, name: str, scheme: str, size: tuple[int, int], section: str
) -> None:
    page, said = opened(browser, page_file, scheme, size)
    unfold(page)
    page.locator(section).evaluate("(each) => each.scrollIntoView({behavior: 'instant'})")
    if name.endswith("zoomed"):
        with_points(page)
        page.get_by_role("button", name="Zoom in").click()
        page.wait_for_selector("#stage[data-complete]")
    page.wait_for_timeout(300)
    page.screenshot(path=PICTURES / f"{name}.png")
    assert said == []
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), (
        "the page is wider than its window"
    )
    page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESK, PHONE])
def test_axe_finds_nothing(browser: Browser, page_file: Path, scheme: str, size: tuple[int, int]) -> None:
    page, _ = opened(browser, page_file, scheme, size)
    unfold(page)
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
    page.close()


def test_an_item_that_is_a_script_shows_as_text(browser: Browser, page_file: Path, tmp_path: Path) -> None:
    harm = "<script>document.title='X'</script><img src=x onerror=document.title='X'>"
    (tmp_path / "items.txt").write_text(f"{harm}\n" * 12_000)
    (tmp_path / "index.html").write_text(
        render_page(Run(str(page_file.parent.parent)), ReportTable(items=str(tmp_path / "items.txt")))
    )
    page, said = opened(browser, tmp_path / "index.html")
    point_at_a_row(page)
    assert harm in page.locator("#map-note").inner_text()
    assert page.locator("#cluster-table .items .text").first.inner_text() == harm
    assert page.title() != "X"
    assert said == []
    page.close()


def point_at_a_row(page: Page) -> None:
    """Move the pointer to the first row that the map can read out."""
    page.mouse.move(*place_of_the_first_row(page))


def test_the_table_sorts_and_searches(browser: Browser, page_file: Path) -> None:
    page, _ = opened(browser, page_file)
    rows = page.locator("#cluster-table tbody tr")
    assert descending(page, 2), "the most stable come first"
    by_rows = page.locator("#cluster-table").get_by_role("button", name="Rows")
    by_rows.click()
    assert descending(page, 1)
    by_rows.click()
    assert descending(page, 1, -1.0)
    total = rows.count()
    assert rows.locator("visible=true").count() == 10 < total
    page.get_by_role("button", name=f"Show all {total} clusters").click()
    assert rows.locator("visible=true").count() == total
    page.get_by_label("Search", exact=True).fill(page.locator(".words").first.inner_text().split(",")[0])
    visible = rows.locator("visible=true").count()
    assert 0 < visible < total
    assert page.locator("#shown").inner_text() == f"{visible} of {total}"
    page.close()


def descending(page: Page, column: int, sign: float = 1.0) -> bool:
    """Whether a column's values fall, or rise for a sign of -1."""
    values = page.evaluate(
        "(column) => [...document.querySelectorAll('#cluster-table tbody tr')]"
        ".map((row) => Number(row.cells[column].dataset.value))",
        column,
    )
    return all(sign * a >= sign * b for a, b in pairwise(values))


def test_the_rows_of_a_cluster_have_an_address_are_filtered_and_saved(browser: Browser, page_file: Path) -> None:
    page, said = opened(browser, page_file)
    page.goto(f"{page_file.as_uri()}#rows-3")
    held = page.evaluate("JSON.parse(document.getElementById('held-rows').textContent)")
    of_cluster = [i for i, label in enumerate(held["label"]) if label == 3]
    listed = page.locator("#rows-table tbody tr")
    assert listed.count() == min(25, len(of_cluster))
    assert page.locator("#rows-count").inner_text().startswith(f"{len(of_cluster)} of {len(held['row']):,} rows")
    page.get_by_label("to", exact=True).fill("0.6")
    unsure = [i for i in of_cluster if held["probability"][i] is not None and held["probability"][i] <= 0.6]
    assert 0 < len(unsure) < len(of_cluster)
    page.get_by_label("Stability from").fill("0.3")
    unsure = [i for i in unsure if (held["stability"][i] or 0.0) >= 0.3]
    assert unsure
    page.get_by_label("Order", exact=True).select_option("probability")
    with page.expect_download() as saving:
        page.get_by_role("button", name="Save as CSV").click()
    saved = pd.read_csv(saving.value.path())
    assert sorted(saved.row) == sorted(held["row"][i] for i in unsure)
    assert saved.probability.is_monotonic_increasing
    assert set(saved.item) == {held["item"][i] for i in unsure}
    page.get_by_label("Search rows").fill("no such word anywhere")
    assert listed.count() == 0
    assert said == []
    page.close()


def test_what_is_folded_opens_where_it_is_linked_to(browser: Browser, page_file: Path) -> None:
    page, _ = opened(browser, page_file)
    assert page.evaluate("document.documentElement.scrollHeight") < 12_000
    fidelity = page.locator("#fidelity dl")
    assert not fidelity.is_visible()
    page.get_by_role("link", name="Fidelity").click()
    fidelity.wait_for(state="visible")
    last = page.locator("#cluster-table tbody tr").last
    assert not last.is_visible()
    page.goto(f"{page_file.as_uri()}#{last.get_attribute('id')}")
    last.wait_for(state="visible")
    page.close()


def test_the_three_dimensional_view_turns_and_changes_its_space_and_colours(browser: Browser, page_file: Path) -> None:
    page, said = opened(browser, page_file)
    seen = {page.evaluate("document.getElementById('views-3d-canvas').toDataURL()")}

    def is_new() -> bool:
        before = len(seen)
        seen.add(page.evaluate("document.getElementById('views-3d-canvas').toDataURL()"))
        return len(seen) > before

    page.locator("#views-3d-canvas").focus()
    page.keyboard.press("ArrowLeft")
    assert is_new()
    page.locator("#views-3d-canvas").scroll_into_view_if_needed()
    box = page.locator("#views-3d-canvas").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 200, box["y"] + 200)
    page.mouse.down()
    page.mouse.move(box["x"] + 320, box["y"] + 240)
    page.mouse.up()
    assert is_new()
    for name in ("PCA of the embeddings", "class (labels.txt)"):
        button = page.get_by_role("button", name=name)
        button.click()
        assert button.get_attribute("aria-pressed") == "true"
        assert is_new()
    assert said == []
    page.close()
