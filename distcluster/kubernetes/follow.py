"""Follow a submission to its end: what its pods are up to, in sentences, and the driver's lines as they come."""

import time
from collections.abc import Callable

from distcluster.errors import WRONG
from distcluster.kubernetes.kubectl import Kubectl, KubectlError
from distcluster.kubernetes.outcome import Outcome, outcome
from distcluster.kubernetes.pod_logs import DriverLogs
from distcluster.kubernetes.streams import Streams
from distcluster.kubernetes.submitted import Submitted, phase_of
from distcluster.kubernetes.troubles import NO_IMAGE, pod_counts, sentences, troubles
from distcluster.kubernetes.watching import KINDS, Watching

_TICK_SECONDS = 2.0
_COUNT_SECONDS = 30.0
_PATIENCE_SECONDS = 300.0  # an image that cannot be pulled, a cluster that does not answer: then it is given up

_NEEDED = ("driver", "scheduler")  # without a worker or two the job goes on

GAVE_UP = WRONG
"""Exit code of a job whose image cannot be pulled: nothing ran, and the same submission would not either."""


def follow(
    kubectl: Kubectl,
    name: str,
    say: Callable[[str], None],
    show: Callable[[str], None],
    each_look: Callable[[Submitted], None] = lambda _: None,
    tick_seconds: float = _TICK_SECONDS,
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
        Called with what is known whenever that may have changed, and at every tick.
    tick_seconds : float
        Between two looks at what does not change by itself, and between two tries of a cluster that does not answer.
    patience_seconds : float
        How long an image may be missing, or the cluster not answer.

    Raises
    ------
    KubectlError
        When the cluster has not answered for so long; the job goes on.
    """
    told = _Told(say)
    image, contact = _Patience(patience_seconds), _Patience(patience_seconds)
    with Streams() as streams:
        watching = Watching(kubectl, name, streams, told.once)
        logs = DriverLogs(kubectl, streams, show)
        while True:
            if not _is_in_contact(watching, told, contact):
                time.sleep(tick_seconds)
                continue
            seen = watching.seen()
            each_look(seen)
            told.look(seen)
            logs.follow(seen.of_role("driver"))
            ended = outcome(seen)
            if ended is not None:
                logs.read_rest(seen.of_role("driver"))
                return ended
            if image.is_over(any(phase_of(pod) in NO_IMAGE for role in _NEEDED for pod in seen.of_role(role))):
                return Outcome(GAVE_UP, f"Given up: the image could not be pulled for {patience_seconds:.0f} s.")
            for source, part in streams.take(min(tick_seconds, watching.seconds_to_list())):
                (watching if source in KINDS else logs).take(source, part)


def _is_in_contact(watching: Watching, told: "_Told", patience: "_Patience") -> bool:
    try:
        watching.catch_up()
    except KubectlError as error:
        told.once(f"No answer, trying on: {error}")
        if patience.is_over(True):
            raise
        return False
    patience.is_over(False)
    return True


class _Patience:
    """How long something may be wrong without a break."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._since: float | None = None

    def is_over(self, is_wrong: bool) -> bool:
        """Whether it has been wrong for too long, given how it is now."""
        now = time.monotonic()
        if not is_wrong or self._since is None:
            self._since = now if is_wrong else None
        return self._since is not None and now - self._since > self._seconds


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
        if time.monotonic() - self._counted >= _COUNT_SECONDS or all(phase_of(pod) == "Running" for pod in seen.pods):
            self._counted = time.monotonic()
            self.once(pod_counts(seen))
