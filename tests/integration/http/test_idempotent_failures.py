"""A message whose turn has failed, sent again under its `Idempotency-Key`: the same failure, byte for byte."""

import asyncio
from asyncio import Event
from collections.abc import AsyncIterator

import httpx2
import pytest
import pytest_asyncio

from tests.fakes.model_script import Step, calls, says
from tests.fakes.model_server import ModelServer
from tests.integration.http.idempotent_chat import KEY, send
from tests.integration.http.test_chat_failing import FAILURES, IMPATIENT
from tests.polling import wait_until
from tests.support.event_stream import raw_bytes, read_turn, stream_chat
from tests.support.service import ApiUser, Service, model_variables, run_service, settings_for

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def impatient(shared_database_url: str, shared_model: ModelServer) -> AsyncIterator[Service]:
    async with run_service(settings_for(shared_database_url, **model_variables(shared_model), **IMPATIENT)) as service:
        yield service


@pytest.fixture
def ada(impatient: Service) -> ApiUser:
    return impatient.user()


@pytest.mark.parametrize("steps", [steps for steps, _, _ in FAILURES.values()], ids=FAILURES)
async def test_a_failure_is_answered_again_as_it_was(
    thinking: Service, ada: ApiUser, model: ModelServer, steps: list[Step]
) -> None:
    """At another replica too, and as the events of the turn for whoever asks for those."""
    model.script += [calls(("add_task", '{"title": "Buy milk"}')), *steps]
    first = await send(ada)
    asked = len(model.requests)
    again = [await send(person) for person in (ada, thinking.user(ada.user_id))]
    events = await read_turn(ada, first.json()["turn_id"])
    async with stream_chat(ada, "Buy milk", headers=KEY) as source:
        streamed = await source.rest()

    assert "idempotency-replayed" not in first.headers
    assert [seen(one) for one in again] == [seen(first)] * 2
    assert [one.headers["idempotency-replayed"] for one in again] == ["true"] * 2
    assert first.json()["request_id"] == first.headers["x-request-id"] != again[0].headers["x-request-id"]
    assert raw_bytes(streamed) == raw_bytes(events)
    assert source.response.headers["idempotency-replayed"] == "true"
    assert (len(model.requests), len(await ada.list_items("tasks"))) == (asked, 1)


async def test_so_is_that_a_turn_was_cancelled(ada: ApiUser, model: ModelServer, held: Event) -> None:
    model.script += [says("Hel").held(held)]
    waiting = asyncio.create_task(send(ada))
    await wait_until(lambda: asked_once(model))
    (conversation,) = await ada.list_items("conversations")
    (turn,) = await ada.list_items(f"conversations/{conversation['id']}/turns")
    await ada.post(f"turns/{turn['id']}/cancel")
    first, again = await waiting, await send(ada)

    assert seen(again) == seen(first)
    assert (again.status_code, again.json()["code"]) == (409, "turn-cancelled")
    assert again.headers["idempotency-replayed"] == "true"


async def test_so_is_that_a_service_stopped_in_the_middle_of_it(
    impatient: Service, model: ModelServer, held: Event
) -> None:
    model.script += [says("Hel").held(held)]
    async with run_service(impatient.settings) as stopping:
        waiting = stopping.user()
        post = asyncio.create_task(send(waiting))
        await wait_until(lambda: asked_once(model))
    first, again = await post, await send(impatient.user(waiting.user_id))

    assert seen(again) == seen(first)
    assert (again.status_code, again.json()["code"]) == (503, "turn-interrupted")
    assert int(again.headers["retry-after"]) > 0
    assert len(model.requests) == 1


def seen(answer: httpx2.Response) -> tuple[int, bytes, str | None]:
    return answer.status_code, answer.content, answer.headers.get("retry-after")


async def asked_once(model: ModelServer) -> bool:
    return len(model.requests) == 1
