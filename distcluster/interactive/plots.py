"""A run's plots, by matplotlib, for a person to go on with."""

from typing import Any

import numpy as np

from distcluster.errors import JobError
from distcluster.interactive.extras import require_extra
from distcluster.report.criteria_panels import Panel, panels
from distcluster.report.figures import map_image
from distcluster.report.row_statistics import collect_row_statistics
from distcluster.stages.choosing import SELECT_CANDIDATE
from distcluster.stages.projecting import views
from distcluster.stages.refining import published_mixture
from distcluster.storage.run import Run

_PANEL_INCHES = (5.0, 3.4)
_MAP_INCHES = (7.0, 7.0)
_POINT = 4.0  # squared points of 1/72 inch
COLOURS = ("label", "probability", "stability", "support", "log_density")
"""What a map can show."""


class Plots:
    """The plots of a finished run; each gives a ``matplotlib.figure.Figure``, which a notebook shows.

    They need matplotlib: ``pip install 'distcluster[notebook]'``.
    """

    def __init__(self, run: Run) -> None:
        self._run = run

    def curves(self) -> Any:
        """The criteria over the number of components, one panel each: what the verdict was made from.

        The chosen candidate has a ring, each type's elbow of BIC a triangle, and ks that are as defensible a band.
        """
        self._require("plot.curves")
        from matplotlib.figure import Figure

        shown = [each for each in panels(self._run) if any(np.isfinite(curve.values).any() for curve in each.curves)]
        wide, high = _PANEL_INCHES
        figure = Figure(figsize=(wide * min(len(shown), 2), high * -(-len(shown) // 2)), layout="constrained")
        facts = SELECT_CANDIDATE.facts_of(self._run)
        for place, panel in enumerate(shown, 1):
            axes = figure.add_subplot(-(-len(shown) // 2), min(len(shown), 2), place)
            _draw(axes, panel, facts.covariance_type, facts.n_components)
        return figure

    def map(self, color: str = "label") -> Any:
        """The rows in the two-dimensional view.

        Parameters
        ----------
        color : {"label", "probability", "stability", "support", "log_density"}
            What colours say. By label all rows are drawn, as in the report (of more than two million, as many);
            otherwise some thousands of them.

        Raises
        ------
        JobError
            When the run has no two-dimensional view.
        """
        self._require("plot.map")
        from matplotlib.figure import Figure

        if color not in COLOURS:
            raise JobError(f"color = {color!r}: must be one of {', '.join(COLOURS)}.")
        if "view_2d" not in views(self._run.job):
            raise JobError(f"the run {self._run.url} has no two-dimensional view: projection.views must hold 2.")
        K = published_mixture(self._run).candidate.n_components
        statistics = collect_row_statistics(self._run, K, has_map=True)
        figure = Figure(figsize=_MAP_INCHES, layout="constrained")
        axes = figure.add_subplot(xticks=[], yticks=[])
        if color != "label":
            points = statistics.points
            drawn = axes.scatter(points.x, points.y, c=points[color], s=_POINT, linewidths=0)
            figure.colorbar(drawn, ax=axes, label=color, shrink=0.6)
        elif statistics.colour_sums is not None and statistics.moments.extent is not None:
            (left, low), (right, high) = statistics.moments.extent
            extent = (left, right, low, high)
            axes.imshow(map_image(statistics.colour_sums), origin="lower", extent=extent, aspect="auto")
        return figure

    def _require(self, plot: str) -> None:
        require_extra("matplotlib", plot)
        if self._run.is_prediction:
            raise JobError(f"the run {self._run.url} has another run's model: that run has the plots.")


def _draw(axes: Any, panel: Panel, kind: str, k: int) -> None:
    """A criterion's curves; a null's is dashed, in its type's colour."""
    colours: dict[str, str] = {}
    for curve in panel.curves:
        name, _, is_null = curve.name.partition(", ")
        colours.setdefault(name, f"C{len(colours)}")
        style = {"linestyle": "--", "linewidth": 0.8} if is_null else {"marker": ".", "label": name}
        axes.plot(curve.ks, curve.values, color=colours[name], **style)
        of_k = dict(zip(curve.ks, curve.values, strict=True))
        if curve.elbow:
            axes.plot(curve.elbow, of_k[curve.elbow], "v", color=colours[name], markersize=8)
        if (curve.name, k) == (kind, k) and k in of_k:
            axes.plot(k, of_k[k], "o", color="black", fillstyle="none", markersize=11)
    if len(panel.near) > 1:
        axes.axvspan(panel.near[0], panel.near[-1], color="0.92", zorder=0)
    axes.set(title=panel.title, ylabel=panel.unit, xlabel="components k")
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.legend(fontsize="small")
