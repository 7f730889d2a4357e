"""Errors of a model's server, of any shape: what is logged, and which failure of the turn they are."""

import json
from typing import Any

import httpx2
import pytest

from latchkey.domain.errors import Failure, ModelUnavailable, RateLimited, cause_of
from latchkey.infrastructure.agents.openai.model_client import ModelClient
from latchkey.infrastructure.agents.openai.server_errors import error_event, is_error
from tests.support.captured_log import captured_log

API_KEY = "a-key-of-no-known-format"


async def failure_of(response: httpx2.Response) -> Failure:
    client = ModelClient("responses", API_KEY, "http://model.test/v1", httpx2.MockTransport(lambda _: response))
    with pytest.raises(Failure) as raised:
        await anext(client.stream(b"{}"))
    client.log_failure(raised.value)
    await client.aclose()
    return raised.value


@pytest.mark.parametrize(
    ("error", "words"),
    [
        ("overloaded", "overloaded"),
        ({"message": "no room", "code": 500}, "500: no room"),
        ({"error": {"message": "no room", "type": "server_error", "code": None}}, "server_error: no room"),
        ({"error": "no room"}, "no room"),
        ({"error": ["no room"]}, "no room"),
        ({"error": {"message": '{"error":{"message":"no room","code":"full"}}'}}, "full: no room"),
        ({"object": "error", "message": "no room"}, "no room"),
        ({"detail": [{"loc": ["body"], "msg": "no room", "type": "missing"}]}, "missing: no room"),
        ({"type": "response.failed", "response": {"error": {"code": "x", "message": "no room"}}}, "no room"),
        ({"error": True}, "no words"),
        ({"error": {"error": {"error": {"error": {"error": {"error": {"error": "deep"}}}}}}}, "no words"),
    ],
    ids=str,
)
def test_error_event_has_the_words_of_the_server_as_its_cause(error: Any, words: str) -> None:
    failure = error_event(error)

    assert type(failure) is ModelUnavailable
    assert words in (cause_of(failure) or "")
    assert words not in failure.detail


@pytest.mark.parametrize(
    "error",
    [
        {"error": {"code": 429, "message": "x"}},
        {"error": {"code": "429", "message": "x"}},
        {"error": {"code": "rate_limit_exceeded", "message": "x"}},
        {"error": {"type": "rate_limit_error", "message": "x"}},
        {"error": {"type": "tokens", "message": "Rate limit reached for requests"}},
        {"error": {"status": "RESOURCE_EXHAUSTED", "message": "x"}},
        {"error": "Too Many Requests"},
        {"object": "error", "code": 429},
        {"detail": "rate limit"},
        {"code": 529, "message": "overloaded"},
    ],
    ids=str,
)
def test_rate_limit_of_any_shape_is_rate_limited(error: dict[str, Any]) -> None:
    assert is_error(error)
    assert isinstance(error_event(error), RateLimited)


@pytest.mark.parametrize(
    "event",
    [
        {"choices": [], "error": None},
        {"choices": [{"message": {"content": "x"}}]},
        {"type": "response.completed", "response": {"error": None}},
        {"type": "ping"},
        {"usage": {}, "message": "x"},
        {},
    ],
    ids=str,
)
def test_part_of_an_answer_is_no_error(event: dict[str, Any]) -> None:
    assert not is_error(event)


async def test_refused_request_is_logged_with_status_and_words_of_the_server() -> None:
    """The words are bounded, on one line, and without the key."""
    message = f"Incorrect key\n{API_KEY} " + "x" * 1000
    with captured_log() as log:
        failure = await failure_of(httpx2.Response(401, json={"error": {"message": message, "type": "auth"}}))
    (line,) = log.lines("model_request_failed")

    assert (line["status"], line["code"], line["level"]) == (401, "model-unavailable", "warning")
    assert "Incorrect key *** xxx" in line["server_message"]
    assert len(line["server_message"]) <= 300
    assert API_KEY not in json.dumps(line) + str(cause_of(failure)) + failure.detail
    assert "Incorrect" not in failure.detail


@pytest.mark.parametrize("status", [400, 403, 429, 529])
async def test_status_or_words_of_a_rate_limit_are_rate_limited(status: int) -> None:
    body = {"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "message": "Quota exceeded"}}
    response = httpx2.Response(status, json=[body], headers={"retry-after": "60"})
    failure = await failure_of(response)

    assert isinstance(failure, RateLimited)
    assert failure.retry_after == 60


async def test_error_with_a_body_that_is_no_text_is_reported_by_its_status() -> None:
    failure = await failure_of(httpx2.Response(400, content=b"\x00\xff" * 5000))

    assert "status 400" in failure.detail
    assert "status 400" in (cause_of(failure) or "")
