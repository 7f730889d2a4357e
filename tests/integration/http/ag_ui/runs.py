"""Sends the requests of AG-UI clients, and reads the events of their runs."""

import json
from typing import Any
from uuid import uuid4

import httpx2

from tests.support.service import ApiUser

API = "ag-ui"
RunEvent = dict[str, Any]


def user_message(text: Any, id: str | None = None) -> dict[str, Any]:
    return {"id": id or str(uuid4()), "role": "user", "content": text}


def run_input(thread: str, *messages: Any, run_id: str | None = None, **members: Any) -> dict[str, Any]:
    """The body of a client of release 1.0; members with the value None are left out."""
    body = {
        "threadId": thread,
        "runId": run_id or str(uuid4()),
        "protocolVersion": "1.0",
        "messages": messages,
        "tools": [],
        "context": [],
        "state": {},
        "forwardedProps": {},
        **members,
    }
    return {name: value for name, value in body.items() if value is not None}


async def run(user: ApiUser, body: dict[str, Any], **headers: str) -> list[RunEvent]:
    """Post a body and return the events of the run up to its end."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return events_of(await user.post(API, json=body, headers=named))


async def say(user: ApiUser, thread: str, text: str, id: str | None = None, **members: Any) -> list[RunEvent]:
    return await run(user, run_input(thread, user_message(text, id), **members))


async def thread_messages(user: ApiUser, thread: str, **params: Any) -> list[dict[str, Any]]:
    response = await user.get(f"{API}/{thread}", params=params)
    assert response.status_code == 200, response.text
    messages: list[dict[str, Any]] = response.json()["messages"]
    return messages


def frames_of(response: httpx2.Response) -> list[tuple[str, RunEvent]]:
    """The ids and events of a complete stream, whose ids are distinct."""
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.headers["cache-control"] == "no-store"
    frames = [frame for frame in response.text.split("\n\n") if frame and not frame.startswith(":")]
    pairs = [parse(frame) for frame in frames]
    assert len({id for id, _ in pairs}) == len(pairs)
    return pairs


def events_of(response: httpx2.Response) -> list[RunEvent]:
    return [event for _, event in frames_of(response)]


def parse(frame: str) -> tuple[str, RunEvent]:
    id, data = frame.split("\n")
    return id.removeprefix("id: "), json.loads(data.removeprefix("data: "))


def types(events: list[RunEvent]) -> list[str]:
    return [event["type"] for event in events]


def text_of(events: list[RunEvent]) -> str:
    return "".join(event["delta"] for event in events if event["type"] == "TEXT_MESSAGE_CONTENT")
