"""Approvals over HTTP: a turn that waits, the list of open questions, and the user's decision."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2
import pytest
import pytest_asyncio
from msgspec.structs import replace

from tests.isolation.conftest import asking_settings
from tests.polling import wait_until
from tests.support.event_stream import ServerSentEvent
from tests.support.service import ApiUser, Service, run_service

pytestmark = pytest.mark.asyncio(loop_scope="session")

ACCEPT_EVENTS = {"accept": "text/event-stream"}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def asking_service(shared_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Service]:
    """Its assistant asks before it stores a note."""
    folder: Path = tmp_path_factory.mktemp("assistants")
    async with run_service(asking_settings(shared_database_url, folder)) as service:
        yield service


@pytest.fixture
def ada(asking_service: Service) -> ApiUser:
    return asking_service.user()


def question(*texts: str) -> str:
    """A message that makes the rehearsal agent store notes."""
    return "\n".join(f"/remember {json.dumps({'text': text})}" for text in texts)


async def ask(user: ApiUser, text: str = "Oat milk", **body: Any) -> dict[str, Any]:
    """Send a message whose turn waits, and return the answer."""
    response = await user.post("chat", json={"message": question(text), **body})
    assert response.status_code == 202, response.text
    answer: dict[str, Any] = response.json()
    return answer


def path_of(answer: dict[str, Any]) -> str:
    return f"turns/{answer['turn_id']}/approvals/{answer['approvals'][0]['id']}"


def events_of(response: httpx2.Response) -> list[ServerSentEvent]:
    return [ServerSentEvent.parse(raw + b"\n\n") for raw in response.content.split(b"\n\n") if raw[:2] == b"id"]


async def status_of(user: ApiUser, turn_id: str) -> str:
    status: str = (await user.get(f"turns/{turn_id}")).json()["status"]
    return status


async def test_waiting_turn_answers_202_with_what_is_open(ada: ApiUser) -> None:
    answer = await ask(ada)
    (approval,) = answer["approvals"]
    (call,) = answer["tool_calls"]

    assert (answer["status"], approval["name"], approval["arguments"]) == ("waiting", "remember", {"text": "Oat milk"})
    assert (call["id"], call["result"]) == (approval["id"], None)
    assert await ada.list_items("notes") == []
    (listed,) = await ada.list_items("approvals")
    assert {name: listed[name] for name in approval} == approval
    assert (listed["turn_id"], listed["conversation_id"]) == (answer["turn_id"], answer["conversation_id"])
    assert await status_of(ada, answer["turn_id"]) == "waiting"


async def test_stream_ends_after_turn_waiting(ada: ApiUser) -> None:
    response = await ada.post("chat", json={"message": question("Oat milk")}, headers=ACCEPT_EVENTS)
    events = events_of(response)
    replay = await ada.get(f"turns/{events[0].data['turn_id']}/events")

    assert [event.name for event in events] == [
        "turn.started",
        "tool_call.started",
        "approval.requested",
        "turn.waiting",
    ]
    assert events_of(replay) == events
    rest = await ada.get(f"turns/{events[0].data['turn_id']}/events", params={"after": 4})
    assert events_of(rest) == []


async def test_approval_is_answered_with_the_result_and_the_turn_goes_on(ada: ApiUser) -> None:
    answer = await ask(ada)
    response = await ada.post(path_of(answer), json={"decision": "approve"})
    decided = response.json()

    assert (response.status_code, decided["decision"], decided["by"]) == (200, "approve", "user")
    assert decided["result"]["text"] == "Oat milk"

    async def is_completed() -> bool:
        return await status_of(ada, answer["turn_id"]) == "completed"

    await wait_until(is_completed)
    assert [note["text"] for note in await ada.list_items("notes")] == ["Oat milk"]
    assert await ada.list_items("approvals") == []


@pytest.mark.parametrize(("decision", "notes"), [("approve", 1), ("decline", 0)])
async def test_decision_is_answered_with_the_rest_of_the_stream(ada: ApiUser, decision: str, notes: int) -> None:
    answer = await ask(ada)
    response = await ada.post(path_of(answer), json={"decision": decision}, headers=ACCEPT_EVENTS)
    repeated = await ada.post(path_of(answer), json={"decision": decision}, headers=ACCEPT_EVENTS)
    names = [event.name for event in events_of(response)]

    assert names[:3] == ["approval.decided", "tool_call.completed", "turn.resumed"]
    assert names[-1] == "turn.completed"
    assert events_of(repeated) == events_of(response)
    assert len(await ada.list_items("notes")) == notes


async def test_declined_call_shows_the_reason(ada: ApiUser) -> None:
    answer = await ask(ada)
    response = await ada.post(path_of(answer), json={"decision": "decline", "reason": "Not now"}, headers=ACCEPT_EVENTS)
    decided, completed, *_ = events_of(response)

    assert (decided.data["reason"], decided.data["by"]) == ("Not now", "user")
    assert completed.data["result"]["code"] == "declined"
    assert "Not now" in completed.data["result"]["detail"]


async def test_decision_of_one_of_two_calls_streams_until_the_turn_waits_again(ada: ApiUser) -> None:
    """The rehearsal agent makes one call in each step: the second question follows the first decision."""
    answer = (await ada.post("chat", json={"message": question("One", "Two")})).json()
    first = await ada.post(path_of(answer), json={"decision": "approve"}, headers=ACCEPT_EVENTS)
    (approval,) = await ada.list_items("approvals")
    path = f"turns/{answer['turn_id']}/approvals/{approval['id']}"
    second = await ada.post(path, json={"decision": "approve"}, headers=ACCEPT_EVENTS)

    assert [event.name for event in events_of(first)][-2:] == ["approval.requested", "turn.waiting"]
    assert [event.name for event in events_of(second)][-1] == "turn.completed"
    assert len(await ada.list_items("notes")) == 2
    turn = (await ada.get(f"turns/{answer['turn_id']}")).json()
    assert (turn["attempt"], turn["status"]) == (3, "completed")


async def test_limit_of_steps_counts_those_before_a_decision(database_url: str, tmp_path: Path) -> None:
    """Also of steps without text, of which a log shows only the calls."""
    settings = replace(asking_settings(database_url, tmp_path), turn_max_steps=2)
    async with run_service(settings) as service:
        user = service.user()
        answer = (await user.post("chat", json={"message": question("One", "Two", "Three")})).json()
        await user.post(path_of(answer), json={"decision": "approve"}, headers=ACCEPT_EVENTS)
        (approval,) = await user.list_items("approvals")
        path = f"turns/{answer['turn_id']}/approvals/{approval['id']}"
        last = await user.post(path, json={"decision": "approve"}, headers=ACCEPT_EVENTS)

    assert events_of(last)[-1].data["code"] == "max-steps"


async def test_opposite_decision_is_409(ada: ApiUser) -> None:
    answer = await ask(ada)
    await ada.post(path_of(answer), json={"decision": "decline"})
    response = await ada.post(path_of(answer), json={"decision": "approve"})

    assert (response.status_code, response.json()["code"]) == (409, "conflict")
    assert await ada.list_items("notes") == []


async def test_retry_of_the_message_is_answered_with_the_waiting_turn_and_then_with_its_answer(ada: ApiUser) -> None:
    body, key = {"message": question("Oat milk")}, {"Idempotency-Key": f"key-{uuid4()}"}
    first = await ada.post("chat", json=body, headers=key)
    second = await ada.post("chat", json=body, headers=key)
    await ada.post(path_of(first.json()), json={"decision": "approve"}, headers=ACCEPT_EVENTS)
    third = await ada.post("chat", json=body, headers=key)

    assert (first.status_code, second.status_code, third.status_code) == (202, 202, 200)
    assert first.json() == second.json()
    assert len(await ada.list_items("notes")) == 1


async def test_further_message_declines_what_is_open(ada: ApiUser) -> None:
    answer = await ask(ada)
    await ada.chat("Never mind", conversation_id=answer["conversation_id"])

    assert await status_of(ada, answer["turn_id"]) == "cancelled"
    assert await ada.list_items("approvals") == []
    assert (await ada.post(path_of(answer), json={"decision": "approve"})).status_code == 409


async def test_context_token_cannot_decide(ada: ApiUser, asking_service: Service) -> None:
    answer = await ask(ada)
    token = (await ada.create("context-tokens", grants=["notes:read", "notes:write"]))["token"]
    headers = {"authorization": f"Bearer {token}"}
    url = ada.path(path_of(answer))

    response = await asking_service.client.post(url, json={"decision": "approve"}, headers=headers)
    assert response.status_code == 401
    assert await status_of(ada, answer["turn_id"]) == "waiting"


async def test_question_of_another_user_is_404(ada: ApiUser, asking_service: Service) -> None:
    answer = await ask(ada)
    bob = asking_service.user()

    assert (await bob.post(path_of(answer), json={"decision": "approve"})).status_code == 404
    assert await bob.list_items("approvals") == []


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"decision": "maybe"},
        {"decision": "approve", "arguments": {}},
        {"decision": "decline", "reason": "x" * 1001},
    ],
    ids=["empty", "unknown", "arguments", "long reason"],
)
async def test_invalid_decision_changes_nothing(ada: ApiUser, body: dict[str, Any]) -> None:
    answer = await ask(ada)
    response = await ada.post(path_of(answer), json=body)

    assert (response.status_code, response.json()["code"]) == (422, "invalid")
    assert len(await ada.list_items("approvals")) == 1


async def test_token_of_the_waiting_turn_is_revoked(ada: ApiUser) -> None:
    answer = await ask(ada)
    tokens = [token for token in await ada.list_items("context-tokens") if token["turn_id"] == answer["turn_id"]]

    assert [bool(token["revoked_at"]) for token in tokens] == [True]
