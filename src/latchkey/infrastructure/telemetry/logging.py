"""Structured logging: a line for each request, use-case call and turn, JSON unless on a terminal, secrets redacted."""

import asyncio
import json
import logging
import re
import sys
from collections.abc import Mapping
from contextvars import Context
from datetime import UTC, datetime
from time import monotonic
from typing import Any, TextIO

import msgspec
import structlog
from msgspec import Struct
from structlog.contextvars import get_contextvars
from structlog.dev import ConsoleRenderer, plain_traceback
from structlog.processors import TimeStamper, add_log_level, format_exc_info
from structlog.stdlib import ProcessorFormatter, add_logger_name
from structlog.typing import EventDict, Processor, WrappedLogger

from latchkey.domain.errors import Failure, TurnFailed, Unavailable
from latchkey.domain.ports import LogEntry, ToolBug, TurnReport, UseCaseCall

# A prefix counts at the start of a word, also after a JSON escape (`\n`) or a terminal colour code (`[35m`).
_WORD_START = r"(?:(?<![A-Za-z0-9])|(?<=\\[bfnrt])|(?<=\\u[0-9a-f]{4})|(?<=\[\dm)|(?<=\[\d\dm))"
_SECRET = re.compile(
    rf"{_WORD_START}(?:lk_|sk-)[\w-]{{6,}}"  # context tokens; keys of OpenAI (sk-) and Anthropic (sk-ant-)
    r"|(?:lk_|sk-)[\w-]{40,}"  # the same, anywhere in a word
    r"|eyJ[\w-]{8,}(?:\.[\w-]*){0,2}"  # JWTs
    r"|(?i:bearer)(?:\s|:|\\[nt]|%20|')+[\w.~+/-]{8,}=*"
    r"|://[^\s/:@\"']*:(?!\d{1,5}/)[^\s\"']+(?=@)",  # passwords in URLs; a port is not a password
    re.ASCII,
)
_SECRET_MARKERS = ("lk_", "sk-", "eyj", "bearer", "://")
"""Every match of `_SECRET` contains one of these (in any case). Searching for them first is much cheaper."""

_LIBRARIES_WITH_HANDLERS = ("uvicorn", "uvicorn.error", "uvicorn.access", "litestar", "openai.agents")
_VERBOSE_LIBRARIES = (
    "aiosqlite",
    "alembic",
    "asyncio",
    "httpcore2",
    "httpx2",
    "mcp",
    "openai",
    "sqlalchemy",
    "uvicorn.access",
)
_JSON = json.JSONEncoder(separators=(",", ":"), default=repr, skipkeys=True)

_SCALARS = {str, int, float, bool, type(None)}

_WARNING_TYPES: list[type[Failure]] = [Unavailable, *Unavailable.__subclasses__(), *TurnFailed.__subclasses__()]
_WARNING_CODES = {failure.code for failure in _WARNING_TYPES}
"""Outcomes that are neither a mistake of the client nor a bug."""

_FREQUENT_USE_CASES = {
    "append_events",
    "complete_tool_call",
    "read_events",
    "record_failure",
    "renew_turn",
    "renew_waiting_turn",
    "start_tool_call",
}
"""Use cases that a turn runs often, or whose failure is in another line: logged at debug level unless they fail."""

MAX_ERROR_LINES_PER_S = 10
"""Log lines of HTTP requests for each error status and code, in each process."""
_WINDOW_S = 1.0
_BAD_REQUEST, _SERVER_ERROR = 400, 500

_LEVEL_NAMES = {logging.DEBUG: "debug", logging.INFO: "info", logging.WARNING: "warning", logging.ERROR: "error"}

_log = structlog.get_logger("latchkey.calls")


class _JsonLines:
    """Writes lines of scalars as structlog would, at a third of the cost: every request writes at least one.

    `logger` is None unless logs are JSON.
    """

    def __init__(self) -> None:
        self.logger: structlog.WriteLogger | None = None
        self.level = logging.INFO

    def write(self, level: int, event: str, fields: Mapping[str, object]) -> bool:
        """Write the line if it has the level. Returns False, and writes nothing, unless logs are JSON."""
        if self.logger is None or not structlog.is_configured():
            return False
        if level >= self.level:
            timestamp = datetime.now(UTC).isoformat().replace("+00:00", "Z")
            line = {**fields, "event": event, **get_contextvars(), "level": _LEVEL_NAMES[level], "timestamp": timestamp}
            self.logger.msg(redacted(_to_json(line)))
        return True


_json_lines = _JsonLines()


def configure(*, as_json: bool | None = None, level: int = logging.INFO, to: TextIO | None = None) -> None:
    """Send the logs of this service and of all libraries to `to` (default stderr): as JSON unless it is a terminal."""
    stream = sys.stderr if to is None else to
    processors: list[Processor] = [structlog.contextvars.merge_contextvars, add_log_level, TimeStamper("iso", utc=True)]
    # Tracebacks do not show local variables, because they can contain secrets.
    console = ConsoleRenderer(colors=stream.isatty(), exception_formatter=plain_traceback)
    is_json = not stream.isatty() if as_json is None else as_json
    renderers: list[Processor] = [*([format_exc_info, _as_json] if is_json else [console]), _redacted]
    structlog.configure(
        processors=[*processors, *renderers],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(stream),
    )
    _json_lines.logger = structlog.WriteLogger(stream) if is_json else None
    _json_lines.level = level
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        ProcessorFormatter(
            foreign_pre_chain=[*processors, add_logger_name],
            processors=[ProcessorFormatter.remove_processors_meta, *renderers],
        )
    )
    _route_libraries(handler, level)


def log_call(entry: LogEntry) -> None:
    """Log one use-case call, turn or bug of a tool; implements the `CallLog` port. Bugs have their traceback."""
    if isinstance(entry, TurnReport):
        _log_turn(entry)
    elif isinstance(entry, ToolBug):
        fields = {"tool": entry.tool, "call_id": entry.call_id, "user_id": entry.user_id, "exc_info": entry.exception}
        log_event(logging.ERROR, "tool_failed", fields)
    else:
        _log_use_case_call(entry)


def _log_use_case_call(call: UseCaseCall) -> None:
    fields: dict[str, object] = {
        "use_case": call.use_case,
        "user_id": call.user_id,
        "outcome": call.outcome,
        "duration_ms": round(call.duration_ms, 2),
    }
    if call.cause:
        fields["cause"] = call.cause
    if call.outcome == Failure.code:
        fields["exc_info"] = True
    log_event(_level(call), "use_case_call", fields)


def _log_turn(turn: TurnReport) -> None:
    fields: dict[str, object] = {
        "turn_id": str(turn.turn_id),
        "conversation_id": str(turn.conversation_id),
        "user_id": turn.user_id,
        "agent": turn.agent,
        "assistant": turn.assistant,
        "model": turn.model,
        "attempt": turn.attempt,
        "status": turn.status,
        "code": turn.code,
        "detail": turn.detail,
        "cause": turn.cause,
        "stored": turn.is_stored,
        "steps": turn.usage.requests,
        "tools": turn.tools,
        "tool_errors": turn.failed_calls,
        "tools_ms": turn.tools_ms,
        "model_ms": [round(duration, 2) for duration in turn.metrics.model_ms],
        "retries": turn.metrics.retries,
        "upstream_status": turn.metrics.upstream_status,
        "waited_ms": round(turn.metrics.waited_ms, 2),
        "loaded_ms": round(turn.metrics.loaded_ms, 2),
        "db_ms": round(turn.metrics.db_ms, 2),
        "input_tokens": turn.usage.input_tokens,
        "cached_tokens": turn.cached_tokens,
        "output_tokens": turn.usage.output_tokens,
        "first_text_ms": turn.first_text_ms and round(turn.first_text_ms, 2),
        "duration_ms": round(turn.duration_ms, 2),
    }
    if turn.bug is not None:
        fields["exc_info"] = turn.bug
    log_event(_turn_level(turn), "turn", fields)


class _Window(Struct):
    """One second of error responses with the same status and code."""

    ends_at: float
    count: int = 0


class RequestLog:
    """Logs HTTP requests.

    Of a flood of errors, or of requests without a user, most are only counted, so that they do not fill the log.
    """

    def __init__(self) -> None:
        self._windows: dict[tuple[object, object], _Window] = {}

    def __call__(self, fields: Mapping[str, object]) -> None:
        """Log a request with these keys; `status`, `code` and `user_id` are among them."""
        status, code = fields["status"], fields["code"]
        is_error = isinstance(status, int) and status >= _BAD_REQUEST
        if (is_error or fields["user_id"] is None) and self._is_too_frequent(status, code):
            return
        is_server_error = isinstance(status, int) and status >= _SERVER_ERROR
        log_event(logging.WARNING if is_server_error else logging.INFO, "http_request", fields)

    def _is_too_frequent(self, status: object, code: object) -> bool:
        """Count a response. Those of a second that get no line are logged as one number at its end."""
        now = monotonic()
        window = self._windows.get((status, code))
        if window is None or now >= window.ends_at:
            window = self._windows[status, code] = _Window(now + _WINDOW_S)
        window.count += 1
        if window.count == MAX_ERROR_LINES_PER_S + 1:
            # In a context of its own: the line is not about the current request.
            loop, remaining_s = asyncio.get_running_loop(), window.ends_at - now
            loop.call_later(remaining_s, _log_rest, status, code, window, context=Context())
        return window.count > MAX_ERROR_LINES_PER_S


def _log_rest(status: object, code: object, window: _Window) -> None:
    fields = {"status": status, "code": code, "count": window.count - MAX_ERROR_LINES_PER_S}
    log_event(logging.WARNING, "http_requests_not_logged", fields)


def log_event(level: int, event: str, fields: Mapping[str, object]) -> None:
    """Log one event with these keys. `exc_info` is an exception or True, as in the standard library."""
    if "exc_info" in fields or not _json_lines.write(level, event, fields):
        _log.log(level, event, **fields)


def _turn_level(turn: TurnReport) -> int:
    if turn.bug is not None:
        return logging.ERROR
    return logging.INFO if turn.is_stored and turn.code not in _WARNING_CODES else logging.WARNING


def _level(call: UseCaseCall) -> int:
    if call.outcome == Failure.code:
        return logging.ERROR
    if call.outcome in _WARNING_CODES:
        return logging.WARNING
    return logging.DEBUG if call.use_case in _FREQUENT_USE_CASES else logging.INFO


def redacted(text: str) -> str:
    """Replace all secrets of a known format by their first three characters and `***`."""
    lowered = text.lower()
    for marker in _SECRET_MARKERS:
        if marker in lowered:
            return _SECRET.sub(lambda secret: secret[0][:3] + "***", text)
    return text


def _route_libraries(handler: logging.Handler, level: int) -> None:
    """Send records of the standard library's logging, and warnings, through the same processors."""
    logging.basicConfig(handlers=[handler], level=level, force=True)
    logging.captureWarnings(capture=True)
    for name in _LIBRARIES_WITH_HANDLERS:
        library = logging.getLogger(name)
        library.handlers.clear()
        library.propagate = True
        library.setLevel(logging.NOTSET)
    for name in _VERBOSE_LIBRARIES:
        logging.getLogger(name).setLevel(max(level, logging.WARNING))


def _as_json(_logger: WrappedLogger, _method: str, event: EventDict) -> str:
    return _to_json(event)


def _to_json(event: EventDict) -> str:
    """Encode the event as one line of ASCII. Values that are not JSON are logged by their `repr`."""
    try:
        # The fast path: all values are scalars.
        if _SCALARS.issuperset(map(type, event.values())) and (line := msgspec.json.encode(event)).isascii():
            return line.decode()
        return _JSON.encode(event)
    except (ValueError, RecursionError):
        return _JSON.encode({name: repr(value) for name, value in event.items()})


def _redacted(_logger: WrappedLogger, _method: str, line: Any) -> str:
    """Redact the finished line: by now everything, however nested, is text."""
    return redacted(str(line))
