"""What a report shows of the items, kept in the run: another report reads nothing that lies outside it."""

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from distcluster.storage.layout import SHOWN_ITEMS
from distcluster.storage.records import parsed
from distcluster.storage.run import Run

log = logging.getLogger("distcluster")

IMAGE = "data:image/webp;base64,"


@dataclass(frozen=True, slots=True)
class ShownItems:
    """Items of some rows.

    Attributes
    ----------
    source : str
        Where they were read, to be shown; empty where the rows have none. It is never opened.
    texts : mapping of int to str
        By row.
    images : mapping of int to str
        Thumbnails as data URLs, by row.
    """

    source: str = ""
    texts: Mapping[int, str] = field(default_factory=dict)
    images: Mapping[int, str] = field(default_factory=dict)


def kept_items(run: Run) -> ShownItems:
    """What the run's last report showed, or that of the run around it; nothing where there was none that fits."""
    content = run.store.get(SHOWN_ITEMS) if run.settings else None
    if content is None and run.around is not None:
        content = run.around.store.get(SHOWN_ITEMS)
    try:
        found = ShownItems() if content is None else parsed(ShownItems, content, SHOWN_ITEMS)
    except ValueError as error:
        log.warning("%s; the report is written without items", error)
        return ShownItems()
    if not all(image.startswith(IMAGE) for image in found.images.values()):
        log.warning("%s holds what is no thumbnail; the report is written without items", SHOWN_ITEMS)
        return ShownItems()
    return found


def keep_items(run: Run, shown: ShownItems) -> None:
    """Keep them for the next report."""
    run.store.put(SHOWN_ITEMS, json.dumps(asdict(shown)).encode())
