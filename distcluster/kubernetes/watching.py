"""A submission's objects as they change: kubectl's watches, and a list now and then of what they may have missed."""

import json
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from distcluster.kubernetes.kubectl import Kubectl
from distcluster.kubernetes.objects import Object
from distcluster.kubernetes.streams import Ended, Streams
from distcluster.kubernetes.submitted import WARNINGS, Submitted, is_about, look, of_objects, selector_of

KINDS = {"jobs": "Job", "pods": "Pod", "events": "Event"}
"""What is watched, as kubectl calls it, and what objects are of that kind."""

_SETTLED_SECONDS = 30.0  # a watch that lasts so long works: servers end each after half an hour or an hour
_FIRST_LIST_SECONDS = 10.0  # after a watch was started: what went between our list and the watch's own
_LIST_SECONDS = 300.0
_LONGEST_PAUSE_SECONDS = 30.0


class Watching:
    """What is known of a submission, kept up to date.

    A kind's watch that ends is begun anew with a list of all, at once where it has lasted, or else after a pause that
    doubles. So a cluster that lets us list and not watch is asked every half minute.

    Parameters
    ----------
    kubectl : Kubectl
    name : str
        The submission's.
    streams : Streams
        Where the watches run, under the kinds' names.
    say : callable
        Gets a sentence about watches that do not work.
    """

    def __init__(self, kubectl: Kubectl, name: str, streams: Streams, say: Callable[[str], None]) -> None:
        self._kubectl, self._name, self._streams, self._say = kubectl, name, streams, say
        self._objects: dict[tuple[str, str], Object] = {}
        self._pauses = dict.fromkeys(KINDS, 0.0)
        self._list_at = 0.0

    def seen(self) -> Submitted:
        """What is known now."""
        return of_objects(self._objects.values(), self._name)

    def seconds_to_list(self) -> float:
        """When ``catch_up`` has something to do."""
        return max(self._list_at - time.monotonic(), 0.0)

    def catch_up(self) -> bool:
        """List everything where that is due, and watch again what is not watched; whether it was due.

        Raises
        ------
        KubectlError
            When the cluster does not answer, or refuses: it stays due.
        """
        if self.seconds_to_list() > 0:
            return False
        listed = look(self._kubectl, self._name)
        # What the watches tell of an earlier state than the list's, they follow up with the later one.
        everything = [*([] if listed.job is None else [listed.job]), *listed.pods, *listed.events]
        self._objects = {_key(each): each for each in everything}
        missing = [kind for kind in self._pauses if not self._streams.is_open(kind)]
        for kind in missing:
            options = WARNINGS if kind == "events" else selector_of(self._name)
            argv = self._kubectl.argv("get", kind, *options, "--watch", "--output-watch-events", "--output", "json")
            self._streams.open(kind, argv, _changes)
        self._list_at = time.monotonic() + (_FIRST_LIST_SECONDS if missing else _LIST_SECONDS)
        return True

    def take(self, kind: str, change: Object | Ended) -> None:
        """Take note of what a watch has told."""
        if isinstance(change, Ended):
            self._begin_again(kind, change)
            return
        each = change["object"]
        if each.get("kind") != KINDS[kind]:  # an error, or a bookmark
            return
        if change["type"] == "DELETED":
            self._objects.pop(_key(each), None)
        elif kind != "events" or is_about(each, self._name):
            self._objects[_key(each)] = each

    def _begin_again(self, kind: str, ended: Ended) -> None:
        if ended.seconds >= _SETTLED_SECONDS:
            self._pauses[kind] = 0.0
        elif kind == "events":  # not everybody may read them
            del self._pauses[kind]
            return
        else:
            if self._pauses[kind]:
                words = f" ({ended.words})" if ended.words else ""
                self._say(f"Watching {kind} does not work{words}: they are looked at every half minute instead.")
            self._pauses[kind] = min(max(2 * self._pauses[kind], 1.0), _LONGEST_PAUSE_SECONDS)
        self._list_at = min(self._list_at, time.monotonic() + self._pauses[kind])


def _key(each: Object) -> tuple[str, str]:
    return each["kind"], each["metadata"]["name"]


def _changes(lines: Iterable[str]) -> Iterator[Any]:
    """What kubectl prints, a change a line, of which the last may be cut off."""
    return (json.loads(line) for line in lines if line.endswith("\n"))
