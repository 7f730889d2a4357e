"""Chat turns with a model: what the model request contains, and when what is stored."""

import asyncio
import json
from asyncio import Event
from dataclasses import replace
from pathlib import Path

import pytest

from tests.fakes.model_script import calls, says
from tests.fakes.model_server import ModelServer
from tests.support.service import ApiUser, Service

pytestmark = pytest.mark.asyncio(loop_scope="session")

TOOLS = json.loads((Path(__file__).parents[3] / "docs" / "mcp.json").read_text())["tools"]
MILK = '{"title": "Buy milk"}'


@pytest.fixture
def ada(model_service: Service) -> ApiUser:
    return model_service.user()


async def test_chat_stores_message_before_model_request_and_answer_before_response(
    ada: ApiUser, model: ModelServer
) -> None:
    release = Event()
    model.script += [says("Hel", "lo.").held(release)]
    turn = asyncio.create_task(ada.chat("Hi there"))
    await model.wait_for_requests()
    (conversation,) = await ada.list_items("conversations")
    listing = f"conversations/{conversation['id']}/messages"
    (message,) = await ada.list_items(listing)
    (running,) = await ada.list_items(f"conversations/{conversation['id']}/turns")
    release.set()
    answer = await turn

    assert (message["role"], message["content"], message["seq"]) == ("user", "Hi there", 1)
    assert (running["status"], running["finished_at"], running["id"]) == ("running", None, message["turn_id"])
    assert await ada.list_items(listing) == [message, answer["message"]]
    assert answer["response"] == "Hello."


async def test_chat_tool_call_is_stored_before_the_model_sees_its_result(ada: ApiUser, model: ModelServer) -> None:
    release = Event()
    model.script += [calls(("add_task", MILK)), says("Done.").held(release)]
    turn = asyncio.create_task(ada.chat("Buy milk"))
    await model.wait_for_requests(2)
    (task,) = await ada.list_items("tasks")
    (conversation,) = await ada.list_items("conversations")
    ((running,), history) = await ada.list_items(f"conversations/{conversation['id']}/turns"), model.requests[1].results
    release.set()
    answer = await turn

    assert running["tool_calls"] == answer["tool_calls"]
    assert [json.loads(result) for result in history] == [task] == [call["result"] for call in answer["tool_calls"]]


async def test_chat_history_contains_earlier_tool_calls_and_results(ada: ApiUser, model: ModelServer) -> None:
    model.script += [calls(("add_task", MILK), saying=("One moment.",)), says("It is on the list.")]
    first = await ada.chat("Buy milk")
    model.script += [says("You are welcome.")]
    await ada.chat("Thanks", conversation_id=first["conversation_id"])
    _, *history = model.requests[2].conversation
    (call,) = first["tool_calls"]

    assert [line[0] for line in history] == ["user", "call", "result", "assistant", "user"]
    assert history[0] == ("user", "Buy milk")
    assert (history[1][2], json.loads(history[1][3])) == ("add_task", call["arguments"])
    assert (history[2][1], json.loads(history[2][2])) == (history[1][1], call["result"])
    assert history[3] == ("assistant", first["response"])
    assert history[4] == ("user", "Thanks")


async def test_chat_history_isolation_excludes_other_conversations_and_users(
    model_service: Service, ada: ApiUser, model: ModelServer
) -> None:
    model.script += [says("Noted.")] * 3
    await ada.chat("My secret is 42")
    await model_service.user().chat("My secret is 43")
    await ada.chat("What do you know?")

    assert b"secret" not in model.requests[2].raw


async def test_chat_offers_the_task_tools_as_published(ada: ApiUser, model: ModelServer) -> None:
    model.script += [says("Hello.")]
    await ada.chat("Hi")
    published = [(tool["name"], tool["description"], tool["inputSchema"]) for tool in TOOLS[:5]]

    assert model.requests[0].tools == published
    assert all(name.endswith(("_task", "_tasks")) for name, *_ in published)


async def test_chat_instructions_contain_the_time_and_no_secret(ada: ApiUser, model: ModelServer) -> None:
    model.script += [says("Hello.")]
    await ada.chat("Hi")
    role, instructions = model.requests[0].conversation[0]

    assert role == "system"
    assert "to-do list" in instructions
    assert "UTC" in instructions
    assert b"lk_" not in model.requests[0].raw
    assert ada.user_id.encode() not in model.requests[0].raw


async def test_chat_usage_is_the_sum_of_all_model_requests(ada: ApiUser, model: ModelServer) -> None:
    model.script += [calls(("add_task", MILK)), calls(("list_tasks", "{}")), says("Done.")]
    answer = await ada.chat("Buy milk")

    assert answer["usage"] == {"requests": 3, "input_tokens": 30, "output_tokens": 15}
    turn = (await ada.get(f"turns/{answer['turn_id']}")).json()
    assert (turn["usage"], turn["model"]) == (answer["usage"], "fake")


async def test_chat_usage_that_is_too_large_to_be_stored_is_limited(ada: ApiUser, model: ModelServer) -> None:
    """A server that miscounts must not leave the turn running. Each reader of JSON keeps the limit exactly."""
    tokens = (2**63, 2**80)
    model.script += [replace(calls(("add_task", MILK)), tokens=tokens), replace(says("Done."), tokens=tokens)]
    answer = await ada.chat("Buy milk")

    assert answer["usage"] == {"requests": 2, "input_tokens": 2**53 - 1, "output_tokens": 2**53 - 1}


async def test_chat_call_with_unreadable_arguments_is_recorded(ada: ApiUser, model: ModelServer) -> None:
    """Also for the next turn, whose request is one that a strict server accepts."""
    model.script += [calls(("add_task", '{"title": "Bu')), says("I give up."), says("Yes.")]
    answer = await ada.chat("Buy milk")
    await ada.chat("Really?", conversation_id=answer["conversation_id"])
    (call,) = answer["tool_calls"]
    _, _, repeated, result, *_ = model.requests[2].conversation

    assert (call["name"], call["is_error"], call["result"]["code"]) == ("add_task", True, "invalid")
    assert call["arguments"] == json.loads(repeated[3]) == {"unreadable_arguments": '{"title": "Bu'}
    assert json.loads(result[2])["code"] == "invalid"


async def test_chat_call_of_a_tool_that_was_not_offered_has_no_effect(ada: ApiUser, model: ModelServer) -> None:
    model.script += [calls(("save_artifact", MILK), ("drop_table", "{}")), says("I cannot do that.")]
    answer = await ada.chat("Write a file")

    assert answer["response"] == "I cannot do that."
    assert answer["tool_calls"] == []
