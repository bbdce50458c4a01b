"""The report's page: rendered from the run's findings, written into the run."""

from datetime import UTC, datetime

from distcluster.errors import JobError
from distcluster.job import ReportTable, require_extras
from distcluster.report.findings import Findings, read_findings
from distcluster.report.made import made_of, report_url
from distcluster.report.names import name_clusters
from distcluster.report.page_sections import SECTIONS
from distcluster.report.shown_items import keep_items
from distcluster.report.templating import template
from distcluster.stages.flow import STAGES, require_finished
from distcluster.storage.items import require_items
from distcluster.storage.layout import REPORT, REPORT_MADE
from distcluster.storage.run import Run


def write_report(run: Run, table: ReportTable) -> str:
    """Write the report into the run.

    Parameters
    ----------
    run : Run
    table : ReportTable
        What a row is. Without items those are shown that the last report showed, which the run keeps.

    Returns
    -------
    str
        The page's URL.

    Raises
    ------
    JobError
        When the run is not finished, or a file of the table is not there.
    RunHeldError
        When another process writes to the run.
    """
    with run.writing(run.job.deploy.lease_seconds):
        run.forget_settings()  # another process may have had it since
        made = made_of(run, table)  # what is read below may be others' files, which change
        with run.read_once([stage.name for stage in STAGES]):
            findings = _find(run, table)
            names, is_named = name_clusters(run, table.names, findings.clusters, findings.levels)
            page = _render(findings.named(names))
        run.store.put(REPORT_MADE, b"")
        run.store.put(REPORT, page.encode())
        keep_items(run, findings.shown)
        if is_named:
            run.store.put(REPORT_MADE, made)
        return report_url(run)


def render_page(run: Run, table: ReportTable) -> str:
    """The report as HTML, one file that asks no network for anything.

    Raises
    ------
    JobError
        When the run is not finished, or a file of the table is not there.
    """
    findings = _find(run, table)
    return _render(findings.named(name_clusters(run, None, findings.clusters, findings.levels)[0]))


def _find(run: Run, table: ReportTable) -> Findings:
    if run.is_prediction:
        raise JobError(f"the run {run.url} has another run's model: that run has the report.")
    require_finished(run)
    table = table.beside(run.input_url)
    if table.items is not None:
        require_items(table.items, table.item_column)
    require_extras(table)
    return read_findings(run, table)


def _render(findings: Findings) -> str:
    shown = {name: value for section in SECTIONS for name, value in section(findings).items()}
    return str(template("page.html").render(shown, written=datetime.now(UTC)))
