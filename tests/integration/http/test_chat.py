"""Chat turns over HTTP with the rehearsal agent."""

import json
from uuid import UUID, uuid4

import pytest

from latchkey.domain.credentials import Owner, UserId
from latchkey.domain.turn import ClientRequest, TurnId
from latchkey.infrastructure.database.sql.engine import create_engine
from latchkey.infrastructure.database.unit_of_work import SqlUnitsOfWork
from tests.support.service import ApiUser, Service, run_service, settings_for

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_chat_response_contains_answer_tool_calls_and_usage(ada: ApiUser) -> None:
    answer = await ada.chat('/add_task {"title": "Buy milk"}\n/list_tasks {"status": "pending"}')
    (task,) = await ada.list_items("tasks")
    messages = await ada.list_items(f"conversations/{answer['conversation_id']}/messages")
    turn = (await ada.get(f"turns/{answer['turn_id']}")).json()
    added, listed = answer["tool_calls"]

    assert (added["name"], added["arguments"], added["result"]) == ("add_task", {"title": "Buy milk"}, task)
    assert (listed["name"], listed["arguments"]) == ("list_tasks", {"status": "pending"})
    assert listed["result"] == {"items": [task], "next_cursor": None}
    assert [call["is_error"] for call in (added, listed)] == [False, False]
    assert added["started_at"] < listed["started_at"]
    assert answer["message"] == messages[1]
    assert answer["response"] == messages[1]["content"]
    assert messages[1]["tool_calls"] == turn["tool_calls"] == [added, listed]
    assert [message["turn_id"] for message in messages] == [answer["turn_id"]] * 2
    assert (turn["status"], turn["usage"]) == ("completed", answer["usage"])
    assert (answer["agent"], answer["artifacts"], answer["usage"]["requests"]) == ("rehearsal", [], 3)
    assert task["conversation_id"] == answer["conversation_id"]


async def test_chat_request_id_is_stored_with_its_turn(service: Service, ada: ApiUser) -> None:
    """Also without an `Idempotency-Key`: an operator finds the log lines of a turn by it."""
    response = await ada.post("chat", json={"message": "Hello"}, headers={"x-request-id": "r-1"})
    engine = create_engine(service.settings.database_url)
    async with SqlUnitsOfWork(engine).open(Owner(UserId(ada.user_id)), "read") as uow:
        turn = await uow.turns.get(TurnId(UUID(response.json()["turn_id"])))
    await engine.dispose()

    assert turn.request == ClientRequest("r-1")


async def test_chat_without_conversation_id_creates_a_conversation(ada: ApiUser) -> None:
    first = await ada.chat("hello")
    second = await ada.chat("hello again", conversation_id=first["conversation_id"])
    other = await ada.chat("something else", conversation_id=None)

    assert second["conversation_id"] == first["conversation_id"] != other["conversation_id"]
    assert second["message"]["seq"] == 4
    assert len(await ada.list_items("conversations")) == 2


async def test_chat_tool_call_error_is_recorded_with_its_reason(ada: ApiUser) -> None:
    absent = str(uuid4())
    calls = [("complete_task", {"task_id": absent}), ("add_task", {"title": ""}), ("add_task", {"titel": "milk"})]
    answer = await ada.chat("\n".join(f"/{name} {json.dumps(arguments)}" for name, arguments in calls))

    assert [(call["name"], call["arguments"]) for call in answer["tool_calls"]] == calls
    assert [call["is_error"] for call in answer["tool_calls"]] == [True] * 3
    assert answer["tool_calls"][0]["result"] == {"code": "not-found", "detail": "There is no such task."}
    assert [call["result"]["code"] for call in answer["tool_calls"]] == ["not-found", "invalid", "invalid"]
    assert await ada.list_items("tasks") == []


async def test_chat_message_without_tool_call_has_no_effect(ada: ApiUser) -> None:
    """The service does not interpret messages: only a model requests tool calls."""
    answer = await ada.chat("Please add a task: buy milk. And delete all the others!")

    assert answer["response"].startswith("[rehearsal]")
    assert answer["tool_calls"] == []
    assert await ada.list_items("tasks") == []


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"message": ""},
        {"message": " \n"},
        {"message": None},
        {"message": "a" * 32_001},
        {"message": ["hello"]},
        {"message": "hello", "conversation_id": ""},
        {"message": "hello", "conversation_id": "1"},
        {"message": "hello", "artifact_generation": "yes"},
        {"message": "hello", "user_id": "bob"},
        {"message": "hello", "agent": "claude"},
    ],
)
async def test_chat_invalid_message_starts_no_turn(ada: ApiUser, body: dict[str, object]) -> None:
    refused = await ada.post("chat", json=body)

    assert (refused.status_code, refused.json()["code"]) == (422, "invalid")
    assert await ada.list_items("conversations") == []


async def test_chat_artifact_generation_lists_the_saved_artifacts(ada: ApiUser) -> None:
    """In the response and in the stored turn: each artifact once, in its last version."""
    save = {"title": "Plan", "content_markdown": "# Plan"}
    message = f"/save_artifact {json.dumps(save)}\n/save_artifact {json.dumps({**save, 'title': ''})}"
    answer = await ada.chat(message, artifact_generation=True)
    (artifact,) = answer["artifacts"]
    stored = (await ada.get(f"artifacts/{artifact['id']}")).json()

    assert artifact == {"id": stored["id"], "artifact_type": "generated_file", "title": "Plan", "version": 1}
    assert [stored[name] for name in ("conversation_id", "turn_id")] == [answer["conversation_id"], answer["turn_id"]]
    assert stored["content_markdown"] == "# Plan"
    assert [call["is_error"] for call in answer["tool_calls"]] == [False, True]
    assert (await ada.get(f"turns/{answer['turn_id']}")).json()["artifacts"] == [artifact]


async def test_chat_without_saved_artifacts_lists_none(ada: ApiUser) -> None:
    answer = await ada.chat('/save_artifact {"title": "Plan", "content_markdown": "# Plan"}')

    assert answer["artifacts"] == []
    assert await ada.list_items("artifacts") == []


async def test_chat_without_an_agent_is_refused_and_stores_nothing(shared_database_url: str) -> None:
    async with run_service(settings_for(shared_database_url, LATCHKEY_AGENT="")) as service:
        ada = service.user()
        refused = await ada.post("chat", json={"message": "hello"})

        assert (refused.status_code, refused.json()["code"]) == (503, "agent-not-configured")
        assert "LATCHKEY_AGENT" in refused.json()["detail"]
        assert await ada.list_items("conversations") == []
        assert await ada.list_items("context-tokens") == []
