"""Names of clusters: asked for one by one, and kept in the run, so that nobody is asked twice."""

import json
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from hashlib import sha256

from distcluster.naming import NamesTable, named_function
from distcluster.report.clusters import ClusterRow
from distcluster.report.levels import Level, LevelCluster
from distcluster.stages.labelling import SUMMARISE_CLUSTERS
from distcluster.storage.layout import NAMES
from distcluster.storage.records import parsed
from distcluster.storage.run import Run
from distcluster.storage.run_arrays import ONE

log = logging.getLogger("distcluster")

_LETTERS = 60
_SECONDS = 60.0  # that a model has for an answer; the library asks three times more


@dataclass(frozen=True, slots=True)
class Names:
    """The names of a run's clusters.

    Attributes
    ----------
    by, prompt : str
        Who was asked, and what.
    of : str
        The commit of the clusters that have the names.
    clusters : dict of int to str
    levels : dict of int to dict of int to str
        By number of clusters, then by cluster.
    given : dict of str to str
        By a digest of who was asked and what.
    """

    by: str = ""
    prompt: str = ""
    of: str = ""
    clusters: dict[int, str] = field(default_factory=dict)
    levels: dict[int, dict[int, str]] = field(default_factory=dict)
    given: dict[str, str] = field(default_factory=dict)


def kept_names(run: Run) -> Names:
    """The names that a run's clusters were given; none where they are others since."""
    kept = _read(run)
    return kept if kept.of == _clusters_of(run) else Names()


def name_clusters(
    run: Run, table: NamesTable | None, clusters: Sequence[ClusterRow], levels: Sequence[Level]
) -> tuple[Names, bool]:
    """Have the clusters named that have no name yet; and whether all of them have one now.

    Every name is kept as it comes. Without a table nobody is asked, and those are given that were given before. Where
    nobody answers, a warning says so, and the clusters that are left have none.
    """
    kept = _read(run)
    by, prompt = (table.by, table.prompt) if table is not None else (kept.by, kept.prompt)
    ask = _namer(table) if table is not None else None
    names, is_complete = Names(by, prompt, _clusters_of(run), given=kept.given), True
    for place, number, words, items in _described(clusters, levels):
        asked = prompt.format(words=", ".join(words), items="\n".join(f"- {item}" for item in items))
        digest = sha256(f"{by}\n{asked}".encode()).hexdigest()
        is_new = digest not in names.given
        if is_new:
            if ask is None:
                continue
            try:
                names.given[digest] = _short(ask(asked))
            except Exception as error:  # whatever a stranger's function or server does, the report is written
                log.warning("report.names: %s does not answer (%s); the report goes on without more names", by, error)
                is_complete = False
                break
        own = names.clusters if place is None else names.levels.setdefault(place, {})
        own[number] = names.given[digest]
        if is_new:
            _keep(run, names)
    if ask is not None:
        _keep(run, names)
    return names, is_complete


def _keep(run: Run, names: Names) -> None:
    run.store.put(NAMES, json.dumps(asdict(names)).encode())


def with_names(names: Names, clusters: Sequence[ClusterRow]) -> list[ClusterRow]:
    """The rows of the table of clusters, named."""
    return [replace(each, name=names.clusters.get(each.label, "")) for each in clusters]


def levels_with_names(names: Names, levels: Sequence[Level]) -> list[Level]:
    """The levels, their clusters named."""

    def named(level: Level) -> list[LevelCluster]:
        own = names.levels.get(level.n_clusters, {})
        return [replace(each, name=own.get(each.number, "")) for each in level.clusters]

    return [replace(level, clusters=named(level)) for level in levels]


def _described(
    clusters: Sequence[ClusterRow], levels: Sequence[Level]
) -> Iterator[tuple[int | None, int, list[str], list[str]]]:
    """Every cluster that is to have a name: its level, its number there, its words and its typical items."""
    for each in sorted(clusters, key=lambda each: each.label):
        yield None, each.label, each.words, [item.text for item in each.typical]
    for level in levels:
        for of_level in sorted(level.clusters, key=lambda each: each.number):
            yield level.n_clusters, of_level.number, of_level.words, [item.text for item in of_level.typical]


def _namer(table: NamesTable) -> Callable[[str], str]:
    if table.function is not None:
        return named_function(table.function)
    from openai import OpenAI  # of an extra

    client = OpenAI(
        base_url=table.url.whole, api_key=os.environ.get(table.key_variable, "none"), timeout=_SECONDS, max_retries=3
    )

    def ask(prompt: str) -> str:
        answer = client.chat.completions.create(
            model=table.model or "", messages=[{"role": "user", "content": prompt}], temperature=0.0
        )
        return answer.choices[0].message.content or ""

    return ask


def _short(answer: str) -> str:
    line = next((each.strip(" \"'*.") for each in str(answer).splitlines() if each.strip()), "")
    if not line:
        raise ValueError("the answer is empty")
    return line if len(line) <= _LETTERS else f"{line[: _LETTERS - 1]}…"


def _read(run: Run) -> Names:
    content = run.store.get(NAMES)
    try:
        return Names() if content is None else parsed(Names, content, NAMES)
    except ValueError as error:
        log.warning("%s; names are as if never given", error)
        return Names()


def _clusters_of(run: Run) -> str:
    record = run.records.read(SUMMARISE_CLUSTERS.name, ONE)
    return record.id if record is not None else ""
