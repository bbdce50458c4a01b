"""The lease: a run has one writer at a time, and a writer that has lost the run can commit nothing.

A lease is an object with a number, the fencing token. It is made conditionally, so two processes cannot make the same
one; the highest number is the writer's, and every commit carries it.
"""

import contextlib
import getpass
import json
import logging
import os
import platform
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError

from distcluster.errors import LeaseLostError, RunHeldError, StorageError
from distcluster.storage.array_store import ArrayStore
from distcluster.storage.layout import LEASE
from distcluster.storage.records import parsed

MOST_SECONDS = 3600.0
"""No lease lasts longer, whatever it says."""

_RENEWALS = 6  # in the time that a lease lasts: some may fail
_PATIENCE = 5.0  # seconds that a renewal under way is waited for

log = logging.getLogger("distcluster")


@dataclass(frozen=True, slots=True)
class Holder:
    """Who writes to a run.

    Attributes
    ----------
    user, host : str
    pid : int
    machine : str
        The boot of the machine and the namespace of its process numbers: within one, a process can be looked for.
    started : float
        When the process was started, seconds: its number may be given again.
    since : str
        When it took the run, UTC.
    seconds : float
        The lease lasts so long after it was last renewed.
    is_over : bool
        The writer has gone home.
    """

    user: str
    host: str
    pid: int
    machine: str
    started: float
    since: str
    seconds: float
    is_over: bool = False

    def __str__(self) -> str:
        return f"process {self.pid} of {self.user} on {self.host}, since {self.since}"

    def lives(self) -> bool | None:
        """Whether its process is there; None where this process cannot know."""
        if self.machine != _machine():
            return None
        import psutil  # here and below: who looks at a finished run needs none of it

        if not psutil.pid_exists(self.pid):
            return False
        try:  # clocks are set, and other users' processes may be hidden: what is not certain is not known
            return True if abs(psutil.Process(self.pid).create_time() - self.started) < 1 else None
        except psutil.Error:
            return None


@contextlib.contextmanager
def held(store: ArrayStore, seconds: float) -> Iterator[int]:
    """Be a run's one writer; yields the token.

    Parameters
    ----------
    store : ArrayStore
    seconds : float
        The lease lasts so long after it was last renewed, which is done six times in that time.

    Raises
    ------
    RunHeldError
        When another process writes to the run.
    """
    import psutil

    process = psutil.Process()
    since = f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC"
    me = Holder(_user(), platform.node(), process.pid, _machine(), process.create_time(), since, seconds)
    token = _take(store, me)
    over = threading.Event()
    renewal = threading.Thread(target=_renew, args=(store, token, me, over), name="lease", daemon=True)
    renewal.start()
    is_away = False
    try:
        yield token
    except (StorageError, BaseError):
        is_away = True  # nothing can be written: the lease ends by itself
        raise
    finally:
        over.set()
        if not is_away:
            renewal.join(_PATIENCE)  # or it would write after this
            if not renewal.is_alive() and _newest(store) == token:
                _write(store, token, replace(me, is_over=True))


def require(store: ArrayStore, token: int) -> None:
    """Refuse to go on when another writer has taken the run.

    Raises
    ------
    LeaseLostError
        Naming that writer.
    """
    newest = _newest(store)
    if newest != token:
        raise LeaseLostError(
            f"another writer has taken this run, so nothing more of this one is committed: {_read(store, newest)}."
        )


def find_writer(store: ArrayStore) -> Holder | None:
    """Who holds the run; on another machine it may have died since."""
    found = _read(store, _newest(store))
    return None if found is None or found.is_over or found.lives() is False else found


def heard_from(store: ArrayStore, now: datetime) -> float | None:
    """Seconds since the run's writer last renewed its lease, by the store's clock and the given one; None: nobody has.

    Nothing is written, so two clocks are compared: a person is told, and nothing follows from it.
    """
    newest = max(store.listed(LEASE), key=lambda each: _number(each["path"]), default=None)
    return None if newest is None else max(0.0, (now - newest["last_modified"]).total_seconds())


def _take(store: ArrayStore, me: Holder) -> int:
    """Make the next lease once the last one is over, or its holder is dead, or has not renewed it in its time."""
    while True:
        last = _newest(store)
        _wait_for(store, last)
        # The first number is the time: an output that was removed must not give a number twice.
        token = last + 1 if last else time.time_ns()
        try:
            obstore.put(store.objects, _key(token), _encoded(me), mode="create")
        except AlreadyExistsError:
            continue
        if _newest(store) == token:
            store.delete(key for key in store.keys_under(LEASE) if _number(key) < token)
            return token


def _wait_for(store: ArrayStore, token: int) -> None:
    """Wait until a lease is over, its holder dead, or it has not been renewed in its time.

    Raises
    ------
    RunHeldError
        When the holder is there, or renews.
    """
    holder = _read(store, token)
    if holder is None or holder.is_over or (lives := holder.lives()) is False:
        return
    lasts = min(holder.seconds, MOST_SECONDS)
    first, age = _renewed(store, token)
    until = time.monotonic() + lasts - max(age, 0.0)
    if age < lasts and not lives:
        log.warning("the run was being written by %s; waiting to see whether it still is", holder)
    renewed = first
    while time.monotonic() < until:
        if lives or renewed != first:
            raise RunHeldError(
                f"the run is being written by {holder}, and has one writer at a time. Wait for it, end it, or choose "
                f"another output."
            )
        time.sleep(1)
        renewed, _ = _renewed(store, token)


def _renew(store: ArrayStore, token: int, me: Holder, over: threading.Event) -> None:
    while not over.wait(me.seconds / _RENEWALS):
        try:
            if _newest(store) != token:
                return  # whatever is committed next says so
            _write(store, token, me)
        except (OSError, BaseError):
            continue  # a store that is away for a moment: the next renewal comes soon


def _renewed(store: ArrayStore, token: int) -> tuple[Any, float]:
    """When a lease was last written, and the seconds since then: both by the store's clock."""
    probe = store.put_probe()
    try:
        now, then = (obstore.head(store.objects, key)["last_modified"] for key in (probe, _key(token)))
    except FileNotFoundError:  # another writer has just taken it
        return None, 0.0
    finally:
        store.delete([probe])
    return then, (now - then).total_seconds()


def _newest(store: ArrayStore) -> int:
    return max((_number(key) for key in store.keys_under(LEASE)), default=0)


def _read(store: ArrayStore, token: int) -> Holder | None:
    content = store.get(_key(token))
    try:
        return None if content is None else parsed(Holder, content, _key(token))
    except ValueError:
        return None  # torn by a machine that lost power: nobody's


def _write(store: ArrayStore, token: int, holder: Holder) -> None:
    store.put(_key(token), _encoded(holder))


def _encoded(holder: Holder) -> bytes:
    return json.dumps(asdict(holder)).encode()


def _key(token: int) -> str:
    return f"{LEASE}/{token}.json"


def _number(key: str) -> int:
    name = key.removeprefix(f"{LEASE}/").removesuffix(".json")
    return int(name) if name.isdecimal() else 0


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a pod's user need not have a name
        return str(os.getuid())


def _machine() -> str:
    """The boot and the process namespace that a process number belongs to."""
    boot, namespace = Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")
    if boot.exists() and namespace.exists():
        return f"{boot.read_text().strip()} {namespace.readlink()}"
    import psutil

    return f"{platform.node()} {psutil.boot_time():.0f}"
