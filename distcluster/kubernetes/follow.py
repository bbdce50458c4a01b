"""A submission as its cluster sees it: what its pods are up to, in sentences, and how its job ended."""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from distcluster.errors import DONE, FAILED, TRY_AGAIN, WRONG
from distcluster.kubernetes.kubectl import Kubectl, KubectlError
from distcluster.kubernetes.objects import COMPONENT, Object, labels
from distcluster.kubernetes.pod_logs import DriverLog

_POLL_SECONDS = 2.0
_PODS = 100  # whose states are asked for so often; of more, more rarely: they are some kilobytes each
_COUNT_SECONDS = 30.0
_PATIENCE_SECONDS = 300.0  # an image that cannot be pulled, a cluster that does not answer: then it is given up
_TOLD_EVENTS = ("FailedMount", "FailedAttachVolume", "FailedCreate")
_NO_IMAGE = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull")

GAVE_UP = WRONG
"""Exit code of a job whose image cannot be pulled: nothing ran, and the same submission would not either."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a job ended."""

    code: int
    """The exit code that stands for it."""
    sentence: str
    """The same for a person; empty where the driver's own words are enough."""


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


def look(kubectl: Kubectl, name: str) -> Submitted:
    """Ask for a submission's job, its pods and what went wrong with them."""
    selector = ",".join(f"{key}={value}" for key, value in labels(name).items())
    found = kubectl.get("jobs,pods", "--selector", selector)
    drivers = [each for each in found if each["kind"] == "Job" and each["metadata"]["labels"][COMPONENT] == "driver"]
    try:
        events = kubectl.get("events", "--field-selector", "type=Warning")
    except KubectlError:  # not everybody may read them
        events = []
    named = [each for each in events if each["involvedObject"].get("name", "").startswith(f"{name}-")]
    return Submitted(drivers[0] if drivers else None, [each for each in found if each["kind"] == "Pod"], named)


# --- what pods are up to ----------------------------------------------------------------------------------------


def pod_counts(seen: Submitted) -> str:
    """One line: how many pods of each role run."""
    counts = []
    for role in ("scheduler", "worker", "driver"):
        pods = seen.of_role(role)
        running = sum(_phase(pod) == "Running" for pod in pods)
        other = sorted({_phase(pod) for pod in pods} - {"Running"})
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


def _phase(pod: Object) -> str:
    waiting = [state["waiting"].get("reason") for state in _container_states(pod, "state") if "waiting" in state]
    return next((reason for reason in waiting if reason), str(pod.get("status", {}).get("phase", "Pending")))


def _role(pod: Object) -> str:
    return str(pod["metadata"]["labels"][COMPONENT])


def _container_states(pod: Object, key: str) -> Iterator[dict[str, Any]]:
    """States of our container, which has its role's name: others may have been injected beside it."""
    for container in pod.get("status", {}).get("containerStatuses", []):
        if container["name"] == _role(pod):
            yield container.get(key, {})


def _pod_troubles(pod: Object) -> Iterator[Trouble]:
    role = _role(pod)
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
    for state in _container_states(pod, "state"):
        yield from _waiting_troubles(container, state.get("waiting", {}))
    memory = container.get("resources", {}).get("limits", {}).get("memory", "its limit")
    killed = [*_container_states(pod, "state"), *_container_states(pod, "lastState")]
    if any(state.get("terminated", {}).get("reason") == "OOMKilled" for state in killed):
        yield (
            "out of memory",
            f"was killed for using more than its memory ({memory}). Raise deploy.{role}_memory; "
            f"`distcluster plan` says what a task needs.",
        )


def _waiting_troubles(container: Object, waiting: dict[str, Any]) -> Iterator[tuple[str, str]]:
    reason, message = waiting.get("reason"), waiting.get("message", "")
    if reason in _NO_IMAGE:
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


# --- how the job ended ------------------------------------------------------------------------------------------


def outcome(seen: Submitted) -> Outcome | None:
    """How the job ended; None while it runs."""
    if seen.job is None:
        return Outcome(FAILED, "The job is gone: somebody cancelled it. What was committed stays in the output.")
    conditions = {each["type"]: each for each in seen.job.get("status", {}).get("conditions", [])}
    if conditions.get("Complete", {}).get("status") == "True":
        return Outcome(DONE, "")
    failed = conditions.get("Failed", {})
    if failed.get("status") != "True":
        return _held_open(seen)
    reason, code = failed.get("reason"), _last_exit_code(seen)
    if reason == "DeadlineExceeded":
        return Outcome(TRY_AGAIN, "The job ran longer than deploy.deadline_seconds. Submit it again to go on.")
    if reason == "BackoffLimitExceeded":
        return Outcome(code, f"The driver failed too often, the last time with {code}. Submit it again to go on.")
    return Outcome(code, "")


def _held_open(seen: Submitted) -> Outcome | None:
    """The end of a job whose driver is over, but not its pod, for something that was injected runs on."""
    pod = next(reversed(seen.of_role("driver")), None)
    if pod is None:
        return None
    codes = [state["terminated"]["exitCode"] for state in _container_states(pod, "state") if "terminated" in state]
    others = (
        [
            each["name"]
            for each in pod["status"]["containerStatuses"]
            if each["name"] != _role(pod) and "running" in each.get("state", {})
        ]
        if codes
        else []
    )
    if not others or codes[0] not in (DONE, FAILED, WRONG):
        return None
    return Outcome(codes[0], f"The driver is over. {', '.join(others)} runs on in its pod, and is not waited for.")


def _last_exit_code(seen: Submitted) -> int:
    for pod in reversed(seen.of_role("driver")):
        for state in _container_states(pod, "state"):
            if "terminated" in state:
                return int(state["terminated"]["exitCode"])
    return FAILED  # its pods are gone already


# --- watching ---------------------------------------------------------------------------------------------------


def follow(
    kubectl: Kubectl,
    name: str,
    say: Callable[[str], None],
    show: Callable[[str], None],
    each_look: Callable[[Submitted], None] = lambda _: None,
    poll_seconds: float = _POLL_SECONDS,
    patience_seconds: float = _PATIENCE_SECONDS,
) -> Outcome:
    """Watch a submission to its end.

    Parameters
    ----------
    kubectl : Kubectl
    name : str
        The submission's.
    say : callable
        Gets what we have to say, a sentence at a time.
    show : callable
        Gets the driver's own lines.
    each_look : callable
        Called with every look at the cluster.
    poll_seconds : float
        Between two looks.
    patience_seconds : float
        How long an image may be missing, or the cluster not answer.

    Raises
    ------
    KubectlError
        When the cluster has not answered for so long; the job goes on.
    """
    log, told = DriverLog(kubectl), _Told(say)
    answered = pulled = time.monotonic()
    while True:
        try:
            seen = look(kubectl, name)
        except KubectlError as error:
            told.once(f"No answer, trying on: {error}")
            if time.monotonic() - answered > patience_seconds:
                raise
            time.sleep(poll_seconds)
            continue
        answered = time.monotonic()
        each_look(seen)
        told.look(seen)
        for pod in seen.of_role("driver"):
            for line in log.new_lines(pod["metadata"]["name"]):
                show(line)
        ended = outcome(seen)
        if ended is not None:
            return ended
        if not any(_phase(pod) in _NO_IMAGE for pod in seen.of_role("driver") + seen.of_role("scheduler")):
            pulled = time.monotonic()
        elif time.monotonic() - pulled > patience_seconds:
            return Outcome(GAVE_UP, f"Given up: the image could not be pulled for {patience_seconds:.0f} s.")
        time.sleep(poll_seconds * max(1.0, len(seen.pods) / _PODS))


class _Told:
    """What was said, so that it is not said again."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._sentences, self._troubles = set[str](), set[tuple[str, str]]()
        self._counted = -_COUNT_SECONDS

    def once(self, sentence: str) -> None:
        if sentence not in self._sentences:
            self._sentences.add(sentence)
            self._say(sentence)

    def look(self, seen: Submitted) -> None:
        new = [each for each in troubles(seen) if (each.name, each.kind) not in self._troubles]
        self._troubles |= {(each.name, each.kind) for each in new}
        for sentence in sentences(new):
            self._say(sentence)
        # Hundreds of workers start one after the other.
        if time.monotonic() - self._counted >= _COUNT_SECONDS or all(_phase(pod) == "Running" for pod in seen.pods):
            self._counted = time.monotonic()
            self.once(pod_counts(seen))
