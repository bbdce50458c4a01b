"""The report of a finished run: one page that needs nothing else, for people who look before they read."""

from distcluster.report.page import remembered_table, render_page, write_report

__all__ = ["remembered_table", "render_page", "write_report"]
