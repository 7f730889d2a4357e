"""Captures the JSON lines of the log in a test."""

import io
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import structlog

from latchkey.infrastructure.telemetry.logging import configure


class CapturedLog:
    """The lines that have been logged so far."""

    def __init__(self) -> None:
        self.stream = io.StringIO()

    def lines(self, event: str) -> list[dict[str, Any]]:
        """The lines with this event."""
        return [line for line in self.all_lines() if line["event"] == event]

    def all_lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.stream.getvalue().splitlines()]


@contextmanager
def restored_logging() -> Iterator[None]:
    """Restore the configuration of logging, which is global to the process."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers.clear()  # so that `configure` does not close the handlers of the test runner
    yield
    logging.captureWarnings(capture=False)
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


@contextmanager
def captured_log() -> Iterator[CapturedLog]:
    """Configure logging as the service does, with an output that the test can read."""
    with restored_logging():
        log = CapturedLog()
        configure(to=log.stream)
        yield log
