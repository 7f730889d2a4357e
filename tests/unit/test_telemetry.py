"""The log: one line a call, whoever writes it, and no secret in it."""

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from latchkey.domain.credentials import UserId
from latchkey.domain.errors import Failure, NotFound, RateLimited, Unavailable
from latchkey.domain.ports import UseCaseCall
from latchkey.infrastructure.telemetry.logging import configure, log_call

ADA = UserId("ada")
LK = "lk_" + "Ab3-" * 10 + "xyz" + "YWRh"  # as `TokenSecret.mint` makes them, without its chance
JWT = "eyJhbGciOiJFZERTQSIsImtpZCI6ImsifQ.eyJzdWIiOiJhZGEifQ.c2lnbmF0dXJlLXNpZ25hdHVyZQ"
OPENAI, ANTHROPIC = "sk-proj-Abcdef0123456789Abcdef", "sk-ant-api03-Abcdef_0123456789"
SECRETS = [LK, LK[:20], JWT, OPENAI, ANTHROPIC]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def restored_logging() -> Iterator[None]:
    """Logging belongs to the process: put back what the test found."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers.clear()  # so that configuring does not close those of the test runner
    yield
    logging.captureWarnings(capture=False)
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


@pytest.fixture
def out() -> io.StringIO:
    stream = io.StringIO()
    configure(to=stream)
    return stream


def _lines(out: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.getvalue().splitlines()]


def _break(text: str) -> None:
    raise RuntimeError(text)


def test_a_call_is_one_line_with_who_what_how_and_how_long(out: io.StringIO) -> None:
    structlog.contextvars.bind_contextvars(request_id="r-1")
    log_call(UseCaseCall("add_task", ADA, "ok", 1.23456))
    [line] = _lines(out)
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "event": "call",
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
def test_what_is_not_the_callers_mistake_is_a_warning(code: str, level: str, out: io.StringIO) -> None:
    log_call(UseCaseCall("add_task", None, code, 1))
    assert [line["level"] for line in _lines(out)] == [level]


def test_a_bug_is_an_error_with_its_traceback(out: io.StringIO) -> None:
    try:
        _break(f"lost {LK}")
    except RuntimeError:
        log_call(UseCaseCall("add_task", ADA, Failure.code, 1))
    [line] = _lines(out)
    assert line["level"] == "error"
    assert "RuntimeError: lost lk_***" in line["exception"]


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize("terminal", [False, True])
def test_a_secret_is_redacted_wherever_it_stands(secret: str, *, terminal: bool) -> None:
    """In the event, a key, a value, a nested one, bytes, an object, a traceback, and what a library logs."""
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


def test_a_whole_secret_is_known_even_where_no_word_begins(out: io.StringIO) -> None:
    structlog.get_logger().info("asked", url="/mcp?next=%3Ftoken%3D" + LK)
    assert _lines(out)[0]["url"] == "/mcp?next=%3Ftoken%3Dlk_***"


@pytest.mark.parametrize("scheme", ["Bearer ", "bearer ", "BEARER  ", "Bearer\t", "Bearer%20"])
def test_a_bearer_is_redacted_whatever_it_looks_like(scheme: str, out: io.StringIO) -> None:
    structlog.get_logger().info("request", authorization=f"{scheme}opaque+credential/tail==", other="stays")
    [line] = _lines(out)
    assert "opaque" not in line["authorization"]
    assert "tail" not in line["authorization"]
    assert line["other"] == "stays"


@pytest.mark.parametrize("password", ["hunter2", "hun/ter2", "hun@ter2", "12345"])
def test_a_password_in_a_url_is_redacted(password: str, out: io.StringIO) -> None:
    structlog.get_logger().info("cannot connect", url=f"postgresql://ada:{password}@db.example:5432/app")
    [line] = _lines(out)
    assert line["url"] == "postgresql://***@db.example:5432/app"


def test_what_only_resembles_a_secret_stays(out: io.StringIO) -> None:
    text = "task-0190abcd-1234 bulk_insert_mappings https://a.example:8000/api/me@example.com/tasks the bearer was"
    structlog.get_logger().info(text)
    assert _lines(out)[0]["event"] == text


def test_libraries_log_through_the_same_stages(out: io.StringIO) -> None:
    """One format, their names, the request they belong to; their chatter stays out."""
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


def test_an_event_that_json_cannot_hold_is_still_one_line(out: io.StringIO) -> None:
    """A log that raises would take the call down with it."""
    ring: list[Any] = []
    ring.append(ring)
    structlog.get_logger().info("odd", ring=ring, secret=[LK, ring])
    structlog.get_logger().info("odd", key={(1, 2): 3, "x": 1}, lone="\ud800", thing=object)
    [first, second] = _lines(out)
    assert (first["ring"], first["secret"]) == ("[[...]]", "['lk_***', [[...]]]")
    assert (second["key"], second["lone"], second["thing"]) == ({"x": 1}, "\ud800", "<class 'object'>")


def test_a_terminal_gets_text_without_the_variables_of_a_traceback() -> None:
    """Local variables hold secrets of no known shape."""
    out = Terminal()
    configure(to=out)
    shapeless = "correct-horse"
    try:
        _break(str(len(shapeless)))
    except RuntimeError:
        log_call(UseCaseCall("add_task", ADA, Failure.code, 1))
    assert "RuntimeError" in out.getvalue()
    assert "correct-horse" not in out.getvalue()
    with pytest.raises(json.JSONDecodeError):
        json.loads(out.getvalue())


def test_configuring_again_replaces_what_was_there(out: io.StringIO) -> None:
    second = io.StringIO()
    configure(to=second, level=logging.WARNING)
    log_call(UseCaseCall("add_task", ADA, "ok", 1))
    logging.getLogger("uvicorn.error").warning("once")
    assert out.getvalue() == ""
    assert [line["event"] for line in _lines(second)] == ["once"]
