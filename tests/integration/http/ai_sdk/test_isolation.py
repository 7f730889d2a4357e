"""Isolation of users in the routes of the AI SDK: chats, messages and turns of another user are unknown."""

import pytest

from tests.fakes.model_script import says
from tests.fakes.model_server import ModelServer
from tests.integration.http.ai_sdk.chat import API, body, history, message, say, text_of
from tests.support.service import ApiUser, Service
from tests.support.streamed_data import read_until

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest.fixture
def ada(replicas: tuple[Service, Service]) -> ApiUser:
    return replicas[0].user()


@pytest.fixture
def bob(replicas: tuple[Service, Service]) -> ApiUser:
    return replicas[0].user()


async def test_isolation_same_ids_of_two_users_are_different_chats(
    ada: ApiUser, bob: ApiUser, model: ModelServer
) -> None:
    model.script += [says("For Bob."), says("For Ada.")]
    of_bob = await say(bob, "c1", "I am Bob", "m1")
    before = await history(bob, "c1")
    assert (await history(ada, "c1"))["messages"] == []
    of_ada = await say(ada, "c1", "I am Bob", "m1")

    assert (text_of(of_bob), text_of(of_ada)) == ("For Bob.", "For Ada.")
    assert of_ada[0]["messageId"] != of_bob[0]["messageId"]
    assert await history(bob, "c1") == before
    assert "Bob." not in str(model.requests[-1].conversation[1:])


async def test_isolation_conversation_and_turn_of_another_user_are_like_unknown_ones(
    ada: ApiUser, bob: ApiUser, model: ModelServer
) -> None:
    model.script += [says("For Bob."), says("One."), says("Two."), says("Three.")]
    start = (await say(bob, "c1", "I am Bob", "m1"))[0]
    conversation_id, turn_id = start["messageMetadata"]["conversationId"], start["messageId"]
    before = await history(bob, "c1")

    assert (await history(ada, conversation_id))["messages"] == []
    assert (await history(ada, "c1", before=turn_id))["messages"] == []
    assert (await ada.get(f"{API}/{conversation_id}/stream")).status_code == 204
    assert (await ada.get(f"{API}/turn/{turn_id}/stream")).status_code == 404
    await say(ada, conversation_id, "Mine", "m1")
    await say(ada, conversation_id, "Mine", "m2", trigger="regenerate-message", messageId=turn_id)
    await say(ada, "c1", "Mine", "m1", messageId="m1")
    assert await history(bob, "c1") == before
    assert all("Bob" not in str(request.conversation[1:]) for request in model.requests[-3:])


async def test_isolation_running_turn_of_another_user_is_neither_stopped_nor_streamed(
    ada: ApiUser, bob: ApiUser, model: ModelServer
) -> None:
    model.script += [says("Half ", "of it.")]
    async with bob.stream("POST", API, json=body("c1", message("Hello"))) as response:
        lines = response.aiter_lines()
        (start,) = await read_until(lines, "start")
        for chat in ("c1", start["messageMetadata"]["conversationId"]):
            assert (await ada.post(f"{API}/{chat}/stop")).json() == {"success": True}
            assert (await ada.get(f"{API}/{chat}/stream")).status_code == 204
        rest = await read_until(lines, "finish")

    assert rest[-1]["messageMetadata"]["status"] == "completed"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", ""),
        ("GET", "/c1"),
        ("GET", "/c1/stream"),
        ("POST", "/c1/stop"),
        ("GET", "/turn/0198f3c0-a7b4-7c1e-8d2f-3a4b5c6d7e8f/stream"),
    ],
)
async def test_isolation_path_of_another_user_is_refused(ada: ApiUser, bob: ApiUser, method: str, path: str) -> None:
    sender = ApiUser(bob.user_id, ada.token, ada.client)
    refused = await sender.request(method, API + path, json=body("c1", message("Hello")))
    anonymous = await ApiUser(bob.user_id, "none", ada.client).request(method, API + path, json={})

    assert (refused.status_code, refused.json()["code"]) == (403, "wrong-user")
    assert (anonymous.status_code, anonymous.json()["code"]) == (401, "unauthenticated")
    assert (await history(bob, "c1"))["messages"] == []
