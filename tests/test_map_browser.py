"""The map of the demo's report, in Debian's Chromium, which draws WebGL without a graphics card too."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from playwright.sync_api import Browser
from report_page import PHONE, n_counted, opened, place_of_the_first_row, scatter, with_points

from distcluster.report.palette import colours
from distcluster.storage.run import Run


@pytest.fixture(scope="module")
def page_file(demo: Run) -> Path:
    """The demo's report, as its run wrote it."""
    return Path(demo.url) / "report" / "index.html"


def test_the_map_draws_every_row_in_its_place_and_knows_its_results(browser: Browser, page_file: Path) -> None:
    page, said = opened(browser, page_file, size=(1280, 1200))
    run = Run(str(page_file.parent.parent))
    label, view = run.array("label")[:], run.array("view_2d")[:]
    assert with_points(page) == len(label)
    names = ["row", "label", "probability", "stability", "support"]
    told = pd.DataFrame(
        page.evaluate(
            "(names) => [...Array(12000).keys()].map((i) => names.map((name) => heldRows.value(name, i)))", names
        ),
        columns=names,
    )
    assert sorted(told.row) == list(range(len(label)))
    assert told.label.tolist() == label[told.row].tolist()
    assert told.notna().all(axis=None), "typical rows have all results, too"
    for name in ("probability", "stability"):
        np.testing.assert_allclose(told[name], run.array(name)[:][told.row], atol=0.0051)
    cluster = int(page.locator("[data-only]").first.get_attribute("data-only") or 0)
    page.locator("[data-only]").first.click()
    image = scatter(page)
    low, high = (
        np.array(each) for each in page.evaluate("JSON.parse(document.getElementById('map-data').textContent).extent")
    )
    x, y = ((view[label == cluster] - low) / (high - low)).T
    there = image[np.int64((1 - y) * len(image)), np.int64(x * len(image))]
    colour = colours(cluster + 1)[cluster]
    assert (there[:, :3] == [int(colour[i : i + 2], 16) for i in (1, 3, 5)]).all(axis=1).mean() > 0.99
    assert len(np.unique(image[image[..., 3] == 255], axis=0)) == 1, "the others are hidden"
    assert said == []
    page.close()


def test_rows_in_view_are_told_and_listed_by_the_keyboard_alone(browser: Browser, page_file: Path) -> None:
    page, said = opened(browser, page_file)
    page.locator("#stage").focus()
    page.keyboard.press("+")  # before the points are there
    with_points(page)
    for key in ("+", "+", "+", "ArrowLeft", "ArrowUp"):
        page.keyboard.press(key)
    page.get_by_text("Zoom 5.1, ").wait_for()
    told = page.locator("#map-in-view").inner_text()
    page.keyboard.press("Enter")
    n_in_view = int(told.split(", ")[1].split()[0].replace(",", ""))
    assert 0 < n_counted(page) == n_in_view < 6_000
    assert f"{n_in_view:,} rows selected on the map" in page.locator("#rows-selected").inner_text()
    assert said == []
    page.close()


def test_a_finger_points_at_a_row_and_two_zoom(browser: Browser, page_file: Path) -> None:
    page = browser.new_page(viewport={"width": PHONE[0], "height": PHONE[1]}, has_touch=True)
    page.goto(page_file.as_uri())
    with_points(page)
    page.touchscreen.tap(*place_of_the_first_row(page))
    note = page.locator("#map-note")
    assert page.evaluate("heldRows.data.item").index(note.inner_text().partition(" · cluster ")[0]) >= 0
    note.get_by_role("button", name="Show in the list").click()
    assert n_counted(page) == 1
    with_points(page)
    box = page.locator("#stage").bounding_box()
    assert box is not None
    middle, fingers = box["y"] + box["height"] / 2, page.context.new_cdp_session(page)
    for kind, apart in (("touchStart", 40), ("touchMove", 60), ("touchMove", 80), ("touchMove", 100), ("touchEnd", 0)):
        points = [{"x": box["x"] + box["width"] / 2 + side * apart, "y": middle, "id": side + 1} for side in (-1, 1)]
        fingers.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points if apart else []})
    assert 2.0 < page.evaluate("new DOMMatrix(document.getElementById('map-image').style.transform).a") < 3.0
    page.close()


def test_without_webgl_without_scripts_and_in_print_there_is_the_picture(browser: Browser, page_file: Path) -> None:
    plain = browser.browser_type.launch(
        executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-3d-apis"]
    )
    page, said = opened(plain, page_file)
    assert with_points(page) == 0
    assert "no WebGL" in page.locator("#map-drawn").inner_text()
    before = page.evaluate("document.getElementById('map-canvas').toDataURL()")
    page.get_by_label("Coloured by").select_option("probability")
    assert page.evaluate("document.getElementById('map-canvas').toDataURL()") != before
    page.emulate_media(media="print")
    style = "getComputedStyle(document.getElementById('map-image'))"
    assert page.evaluate(f"[{style}.opacity, {style}.transform]") == ["1", "none"]
    assert said == []
    still = plain.new_context(java_script_enabled=False).new_page()
    still.goto(page_file.as_uri())
    assert still.locator("#map-image").is_visible()
    plain.close()


def test_rows_are_selected_on_the_map_and_coloured_by_what_is_known_of_them(browser: Browser, page_file: Path) -> None:
    page, said = opened(browser, page_file, size=(1280, 1200))
    assert with_points(page) == 12_000
    seen = set()
    for colouring in ("probability", "support", "stability", "cluster-stability", "class (labels.txt)"):
        page.get_by_label("Coloured by").select_option(colouring)
        seen.add(scatter(page).tobytes())
    assert len(seen) == 5
    page.get_by_role("button", name="Draw around rows").click()
    page.locator("#stage").evaluate("(each) => each.scrollIntoView({behavior: 'instant'})")
    box = page.locator("#stage").bounding_box()
    assert box is not None
    left, top, side = box["x"], box["y"], box["width"]
    page.mouse.move(left + 5, top + 5)  # within the round corner
    page.mouse.down()
    for x, y in ((side / 2, 5), (side / 2, side - 5), (5, side - 5)):
        page.mouse.move(left + x, top + y)
    page.mouse.up()
    held = page.evaluate("JSON.parse(document.getElementById('held-rows').textContent)")
    low, high = page.evaluate("JSON.parse(document.getElementById('map-data').textContent).extent")
    x = Run(str(page_file.parent.parent)).array("view_2d")[:, 0]
    n_left = int((x < (low[0] + high[0]) / 2).sum())
    assert abs(n_counted(page) - n_left) <= 0.01 * n_left
    with page.expect_download() as saving:
        page.get_by_role("button", name="Save as CSV").click()
    saved = pd.read_csv(saving.value.path())
    assert len(saved) == n_counted(page)
    is_map = saved.kind == "map"
    assert saved.item[is_map].isna().all()
    assert saved.item[~is_map].notna().all()
    assert set(saved.row[is_map]).isdisjoint(held["row"])
    page.get_by_role("button", name="Drop the selection").click()
    assert page.locator("#rows-count").inner_text().startswith(f"{len(held['row']):,} of")
    assert said == []
    page.close()


def test_a_cluster_can_be_seen_alone_and_the_map_zooms_by_keys(browser: Browser, page_file: Path) -> None:
    page, said = opened(browser, page_file)
    button = page.locator("[data-only]").first
    button.click()
    assert button.get_attribute("aria-pressed") == "true"
    page.locator("#stage").focus()
    page.keyboard.press("+")
    assert "scale(1.5)" in (page.locator("#map-image").get_attribute("style") or "")
    page.locator("[data-zoom=all]").click()
    assert "scale(1)" in (page.locator("#map-image").get_attribute("style") or "")
    assert button.get_attribute("aria-pressed") == "false"
    assert said == []
    page.close()
