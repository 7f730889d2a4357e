"""Structured logging: one line per use-case call, JSON unless on a terminal, with secrets redacted."""

import json
import logging
import re
import sys
from typing import Any, TextIO

import msgspec
import structlog
from structlog.dev import ConsoleRenderer, plain_traceback
from structlog.processors import TimeStamper, add_log_level, format_exc_info
from structlog.stdlib import ProcessorFormatter, add_logger_name
from structlog.typing import EventDict, Processor, WrappedLogger

from latchkey.domain.errors import Failure, TurnFailed, Unavailable
from latchkey.domain.ports import UseCaseCall

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

_FREQUENT_USE_CASES = {"append_events", "renew_turn", "read_events"}
"""Use cases that a turn runs several times a second: logged at debug level unless they fail."""

_log = structlog.get_logger("latchkey.calls")


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
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        ProcessorFormatter(
            foreign_pre_chain=[*processors, add_logger_name],
            processors=[ProcessorFormatter.remove_processors_meta, *renderers],
        )
    )
    _route_libraries(handler, level)


def log_call(call: UseCaseCall) -> None:
    """Log one use-case call; implements the `CallLog` port. A bug is logged with its traceback."""
    is_bug = call.outcome == Failure.code
    _log.log(
        _level(call),
        "use_case_call",
        use_case=call.use_case,
        user_id=call.user_id,
        outcome=call.outcome,
        duration_ms=round(call.duration_ms, 2),
        **({"exc_info": True} if is_bug else {}),
    )


def _level(call: UseCaseCall) -> int:
    if call.outcome == Failure.code:
        return logging.ERROR
    if call.outcome in _WARNING_CODES:
        return logging.WARNING
    return logging.DEBUG if call.use_case in _FREQUENT_USE_CASES else logging.INFO


def redacted(text: str) -> str:
    """Replace all secrets of a known format by their first three characters and `***`."""
    lowered = text.lower()
    if any(marker in lowered for marker in _SECRET_MARKERS):
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
