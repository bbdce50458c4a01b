"""Logs of pods as lines of JSON, for platforms that collect them: ``deploy.log_format``."""

import json
import logging
import os
from datetime import UTC, datetime

from distcluster.url import without_secrets

LOG_FORMAT = "DISTCLUSTER_LOG_FORMAT"
"""The variable that asks for it: json."""


def is_json_wanted() -> bool:
    """Whether this process logs lines of JSON."""
    return os.environ.get(LOG_FORMAT) == "json"


def json_line(level: str, logger: str, message: str, created: float | None = None) -> str:
    """A line of the log: ``time`` (UTC), ``level``, ``logger`` and ``message``, in which no URL has secrets."""
    time = datetime.now(UTC) if created is None else datetime.fromtimestamp(created, UTC)
    facts = {"time": time.isoformat(), "level": level, "logger": logger, "message": without_secrets(message)}
    return json.dumps(facts)


class JsonFormatter(logging.Formatter):
    """Records as such lines, a traceback in the message."""

    def format(self, record: logging.LogRecord) -> str:
        """As logging's."""
        return json_line(record.levelname.lower(), record.name, super().format(record), record.created)


def logging_variables() -> dict[str, str]:
    """Variables by which a pod logs so: Dask reads its own as a literal."""
    configuration = {
        "version": 1,
        "formatters": {"json": {"()": f"{__name__}.JsonFormatter"}},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "json"}},
        "root": {"level": "WARNING", "handlers": ["stderr"]},
        "loggers": {"distributed": {"level": "INFO"}},
    }
    return {LOG_FORMAT: "json", "DASK_LOGGING": repr(configuration)}
