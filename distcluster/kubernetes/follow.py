"""A submission as its cluster sees it: what its pods are up to, in sentences, and how its job ended."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from distcluster.errors import DONE, FAILED, TRY_AGAIN, WRONG
from distcluster.kubernetes.kubectl import Kubectl, KubectlError
from distcluster.kubernetes.objects import COMPONENT, Object, labels
from distcluster.kubernetes.pod_logs import DriverLog

_POLL_SECONDS = 2.0
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


def troubles(seen: Submitted) -> list[str]:
    """What keeps pods from working, each with its remedy; nothing where all is well."""
    return [sentence for pod in seen.pods for sentence in _pod_troubles(pod)] + [
        f"{event['involvedObject']['name']}: {event['reason']}: {event.get('message', '')}"
        for event in seen.events
        if event.get("reason") in _TOLD_EVENTS
    ]


def _phase(pod: Object) -> str:
    waiting = [state["waiting"].get("reason") for state in _container_states(pod, "state") if "waiting" in state]
    return next((reason for reason in waiting if reason), str(pod.get("status", {}).get("phase", "Pending")))


def _container_states(pod: Object, key: str) -> Iterator[dict[str, Any]]:
    for container in pod.get("status", {}).get("containerStatuses", []):
        yield container.get(key, {})


def _pod_troubles(pod: Object) -> Iterator[str]:
    name, status = pod["metadata"]["name"], pod.get("status", {})
    role = pod["metadata"]["labels"][COMPONENT]
    (container,) = pod["spec"]["containers"]
    for condition in status.get("conditions", []):
        message = condition.get("message", "")
        if condition.get("reason") == "Unschedulable" and condition["status"] == "False":
            yield (
                f"{name} finds no node: {message} Ask for less (deploy.{role}_memory, deploy.cpu, --workers), or add "
                f"nodes; it starts as soon as one has room."
            )
        if condition["type"] == "DisruptionTarget" and condition["status"] == "True":
            yield f"{name} is taken from its node: {message} What was committed stays; the rest is done elsewhere."
    if status.get("reason") == "Evicted":
        yield (
            f"{name} was evicted: {status.get('message', '')} Its node ran out of what pods share; another pod takes "
            f"its place. If it comes again, raise deploy.{role}_memory, or use nodes with more disk."
        )
    for state in _container_states(pod, "state"):
        yield from _waiting_troubles(name, container, state.get("waiting", {}))
    memory = container.get("resources", {}).get("limits", {}).get("memory", "its limit")
    killed = [*_container_states(pod, "state"), *_container_states(pod, "lastState")]
    if any(state.get("terminated", {}).get("reason") == "OOMKilled" for state in killed):
        yield (
            f"{name} was killed for using more than its memory ({memory}). Raise deploy.{role}_memory; "
            f"`distcluster plan` says what a task needs."
        )


def _waiting_troubles(name: str, container: Object, waiting: dict[str, Any]) -> Iterator[str]:
    reason, message = waiting.get("reason"), waiting.get("message", "")
    if reason in _NO_IMAGE:
        # The back-off's own message only repeats that it waits.
        told = "" if reason == "ImagePullBackOff" else f": {message}"
        yield (
            f"{name} cannot get its image {container['image']}{told}. Push it where the nodes reach it, or name "
            f"another with --image; a private registry wants an imagePullSecret on the service account."
        )
    elif reason in ("CreateContainerConfigError", "CreateContainerError"):
        yield f"{name} cannot start: {message}. Make what is missing; the pod then starts by itself."
    elif reason == "CrashLoopBackOff":
        yield f"{name} starts and dies again: its log says why (`distcluster logs --all`)."


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
        return None
    reason, code = failed.get("reason"), _last_exit_code(seen)
    if reason == "DeadlineExceeded":
        return Outcome(TRY_AGAIN, "The job ran longer than deploy.deadline_seconds. Submit it again to go on.")
    if reason == "BackoffLimitExceeded":
        return Outcome(code, f"The driver failed too often, the last time with {code}. Submit it again to go on.")
    return Outcome(code, "")


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
    log, told = DriverLog(kubectl), set[str]()
    answered = pulled = time.monotonic()
    while True:
        try:
            seen = look(kubectl, name)
        except KubectlError as error:
            _tell([f"No answer, trying on: {error}"], told, say)
            if time.monotonic() - answered > patience_seconds:
                raise
            time.sleep(poll_seconds)
            continue
        answered = time.monotonic()
        each_look(seen)
        _tell([*troubles(seen), pod_counts(seen)], told, say)
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
        time.sleep(poll_seconds)


def _tell(sentences: Sequence[str], told: set[str], say: Callable[[str], None]) -> None:
    """Say what was not said before."""
    for sentence in sentences:
        if sentence not in told:
            told.add(sentence)
            say(sentence)
