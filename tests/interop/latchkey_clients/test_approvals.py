"""Tool calls that wait for the user's decision, and the undo of a turn, with the clients in `clients/`."""

from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.browser.backend import Backend
from tests.interop.check_counter import Checks
from tests.interop.latchkey_clients.calls import calling, clients, release

pytestmark = pytest.mark.asyncio(loop_scope="session")

CHAT = {"name": "chat", "message": "Delete it", "assistant": "careful"}
"""The call that makes the model delete the task, about which this assistant asks."""


async def script(backend: Backend, user: dict[str, str], answer: str) -> None:
    """The model deletes the task "Milk" and then answers."""
    await backend.reset()
    task = await request(backend, user, "POST", "tasks", json={"title": "Milk"})
    await backend.handlers["script_model"]([{"calls": [("delete_task", {"task_id": task["id"]})]}, {"says": [answer]}])


async def request(backend: Backend, user: dict[str, str], method: str, path: str, **options: Any) -> Any:
    headers = {"authorization": f"Bearer {user['token']}"}
    async with httpx2.AsyncClient(base_url=f"{backend.url}/api/me/", headers=headers) as client:
        return (await client.request(method, path, **options)).raise_for_status().json()


async def titles(backend: Backend, user: dict[str, str]) -> list[str]:
    return [task["title"] for task in (await request(backend, user, "GET", "tasks"))["items"]]


async def output(client: str, package: Path, backend: Backend, user: dict[str, str], **call: Any) -> dict[str, Any]:
    """The last output of a call."""
    async with calling(client, package, backend.url, user, **call) as running:
        return await running.finish()


async def open_question(client: str, package: Path, backend: Backend, user: dict[str, str]) -> dict[str, str]:
    """The ids of the only open question, as the client lists it."""
    (approval,) = (await output(client, package, backend, user, name="approvals"))["approvals"]
    return {"turn_id": approval["turn_id"], "call_id": approval["id"]}


@clients
async def test_call_that_is_approved_after_a_restart_is_made_once(
    client: str, package: Path, backend: Backend, checks: Checks
) -> None:
    user = backend.new_user()
    await script(backend, user, "Deleted.")
    waiting = await output(client, package, backend, user, **CHAT)
    await backend.kill()
    await backend.start()
    ids = await open_question(client, package, backend, user)
    before = await titles(backend, user)
    decide = {"name": "decide_and_follow", "decision": "approve", **ids}
    async with calling(client, package, backend.url, user, **decide) as call:
        await call.finish()
    async with calling(client, package, backend.url, user, **decide) as again:
        await again.finish()

    assert [(each["id"], each["name"]) for each in waiting["waiting"]] == [(ids["call_id"], "delete_task")]
    names = [event[1] for event in call.events]
    assert names == ["approval.decided", "tool_call.completed", "turn.resumed", "message.delta", "turn.completed"]
    assert again.events == call.events
    assert (before, await titles(backend, user), call.text) == (["Milk"], [], "Deleted.")
    assert len(backend.model.requests) == 2
    checks.passed(client, 7)


@clients
async def test_stream_ends_where_the_turn_waits_and_is_followed_after_a_decline(
    client: str, package: Path, backend: Backend, checks: Checks
) -> None:
    user = backend.new_user()
    await script(backend, user, "I keep it.")
    async with calling(client, package, backend.url, user, **{**CHAT, "name": "stream"}) as call:
        await call.finish()
    call.check_events("turn.waiting", [])
    turn_id, call_id = call.events[0][2]["turn_id"], call.events[-2][2]["id"]
    ids = {"turn_id": turn_id, "call_id": call_id}
    async with calling(client, package, backend.url, user, name="follow", turn_id=turn_id, after=0) as early:
        await early.finish()
    decided = (await output(client, package, backend, user, name="decide", decision="decline", **ids))["decided"]
    async with calling(client, package, backend.url, user, name="follow", turn_id=turn_id, after=0) as rest:
        await rest.finish()
    opposite = await output(client, package, backend, user, name="decide", decision="approve", **ids)

    assert early.events == call.events
    assert (decided["decision"], decided["by"], decided["is_error"]) == ("decline", "user", True)
    assert rest.events[: len(call.events)] == call.events
    rest.check_events(text=["I keep it."])
    assert opposite["problem"][:2] == [409, "conflict"]
    assert await titles(backend, user) == ["Milk"]
    checks.passed(client, 8)


@clients
async def test_reason_of_a_decline_reaches_the_model(
    client: str, package: Path, backend: Backend, checks: Checks
) -> None:
    user = backend.new_user()
    await script(backend, user, "I keep it.")
    waiting = await output(client, package, backend, user, **CHAT)
    ids = await open_question(client, package, backend, user) | {"call_id": waiting["waiting"][0]["id"]}
    decline = {"name": "decide_and_follow", "decision": "decline", "reason": "I still need it", **ids}
    async with calling(client, package, backend.url, user, **decline) as call:
        await call.finish()

    assert call.events[0][1:] == ["approval.decided", call.events[0][2]]
    assert call.events[0][2]["reason"] == "I still need it"
    assert "I still need it" in str(backend.model.requests[-1].conversation)
    checks.passed(client, 3)


@clients
async def test_stream_of_a_decision_resumes_after_the_service_was_killed(
    client: str, package: Path, backend: Backend, checks: Checks
) -> None:
    """The approved call is not made again."""
    user = backend.new_user()
    await script(backend, user, "Deleted.")
    backend.model.script.pop()
    await backend.handlers["script_model"]([{"says": ["Dele", "ted, I"], "paced": True}, {"says": ["Deleted."]}])
    await output(client, package, backend, user, **CHAT)
    ids = await open_question(client, package, backend, user)
    async with calling(client, package, backend.url, user, name="decide_and_follow", decision="approve", **ids) as call:
        await release(backend, 1)
        await call.read_text()
        await backend.kill()
        await backend.start()
        await call.finish()

    names = [event[1] for event in call.events]
    assert [name for name in names if name != "message.delta"] == [
        *("approval.decided", "tool_call.completed", "turn.resumed"),
        *("message.withdrawn", "turn.resumed", "turn.completed"),
    ]
    assert [event[2]["reason"] for event in call.events if event[1] == "turn.resumed"] == ["approval", "recovery"]
    assert (call.text, await titles(backend, user)) == ("Deleted.", [])
    checks.passed(client, 4)


@clients
async def test_chat_that_is_repeated_with_its_key_waits_and_then_answers(
    client: str, package: Path, backend: Backend, checks: Checks
) -> None:
    user = backend.new_user()
    await script(backend, user, "Deleted.")
    chat = {**CHAT, "key": "one"}
    first = await output(client, package, backend, user, **chat)
    second = await output(client, package, backend, user, **chat)
    ids = await open_question(client, package, backend, user)
    await output(client, package, backend, user, name="decide", decision="approve", **ids)

    assert first == second
    assert await output(client, package, backend, user, **chat) == {"answer": "Deleted."}
    assert len(backend.model.requests) == 2
    checks.passed(client, 3)


@clients
async def test_turn_is_undone_unless_its_effects_were_changed_since(
    client: str, package: Path, backend: Backend, checks: Checks
) -> None:
    user = backend.new_user()
    await script(backend, user, "Deleted.")
    async with calling(client, package, backend.url, user, name="stream", message="Delete it") as call:
        await call.finish()
    deleted = await titles(backend, user)
    undo = {"name": "undo", "turn_id": call.events[0][2]["turn_id"]}
    undone = (await output(client, package, backend, user, **undo))["undone"]
    await backend.handlers["script_model"]([{"calls": [("add_task", {"title": "Bread"})]}, {"says": ["Added."]}])
    async with calling(client, package, backend.url, user, name="stream", message="Add it") as adding:
        await adding.finish()
    task = next(event[2]["result"] for event in adding.events if event[1] == "tool_call.completed")
    await request(backend, user, "PATCH", f"tasks/{task['id']}", json={"title": "Rye bread"})
    undo["turn_id"] = adding.events[0][2]["turn_id"]
    status, code, _, conflicts = (await output(client, package, backend, user, **undo))["problem"]

    assert (deleted, undone["can_undo"]) == ([], False)
    assert (status, code) == (409, "conflict")
    assert [(each["kind"], each["id"], each["reason"]) for each in conflicts] == [("tasks", task["id"], "changed")]
    assert sorted(await titles(backend, user)) == ["Milk", "Rye bread"]
    checks.passed(client, 5)
