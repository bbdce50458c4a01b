"""The criteria's curves over the number of components, a panel each."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
from markupsafe import Markup

from distcluster.numerics.mixture.elbow import find_elbow
from distcluster.report.figures import Curve, curve_panel
from distcluster.stages.choosing import SELECT_CANDIDATE
from distcluster.storage import layout
from distcluster.storage.run import Run

_PANELS = (
    ("bic", "BIC", "nats per row, lower is better"),
    ("icl", "ICL", "nats per row, lower is better"),
    ("silhouette", "Silhouette", "all rows, higher is better"),
    ("stability", "Stability", "adjusted Rand index, higher is better"),
)
_STYLES = {"spherical": "c0", "diag": "c1", "tied": "c2", "full": "c3"}


@dataclass(frozen=True, slots=True)
class Panel:
    """A criterion's curves: ``near`` are the ks that are as defensible as the elbow of the chosen type."""

    title: str
    unit: str
    curves: list[Curve]
    near: Sequence[int]


def criteria_panels(run: Run) -> list[Markup]:
    """A panel a criterion, drawn."""
    facts = SELECT_CANDIDATE.facts_of(run)
    chosen = (facts.covariance_type, facts.n_components)
    drawn = (curve_panel(each.title, each.unit, each.curves, chosen=chosen, near=each.near) for each in panels(run))
    return [panel for panel in drawn if panel]


def panels(run: Run) -> list[Panel]:
    """A panel a criterion; BIC and ICL by twice the held-out rows, so that their unit is nats per row."""
    facts = SELECT_CANDIDATE.facts_of(run)
    n_held_out = facts.n_held_out or run.partitioning.n_rows
    columns = ("n_components", "covariance_type", "error", "stability_null", *(name for name, *_ in _PANELS))
    rows = pd.DataFrame({name: run.read(layout.SELECTION[name]) for name in columns})
    rows = rows[rows.error == ""].sort_values("n_components", kind="stable")
    found = []
    for name, title, unit in _PANELS:
        scale = 1.0 / (2 * n_held_out) if name in ("bic", "icl") else 1.0
        curves: list[Curve] = []
        near: Sequence[int] = ()
        for kind, style in _STYLES.items():
            of_kind = rows[rows.covariance_type == kind]
            ks, values = of_kind.n_components.tolist(), (scale * of_kind[name]).tolist()
            elbow = find_elbow(ks, values) if name == "bic" and len(ks) >= 2 else None
            if elbow is not None and kind == facts.covariance_type:
                near = elbow.near
            curves.append(Curve(kind, style, ks, values, elbow.n_components if elbow else 0))
            if name == "stability":
                curves.append(Curve(f"{kind}, null", f"{style} null", ks, of_kind.stability_null.tolist()))
        found.append(Panel(title, unit, curves, near))
    return found
