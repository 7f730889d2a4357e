"""Undo of a turn over HTTP: its answer, its conflicts, and its event for every reader."""

from typing import Any

import pytest

from tests.fakes.model_script import calls, says
from tests.fakes.model_server import ModelServer
from tests.support.event_stream import event_names, read_turn
from tests.support.service import ApiUser, Service

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest.fixture
def ada(model_service: Service) -> ApiUser:
    return model_service.user()


async def turn_that_adds_a_task(ada: ApiUser, model: ModelServer) -> dict[str, Any]:
    model.script += [calls(("add_task", '{"title": "Milk"}')), says("Done.")]
    return await ada.chat("Add milk")


async def test_undo_returns_the_turn_and_reverts_its_effect(ada: ApiUser, model: ModelServer) -> None:
    answer = await turn_that_adds_a_task(ada, model)
    path = f"turns/{answer['turn_id']}"
    assert (await ada.get(path)).json()["can_undo"] is True
    responses = [await ada.post(f"{path}/undo") for _ in range(2)]
    listed = await ada.list_items(f"conversations/{answer['conversation_id']}/turns")

    assert [response.status_code for response in responses] == [200, 200]
    assert responses[0].json() == responses[1].json() == (await ada.get(path)).json() == listed[0]
    assert (listed[0]["can_undo"], listed[0]["status"]) == (False, "completed")
    assert listed[0]["undone_at"] > listed[0]["finished_at"]
    assert await ada.list_items("tasks") == []


async def test_undo_event_follows_the_last_one_for_every_reader(ada: ApiUser, model: ModelServer) -> None:
    """Streams of a turn that has ended still end."""
    answer = await turn_that_adds_a_task(ada, model)
    task, turn_id = answer["tool_calls"][0]["result"], answer["turn_id"]
    before = await read_turn(ada, turn_id)
    await ada.post(f"turns/{turn_id}/undo")
    after = await read_turn(ada, turn_id)
    undone = after[-1]

    assert after[:-1] == before
    assert event_names(after)[-2:] == ["turn.completed", "turn.undone"]
    effect = {"tool_call_id": answer["tool_calls"][0]["id"], "kind": "tasks", "id": task["id"], "effect": "created"}
    assert undone.payload == {"effects": [{**effect, "version": None, "restored_version": None}]}
    assert await read_turn(ada, turn_id, params={"after": before[-1].seq}) == [undone]
    assert await read_turn(ada, turn_id, headers={"last-event-id": str(undone.seq)}) == []


async def test_undo_is_shown_to_the_model_in_the_next_turn(ada: ApiUser, model: ModelServer) -> None:
    answer = await turn_that_adds_a_task(ada, model)
    await ada.post(f"turns/{answer['turn_id']}/undo")
    model.script += [says("I see.")]
    await ada.chat("Really?", conversation_id=answer["conversation_id"])
    texts = [item[1] for item in model.requests[-1].conversation if item[0] == "assistant"]
    messages = await ada.list_items(f"conversations/{answer['conversation_id']}/messages")

    assert len(texts) == 1
    assert texts[0].startswith("Done.\n\n[The user has undone")
    assert [message["content"] for message in messages] == ["Add milk", "Done.", "Really?", "I see."]


async def test_undo_after_a_change_is_a_conflict_that_lists_it(ada: ApiUser, model: ModelServer) -> None:
    answer = await turn_that_adds_a_task(ada, model)
    task = answer["tool_calls"][0]["result"]
    await ada.patch(f"tasks/{task['id']}", json={"title": "Oat milk"})
    response = await ada.post(f"turns/{answer['turn_id']}/undo")
    problem = response.json()

    assert (response.status_code, problem["code"]) == (409, "conflict")
    assert problem["conflicts"] == [
        {"tool_call_id": answer["tool_calls"][0]["id"], "kind": "tasks", "id": task["id"], "reason": "changed"}
    ]
    assert [item["title"] for item in await ada.list_items("tasks")] == ["Oat milk"]


async def test_undo_of_a_turn_without_effects_is_a_conflict(ada: ApiUser, model: ModelServer) -> None:
    model.script += [says("Hello.")]
    answer = await ada.chat("Hello")
    response = await ada.post(f"turns/{answer['turn_id']}/undo")

    assert (response.status_code, response.json()["conflicts"]) == (409, [])


async def test_undone_turn_looks_the_same_in_front_ends(ada: ApiUser, model: ModelServer) -> None:
    """They have no such event: pages and their reloads show the turn as it was answered."""
    answer = await turn_that_adds_a_task(ada, model)
    paths = [
        f"ai-sdk/chat/{answer['conversation_id']}",
        f"ai-sdk/chat/turn/{answer['turn_id']}/stream",
        f"ag-ui/{answer['conversation_id']}",
        f"openai/v1/conversations/conv_{answer['conversation_id'].replace('-', '')}/items",
        f"openai/v1/responses/resp_{answer['turn_id'].replace('-', '')}?stream=true",
    ]
    before = [(await ada.get(path)) for path in paths]
    await ada.post(f"turns/{answer['turn_id']}/undo")
    after = [(await ada.get(path)) for path in paths]

    assert [response.status_code for response in after] == [200] * len(paths)
    assert [response.content for response in after] == [response.content for response in before]
