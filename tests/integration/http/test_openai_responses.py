"""Responses of OpenAI's API with OpenAI's SDK: answers, tool calls, streams, background, cancellation and branches."""

import asyncio
import json
from asyncio import Event
from typing import Any

import httpx2
import openai
import pytest
from openai import AsyncOpenAI
from openai.types.responses import Response

from tests.fakes.model_script import calls, fails, says
from tests.fakes.model_server import ModelServer
from tests.polling import wait_until
from tests.support.openai_sdk import conversation_of, plain, sdk_of, text_of, turn_id_of
from tests.support.service import ApiUser, Service

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.usefixtures("without_polling")]

MILK = ("add_task", '{"title": "Buy milk"}')
PLAN = '{"title": "Plan", "content_markdown": "# Plan"}'


@pytest.fixture
def ada(replicas: tuple[Service, Service]) -> ApiUser:
    return replicas[0].user()


@pytest.fixture
def sdk(ada: ApiUser) -> AsyncOpenAI:
    return sdk_of(ada)


async def test_response_has_answer_of_turn(ada: ApiUser, sdk: AsyncOpenAI, model: ModelServer) -> None:
    model.script += [says("Hello, ", "Ada.")]

    response = await sdk.responses.create(model="gpt-5", input="Hello", metadata={"page": "7"})
    turn = (await ada.get(f"turns/{turn_id_of(response)}")).json()

    assert (response.status, response.output_text) == ("completed", "Hello, Ada.")
    assert (response.model, response.error, response.metadata) == ("latchkey", None, {"page": "7"})
    assert response.usage is not None
    assert [response.usage.input_tokens, response.usage.output_tokens, response.usage.total_tokens] == [10, 5, 15]
    assert (turn["status"], turn["assistant"], turn["metadata"]) == ("completed", "default", {"page": "7"})
    assert conversation_of(response) == f"conv_{turn['conversation_id'].replace('-', '')}"
    assert plain(await sdk.responses.retrieve(response.id)) == plain(response)


async def test_tool_calls_are_mcp_calls_between_texts(sdk: AsyncOpenAI, model: ModelServer) -> None:
    model.script += [
        calls(MILK, ("add_task", '{"title": ""}'), saying=("I add it.",)),
        says("One worked."),
    ]

    async with sdk.responses.stream(model="latchkey", input="Buy milk") as stream:
        events = [event async for event in stream]
        response = await stream.get_final_response()

    first, added, failed, last = response.output
    assert [item.type for item in response.output] == ["message", "mcp_call", "mcp_call", "message"]
    assert response.output_text == "I add it.\n\nOne worked."
    assert added.type == failed.type == "mcp_call"
    assert (added.name, added.server_label, json.loads(added.arguments)) == (
        "add_task",
        "latchkey",
        json.loads(MILK[1]),
    )
    assert (added.status, json.loads(added.output or "")["title"], added.error) == ("completed", "Buy milk", None)
    assert (failed.status, failed.output) == ("failed", None)
    assert failed.error is not None
    assert failed.error.type == "mcp_tool_execution_error"
    assert {event.type for event in events} >= {"response.mcp_call.completed", "response.mcp_call.failed"}
    assert plain(await sdk.responses.retrieve(response.id)) == plain(response)
    assert plain(first)["id"] != plain(last)["id"]


async def test_artifact_is_in_output_of_the_call_that_saved_it(
    ada: ApiUser, sdk: AsyncOpenAI, model: ModelServer
) -> None:
    model.script += [calls(("save_artifact", PLAN)), says("Here it is.")]

    response = await sdk.responses.create(input="Write a plan", metadata={"artifact_generation": "true"})
    (artifact,) = await ada.list_items("artifacts")

    call = response.output[0]
    assert call.type == "mcp_call"
    assert json.loads(call.output or "")["id"] == artifact["id"]


async def test_stream_resumed_after_number_has_exactly_the_rest(sdk: AsyncOpenAI, model: ModelServer) -> None:
    release = Event()
    model.script += [calls(MILK, saying=("I add ", "it.")), says("Done.").held(release)]
    received: list[Any] = []
    created = await sdk.responses.create(input="Buy milk", stream=True)
    async for event in created:
        received.append(event)
        if event.type == "response.mcp_call.completed":
            break
    await created.close()
    response_id, number = received[0].response.id, received[-1].sequence_number

    release.set()
    resumed = await sdk.responses.retrieve(response_id, stream=True, starting_after=number)
    rest = [event async for event in resumed]
    whole = [event async for event in await sdk.responses.retrieve(response_id, stream=True)]

    assert [event.sequence_number for event in received + rest] == list(range(len(whole)))
    assert received + rest == whole
    assert whole[-1].type == "response.completed"


async def test_other_replica_resumes_stream_of_running_response(
    replicas: tuple[Service, Service], ada: ApiUser, sdk: AsyncOpenAI, model: ModelServer, gate: Event
) -> None:
    model.script += [says("Half").held(gate)]
    elsewhere = sdk_of(replicas[1].user(ada.user_id))
    events = await sdk.responses.create(input="Hello", stream=True, extra_headers={"Idempotency-Key": "key-2"})
    created: Any = await anext(events)
    await _until(events, "response.output_text.delta")

    resumed = await elsewhere.responses.retrieve(created.response.id, stream=True, starting_after=0)
    joined = asyncio.create_task(elsewhere.responses.create(input="Hello", extra_headers={"Idempotency-Key": "key-2"}))
    first = await anext(resumed)
    gate.set()
    rest = [event async for event in events]

    assert first.sequence_number == 1
    assert [event async for event in resumed][-len(rest) :] == rest
    assert (await joined).output_text == "Half"
    assert len(model.requests) == 1


async def test_background_response_is_in_progress_at_once_and_completed_later(
    sdk: AsyncOpenAI, model: ModelServer, gate: Event
) -> None:
    model.script += [says("Done.").held(gate)]

    at_once = await sdk.responses.create(input="Work", background=True)
    await model.wait_for_requests()
    running = await sdk.responses.retrieve(at_once.id)
    gate.set()
    await wait_until(lambda: _has_status(sdk, at_once.id, "completed"))
    done = await sdk.responses.retrieve(at_once.id)

    assert (at_once.status, at_once.output, running.status) == ("in_progress", [], "in_progress")
    assert done.output_text == "Done."


async def test_cancelled_response_ends_stream_as_incomplete(sdk: AsyncOpenAI, model: ModelServer, gate: Event) -> None:
    model.script += [says("Half").held(gate)]
    events = await sdk.responses.create(input="Hello", stream=True)
    created = await anext(events)
    await _until(events, "response.output_text.delta")

    cancelled = await sdk.responses.cancel(created.response.id)  # type: ignore[union-attr]
    rest = [event async for event in events]
    again = await sdk.responses.cancel(cancelled.id)

    assert (cancelled.status, cancelled.output_text, plain(again)) == ("cancelled", "Half", plain(cancelled))
    assert rest[-1].type == "response.incomplete"
    assert rest[-1].response.status == "cancelled"


async def test_failed_turn_is_a_response_and_is_not_run_again(sdk: AsyncOpenAI, model: ModelServer) -> None:
    model.script += [fails(429, x_should_retry="false"), fails(401), says("Never.")]

    limited = await sdk.responses.create(input="Hello")
    async with sdk.responses.stream(input="Hello", model="latchkey") as stream:
        events = [event async for event in stream]

    failed: Response = events[-1].response  # type: ignore[union-attr]
    assert limited.error is not None
    assert failed.error is not None
    assert (limited.status, limited.error.code) == ("failed", "rate_limit_exceeded")
    assert limited.error.message.endswith("(rate-limited)")
    assert (events[-1].type, failed.status, failed.error.code) == ("response.failed", "failed", "server_error")
    assert len(model.requests) == 2


async def test_conversation_and_previous_response_continue_with_history(sdk: AsyncOpenAI, model: ModelServer) -> None:
    model.script += [says("One."), says("Two."), says("Three.")]
    first = await sdk.responses.create(input="First")

    second = await sdk.responses.create(input="Second", previous_response_id=first.id)
    third = await sdk.responses.create(input="Third", conversation={"id": conversation_of(first)})

    assert conversation_of(first) == conversation_of(second) == conversation_of(third)
    assert _texts_of(model) == ["First", "One.", "Second", "Two.", "Third"]


async def test_response_to_earlier_response_replaces_those_that_followed(
    ada: ApiUser, sdk: AsyncOpenAI, model: ModelServer
) -> None:
    model.script += [says("One."), says("Two."), says("Three."), says("Other.")]
    first = await sdk.responses.create(input="First")
    second = await sdk.responses.create(input="Second", previous_response_id=first.id)
    await sdk.responses.create(input="Third", previous_response_id=second.id)

    branch = await sdk.responses.create(input="Instead", previous_response_id=first.id)
    items = [item async for item in sdk.conversations.items.list(conversation_of(first), order="asc")]

    assert _texts_of(model) == ["First", "One.", "Instead"]
    assert [text_of(item) for item in items] == ["First", "One.", "Instead", "Other."]
    assert (branch.output_text, len(await ada.list_items("conversations"))) == ("Other.", 1)
    with pytest.raises(openai.ConflictError, match="replaced"):
        await sdk.responses.create(input="Fourth", previous_response_id=second.id)


async def test_repeated_idempotency_key_joins_running_turn_and_replays_ended_one(
    sdk: AsyncOpenAI, model: ModelServer, gate: Event
) -> None:
    model.script += [says("Once.").held(gate)]
    headers = {"Idempotency-Key": "key-1"}
    first = asyncio.create_task(sdk.responses.create(input="Hello", extra_headers=headers))
    await model.wait_for_requests()
    second = asyncio.create_task(sdk.responses.create(input="Hello", extra_headers=headers))
    streamed = await sdk.responses.create(input="Hello", stream=True, extra_headers=headers)
    await _until(streamed, "response.in_progress")

    gate.set()
    rest = [event async for event in streamed]
    replayed = await sdk.responses.with_raw_response.create(input="Hello", extra_headers=headers)

    assert plain(await first) == plain(await second) == plain(replayed.parse()) == plain(rest[-1].response)  # type: ignore[union-attr]
    assert replayed.headers["idempotency-replayed"] == "true"
    assert len(model.requests) == 1
    with pytest.raises(openai.UnprocessableEntityError, match="Idempotency-Key"):
        await sdk.responses.create(input="Other", extra_headers=headers)


class LostResponse(httpx2.AsyncBaseTransport):
    """Sends each request, and loses the first response to a message."""

    def __init__(self, client: httpx2.AsyncClient) -> None:
        self._client = client
        self.keys: list[str] = []

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        response = await self._client.send(request)
        if request.url.path.endswith("/responses"):
            self.keys.append(request.headers["idempotency-key"])
            if len(self.keys) == 1:
                raise httpx2.ReadError("lost", request=request)
        return response


async def test_retry_of_sdk_with_idempotency_header_sends_message_once(
    ada: ApiUser, sdk: AsyncOpenAI, model: ModelServer
) -> None:
    model.script += [says("Once."), says("Twice.")]
    transport = LostResponse(ada.client)
    retrying = sdk.copy(http_client=httpx2.AsyncClient(transport=transport))
    retrying._idempotency_header = "Idempotency-Key"

    response = await retrying.responses.create(input="Hello")

    assert response.output_text == "Once."
    assert len(set(transport.keys)) == 1
    assert len(transport.keys) == 2
    assert len(model.requests) == 1


async def test_busy_conversation_is_refused_without_retry(sdk: AsyncOpenAI, model: ModelServer, gate: Event) -> None:
    model.script += [says("Wait").held(gate)]
    running = await sdk.responses.create(input="Hello", background=True)
    await model.wait_for_requests()

    with pytest.raises(openai.ConflictError) as refused:
        await sdk.responses.create(input="And?", conversation=conversation_of(running))

    assert refused.value.code == "turn-in-progress"
    assert refused.value.response.headers["x-should-retry"] == "false"


async def test_last_message_of_input_is_sent_and_earlier_ones_are_ignored(sdk: AsyncOpenAI, model: ModelServer) -> None:
    model.script += [says("Hello.")]
    history: list[Any] = [
        {"role": "system", "content": "Obey."},
        {"role": "assistant", "content": "I said that."},
        {"role": "user", "content": [{"type": "input_text", "text": "Hello,"}, {"type": "input_text", "text": "you."}]},
    ]

    response = await sdk.responses.create(input=history, instructions="Obey.", temperature=0.1, tools=[])
    items = (await sdk.responses.input_items.list(response.id)).data

    assert _texts_of(model) == ["Hello,\nyou."]
    assert [text_of(item) for item in items] == ["Hello,\nyou."]


async def _until(events: Any, type: str) -> None:
    async for event in events:
        if event.type == type:
            return


async def _has_status(sdk: AsyncOpenAI, response_id: str, status: str) -> bool:
    return (await sdk.responses.retrieve(response_id)).status == status


def _texts_of(model: ModelServer) -> list[str]:
    """The texts of the messages in the last request to the model."""
    texts: list[str] = []
    for item in model.requests[-1].body["input"]:
        content = item.get("content")
        texts += [content] if isinstance(content, str) else [part["text"] for part in content or []]
    return texts
