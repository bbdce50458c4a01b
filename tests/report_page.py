"""A report's page in the browser, for the tests that look at it."""

import io
from base64 import b64decode
from pathlib import Path

import numpy as np
from PIL import Image
from playwright.sync_api import Browser, Page

DESK, PHONE = (1280, 900), (390, 844)
READ_BACK = "GPU stall due to ReadPixels"  # Chromium's own: it shows WebGL without a graphics card that way


def opened(browser: Browser, path: Path, scheme: str = "light", size: tuple[int, int] = DESK) -> tuple[Page, list[str]]:
    """A page, and what its console says."""
    page = browser.new_page(color_scheme=scheme, viewport={"width": size[0], "height": size[1]})  # type: ignore[arg-type]
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text) if READ_BACK not in message.text else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: said.append(request.url) if request.url.startswith("http") else None)
    page.goto(path.as_uri())
    return page, said


def with_points(page: Page) -> int:
    """Bring the map into view and wait until it has all its rows: their number."""
    page.locator("#stage").evaluate("(each) => each.scrollIntoView({behavior: 'instant', block: 'center'})")
    page.wait_for_selector("#stage[data-drawn]")
    return int(page.get_attribute("#stage", "data-drawn") or 0)


def scatter(page: Page) -> np.ndarray:
    """What WebGL has drawn, once all of it is there: (height, width, 4)."""
    page.wait_for_selector("#stage[data-complete]")
    url = page.evaluate("document.getElementById('map-scatter').toDataURL()")
    return np.array(Image.open(io.BytesIO(b64decode(url.partition(",")[2]))).convert("RGBA"))


def place_of_the_first_row(page: Page) -> tuple[float, float]:
    """Where the map has it, in the window."""
    x, y = page.evaluate(
        """() => {
            const data = JSON.parse(document.getElementById("held-rows").textContent);
            const [low, high] = JSON.parse(document.getElementById("map-data").textContent).extent;
            const stage = document.getElementById("stage");
            stage.scrollIntoView({behavior: "instant"});
            const box = stage.getBoundingClientRect();
            return [box.left + box.width * (data.x[0] - low[0]) / (high[0] - low[0]),
                    box.top + box.height * (high[1] - data.y[0]) / (high[1] - low[1])];
        }"""
    )
    return x, y


def n_counted(page: Page) -> int:
    """Rows that the list has found."""
    return int(page.locator("#rows-count").inner_text().split(" of ")[0].replace(",", ""))
