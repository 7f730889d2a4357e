"""Logging: one line per event, one format for all libraries, and redaction of secrets."""

import io
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from latchkey.domain.credentials import UserId
from latchkey.domain.errors import Failure, NotFound, RateLimited, Unavailable
from latchkey.domain.ports import UseCaseCall
from latchkey.infrastructure.telemetry.logging import _FREQUENT_USE_CASES, configure, log_call, log_event
from tests.support.captured_log import restored_logging

ROOT = Path(__file__).parents[2]
ADA = UserId("ada")
LK = "lk_" + "Ab3-" * 10 + "xyz" + "YWRh"  # the format of `TokenSecret.mint`, but not random
JWT = "eyJhbGciOiJFZERTQSIsImtpZCI6ImsifQ.eyJzdWIiOiJhZGEifQ.c2lnbmF0dXJlLXNpZ25hdHVyZQ"
OPENAI, ANTHROPIC = "sk-proj-Abcdef0123456789Abcdef", "sk-ant-api03-Abcdef_0123456789"
SECRETS = [LK, LK[:20], JWT, OPENAI, ANTHROPIC]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _restored_logging() -> Iterator[None]:
    with restored_logging():
        yield


@pytest.fixture
def out() -> io.StringIO:
    stream = io.StringIO()
    configure(to=stream)
    return stream


def _lines(out: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.getvalue().splitlines()]


def _break(text: str) -> None:
    raise RuntimeError(text)


def test_log_of_use_case_call_is_one_line_with_user_outcome_and_duration(out: io.StringIO) -> None:
    structlog.contextvars.bind_contextvars(request_id="r-1")
    log_call(UseCaseCall("add_task", ADA, "ok", 1.23456))
    [line] = _lines(out)
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "event": "use_case_call",
        "level": "info",
        "use_case": "add_task",
        "user_id": "ada",
        "outcome": "ok",
        "duration_ms": 1.23,
        "request_id": "r-1",
    }


@pytest.mark.parametrize(
    ("code", "level"),
    [("ok", "info"), (NotFound.code, "info"), (Unavailable.code, "warning"), (RateLimited.code, "warning")],
)
def test_log_level_of_unavailable_and_rate_limited_is_warning(code: str, level: str, out: io.StringIO) -> None:
    log_call(UseCaseCall("add_task", None, code, 1))
    assert [line["level"] for line in _lines(out)] == [level]


@pytest.mark.parametrize(
    "fields", [{"n": 1, "none": None, "text": "ü\ud800"}, {"nested": {"a": [1]}, "secret": LK}], ids=["flat", "nested"]
)
def test_log_event_is_the_line_that_structlog_writes(out: io.StringIO, fields: dict[str, Any]) -> None:
    structlog.contextvars.bind_contextvars(request_id="r-1")
    log_event(logging.WARNING, "odd", fields)
    structlog.get_logger().warning("odd", **fields)
    first, second = _lines(out)

    assert {**first, "timestamp": ""} == {**second, "timestamp": ""}
    assert first["timestamp"][:10] == second["timestamp"][:10]
    assert LK not in out.getvalue()


def test_log_event_below_the_level_is_not_written(out: io.StringIO) -> None:
    log_event(logging.DEBUG, "quiet", {})
    assert out.getvalue() == ""


def test_log_level_of_frequent_use_cases_is_debug_unless_they_fail(out: io.StringIO) -> None:
    for use_case in _FREQUENT_USE_CASES:
        log_call(UseCaseCall(use_case, ADA, "ok", 1))
        log_call(UseCaseCall(use_case, ADA, Unavailable.code, 1))
    source = "".join(path.read_text() for path in (ROOT / "src/latchkey/application").rglob("*.py"))

    assert [name for name in _FREQUENT_USE_CASES if f"async def {name}(" not in source] == []
    assert [line["level"] for line in _lines(out)] == ["warning"] * len(_FREQUENT_USE_CASES)


def test_log_of_bug_is_an_error_with_redacted_traceback(out: io.StringIO) -> None:
    try:
        _break(f"lost {LK}")
    except RuntimeError:
        log_call(UseCaseCall("add_task", ADA, Failure.code, 1))
    [line] = _lines(out)
    assert line["level"] == "error"
    assert "RuntimeError: lost lk_***" in line["exception"]


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize("terminal", [False, True])
def test_redaction_of_secret_anywhere_in_a_record(secret: str, *, terminal: bool) -> None:
    """In the event, keys, values, nested values, bytes, objects, tracebacks, and records of libraries."""
    out = Terminal() if terminal else io.StringIO()
    configure(to=out)
    log = structlog.get_logger()
    log.info(secret)
    log.info("got %s", secret, **{secret: 1}, value=secret, nested={"deep": [(secret,), {secret: "x"}]})
    log.info("headers", headers=[(b"authorization", secret.encode())], thing={secret}, glued=f"a\n{secret}\té{secret}")
    try:
        _break(secret)
    except RuntimeError:
        log.exception("failed")
        logging.getLogger("uvicorn.error").exception("failed on\n%s", secret)
    assert secret[3:20] not in out.getvalue()
    assert out.getvalue().count(secret[:3] + "***") >= 10


def test_redaction_of_complete_secret_inside_a_word(out: io.StringIO) -> None:
    structlog.get_logger().info("asked", url="/mcp?next=%3Ftoken%3D" + LK)
    assert _lines(out)[0]["url"] == "/mcp?next=%3Ftoken%3Dlk_***"


@pytest.mark.parametrize("scheme", ["Bearer ", "bearer ", "BEARER  ", "Bearer\t", "Bearer%20"])
def test_redaction_of_bearer_token_of_any_format(scheme: str, out: io.StringIO) -> None:
    structlog.get_logger().info("request", authorization=f"{scheme}opaque+credential/tail==", other="unchanged")
    [line] = _lines(out)
    assert "opaque" not in line["authorization"]
    assert "tail" not in line["authorization"]
    assert line["other"] == "unchanged"


@pytest.mark.parametrize("password", ["hunter2", "hun/ter2", "hun@ter2", "12345"])
def test_redaction_of_password_in_url(password: str, out: io.StringIO) -> None:
    structlog.get_logger().info("cannot connect", url=f"postgresql://ada:{password}@db.example:5432/app")
    [line] = _lines(out)
    assert line["url"] == "postgresql://***@db.example:5432/app"


def test_redaction_leaves_similar_text_unchanged(out: io.StringIO) -> None:
    text = "task-0190abcd-1234 bulk_insert_mappings https://a.example:8000/api/me@example.com/tasks the bearer was"
    structlog.get_logger().info(text)
    assert _lines(out)[0]["event"] == text


def test_log_records_of_libraries_have_the_same_format(out: io.StringIO) -> None:
    """With logger name and request id; verbose records of libraries are dropped."""
    structlog.contextvars.bind_contextvars(request_id="r-1")
    logging.getLogger("uvicorn.error").info("Started on %s", 8000)
    logging.getLogger("sqlalchemy.engine").info("SELECT 1")
    logging.getLogger("uvicorn.access").info("GET /")
    [line] = _lines(out)
    assert (line["event"], line["logger"], line["level"], line["request_id"]) == (
        "Started on 8000",
        "uvicorn.error",
        "info",
        "r-1",
    )


def test_log_of_values_that_are_not_json_is_one_line(out: io.StringIO) -> None:
    """An exception in logging would fail the request."""
    ring: list[Any] = []
    ring.append(ring)
    structlog.get_logger().info("odd", ring=ring, secret=[LK, ring])
    structlog.get_logger().info("odd", key={(1, 2): 3, "x": 1}, lone="\ud800", thing=object)
    [first, second] = _lines(out)
    assert (first["ring"], first["secret"]) == ("[[...]]", "['lk_***', [[...]]]")
    assert (second["key"], second["lone"], second["thing"]) == ({"x": 1}, "\ud800", "<class 'object'>")


def test_log_on_terminal_is_text_and_tracebacks_have_no_local_variables() -> None:
    """Local variables can contain secrets of an unknown format."""
    out = Terminal()
    configure(to=out)
    secret = "correct-horse"
    try:
        _break(str(len(secret)))
    except RuntimeError:
        log_call(UseCaseCall("add_task", ADA, Failure.code, 1))
    assert "RuntimeError" in out.getvalue()
    assert "correct-horse" not in out.getvalue()
    with pytest.raises(json.JSONDecodeError):
        json.loads(out.getvalue())


def test_configure_logging_twice_replaces_the_first_configuration(out: io.StringIO) -> None:
    second = io.StringIO()
    configure(to=second, level=logging.WARNING)
    log_call(UseCaseCall("add_task", ADA, "ok", 1))
    logging.getLogger("uvicorn.error").warning("once")
    assert out.getvalue() == ""
    assert [line["event"] for line in _lines(second)] == ["once"]
