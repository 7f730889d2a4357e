"""Approvals with OpenAI's SDK: questions and decisions are items, and the rest of the turn is another response."""

import asyncio
from asyncio import Event
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import UUID

import openai
import pytest
import pytest_asyncio
from openai import AsyncOpenAI
from openai.types.responses import Response

from tests.fakes.model_script import calls, says
from tests.fakes.model_server import ModelServer
from tests.integration.http.task_calls import ASKING, decide_over_rest, titles
from tests.support.openai_sdk import conversation_of, plain, sdk_of, turn_id_of
from tests.support.service import ApiUser, Service, model_variables, run_service, settings_for

pytestmark = pytest.mark.asyncio(loop_scope="session")

ASSISTANTS = ASKING
MILK = ("add_task", '{"title": "Milk"}')
TEA = ("add_task", '{"title": "Tea"}')


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def service(shared_database_url: str, shared_model: ModelServer, assistants_file: Path) -> AsyncIterator[Service]:
    """A service on a socket, whose assistant asks before it adds a task."""
    variables = {**model_variables(shared_model), "LATCHKEY_ASSISTANTS": str(assistants_file)}
    async with run_service(settings_for(shared_database_url, **variables), on_socket=True) as service:
        yield service


@pytest.fixture
def ada(service: Service) -> ApiUser:
    return service.user()


@pytest.fixture
def sdk(ada: ApiUser) -> AsyncOpenAI:
    return sdk_of(ada)


def requests_of(response: Response) -> list[Any]:
    return [item for item in response.output if item.type == "mcp_approval_request"]


def decisions(*names: str, on: Response, **fields: Any) -> list[Any]:
    """The decisions on the questions of a response, in their order."""
    return [decision(request.id, name, **fields) for request, name in zip(requests_of(on), names, strict=True)]


def decision(request_id: str, name: str, **fields: Any) -> Any:
    """A decision as an item: `approve` or `decline`."""
    item = {"type": "mcp_approval_response", "approval_request_id": request_id, "approve": name == "approve"}
    return {**item, **fields}


def types_of(response: Response) -> list[str]:
    return [item.type for item in response.output]


async def titles_of(user: ApiUser) -> list[str]:
    return sorted(await titles(user))


async def item_types(sdk: AsyncOpenAI, response: Response) -> list[str]:
    items = [item async for item in sdk.conversations.items.list(conversation_of(response), order="asc")]
    newest = [item async for item in sdk.conversations.items.list(conversation_of(response), order="desc", limit=1)]
    assert items == newest[::-1]
    return [item.type for item in items]


async def test_question_ends_response_and_decision_begins_another_one(
    ada: ApiUser, sdk: AsyncOpenAI, model: ModelServer
) -> None:
    model.script += [calls(MILK, saying=("I add it.",)), says("Done.")]

    first = await sdk.responses.create(input="Buy milk")
    (request,) = requests_of(first)
    before = await titles_of(ada)
    waiting_items = await item_types(sdk, first)
    second = await sdk.responses.create(input=decisions("approve", on=first), previous_response_id=first.id)
    (call, text) = second.output
    given = await sdk.responses.input_items.list(second.id)

    assert (first.status, types_of(first)) == ("completed", ["message", "mcp_approval_request"])
    assert (request.name, request.arguments, request.server_label) == ("add_task", '{"title":"Milk"}', "latchkey")
    assert before == []
    assert (second.status, second.output_text) == ("completed", "Done.")
    assert call.type == "mcp_call"
    assert text.type == "message"
    assert (call.status, call.arguments, call.approval_request_id) == ("completed", request.arguments, request.id)
    assert await titles_of(ada) == ["Milk"]
    assert conversation_of(first) == conversation_of(second)
    assert plain(await sdk.responses.retrieve(first.id)) == plain(first)
    assert plain(await sdk.responses.retrieve(second.id)) == plain(second)
    assert first.id != second.id
    assert waiting_items == ["message", "message", "mcp_approval_request"]
    assert await item_types(sdk, first) == [*waiting_items, "mcp_approval_response", "mcp_call", "message"]
    (answer,) = given.data
    assert answer.type == "mcp_approval_response"
    assert (answer.approval_request_id, answer.approve) == (request.id, True)


async def test_declined_call_has_no_effect_and_model_is_given_the_reason(
    ada: ApiUser, sdk: AsyncOpenAI, model: ModelServer
) -> None:
    model.script += [calls(MILK), says("I left it.")]
    first = await sdk.responses.create(input="Buy milk")

    second = await sdk.responses.create(input=decisions("decline", on=first, reason="Too dear"))
    (call, _) = second.output

    assert second.output_text == "I left it."
    assert call.type == "mcp_call"
    assert call.status == "failed"
    assert "Too dear" in str(call.error)
    assert "Too dear" in str(model.requests[-1])
    assert await titles_of(ada) == []


async def test_streams_across_a_question_have_numbers_of_their_own_and_can_be_resumed(
    sdk: AsyncOpenAI, model: ModelServer, gate: Event
) -> None:
    model.script += [calls(MILK), says("Done.").held(gate)]

    async with sdk.responses.stream(model="latchkey", input="Buy milk") as stream:
        first_events: list[Any] = [event async for event in stream]
        first = await stream.get_final_response()
    received: list[Any] = []
    stream_of_rest = await sdk.responses.create(input=decisions("approve", on=first), stream=True)
    async for event in stream_of_rest:
        received.append(event)
        if event.type == "response.mcp_call.completed":
            break
    await stream_of_rest.close()
    running = await sdk.responses.retrieve(received[0].response.id)
    gate.set()
    rest = await sdk.responses.retrieve(running.id, stream=True, starting_after=received[-1].sequence_number)
    received += [event async for event in rest]
    whole = [event async for event in await sdk.responses.retrieve(running.id, stream=True)]
    first_again = [event async for event in await sdk.responses.retrieve(first.id, stream=True)]

    assert [event.sequence_number for event in first_again] == list(range(len(first_events)))
    assert first_again[-1].type == "response.completed"
    assert (running.status, running.output) == ("in_progress", [])
    assert received == whole
    assert [event.sequence_number for event in whole] == list(range(len(whole)))
    assert types_of(received[-1].response) == ["mcp_call", "message"]
    assert types_of(await sdk.responses.retrieve(first.id)) == ["mcp_approval_request"]


async def test_questions_of_one_step_are_decided_together(ada: ApiUser, sdk: AsyncOpenAI, model: ModelServer) -> None:
    model.script += [calls(MILK, TEA), says("One of them.")]
    first = await sdk.responses.create(input="Buy milk and tea")

    second = await sdk.responses.create(input=decisions("decline", "approve", on=first))

    assert types_of(first) == ["mcp_approval_request", "mcp_approval_request"]
    assert [getattr(item, "status", None) for item in second.output] == ["failed", "completed", "completed"]
    assert await titles_of(ada) == ["Tea"]
    assert len((await sdk.responses.input_items.list(second.id)).data) == 2


async def test_question_that_is_still_open_ends_response_to_the_other_one(
    ada: ApiUser, sdk: AsyncOpenAI, model: ModelServer
) -> None:
    """A client that asks while a response ends with questions asks about all of them."""
    model.script += [calls(MILK, TEA), says("Both.")]
    first = await sdk.responses.create(input="Buy milk and tea")
    milk, tea = requests_of(first)

    second = await sdk.responses.create(input=[decision(milk.id, "approve")], previous_response_id=first.id)
    third = await sdk.responses.create(input=decisions("approve", on=second), previous_response_id=second.id)

    assert types_of(second) == ["mcp_call", "mcp_approval_request"]
    assert requests_of(second) == [tea]
    assert types_of(third) == ["mcp_call", "message"]
    assert len({first.id, second.id, third.id}) == 3
    assert await titles_of(ada) == ["Milk", "Tea"]
    assert await item_types(sdk, first) == [
        "message",
        *["mcp_approval_request"] * 2,
        *["mcp_approval_response", "mcp_call"] * 2,
        "message",
    ]


async def test_repeated_decision_has_same_response_and_runs_call_once(
    ada: ApiUser, sdk: AsyncOpenAI, model: ModelServer
) -> None:
    model.script += [calls(MILK), says("Done.")]
    first = await sdk.responses.create(input="Buy milk")
    answer = decisions("approve", on=first)

    at_once = await asyncio.gather(*(sdk.responses.create(input=answer) for _ in range(3)))
    later = await sdk.responses.create(input=answer, previous_response_id=first.id)

    assert [plain(response) for response in at_once] == [plain(later)] * 3
    assert await titles_of(ada) == ["Milk"]
    with pytest.raises(openai.ConflictError):
        await sdk.responses.create(input=decisions("decline", on=first))


async def test_decision_of_another_client_is_shown_and_its_repetition_gets_the_rest(
    ada: ApiUser, sdk: AsyncOpenAI, model: ModelServer
) -> None:
    model.script += [calls(MILK), says("Done.")]
    first = await sdk.responses.create(input="Buy milk")
    (approval,) = await ada.list_items("approvals")
    await decide_over_rest(ada, approval["turn_id"], approval["id"], "approve")
    second = await sdk.responses.create(input=decisions("approve", on=first))

    assert second.output_text == "Done."
    assert (await item_types(sdk, first))[3:] == ["mcp_call", "message"]


async def test_background_response_to_decision_is_completed_later(
    sdk: AsyncOpenAI, model: ModelServer, gate: Event
) -> None:
    model.script += [calls(MILK), says("Done.").held(gate)]
    first = await sdk.responses.create(input="Buy milk")

    at_once = await sdk.responses.create(input=decisions("approve", on=first), background=True)
    items = await item_types(sdk, first)
    gate.set()
    events = [event async for event in await sdk.responses.retrieve(at_once.id, stream=True)]

    assert (at_once.status, at_once.output) == ("in_progress", [])
    assert items == ["message", "mcp_approval_request"]
    assert events[-1].type == "response.completed"
    assert (await sdk.responses.retrieve(at_once.id)).output_text == "Done."


async def test_message_while_turn_waits_declines_and_model_sees_it(
    ada: ApiUser, sdk: AsyncOpenAI, model: ModelServer
) -> None:
    model.script += [calls(MILK), says("As you like.")]
    first = await sdk.responses.create(input="Buy milk")

    second = await sdk.responses.create(input="Never mind", previous_response_id=first.id)

    assert second.output_text == "As you like."
    assert "declined" in str(model.requests[-1])
    assert await titles_of(ada) == []
    assert plain(await sdk.responses.retrieve(first.id)) == plain(first)
    items = [item async for item in sdk.conversations.items.list(conversation_of(first), order="asc")]
    types = ["message", "mcp_approval_request", "mcp_approval_response", "mcp_call", "message", "message"]
    assert [item.type for item in items] == types
    assert (plain(items[2])["approve"], plain(items[2])["reason"]) == (False, "The user sent another message instead.")
    with pytest.raises(openai.ConflictError):
        await sdk.responses.create(input=decisions("approve", on=first))


async def test_cancelled_response_that_waits_can_no_longer_be_decided(
    ada: ApiUser, sdk: AsyncOpenAI, model: ModelServer
) -> None:
    model.script += [calls(MILK)]
    first = await sdk.responses.create(input="Buy milk")

    cancelled = await sdk.responses.cancel(first.id)

    assert plain(cancelled) == plain(first)
    assert (await ada.get(f"turns/{turn_id_of(first)}")).json()["status"] == "cancelled"
    with pytest.raises(openai.ConflictError):
        await sdk.responses.create(input=decisions("approve", on=first))
    assert await titles_of(ada) == []


async def test_decisions_that_cannot_be_used_are_refused(
    ada: ApiUser, sdk: AsyncOpenAI, model: ModelServer, service: Service
) -> None:
    model.script += [calls(MILK), calls(TEA)]
    first, other = [await sdk.responses.create(input="Buy") for _ in range(2)]
    (request,) = requests_of(first)
    (answer,) = decisions("approve", on=first)
    unknown = request.id[:-32] + UUID(int=7).hex
    message = {"role": "user", "content": "And bread"}

    async def refused(status: int, *input: Any, by: AsyncOpenAI = sdk, **fields: Any) -> None:
        with pytest.raises(openai.APIStatusError) as failure:
            await by.responses.create(input=list(input), **fields)
        assert failure.value.status_code == status

    await refused(404, decision(unknown, "approve"))
    await refused(404, decision("mcpr_7", "approve"))
    await refused(404, answer, by=sdk_of(service.user()))
    await refused(404, answer, conversation=conversation_of(other))
    await refused(422, answer, previous_response_id=other.id)
    await refused(422, answer, *decisions("approve", on=other))
    await refused(422, answer, message)
    await refused(422, answer, answer)
    await refused(422, {**answer, "approve": "yes"})
    await refused(422, {**answer, "reason": "x" * 1001})
    assert await titles_of(ada) == []
    with pytest.raises(openai.NotFoundError):
        await sdk.responses.retrieve(f"{first.id}0000000100000002")


async def test_history_that_client_repeats_before_its_decision_is_ignored(sdk: AsyncOpenAI, model: ModelServer) -> None:
    """The input of a client that keeps the conversation itself, such as the Agents SDK."""
    model.script += [calls(MILK), says("Done."), says("Hello.")]
    first = await sdk.responses.create(input="Buy milk")
    history: list[Any] = [
        {"role": "user", "content": "Buy milk"},
        *plain(first)["output"],
        *decisions("approve", on=first),
    ]

    second = await sdk.responses.create(input=history, conversation=conversation_of(first))
    history += [*plain(second)["output"], {"role": "user", "content": "Hello"}]
    third = await sdk.responses.create(input=history, previous_response_id=second.id)

    assert (second.output_text, third.output_text) == ("Done.", "Hello.")
