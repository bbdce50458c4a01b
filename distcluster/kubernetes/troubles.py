"""What a submission's pods are up to, and what keeps them from working, in sentences."""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from distcluster.kubernetes.objects import Object
from distcluster.kubernetes.submitted import Submitted, container_states, phase_of, role_of

NO_IMAGE = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull")
"""What a pod waits for whose image cannot be had."""

_TOLD_EVENTS = ("FailedMount", "FailedAttachVolume", "FailedCreate")


def pod_counts(seen: Submitted) -> str:
    """One line: how many pods of each role run."""
    counts = []
    for role in ("scheduler", "worker", "driver"):
        pods = seen.of_role(role)
        running = sum(phase_of(pod) == "Running" for pod in pods)
        other = sorted({phase_of(pod) for pod in pods} - {"Running"})
        note = f" ({', '.join(other)})" if other else ""
        counts.append(f"{role} {running}/{len(pods)}{note}")
    return "pods running: " + ", ".join(counts)


class Trouble(NamedTuple):
    """What keeps a pod, or what makes pods, from working."""

    name: str
    """Whose."""
    kind: str
    """What a person is told once of many pods."""
    text: str
    """The rest of a sentence that begins with the name, its remedy included."""


def troubles(seen: Submitted) -> list[Trouble]:
    """What keeps pods from working; nothing where all is well."""
    return [trouble for pod in seen.pods for trouble in _pod_troubles(pod)] + [
        Trouble(event["involvedObject"]["name"], event["reason"], f"{event['reason']}: {event.get('message', '')}")
        for event in seen.events
        if event.get("reason") in _TOLD_EVENTS
    ]


def sentences(found: Iterable[Trouble]) -> list[str]:
    """Troubles as sentences, one for all that are of a kind: that of the first."""
    kinds: dict[str, list[Trouble]] = {}
    for each in found:
        kinds.setdefault(each.kind, []).append(each)
    return [
        f"Each of {len(more) + 1} pods, such as {first.name}, {first.text}" if more else f"{first.name} {first.text}"
        for first, *more in kinds.values()
    ]


def _pod_troubles(pod: Object) -> Iterator[Trouble]:
    role = role_of(pod)
    for kind, text in _kinds_of_trouble(pod, role):
        yield Trouble(pod["metadata"]["name"], f"{role} {kind}", text)


def _kinds_of_trouble(pod: Object, role: str) -> Iterator[tuple[str, str]]:
    status = pod.get("status", {})
    container = next(each for each in pod["spec"]["containers"] if each["name"] == role)
    for condition in status.get("conditions", []):
        message = condition.get("message", "")
        if condition.get("reason") == "Unschedulable" and condition["status"] == "False":
            yield (
                "unschedulable",
                f"finds no node: {message} Ask for less (deploy.{role}_memory, deploy.cpu, --workers), or add "
                f"nodes; it starts as soon as one has room.",
            )
        if condition["type"] == "DisruptionTarget" and condition["status"] == "True":
            text = f"is taken from its node: {message} What was committed stays; the rest is done elsewhere."
            yield "disrupted", text
    if status.get("reason") == "Evicted":
        yield (
            "evicted",
            f"was evicted: {status.get('message', '')} Its node ran out of what pods share; another pod takes "
            f"its place. If it comes again, raise deploy.{role}_memory, or use nodes with more disk.",
        )
    for state in container_states(pod, "state"):
        yield from _waiting_troubles(container, state.get("waiting", {}))
    memory = container.get("resources", {}).get("limits", {}).get("memory", "its limit")
    killed = [*container_states(pod, "state"), *container_states(pod, "lastState")]
    if any(state.get("terminated", {}).get("reason") == "OOMKilled" for state in killed):
        yield (
            "out of memory",
            f"was killed for using more than its memory ({memory}). Raise deploy.{role}_memory; "
            f"`distcluster plan` says what a task needs.",
        )


def _waiting_troubles(container: Object, waiting: dict[str, Any]) -> Iterator[tuple[str, str]]:
    reason, message = waiting.get("reason"), waiting.get("message", "")
    if reason in NO_IMAGE:
        # The back-off's own message only repeats that it waits.
        told = "" if reason == "ImagePullBackOff" else f": {message}"
        yield (
            f"image {reason}",
            f"cannot get its image {container['image']}{told}. Push it where the nodes reach it, or name "
            f"another with --image; a private registry wants deploy.pods.image_pull_secrets.",
        )
    elif reason in ("CreateContainerConfigError", "CreateContainerError"):
        yield "start", f"cannot start: {message}. Make what is missing; the pod then starts by itself."
    elif reason == "CrashLoopBackOff":
        yield "crash", "starts and dies again: its log says why (`distcluster logs --all`)."
