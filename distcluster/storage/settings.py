"""What a run was made for and with, and what travels to its tasks."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from distcluster.numerics.mixture.candidate import Candidate
from distcluster.numerics.partition import Partitioning
from distcluster.storage.layout import FORMAT_VERSION
from distcluster.url import Url


@dataclass(frozen=True, slots=True)
class InputFacts:
    """What the input was when the run was made."""

    shape: tuple[int, int]
    dtype: str


@dataclass(frozen=True, slots=True)
class Around:
    """The run around a choice, which lies within it.

    Attributes
    ----------
    run_id : str
    candidate : Candidate
        What was chosen.
    makes : tuple of str
        The stages whose results are the choice's own; those of all others are read from the run around it.
    """

    run_id: str
    candidate: Candidate
    makes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Settings:
    """What a run was made for and with.

    Attributes
    ----------
    run_id : str
    environment : mapping of str to str
        Package versions and instruction level.
    job : mapping of str to mapping
        The job's tables without ``[deploy]`` and ``[report]``, URLs without credentials.
    input : InputFacts
    input_version : str or None
        A hash over names, sizes and entity tags of the input's objects, when its content was last checked.
    priority_bound : int
        The priority up to which the scan gathers rows for the subsamples.
    partitioning : Partitioning
    dropped : tuple of str
        Paths that have been emptied.
    keeps_rest : bool
        Whether an overwrite has kept what did not depend on its change: one that was cut short goes on.
    appended : tuple of int
        The number of rows before each time that rows were appended.
    model : str
        Where rows are labelled by a finished model: the id of the run that made it, this one where rows were appended.
    previous : str
        Where cluster ids follow another run's (``mixture.previous``): that run's id.
    around : Around or None
        Where this is a choice: the run that it lies within.
    format_version : int
    """

    run_id: str
    environment: Mapping[str, str]
    job: Mapping[str, Mapping[str, object]]
    input: InputFacts
    input_version: str | None
    priority_bound: int
    partitioning: Partitioning
    dropped: tuple[str, ...] = ()
    keeps_rest: bool = False
    appended: tuple[int, ...] = ()
    model: str = ""
    previous: str = ""
    around: Around | None = None
    format_version: int = FORMAT_VERSION


@dataclass(frozen=True, slots=True)
class Root:
    """A Zarr group's metadata, as far as a run goes."""

    attributes: Mapping[str, Mapping[str, object]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ErrorNote:
    """What ``commit/error.json`` holds."""

    error: str


@dataclass(frozen=True, slots=True)
class RunRef:
    """Where a run is and which one, where its input is now, and the token of its writer's lease, if any.

    A worker must never mistake a new run at an old place for the old one, nor what was made again after damage for what
    it has read before: then ``attempt`` is another, and ``n_rows`` where rows were appended. URLs may hold a signature:
    they travel to the tasks, and are neither stored nor shown.
    """

    url: Url
    run_id: str
    input_url: Url
    token: int | None = None
    attempt: int = 0
    n_rows: int = 0
