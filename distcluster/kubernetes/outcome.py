"""How a submission's job ended."""

from dataclasses import dataclass

from distcluster.errors import DONE, FAILED, TRY_AGAIN, WRONG
from distcluster.kubernetes.submitted import Submitted, container_states, role_of


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a job ended."""

    code: int
    """The exit code that stands for it."""
    sentence: str
    """The same for a person; empty where the driver's own words are enough."""


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
    codes = [state["terminated"]["exitCode"] for state in container_states(pod, "state") if "terminated" in state]
    others = (
        [
            each["name"]
            for each in pod["status"]["containerStatuses"]
            if each["name"] != role_of(pod) and "running" in each.get("state", {})
        ]
        if codes
        else []
    )
    if not others or codes[0] not in (DONE, FAILED, WRONG):
        return None
    return Outcome(codes[0], f"The driver is over. {', '.join(others)} runs on in its pod, and is not waited for.")


def _last_exit_code(seen: Submitted) -> int:
    for pod in reversed(seen.of_role("driver")):
        for state in container_states(pod, "state"):
            if "terminated" in state:
                return int(state["terminated"]["exitCode"])
    return FAILED  # its pods are gone already
