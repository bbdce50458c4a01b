"""The arguments and options that several commands take."""

from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from distcluster.errors import JobError
from distcluster.job import ReportTable

JobFile = Annotated[Path, typer.Argument(help="The job file (TOML).", show_default=False, metavar="JOB.toml")]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set", help="Set one key, such as sample.rows=20000; wins over the file.", metavar="table.key=value"
    ),
]
Scheduler = Annotated[
    str | None, typer.Option(help="Use this Dask scheduler, e.g. tcp://10.0.0.5:8786.", metavar="ADDRESS")
]
Verify = Annotated[bool, typer.Option("--verify", help="Read back what is committed and make again what is damaged.")]
Overwrite = Annotated[
    bool,
    typer.Option(
        "--overwrite",
        help="Give up the run that is there, whatever it holds, and make it anew; of a run whose job has changed in "
        "mixture, selection or assign.levels only, what depends on that.",
    ),
]
Append = Annotated[
    bool, typer.Option("--append", help="Where the input has grown, label the new rows with the run's model.")
]
ModelUrl = Annotated[
    str, typer.Argument(help="A finished run, or an exported model.", metavar="RUN", show_default=False)
]
RunUrl = Annotated[str, typer.Argument(help="The run: the job's output.url.", metavar="RUN", show_default=False)]
Name = Annotated[str, typer.Argument(help="The submission's name.", show_default=False, metavar="NAME")]
Namespace = Annotated[str | None, typer.Option(help="Where the pods run; by default as the context says.")]
Context = Annotated[str | None, typer.Option(help="kubectl's context; by default its current one.")]
Dashboard = Annotated[
    bool, typer.Option("--dashboard", help="Forward the Dask dashboard to this machine while following.")
]
Items = Annotated[
    str | None, typer.Option(help="What a row is, as report.items; by default what the last report showed.")
]
Labels = Annotated[
    list[str] | None, typer.Option(help="A taxonomy to compare with, as in report.labels; may be repeated.")
]
ItemColumn = Annotated[str, typer.Option(help="The field of JSON Lines, or the column of Parquet, that holds them.")]
Json = Annotated[
    bool,
    typer.Option("--json", help="Print one JSON object, at the end; progress as lines of JSON on the error stream."),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Nothing but errors and the result.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Say more on the error stream.")]


def report_table(**options: Any) -> ReportTable:
    """The options of a report as its table.

    Raises
    ------
    JobError
        Naming every option that is wrong.
    """
    try:
        return ReportTable(**options)
    except ValidationError as error:
        names = ("-".join(filter(str.isidentifier, map(str, each["loc"]))) for each in error.errors())  # no type's name
        wrong = "; ".join(
            f"--{name}: {each['msg'].removeprefix('Value error, ')}"
            for name, each in zip(names, error.errors(), strict=True)
        )
        raise JobError(wrong.replace("_", "-")) from error
