"""Sends the requests of `useChat`, and reads UI message streams."""

import json
from typing import Any
from uuid import uuid4

import httpx2

from tests.support.service import ApiUser

API = "ai-sdk/chat"
Chunk = dict[str, Any]


def message(text: str, id: str | None = None) -> dict[str, Any]:
    """A message of the user."""
    return {"id": id or f"msg-{uuid4().hex[:8]}", "role": "user", "parts": [{"type": "text", "text": text}]}


def body(chat: str, *messages: dict[str, Any], **members: Any) -> dict[str, Any]:
    return {"id": chat, "messages": messages, "trigger": "submit-message", **members}


async def say(user: ApiUser, chat: str, text: str, id: str | None = None, **members: Any) -> list[Chunk]:
    """Send a message and return the chunks of the whole stream."""
    return chunks(await user.post(API, json=body(chat, message(text, id), **members)))


async def history(user: ApiUser, chat: str, **params: Any) -> dict[str, Any]:
    response = await user.get(f"{API}/{chat}", params=params)
    assert response.status_code == 200, response.text
    shown: dict[str, Any] = response.json()
    return shown


def chunks(response: httpx2.Response) -> list[Chunk]:
    """The chunks of a complete stream. Raises `AssertionError` if it does not end with `[DONE]`."""
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("text/event-stream")
    return parse(response.content)


def parse(body: bytes) -> list[Chunk]:
    frames = [frame for frame in body.decode().split("\n\n") if frame and not frame.startswith(":")]
    assert all(frame.startswith("data: ") and "\n" not in frame for frame in frames), body
    assert frames[-1] == "data: [DONE]"
    return [json.loads(frame.removeprefix("data: ")) for frame in frames[:-1]]


def types(chunks: list[Chunk]) -> list[str]:
    return [chunk["type"] for chunk in chunks]


def text_of(chunks: list[Chunk]) -> str:
    return "".join(chunk["delta"] for chunk in chunks if chunk["type"] == "text-delta")
