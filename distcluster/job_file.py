"""Reading a job file: every unknown key and every wrong value is named at once."""

import difflib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, get_args

from pydantic import ValidationError

from distcluster.errors import JobError
from distcluster.job import Job


def load_job(path: str | Path, overrides: Sequence[str] = ()) -> Job:
    """Read and check a job file.

    Parameters
    ----------
    path : str or Path
        A TOML file. Relative paths inside it are relative to the working directory.
    overrides : sequence of str
        ``table.key=value`` assignments that win over the file; a value is TOML, or else a plain string.

    Raises
    ------
    JobError
        When the file is missing or not TOML, or keys are unknown or values wrong: all of them are named.
    """
    import tomllib  # it compiles its patterns: a tenth of a command that reads no job file

    try:
        tables = tomllib.loads(Path(path).read_text())
    except OSError as error:
        raise JobError(f"cannot read the job file {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:  # numbers and nesting beyond Python's limits, too
        raise JobError(f"{path} is not TOML: {error}") from error
    for each in overrides:
        override(tables, each)
    return parse_job(tables, name=str(path))


def parse_job(tables: dict[str, Any], name: str = "the job") -> Job:
    """Check the tables of a job file.

    Raises
    ------
    JobError
        Naming every unknown key, with the nearest known one, and every wrong value.
    """
    try:
        # Through JSON: in strict mode "5" is no integer, while an array may still become a tuple.
        return Job.model_validate_json(json.dumps(tables, default=str), strict=True)
    except ValidationError as error:
        # A union reports a finding for each of its members: one line for all of them.
        found: dict[str, list[str]] = {}
        for detail in error.errors():
            field, message = _explain(detail)
            found.setdefault(field, []).append(message)
        lines = [f"{field}: {'; or: '.join(dict.fromkeys(messages))}" for field, messages in found.items()]
        raise JobError(f"{name}:\n" + "\n".join(f"  {line}" for line in lines)) from error


def override(tables: dict[str, Any], assignment: str) -> None:
    """Set one key of a job's tables, given as ``table.key=value``.

    Raises
    ------
    JobError
        When it is no such assignment.
    """
    import tomllib

    key, equals, text = assignment.partition("=")
    *path, field = key.strip().split(".")
    if not (equals and path and all(path) and field):
        raise JobError(f"--set {assignment}: expected table.key=value, such as sample.rows=20000")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    except (ValueError, RecursionError) as error:
        raise JobError(f"--set {key}: {error}") from error
    section: Any = tables
    for depth, table in enumerate(path):
        section = section.setdefault(table, {})
        if not isinstance(section, dict):
            raise JobError(f"--set {assignment}: {'.'.join(path[: depth + 1])} is not a table in the job file")
    section[field] = value


def _explain(detail: Any) -> tuple[str, str]:
    """One of pydantic's findings: the table or key, and what is wrong with it."""
    location = [part for part in detail["loc"] if isinstance(part, str)]
    if detail["type"] == "extra_forbidden":
        *table, key = location
        known = list(_fields(table))
        nearest = difflib.get_close_matches(key, known, n=1, cutoff=0.0)
        kind = "key" if table else "table"
        return ".".join(location), f"no such {kind}; did you mean {nearest[0]!r}? Known: {', '.join(known)}"
    if detail["type"] == "missing":
        return ".".join(location), "required, and not there"
    # A union adds the name of its member, a list its position.
    message = detail["msg"].removeprefix("Value error, ")
    given = "" if isinstance(detail["input"], dict) else f", got {detail['input']!r}"
    while len(location) > 1 and location[-1] not in _fields(location[:-1]):
        location.pop()
    return ".".join(location) or "job", f"{message}{given}"


def _fields(table: Iterable[str]) -> dict[str, Any]:
    """The keys of a table, of one within it, or of one in a list of them; none of what is no table."""
    fields: dict[str, Any] = Job.model_fields
    for name in table:
        if name not in fields:  # a key of the user's own, whose value is a table
            continue
        annotation = fields[name].annotation
        tables = [each for each in (annotation, *get_args(annotation)) if hasattr(each, "model_fields")]
        fields = tables[0].model_fields if tables else {}
    return fields
