"""Helpers for tests of database outages, and the check that a turn is consistent afterwards."""

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
from sqlalchemy import make_url

from tests.fakes.model_script import Answer, Step
from tests.fakes.model_server import ModelServer
from tests.integration.database.tcp_proxy import TcpProxy
from tests.polling import wait_until
from tests.support.service import ApiUser, Service, model_variables, run_service, settings_for

ENDED = {"completed", "failed", "interrupted", "cancelled"}
MILK = ("add_task", '{"title":"Buy milk"}')


class TwoSteps(deque[Step]):
    """A model script for concurrent turns: first a tool call, then an answer once it has a result."""

    def __init__(self, model: ModelServer, first: Answer, then: Answer) -> None:
        super().__init__([first])
        self._model, self._first, self._then = model, first, then

    def popleft(self) -> Step:
        return self._then if self._model.requests[-1].results else self._first


@asynccontextmanager
async def serve_with_model(url: str, model: ModelServer, **variables: str) -> AsyncIterator[Service]:
    """Serve a replica with this model."""
    async with run_service(settings_for(url, **model_variables(model), **variables)) as service:
        yield service


def url_through(proxy: TcpProxy, url: str) -> str:
    return make_url(url).set(port=proxy.port).render_as_string(hide_password=False)


async def events_of(user: ApiUser, turn_id: str) -> list[dict[str, Any]]:
    """Read the events of the turn to the end, resuming the stream when it is lost."""
    events: list[dict[str, Any]] = []
    while not events or events[-1]["event"] not in {f"turn.{how}" for how in ENDED}:
        after = {"after": events[-1]["seq"]} if events else {}
        response = await user.get(f"turns/{turn_id}/events", params=after)
        if response.status_code != 200:
            assert is_unavailable(response), response.text
            await asyncio.sleep(0.1)
        else:
            events += [_event(block) for block in response.text.split("\n\n") if block.startswith("id:")]
    return events


def _event(block: str) -> dict[str, Any]:
    fields = dict(line.split(": ", 1) for line in block.splitlines())
    return {**json.loads(fields["data"]), "event": fields["event"]}


def is_unavailable(response: httpx2.Response) -> bool:
    """Return whether the response is 503 with Retry-After, the only response that an outage may cause."""
    return response.status_code == 503 and "retry-after" in response.headers


async def wait_until_writable(user: ApiUser) -> None:
    """Wait until writes succeed again, without a restart."""

    async def can_write() -> bool:
        response = await user.post("tasks", json={"title": "Back again"})
        assert response.status_code == 201 or is_unavailable(response), response.text
        return response.status_code == 201

    await wait_until(can_write)


async def consistent_turn(user: ApiUser, turn_id: str) -> dict[str, Any]:
    """Wait for the end of the turn and check it: events without gaps, and a message if it has an answer."""

    async def has_ended() -> bool:
        response = await user.get(f"turns/{turn_id}")
        assert response.status_code == 200 or is_unavailable(response), response.text
        return response.status_code == 200 and response.json()["status"] in ENDED

    await wait_until(has_ended)
    turn: dict[str, Any] = (await user.get(f"turns/{turn_id}")).json()
    events = await events_of(user, turn_id)
    streamed = shown_text(events)
    listing = await user.list_items(f"conversations/{turn['conversation_id']}/messages")
    answers = [item["content"] for item in listing if item["turn_id"] == turn_id and item["role"] == "assistant"]
    started = [event["id"] for event in events if event["event"] == "tool_call.started"]
    answered = [event["id"] for event in events if event["event"] == "tool_call.completed"]

    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert events[-1]["event"] == f"turn.{turn['status']}"
    assert answers == ([streamed] if turn["status"] == "completed" else [])
    assert [item["seq"] for item in listing] == list(range(1, len(listing) + 1))
    assert started == [call["id"] for call in turn["tool_calls"]]
    assert answered == [call["id"] for call in turn["tool_calls"] if call["result"] is not None]
    return turn


def shown_text(events: list[dict[str, Any]]) -> str:
    """Return the text of the deltas without what was withdrawn."""
    text = ""
    for event in events:
        if event["event"] == "message.delta":
            text += event["text"]
        elif event["event"] == "message.withdrawn":
            text = text[: event["length"]]
    return text


def tasks_added_by(*turns: dict[str, Any]) -> list[str]:
    """Return the titles of the tasks that the tool calls of these turns added."""
    calls = [call for turn in turns for call in turn["tool_calls"] if call["name"] == "add_task"]
    return sorted(call["result"]["id"] for call in calls if not call["is_error"])


async def tasks_of(user: ApiUser) -> list[str]:
    """Return the titles of the tasks that turns added."""
    return sorted(task["id"] for task in await user.list_items("tasks", limit=200) if task["title"] == "Buy milk")
