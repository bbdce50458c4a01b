"""What can go wrong, and the exit code of each."""

from typing import ClassVar

DONE, FAILED, WRONG, TRY_AGAIN, INTERRUPTED = 0, 1, 2, 75, 130
"""Exit codes: 75 is sysexits' EX_TEMPFAIL, 130 a shell's for Ctrl-C."""


class ExpectedError(Exception):
    """A failure whose message tells a person all there is to know: no traceback is shown."""

    exit_code: ClassVar[int] = FAILED
    """What the command line exits with."""


class JobError(ExpectedError, ValueError):
    """The job file, the command or the input is wrong: the message says what to change."""

    exit_code = WRONG


class InputChangedError(JobError):
    """A block of the input is not what the scan saw."""


class JobFailedError(ExpectedError, RuntimeError):
    """The job cannot succeed by trying again."""


class EnvironmentMismatchError(JobFailedError):
    """A process that would compute other bits than the run was made with."""


class SchedulerLostError(ExpectedError, ConnectionError):
    """The scheduler cannot be reached, or has gone: trying again later can help."""

    exit_code = TRY_AGAIN


class StorageError(ExpectedError):
    """A store was away for longer than it is tried again, or is full: trying later can help."""

    exit_code = TRY_AGAIN


class RunHeldError(ExpectedError):
    """Another process writes to the run; once it has ended, trying again can help."""

    exit_code = TRY_AGAIN


class LeaseLostError(ExpectedError):
    """Another process has taken the run from this one."""

    exit_code = TRY_AGAIN


class CorruptError(ExpectedError, RuntimeError):
    """Committed data cannot be read back as it was written; ``stage`` and ``item`` name the record to discard."""

    def __init__(self, message: str, stage: str, item: str) -> None:
        super().__init__(message, stage, item)
        self.stage = stage
        self.item = item

    def __str__(self) -> str:
        return str(self.args[0])
