"""The progress of a job's stages on a terminal, or as plain lines where there is none."""

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn, TimeRemainingColumn
from rich.text import Text

STAGE_COLUMNS = 18  # as long as the longest name, summarise_clusters
_BAR_COLUMNS = 24


class ProgressReporter:
    """One line a stage: bars on a terminal, plain lines in a file or a pipe.

    Parameters
    ----------
    console : rich.console.Console
        Such as ``terminal.open_console()``.
    """

    def __init__(self, console: Console) -> None:
        self.used = False
        self._console = console
        self._bars: dict[str, TaskID] = {}
        self._done: dict[str, tuple[int, str]] = {}
        self._progress = Progress(
            TextColumn(f"{{task.description:<{STAGE_COLUMNS}}}"),
            BarColumn(bar_width=_BAR_COLUMNS),
            _Amount(),
            TimeRemainingColumn(elapsed_when_finished=True),
            console=console,
            disable=not _shows_bars(console),
        )

    def __enter__(self) -> "ProgressReporter":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def dashboard(self, link: str) -> None:
        """Say where the dashboard is, before anything else."""
        self.used = True
        self._console.print(f"Dashboard: {link}", highlight=False)

    def start(self, stage: str, total: int, done: int, unit: str) -> None:
        """Add the stage's line."""
        self._bars[stage] = self._progress.add_task(stage, total=total, completed=done, unit=unit)
        self._done[stage] = (0, unit)

    def advance(self, stage: str, amount: int) -> None:
        """Move the stage's bar."""
        self._progress.advance(self._bars[stage], amount)
        done, unit = self._done[stage]
        self._done[stage] = (done + amount, unit)

    def finish(self, stage: str, seconds: float) -> None:
        """Print the stage's plain line, where there are no bars."""
        if _shows_bars(self._console):
            return
        amount, unit = self._done[stage]
        self._console.print(
            f"{stage:<{STAGE_COLUMNS}} {amount:>12,} {unit:<5} {seconds:>8.1f} s {rate(amount / seconds, unit):>18}",
            highlight=False,
        )


def _shows_bars(console: Console) -> bool:
    return console.is_terminal or console.is_jupyter


class _Amount(ProgressColumn):
    """Rows done, and rows a second."""

    def render(self, task: Task) -> Text:
        unit = task.fields["unit"]
        speed = task.finished_speed or task.speed
        speed_text = rate(speed, unit) if speed else ""
        return Text(f"{int(task.completed):,}/{int(task.total or 0):,} {unit}  {speed_text}")


def rate(per_second: float, unit: str) -> str:
    """A speed: of what comes more rarely than once a second, the time that one takes."""
    if per_second < 1.0:
        return f"{1.0 / per_second:,.1f} s/{unit.removesuffix('s')}"
    return f"{per_second:,.0f} {unit}/s"
