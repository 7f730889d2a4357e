"""Idempotency of failed turns: a message sent again gets the same failure, byte for byte."""

import asyncio
from asyncio import Event
from collections.abc import AsyncIterator

import httpx2
import msgspec
import pytest
import pytest_asyncio

from tests.fakes.model_script import Step, calls, says
from tests.fakes.model_server import ModelServer
from tests.integration.http.idempotent_chat import KEY, send
from tests.integration.http.test_chat_failures import FAILURES, SHORT_LIMITS
from tests.support.event_stream import raw_bytes, read_turn, stream_chat
from tests.support.service import ApiUser, Service, model_variables, run_service, settings_for

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def service_with_short_limits(shared_database_url: str, shared_model: ModelServer) -> AsyncIterator[Service]:
    async with run_service(
        settings_for(shared_database_url, **model_variables(shared_model), **SHORT_LIMITS)
    ) as service:
        yield service


@pytest.fixture
def ada(service_with_short_limits: Service) -> ApiUser:
    return service_with_short_limits.user()


@pytest.mark.parametrize("steps", [steps for steps, _, _ in FAILURES.values()], ids=FAILURES)
async def test_idempotency_retry_of_a_failed_turn_gets_the_same_failure(
    model_service: Service, ada: ApiUser, model: ModelServer, steps: list[Step]
) -> None:
    """Also at another replica, and as events."""
    model.script += [calls(("add_task", '{"title": "Buy milk"}')), *steps]
    first = await send(ada)
    request_count = len(model.requests)
    again = [await send(user) for user in (ada, model_service.user(ada.user_id))]
    events = await read_turn(ada, first.json()["turn_id"])
    async with stream_chat(ada, "Buy milk", headers=KEY) as source:
        streamed = await source.rest()

    assert "idempotency-replayed" not in first.headers
    assert [essentials(response) for response in again] == [essentials(first)] * 2
    assert [response.headers["idempotency-replayed"] for response in again] == ["true"] * 2
    assert first.json()["request_id"] == first.headers["x-request-id"] != again[0].headers["x-request-id"]
    assert raw_bytes(streamed) == raw_bytes(events)
    assert source.response.headers["idempotency-replayed"] == "true"
    assert (len(model.requests), len(await ada.list_items("tasks"))) == (request_count, 1)


async def test_idempotency_retry_of_a_cancelled_turn_gets_the_same_failure(
    ada: ApiUser, model: ModelServer, gate: Event
) -> None:
    model.script += [says("Hel").held(gate)]
    waiting = asyncio.create_task(send(ada))
    await model.wait_for_requests()
    (conversation,) = await ada.list_items("conversations")
    (turn,) = await ada.list_items(f"conversations/{conversation['id']}/turns")
    await ada.post(f"turns/{turn['id']}/cancel")
    first, again = await waiting, await send(ada)

    assert essentials(again) == essentials(first)
    assert (again.status_code, again.json()["code"]) == (409, "turn-cancelled")
    assert again.headers["idempotency-replayed"] == "true"


async def test_idempotency_retry_of_an_interrupted_turn_gets_the_same_failure(
    service_with_short_limits: Service, model: ModelServer, gate: Event
) -> None:
    model.script += [says("Hel").held(gate)]
    settings = msgspec.structs.replace(service_with_short_limits.settings, turn_attempts=1)
    async with run_service(settings) as stopping:
        waiting = stopping.user()
        post = asyncio.create_task(send(waiting))
        await model.wait_for_requests()
    first, again = await post, await send(service_with_short_limits.user(waiting.user_id))

    assert essentials(again) == essentials(first)
    assert (again.status_code, again.json()["code"]) == (503, "turn-interrupted")
    assert int(again.headers["retry-after"]) > 0
    assert len(model.requests) == 1


def essentials(answer: httpx2.Response) -> tuple[int, bytes, str | None]:
    return answer.status_code, answer.content, answer.headers.get("retry-after")
