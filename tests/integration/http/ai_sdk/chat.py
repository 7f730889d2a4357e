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


async def answer(user: ApiUser, chat: str = "c1") -> dict[str, Any]:
    """The newest message of the assistant, as a page loads it."""
    newest: dict[str, Any] = (await history(user, chat))["messages"][-1]
    assert newest["role"] == "assistant"
    return newest


def calls_of(shown: dict[str, Any]) -> list[dict[str, Any]]:
    return [part for part in shown["parts"] if part["type"].startswith("tool-")]


def responded(shown: dict[str, Any], *decisions: str | None, reason: str | None = None) -> dict[str, Any]:
    """The message after the page has answered its questions, in their order; None leaves one open."""
    answers = iter(decisions)
    parts = []
    for part in shown["parts"]:
        decision = next(answers) if part.get("state") == "approval-requested" else None
        if decision is not None:
            approval = {**part["approval"], "approved": decision == "approve", **({"reason": reason} if reason else {})}
            part = {**part, "state": "approval-responded", "approval": approval}  # noqa: PLW2901
        parts.append(part)
    return {**shown, "parts": parts}


async def post_decisions(user: ApiUser, decided: dict[str, Any], chat: str = "c1") -> httpx2.Response:
    return await user.post(API, json=body(chat, message("Buy milk"), decided, messageId=decided["id"]))


async def decide(user: ApiUser, *decisions: str | None, reason: str | None = None) -> list[Chunk]:
    return chunks(await post_decisions(user, responded(await answer(user), *decisions, reason=reason)))
