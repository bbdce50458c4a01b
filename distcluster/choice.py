"""A choice within a finished run, made or opened."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from distcluster.numerics.mixture.candidate import Candidate
from distcluster.stages.crossing import CROSS_LABELS, SUM_CROSSWALK
from distcluster.stages.flow import CHOOSES, own_keys, row_arrays
from distcluster.stages.growing import grow
from distcluster.stages.labelling import SUMMARISE_CLUSTERS
from distcluster.storage.layout import CHOICES
from distcluster.storage.run import Run
from distcluster.storage.settings import Around

_AGAIN = (SUMMARISE_CLUSTERS, CROSS_LABELS, SUM_CROSSWALK)


@contextmanager
def prepared_choice(run: Run, candidate: Candidate, lease_seconds: float) -> Iterator[Run]:
    """The choice of a candidate within a finished run, made or opened to be resumed; both have this one writer.

    Raises
    ------
    RunHeldError
        When another process writes to one of the two.
    """
    with run.writing(lease_seconds):
        run.store.make_group(CHOICES)
        choice = Run(f"{run.url.whole.rstrip('/')}/{CHOICES}/{candidate}")
        with choice.writing(lease_seconds):
            run.forget_settings()  # another writer may have been here since they were read
            found = choice.find_settings()
            if found is not None and (found.around is None or found.around.run_id != run.settings.run_id):
                choice.erase(own_keys())
                found = None
            if found is None:
                around = Around(run.settings.run_id, candidate, tuple(stage.name for stage in CHOOSES))
                run_id = uuid.uuid4().hex
                choice.create(replace(run.settings, run_id=run_id, dropped=(), model="", around=around))
            choice.make_arrays(row_arrays(choice))
            if choice.partitioning.n_rows < run.partitioning.n_rows:  # rows were appended since
                grow(choice, run.partitioning.n_rows, _AGAIN, row_arrays(choice))
            yield choice
