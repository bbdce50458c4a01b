"""The templates of pages, and what they call."""

from functools import cache

import jinja2
import numpy as np


@cache
def template(name: str) -> jinja2.Template:
    """A template of ``report/templates``: everything is escaped, and what is not defined is an error."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("distcluster.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = _number
    return environment.get_template(name)


def _number(value: float, digits: int = 2) -> str:
    return "none" if value is None or not np.isfinite(value) else f"{value:,.{digits}f}"
