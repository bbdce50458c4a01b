"""The output: make, resume, read and commit a run."""

import contextlib
import json
import math
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from functools import cached_property
from typing import Any

import obstore

from distcluster.errors import JobError
from distcluster.job import Job
from distcluster.job_file import parse_job
from distcluster.numerics.partition import Partitioning
from distcluster.storage import lease
from distcluster.storage.array_store import ArrayStore, at_once
from distcluster.storage.content import Content
from distcluster.storage.dimensions import dimensions
from distcluster.storage.layout import ERROR, FORMAT_VERSION, GROUPS, LEASE, PROBE, ROOT
from distcluster.storage.records import Records, parsed
from distcluster.storage.run_arrays import ONE, RowArray
from distcluster.storage.settings import ErrorNote, Root, RunRef, Settings
from distcluster.storage.urls import absolute_url, local_path
from distcluster.url import Url

_SMALL_BYTES = 2**20
_LOOK_SECONDS = 1.0  # that a look at the lease is good for: a take-over needs longer where its holder lives


class Run(Content):
    """One output: a Zarr v3 group, its settings, and the records of what has been committed to it.

    Parameters
    ----------
    url : str
    input_url : str, optional
        Where the input is now; absent: where it was when the run was made or last checked.
    token : int, optional
        Of the lease of the writer that this process works for; absent: the run can be read only.
    attempt : int, optional
        On a worker, the driver's: within one, records that were read do not change, and are read once.
    """

    def __init__(
        self, url: str, input_url: Url | None = None, token: int | None = None, *, attempt: int | None = None
    ) -> None:
        self.url = absolute_url(url)
        path = local_path(self.url)
        if path is not None and path.is_file():
            raise JobError(f"the output {path} is a file: choose a directory that is empty or not there.")
        self.store = ArrayStore(self.url)
        self.attempt = attempt or 0
        self.records = Records(
            self.store,
            dropped=lambda: self.dropped,
            before_change=self.require_lease,
            are_kept=attempt is not None,
            elsewhere=self._records_elsewhere,
        )
        self._kept_attempt = attempt
        self._input_url = input_url
        self._token = token
        self._looked = -math.inf  # when the lease was last seen to be ours

    # -- settings

    @cached_property
    def settings(self) -> Settings:
        """The run's settings.

        Raises
        ------
        JobError
            When there is no run, something else, or a run of another format version.
        """
        found = self.find_settings()
        if found is None:
            raise JobError(f"there is no run at {self.url}.")
        return found

    def find_settings(self) -> Settings | None:
        """The settings, or None where nothing is yet.

        Raises
        ------
        JobError
            When the place holds something else, or a run of another format version.
        """
        if self.store.is_absent():
            return None
        content = self.store.get(ROOT)
        if content is None:
            other = next((key for key in self.store.keys_under("") if not key.startswith((PROBE, f"{LEASE}/"))), None)
            if other is not None:
                raise JobError(f"{self.url} holds something else ({other}): choose an empty place.")
            return None
        try:
            attributes = parsed(Root, content, f"{self.url}/{ROOT}").attributes.get("distcluster")
            if attributes is None:
                raise JobError(f"{self.url} is Zarr that distcluster did not make: choose another place.")
            version = attributes.get("format_version")
            if version != FORMAT_VERSION:
                raise JobError(
                    f"the run {self.url} has format version {version}, this distcluster writes {FORMAT_VERSION}: use "
                    f"the version that made it, or another output."
                )
            return parsed(Settings, json.dumps(attributes).encode(), f"{self.url}/{ROOT}")
        except JobError:
            raise
        except ValueError as error:
            raise JobError(
                f"{error}. The run's settings are damaged: restore that file, or choose another output."
            ) from error

    @cached_property
    def job(self) -> Job:
        """The job that the run was made for, with defaults for what is no part of its identity."""
        tables = {table: dict(keys) for table, keys in self.settings.job.items()}
        return parse_job(tables, name=f"{self.url}/{ROOT}")

    @property
    def partitioning(self) -> Partitioning:
        """How the run's rows are cut, as resolved when it was made."""
        return self.settings.partitioning

    @property
    def fitted(self) -> Partitioning:
        """The same for the rows that the model was made from: those that were there before others were appended."""
        return replace(self.partitioning, n_rows=(*self.settings.appended, self.partitioning.n_rows)[0])

    @property
    def is_prediction(self) -> bool:
        """Whether rows are labelled by a model that another run has made."""
        return self.settings.model not in ("", self.settings.run_id)

    @property
    def dropped(self) -> tuple[str, ...]:
        """The paths that have been emptied since they were committed."""
        return self.settings.dropped

    @property
    def input_url(self) -> Url:
        """Where the input is."""
        return self._input_url or self.job.input.url

    @property
    def ref(self) -> RunRef:
        """What a task needs to open this run."""
        n_rows = self.partitioning.n_rows
        return RunRef(self.url, self.settings.run_id, self.input_url, self._token, self.attempt, n_rows)

    # -- within another run

    @cached_property
    def around(self) -> "Run | None":
        """The run around this one, where this is a choice within it.

        Raises
        ------
        JobError
            When it is not there, or another one.
        """
        if (of := self.settings.around) is None:
            return None
        found = None
        around = Run(self.url.whole.rstrip("/").rsplit("/", 2)[0], self._input_url, attempt=self._kept_attempt)
        with contextlib.suppress(JobError):  # something else lies there
            found = around.find_settings()
        if found is None or found.run_id != of.run_id:
            raise JobError(f"{self.url} was chosen from a run that is not around it any more: choose again.")
        return around

    def holder(self, stage: str) -> "Run":
        """The run that holds the results of a stage: this one, or the one around it."""
        of = self.settings.around
        if of is None or stage in of.makes:
            return self
        assert self.around is not None
        return self.around

    @contextlib.contextmanager
    def read_once(self, stages: Sequence[str]) -> Iterator[None]:
        """While nobody writes to the run, read all records of some stages, and what their single tasks have published.

        All at once, for a store answers in its own time; within this they are not asked for again.
        """
        with contextlib.ExitStack() as stack:
            for run in (self, self.around):
                if run is not None:
                    stack.enter_context(run.records.read_once())
            small: dict[ArrayStore, list[str]] = {}
            for stage, of_stage in zip(stages, at_once(self.records.of_stage, stages), strict=True):
                objects = of_stage[ONE].objects if ONE in of_stage else {}
                few = (key for key, size in objects.items() if size < _SMALL_BYTES)
                small.setdefault(self.holder(stage).store, []).extend(few)
            for store, keys in small.items():
                stack.enter_context(store.read_ahead(keys))
            yield

    def _records_elsewhere(self, stage: str) -> Records | None:
        holder = self.holder(stage)
        return None if holder is self else holder.records

    # -- life

    @contextlib.contextmanager
    def writing(self, seconds: float) -> Iterator[None]:
        """Be the run's one writer, by a lease that lasts so long after it was last renewed.

        Raises
        ------
        RunHeldError
            When another process is.
        """
        with lease.held(self.store, seconds) as self._token:
            try:
                yield
            finally:
                self._token = None

    def require_lease(self) -> None:
        """Before every change.

        Raises
        ------
        LeaseLostError
            When another writer has taken the run.
        """
        if self._token is None:
            raise RuntimeError("this run was opened for reading")
        if time.monotonic() - self._looked > _LOOK_SECONDS:
            lease.require(self.store, self._token)
            self._looked = time.monotonic()

    def create(self, settings: Settings) -> None:
        """Make the run by one conditional put of its root."""
        self.require_lease()
        root = {"zarr_format": 3, "node_type": "group", "attributes": {"distcluster": asdict(settings)}}
        obstore.put(self.store.objects, ROOT, json.dumps(root, indent=2).encode(), mode="create")

    def make_arrays(self, arrays: Iterable[RowArray]) -> None:
        """Make the row arrays that are not there yet, or are shorter: the run is new, has grown, or was cut short."""
        self.require_lease()
        parts, job = self.partitioning, self.job
        sizes = {
            "n_neighbors": job.projection.n_neighbors, "d": job.projection.n_components, "top": job.assign.top,
        }  # fmt: skip

        def make(each: RowArray) -> None:
            length, chunk, shard = (
                (parts.n_rows, parts.block_rows, parts.partition_rows)
                if each.counts == "rows"
                else (parts.n_blocks, parts.partition_blocks, parts.partition_blocks)
            )
            shape = (length, *each.tail(sizes))
            self.store.make_array(
                each.path, shape, each.dtype, each.fill_value, chunk, shard, dimensions(each, len(shape))
            )

        at_once(self.store.make_group, GROUPS)
        at_once(make, arrays)

    def update(self, **changes: Any) -> None:
        """Replace single settings."""
        self.require_lease()
        self.__dict__["settings"] = replace(self.settings, **changes)
        self.__dict__.pop("job", None)
        self.store.set_attribute("distcluster", asdict(self.settings))

    def forget_settings(self) -> None:
        """Read the settings again when they are next asked for: another process may have changed them."""
        for each in ("settings", "job", "around"):
            self.__dict__.pop(each, None)

    def drop(self, path: str) -> None:
        """Delete what later stages no longer need: every object under a path but array metadata.

        The path is noted first, so that its absence does not make anyone do the work again. Should it be needed
        after all, reading it raises ``CorruptError`` and the one missing item is made again.
        """
        if path not in self.settings.dropped:
            self.update(dropped=(*self.settings.dropped, path))
        keys = (key for key in self.store.keys_under(path) if not key.endswith("zarr.json"))
        self.store.delete(keys, look=self.require_lease)

    def erase(self, own: re.Pattern[str], under: str = "") -> None:
        """Delete the objects that are a run's own, the root last; what is not stays, and what a link leads to.

        Parameters
        ----------
        own : pattern
            What keys of own objects match.
        under : str
            Delete no others than those under this path.
        """
        keys = [key for key in self.store.keys_under(under) if key != ROOT and own.fullmatch(key)]
        # Roots of choices after what they hold: a place with a root can be opened, and made again.
        self._delete_own(sorted(keys, key=lambda key: (key.endswith("zarr.json"), -key.count("/"))))
        if not under:
            self.store.delete([ROOT], look=self.require_lease)
            self.forget_settings()

    def undo(self, stage: str) -> None:
        """Forget a stage, and delete what its items have written."""
        written = [key for record in self.records.of_stage(stage).values() for key in record.objects]
        self.records.forget(stage)
        self._delete_own(written)

    def _delete_own(self, keys: Iterable[str]) -> None:
        inside = (key for key in keys if self.store.is_inside(key))
        self.store.delete(inside, look=self.require_lease, for_others=True)

    # -- for people and for other processes

    def note_error(self, message: str) -> None:
        """Keep the last error for ``status``; an empty message says that there is none."""
        self.require_lease()
        self.store.put(ERROR, json.dumps(asdict(ErrorNote(message))).encode())

    def last_error(self) -> str:
        """What ``note_error`` kept."""
        content = self.store.get(ERROR)
        try:
            return "" if content is None else parsed(ErrorNote, content, ERROR).error
        except ValueError as error:
            return str(error)
