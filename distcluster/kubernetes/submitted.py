"""A submission as its cluster knows it: its Job, its pods, and what went wrong with them."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from distcluster.kubernetes.kubectl import Kubectl, KubectlError
from distcluster.kubernetes.objects import COMPONENT, Object, labels

WARNINGS = ("--field-selector", "type=Warning")
"""Options of kubectl for events that tell of trouble."""


@dataclass(frozen=True, slots=True)
class Submitted:
    """What the cluster knows of a submission."""

    job: Object | None
    pods: list[Object]
    events: list[Object]

    def of_role(self, role: str) -> list[Object]:
        """Pods of a role, the oldest first."""
        found = [pod for pod in self.pods if pod["metadata"]["labels"][COMPONENT] == role]
        return sorted(found, key=lambda pod: str(pod["metadata"].get("creationTimestamp", "")))


def selector_of(name: str) -> tuple[str, str]:
    """Options of kubectl for a submission's objects."""
    return "--selector", ",".join(f"{key}={value}" for key, value in labels(name).items())


def look(kubectl: Kubectl, name: str) -> Submitted:
    """Ask for a submission's job, its pods and what went wrong with them.

    Raises
    ------
    KubectlError
        When the cluster does not answer, or refuses.
    """
    found = kubectl.get("jobs,pods", *selector_of(name))
    try:
        events = kubectl.get("events", *WARNINGS)
    except KubectlError:  # not everybody may read them
        events = []
    return of_objects([*found, *events], name)


def of_objects(objects: Iterable[Object], name: str) -> Submitted:
    """The submission that some objects, Jobs and Pods of its own and events of the namespace, are of."""
    kinds: dict[str, list[Object]] = {"Job": [], "Pod": [], "Event": []}
    for each in objects:
        kinds[each["kind"]].append(each)
    drivers = [each for each in kinds["Job"] if each["metadata"]["labels"][COMPONENT] == "driver"]
    named = [each for each in kinds["Event"] if is_about(each, name)]
    return Submitted(drivers[0] if drivers else None, kinds["Pod"], named)


def is_about(event: Object, name: str) -> bool:
    """Whether an event is about an object of a submission."""
    return bool(event["involvedObject"].get("name", "").startswith(f"{name}-"))


def role_of(pod: Object) -> str:
    """What a pod is for: scheduler, worker or driver."""
    return str(pod["metadata"]["labels"][COMPONENT])


def phase_of(pod: Object) -> str:
    """A pod's phase, or what its container waits for."""
    waiting = [state["waiting"].get("reason") for state in container_states(pod, "state") if "waiting" in state]
    return next((reason for reason in waiting if reason), str(pod.get("status", {}).get("phase", "Pending")))


def container_states(pod: Object, key: str) -> Iterator[dict[str, Any]]:
    """States of our container, which has its role's name: others may have been injected beside it."""
    for container in pod.get("status", {}).get("containerStatuses", []):
        if container["name"] == role_of(pod):
            yield container.get(key, {})
