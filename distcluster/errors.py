"""What can go wrong, and the exit code of each."""

from typing import ClassVar

DONE, FAILED, WRONG, TRY_AGAIN, INTERRUPTED = 0, 1, 2, 75, 130
"""Exit codes: 75 is sysexits' EX_TEMPFAIL, 130 a shell's for Ctrl-C."""


class JobError(ValueError):
    """The job file, the command or the input is wrong: the message says what to change."""

    exit_code: ClassVar[int] = WRONG


class InputChangedError(JobError):
    """A block of the input is not what the scan saw."""


class JobFailedError(RuntimeError):
    """The job cannot succeed by trying again."""

    exit_code: ClassVar[int] = FAILED


class EnvironmentMismatchError(JobFailedError):
    """A process that would compute other bits than the run was made with."""


class SchedulerLostError(ConnectionError):
    """The scheduler cannot be reached, or has gone: trying again later can help."""

    exit_code: ClassVar[int] = TRY_AGAIN


class CorruptError(RuntimeError):
    """Committed data cannot be read back as it was written; ``stage`` and ``item`` name the record to discard."""

    exit_code: ClassVar[int] = FAILED

    def __init__(self, message: str, stage: str, item: str) -> None:
        super().__init__(message, stage, item)
        self.stage = stage
        self.item = item

    def __str__(self) -> str:
        return str(self.args[0])
