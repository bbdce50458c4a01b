"""Which tests share a process, when several processes test at the same time."""

from pathlib import Path

from xdist.scheduler import LoadScopeScheduling

GROUPS = {
    "test_resume": "faults",
    "test_driver": "faults",
    "test_live_page_browser": "faults",
    "test_storage_faults": "storage",
    "test_chaos": "storage",
    "test_lease": "storage",
    "test_podman": "storage",  # at the end, for CI makes the image meanwhile
    "test_report_browser": "demo",
    "test_map_browser": "demo",
}
"""The group of files whose tests run one after another in one process, in this order and before all others.

"faults" kill processes or watch when they end: one must not disturb what another one measures. "storage" takes as long
as those do.
A file that is not named here is a group of its own, for the sake of its fixtures.
"""

LONG = (
    "test_refit", "test_append", "test_identity", "test_top_up", "test_duplicates", "test_session", "test_elastic",
    "test_replicate", "test_umap_fit", "test_refine", "test_bad_input", "test_predict", "test_store", "test_planted",
)  # fmt: skip
"""The files after those, longest first: at the end nobody is to wait for one that has begun last."""


class ByGroup(LoadScopeScheduling):
    """Send the tests of a group to one process.

    By the file's name and not by the mark ``xdist_group``, which has no effect under pytest 9.2: pytest-xdist's
    issue 1386.
    """

    def _split_scope(self, nodeid: str) -> str:
        file = Path(nodeid.partition("::")[0])
        return GROUPS.get(file.stem, file.stem)


def place_of(file: Path) -> int:
    """The place of a file's tests in the order."""
    order = [*GROUPS, *LONG]
    return order.index(file.stem) if file.stem in order else len(order)
