"""Failures of streamed turns, and messages that start no turn, which are answered with a problem, not a stream."""

from asyncio import Event
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import httpx2
import pytest
import pytest_asyncio

from tests.fakes.model_script import Step, calls, says
from tests.fakes.model_server import ModelServer
from tests.integration.http.test_chat_failures import FAILURES, SHORT_LIMITS
from tests.support.event_stream import read_turn, stream_chat
from tests.support.service import ApiUser, Service, model_variables, run_service, settings_for

pytestmark = pytest.mark.asyncio(loop_scope="session")

EVENTS = {"accept": "text/event-stream"}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def service_with_short_limits(shared_database_url: str, shared_model: ModelServer) -> AsyncIterator[Service]:
    settings = settings_for(
        shared_database_url, LATCHKEY_TURNS_PER_USER="1", **model_variables(shared_model), **SHORT_LIMITS
    )
    async with run_service(settings, on_socket=True) as service:
        yield service


@pytest.fixture
def ada(service_with_short_limits: Service) -> ApiUser:
    return service_with_short_limits.user()


@pytest.mark.parametrize(("steps", "code"), [(steps, code) for steps, _, code in FAILURES.values()], ids=FAILURES)
async def test_stream_failure_is_the_last_event_with_the_code_of_the_turn(
    ada: ApiUser, model: ModelServer, steps: list[Step], code: str
) -> None:
    model.script += [calls(("add_task", '{"title": "Buy milk"}')), *steps]
    async with stream_chat(ada, "Buy milk") as source:
        events = await source.rest()
    turn = (await ada.get(f"turns/{events[0].data['turn_id']}")).json()
    error = turn["error"]

    assert (turn["status"], error["code"]) == ("failed", code)
    assert (events[-1].name, events[-1].payload) == ("turn.failed", {"code": code, "detail": error["detail"]})
    assert [event.name for event in events][:3] == ["turn.started", "tool_call.started", "tool_call.completed"]
    assert await read_turn(ada, turn["id"]) == events


REFUSED: dict[str, tuple[dict[str, Any], int, str]] = {
    "no such conversation": ({"message": "hello", "conversation_id": str(uuid4())}, 404, "not-found"),
    "an empty message": ({"message": ""}, 422, "invalid"),
    "an unknown field": ({"message": "hello", "stream": True}, 422, "invalid"),
}


@pytest.mark.parametrize(("body", "status", "code"), REFUSED.values(), ids=REFUSED)
async def test_stream_request_with_an_invalid_message_gets_a_problem(
    ada: ApiUser, body: dict[str, Any], status: int, code: str
) -> None:
    assert essentials(await ada.post("chat", json=body, headers=EVENTS)) == (status, code, "application/problem+json")


async def test_stream_request_during_a_concurrent_turn_gets_a_problem(ada: ApiUser, model: ModelServer) -> None:
    release = Event()
    model.script += [says("Wait").held(release)]
    async with stream_chat(ada, "hello") as source:
        started = await source.next()
        where = {"conversation_id": started.data["conversation_id"]}
        second = await ada.post("chat", json={"message": "hello", **where}, headers=EVENTS)
        elsewhere = await ada.post("chat", json={"message": "hello"}, headers=EVENTS)
        release.set()
        await source.rest()

    assert essentials(second) == (409, "turn-in-progress", "application/problem+json")
    assert second.json()["turn_id"] == started.data["turn_id"]
    assert essentials(elsewhere) == (429, "too-many-turns", "application/problem+json")


async def test_stream_request_without_an_agent_gets_a_problem(shared_database_url: str) -> None:
    async with run_service(settings_for(shared_database_url, LATCHKEY_AGENT=""), on_socket=True) as service:
        refused = await service.user().post("chat", json={"message": "hello"}, headers=EVENTS)

    assert essentials(refused) == (503, "agent-not-configured", "application/problem+json")
    assert int(refused.headers["retry-after"]) > 0


def essentials(answer: httpx2.Response) -> tuple[int, str, str]:
    return answer.status_code, answer.json()["code"], answer.headers["content-type"]
