"""The page /distcluster on the scheduler's own dashboard: what runs on it are doing, while they do it."""

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from distributed import Scheduler
from distributed.diagnostics.plugin import SchedulerPlugin

from distcluster.execution.metrics import publish

TOPIC = "distcluster"
"""Of the events that runs log: JSON values, see ``LiveRun.take``."""

PAGE = "distcluster"
"""The page's address on the dashboard, and its name in the navigation."""

_MOST_RUNS = 8  # that a scheduler remembers
_KS = [2**power for power in range(12)]  # that the axis names
_MILLISECONDS = 500  # between looks at what is new
_COLOURS = {"spherical": "#0072b2", "diag": "#d55e00", "tied": "#009e73", "full": "#cc79a7"}  # Okabe & Ito
_CRITERIA = (("bic", "BIC, nats per row, lower is better"), ("silhouette", "Silhouette, higher is better"))


@dataclass
class LiveRun:
    """What a run has told.

    Attributes
    ----------
    name : str
        Its URL.
    rows : int
    stages : dict
        By name, in the flow's order: ``done`` and ``total`` tasks (None where earlier stages decide), and of a stage
        that is or was under way ``note``, its rows and speed.
    candidates : dict
        By name: ``n_components``, ``covariance_type``, ``bic``, ``silhouette``; None where there is none.
    judged_on : str
        The rows that the criteria are of.
    """

    name: str
    rows: int
    stages: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    candidates: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    judged_on: str = ""

    def take(self, event: Mapping[str, Any]) -> None:
        """Take what is new in an event: any of ``stages``, ``candidates`` and ``judged_on``."""
        self.stages |= event.get("stages", {})
        self.candidates |= event.get("candidates", {})
        self.judged_on = event.get("judged_on", self.judged_on)


class DashboardPage(SchedulerPlugin):  # type: ignore[misc]
    """Adds the page to a scheduler that has a dashboard, and folds the runs' events.

    A page that is opened late shows everything, and so does one whose client has gone and come back: the state is
    the scheduler's.
    """

    name = "distcluster-dashboard"
    idempotent = True  # every client brings one; the first stays

    def __init__(self) -> None:
        self.runs: dict[str, LiveRun] = {}
        self.n_events = 0

    async def start(self, scheduler: Scheduler) -> None:
        """Add the page and the metrics, and take the events that came before it.

        Raises
        ------
        RuntimeError
            When the scheduler has no dashboard.
        """
        publish(lambda: list(self.runs.values()))
        add_page(scheduler, self)
        for _, event in scheduler.get_events(TOPIC):
            self.log_event(TOPIC, event)

    def log_event(self, topic: str, msg: Any) -> None:
        """Take an event of a run; Dask logs an error where it is none."""
        if topic != TOPIC:
            return
        run = self.runs.pop(msg["run"], None) or LiveRun(msg["name"], msg["rows"])
        run.take(msg)
        self.runs[msg["run"]] = run  # the last one that spoke stands last
        if len(self.runs) > _MOST_RUNS:
            del self.runs[next(iter(self.runs))]
        self.n_events += 1


def add_page(scheduler: Scheduler, told: DashboardPage) -> None:
    """Serve the page beside Dask's own, and name it in their navigation."""
    from bokeh.server.tornado import BokehTornado
    from distributed.dashboard.core import BokehApplication
    from distributed.dashboard.scheduler import template_variables
    from tornado.ioloop import IOLoop

    served = [each for each in scheduler.http_application.applications if isinstance(each, BokehTornado)]
    if not served:
        raise RuntimeError("this scheduler has no dashboard")
    shared = template_variables(scheduler)  # one object for all pages: theirs name ours, ours names theirs
    if PAGE not in shared["pages"]:
        shared["pages"].append(PAGE)
    pages = {f"/{PAGE}": partial(_document, told)}
    application = BokehApplication(pages, scheduler, prefix=served[0].prefix, template_variables=shared)
    scheduler.http_application.add_application(application)
    application.initialize(IOLoop.current())
    application.start()


def _document(told: DashboardPage, _scheduler: Scheduler, extra: Mapping[str, Any], doc: Any) -> None:
    from distributed.dashboard.components import add_periodic_callback
    from distributed.dashboard.components.scheduler import BOKEH_THEME, env

    view = LiveView(told)
    view.update()
    add_periodic_callback(doc, view, _MILLISECONDS)
    doc.title = "Dask: distcluster"
    doc.add_root(view.root)
    doc.template = env.get_template("simple.html")
    doc.template_variables.update(extra)
    doc.theme = BOKEH_THEME


class LiveView:
    """One browser's view: the newest run, or the one that was picked. Events reach it as text only."""

    def __init__(self, told: DashboardPage) -> None:
        from bokeh.layouts import column, row
        from bokeh.models.widgets import Div, Select

        self._told = told
        self._seen: Any = None
        self._picked = ""
        self.head = Div(name="head", styles={"font-size": "14px"})
        self.pick = Select(title="Run", options=[], visible=False, width=480)
        self.pick.on_change("value", self._pick)
        self.stages, self.bars = _stages()
        panels = [_curves(name, title) for name, title in _CRITERIA]
        self.curves = dict(zip((name for name, _ in _CRITERIA), panels, strict=True))
        figures = column(*(figure for figure, _ in panels), sizing_mode="stretch_both")
        self.root = column(
            self.head, self.pick, row(self.stages, figures, sizing_mode="stretch_both"), sizing_mode="stretch_both"
        )

    def _pick(self, _attribute: str, _old: str, new: str) -> None:
        self._picked = new
        self.update()

    def update(self) -> None:
        """Show what is new, if anything is."""
        now = (self._told.n_events, self._picked)
        if now == self._seen:
            return
        self._seen = now
        runs = self._told.runs
        if not runs:
            self.head.text = "No run of distcluster has reported to this scheduler yet."
            return
        key = self._picked if self._picked in runs else next(reversed(runs))
        run = runs[key]
        self.pick.options = list[Any]((each, told.name) for each, told in runs.items())
        self.pick.visible = len(runs) > 1
        of = f"; criteria of {run.judged_on}" if run.judged_on else ""
        self.head.text = html.escape(f"{run.name}: {run.rows:,} rows{of}")
        self._show_stages(run)
        for name, (drawn, sources) in self.curves.items():
            for kind, source in sources.items():
                source.data = curve(run, kind, name)
            for axis, column in (("x", "log2_k"), ("y", "value")):
                _fit_range(getattr(drawn, f"{axis}_range"), [v for each in sources.values() for v in each.data[column]])

    def _show_stages(self, run: LiveRun) -> None:
        shown = bars(run)
        self.stages.y_range.factors = shown["stage"][::-1]
        self.bars.data = shown


def bars(run: LiveRun) -> dict[str, list[Any]]:
    """The columns of the stages' figure, a stage each."""
    done = [(stage["done"], stage["total"]) for stage in run.stages.values()]
    return {
        "stage": list(run.stages),
        "share": [0.0 if total is None else min(n / max(total, 1), 1.0) for n, total in done],
        "text": [
            "" if total is None else f"{n:,} of {total:,}  {stage.get('note', '')}".rstrip()
            for (n, total), stage in zip(done, run.stages.values(), strict=True)
        ],
    }


def curve(run: LiveRun, kind: str, criterion: str) -> dict[str, list[Any]]:
    """The columns of one covariance type's curve, by rising k; candidates without a value are left out."""
    points = sorted(
        (each["n_components"], each[criterion])
        for each in run.candidates.values()
        if each["covariance_type"] == kind and each[criterion] is not None
    )
    return {
        "k": [k for k, _ in points],
        "log2_k": [math.log2(k) for k, _ in points],
        "value": [value for _, value in points],
    }


def _fit_range(axis: Any, values: Sequence[float]) -> None:
    """Bokeh's own ranges complain on the console as long as there is nothing to show."""
    if values:
        room = 0.05 * (max(values) - min(values)) or 0.5
        axis.start, axis.end = min(values) - room, max(values) + room


def _stages() -> tuple[Any, Any]:
    """A figure with a bar a stage, and its source."""
    from bokeh.models import ColumnDataSource, FactorRange, Range1d
    from bokeh.plotting import figure

    source = ColumnDataSource({"stage": [], "share": [], "text": []}, name="stages")
    drawn = figure(
        title="Stages: tasks done (a partition each, where rows are counted)",
        x_range=Range1d(start=0.0, end=2.2), y_range=FactorRange(),
        tools="", toolbar_location=None, sizing_mode="stretch_both",
    )  # fmt: skip
    drawn.hbar(y="stage", right=1.0, height=0.7, color="#e8e8e8", source=source)
    drawn.hbar(y="stage", right="share", height=0.7, color="#0072b2", source=source)
    drawn.text(
        x=1.03, y="stage", text="text", text_baseline="middle", text_font_size="12px", source=source
    )  # a canvas: markup stays text
    drawn.xaxis.visible = drawn.grid.visible = False
    return drawn, source


def _curves(name: str, title: str) -> tuple[Any, dict[str, Any]]:
    """A figure of a criterion over k, and a source a covariance type."""
    from bokeh.models import ColumnDataSource, FixedTicker, Range1d
    from bokeh.plotting import figure

    drawn = figure(
        title=title, x_range=Range1d(start=0.0, end=6.0), y_range=Range1d(start=0.0, end=1.0), tools="hover",
        toolbar_location=None, tooltips=[("k", "@k"), ("value", "@value{0.000}")], sizing_mode="stretch_both",
    )  # fmt: skip
    drawn.xaxis.axis_label = "components k"
    drawn.xaxis.ticker = FixedTicker(ticks=list(range(len(_KS))), minor_ticks=[])
    drawn.xaxis.major_label_overrides = {power: str(k) for power, k in enumerate(_KS)}
    sources = {kind: ColumnDataSource({"k": [], "log2_k": [], "value": []}, name=f"{name}-{kind}") for kind in _COLOURS}
    for kind, source in sources.items():
        drawn.line("log2_k", "value", source=source, color=_COLOURS[kind], line_width=2, legend_label=kind)
        drawn.scatter("log2_k", "value", source=source, color=_COLOURS[kind], size=7, legend_label=kind)
    drawn.legend.orientation = "horizontal"
    drawn.add_layout(drawn.legend[0], "below")  # above the curves it would hide some of them
    return drawn, sources
