"""What a run's input holds beside the vectors: items of rows."""

from distcluster.errors import JobError
from distcluster.storage.input_columns import open_input_column
from distcluster.storage.run import Run
from distcluster.url import Url


def item_column(run: Run, source: str) -> str | None:
    """The column of the input that items were read from, if they were and it can be read."""
    above, name = Url(source).parted()
    if str(above) != str(run.input_url):
        return None
    try:
        open_input_column(run, name, "items")
    except JobError:  # a file beside those of the input, or the input has gone
        return None
    return name
