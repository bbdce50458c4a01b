"""The report of a finished run: one page that needs nothing else, for people who look before they read."""

from distcluster.report.page import render_page, write_report

__all__ = ["render_page", "write_report"]
