"""The report's page: rendered from the run's findings, written into the run."""

import json
import logging
from datetime import UTC, datetime
from functools import cache

import jinja2
import numpy as np

from distcluster.errors import JobError
from distcluster.job import ReportTable, require_extras
from distcluster.report.findings import read_findings
from distcluster.report.job_text import public_table
from distcluster.report.page_sections import SECTIONS
from distcluster.stages.flow import is_finished
from distcluster.storage.items import require_items
from distcluster.storage.layout import REPORT, REPORT_TABLE
from distcluster.storage.records import parsed
from distcluster.storage.run import Run
from distcluster.storage.urls import public_url

log = logging.getLogger("distcluster")


def write_report(run: Run, table: ReportTable) -> str:
    """Write the report into the run.

    Parameters
    ----------
    run : Run
    table : ReportTable
        What a row is; the run remembers it for the next report.

    Returns
    -------
    str
        The page's URL.

    Raises
    ------
    JobError
        When the run is not finished, or a file of the table is not there.
    """
    page = render_page(run, table)
    run.store.put(REPORT, page.encode())
    run.store.put(REPORT_TABLE, json.dumps(public_table(table)).encode())
    return f"{public_url(run.url).rstrip('/')}/{REPORT}"


def remembered_table(run: Run) -> ReportTable:
    """The table that the run's last report was written with."""
    content = run.store.get(REPORT_TABLE) if run.settings else None
    try:
        return ReportTable() if content is None else parsed(ReportTable, content, REPORT_TABLE)
    except ValueError as error:
        log.warning("%s; the report is written as if it were the first", error)
        return ReportTable()


def render_page(run: Run, table: ReportTable) -> str:
    """The report as HTML, one file that asks no network for anything.

    Raises
    ------
    JobError
        When the run is not finished, or a file of the table is not there.
    """
    if not is_finished(run):
        raise JobError(f"the run {public_url(run.url)} is not finished: run its job to the end first.")
    if table.items is not None:
        require_items(table.items, table.item_column)
    require_extras(table)
    findings = read_findings(run, table)
    shown = {name: value for section in SECTIONS for name, value in section(findings).items()}
    return str(_template().render(shown, written=datetime.now(UTC)))


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("distcluster.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = _number
    return environment.get_template("page.html")


def _number(value: float, digits: int = 2) -> str:
    return "none" if value is None or not np.isfinite(value) else f"{value:,.{digits}f}"
