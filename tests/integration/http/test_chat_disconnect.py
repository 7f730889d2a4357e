"""Disconnect of a client on a real socket: the turn continues and stays readable."""

import asyncio
import json
from asyncio import Event
from typing import Any

import pytest

from tests.fakes.model_script import calls, says
from tests.fakes.model_server import ModelServer
from tests.polling import wait_until
from tests.support.service import ApiUser, Service
from tests.support.socket_server import serve_on_socket

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_disconnect_during_a_turn_does_not_stop_the_turn(model_service: Service, model: ModelServer) -> None:
    release = Event()
    ada = model_service.user()
    model.script += [calls(("add_task", '{"title": "Buy milk"}')).held(release), says("It is on the list.")]
    async with serve_on_socket(model_service.asgi) as port:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request(ada, {"message": "Buy milk"}))
        await model.wait_for_requests()
        writer.transport.abort()
        release.set()
        await wait_until(lambda: all_ended(ada))
    (conversation,) = await ada.list_items("conversations")
    (turn,) = await ada.list_items(f"conversations/{conversation['id']}/turns")
    messages = await ada.list_items(f"conversations/{conversation['id']}/messages")

    assert turn["status"] == "completed"
    assert [message["content"] for message in messages] == ["Buy milk", "It is on the list."]
    assert [task["title"] for task in await ada.list_items("tasks")] == ["Buy milk"]


async def test_disconnect_during_the_request_body_starts_no_turn(model_service: Service, model: ModelServer) -> None:
    ada = model_service.user()
    async with serve_on_socket(model_service.asgi) as port:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request(ada, {"message": "Buy milk"})[:-3])
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    assert await ada.list_items("conversations") == []
    assert model.requests == []


def request(user: ApiUser, body: dict[str, Any]) -> bytes:
    content = json.dumps(body).encode()
    head = [
        f"POST {user.path('chat')} HTTP/1.1",
        "Host: 127.0.0.1",
        f"Authorization: Bearer {user.token}",
        "Content-Type: application/json",
        f"Content-Length: {len(content)}",
    ]
    return "\r\n".join([*head, "", ""]).encode() + content


async def all_ended(user: ApiUser) -> bool:
    (conversation,) = await user.list_items("conversations")
    turns = await user.list_items(f"conversations/{conversation['id']}/turns")
    return {turn["status"] for turn in turns} != {"running"}
