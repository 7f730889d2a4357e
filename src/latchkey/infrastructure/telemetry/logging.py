"""What the service tells about itself: one log, one line a call, and no secret in it."""

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

# A prefix begins a word: after an escape of JSON (`\n`) or a colour of the terminal (`[35m`) as anywhere else.
_START = r"(?:(?<![A-Za-z0-9])|(?<=\\[bfnrt])|(?<=\\u[0-9a-f]{4})|(?<=\[\dm)|(?<=\[\d\dm))"
_SECRET = re.compile(
    rf"{_START}(?:lk_|sk-)[\w-]{{6,}}"  # context tokens; keys of OpenAI (sk-) and Anthropic (sk-ant-)
    r"|(?:lk_|sk-)[\w-]{40,}"  # the same, whatever they are glued to
    r"|eyJ[\w-]{8,}(?:\.[\w-]*){0,2}"  # JWTs
    r"|(?i:bearer)(?:\s|:|\\[nt]|%20|')+[\w.~+/-]{8,}=*"
    r"|://[^\s/:@\"']*:(?!\d{1,5}/)[^\s\"']+(?=@)",  # passwords in URLs; a port is none
    re.ASCII,
)
_MARKS = ("lk_", "sk-", "eyj", "bearer", "://")
"""Every secret of `_SECRET` has one of these, in any case. Looking for them first is ten times cheaper."""

_OWN_HANDLERS = ("uvicorn", "uvicorn.error", "uvicorn.access", "litestar", "openai.agents")
_CHATTY = ("aiosqlite", "alembic", "asyncio", "httpcore2", "httpx2", "mcp", "openai", "sqlalchemy", "uvicorn.access")
_JSON = json.JSONEncoder(separators=(",", ":"), default=repr, skipkeys=True)

_PLAIN = {str, int, float, bool, type(None)}

_TROUBLES: list[type[Failure]] = [Unavailable, *Unavailable.__subclasses__(), *TurnFailed.__subclasses__()]
_TROUBLE = {kind.code for kind in _TROUBLES}
"""Outcomes that are not the caller's mistake, and not a bug."""

_ROUTINE = {"append_events", "renew_turn", "read_events"}
"""What a turn does several times a second. Only what goes wrong with it is worth a line."""

_log = structlog.get_logger("latchkey.calls")


def configure(*, as_json: bool | None = None, level: int = logging.INFO, to: TextIO | None = None) -> None:
    """Send every log, ours and the libraries', to `to` (stderr): as JSON, unless that is a terminal."""
    stream = sys.stderr if to is None else to
    first: list[Processor] = [structlog.contextvars.merge_contextvars, add_log_level, TimeStamper("iso", utc=True)]
    # A traceback shows no local variables: secrets are among them.
    console = ConsoleRenderer(colors=stream.isatty(), exception_formatter=plain_traceback)
    is_json = not stream.isatty() if as_json is None else as_json
    last: list[Processor] = [*([format_exc_info, _as_json] if is_json else [console]), _redacted]
    structlog.configure(
        processors=[*first, *last],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(stream),
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        ProcessorFormatter(
            foreign_pre_chain=[*first, add_logger_name], processors=[ProcessorFormatter.remove_processors_meta, *last]
        )
    )
    _route_libraries(handler, level)


def log_call(call: UseCaseCall) -> None:
    """Write down one call through the door: the `CallLog` port. A bug is written down with its traceback."""
    internal = call.outcome == Failure.code
    _log.log(
        _level(call),
        "call",
        use_case=call.use_case,
        user_id=call.user_id,
        outcome=call.outcome,
        duration_ms=round(call.duration_ms, 2),
        **({"exc_info": True} if internal else {}),
    )


def _level(call: UseCaseCall) -> int:
    if call.outcome == Failure.code:
        return logging.ERROR
    if call.outcome in _TROUBLE:
        return logging.WARNING
    return logging.DEBUG if call.use_case in _ROUTINE else logging.INFO


def redacted(text: str) -> str:
    """The text with every secret that is known by its shape cut to its first three characters."""
    lowered = text.lower()
    if any(mark in lowered for mark in _MARKS):
        return _SECRET.sub(lambda secret: secret[0][:3] + "***", text)
    return text


def _route_libraries(handler: logging.Handler, level: int) -> None:
    """Let the standard library's logging, and warnings, go through the same stages as ours."""
    logging.basicConfig(handlers=[handler], level=level, force=True)
    logging.captureWarnings(capture=True)
    for name in _OWN_HANDLERS:
        library = logging.getLogger(name)
        library.handlers.clear()
        library.propagate = True
        library.setLevel(logging.NOTSET)
    for name in _CHATTY:
        logging.getLogger(name).setLevel(max(level, logging.WARNING))


def _as_json(_logger: WrappedLogger, _method: str, event: EventDict) -> str:
    """The event as one line of ASCII. What cannot be written as JSON is written as it prints."""
    try:
        # Of plain values, as those of a call are, in a quarter of the time.
        if _PLAIN.issuperset(map(type, event.values())) and (line := msgspec.json.encode(event)).isascii():
            return line.decode()
        return _JSON.encode(event)
    except (ValueError, RecursionError):
        return _JSON.encode({name: repr(value) for name, value in event.items()})


def _redacted(_logger: WrappedLogger, _method: str, line: Any) -> str:
    """The last stage, over the finished line: whatever a secret was nested in, it is text by now."""
    return redacted(str(line))
