"""Turns that wait and go on, with the clients in `clients/`."""

import json
from asyncio import StreamWriter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.browser.backend import Backend
from tests.interop.check_counter import Checks
from tests.interop.latchkey_clients.calls import TEXT, answering, calling, clients, release

pytestmark = pytest.mark.asyncio(loop_scope="session")

WHOLE = "All good."

EventData = tuple[str, dict[str, Any]]
"""The name of an event, and its data without the turn and the number."""


async def script_twice(backend: Backend) -> None:
    """The first answer of the model is paced, and the second one is whole."""
    await backend.reset()
    await backend.handlers["script_model"]([{"says": TEXT, "paced": True}, {"says": [WHOLE]}])


@clients
async def test_stream_resumes_with_the_next_attempt_after_the_service_was_killed(
    client: str, package: Path, backend: Backend, checks: Checks
) -> None:
    """The text of the attempt that broke off is withdrawn."""
    await script_twice(backend)
    async with calling(client, package, backend.url, backend.new_user(), name="stream", message="Go") as call:
        await release(backend, 2)
        await call.read_text()
        await backend.kill()
        await backend.start()
        await call.finish()

    names = [event[1] for event in call.events]
    call.check_events(text=[WHOLE])
    assert names.index("message.delta") < names.index("message.withdrawn") < names.index("turn.resumed")
    checks.passed(client, 4)


@clients
async def test_chat_gets_the_answer_of_the_next_attempt_after_the_service_was_killed(
    client: str, package: Path, backend: Backend, checks: Checks
) -> None:
    await script_twice(backend)
    async with calling(client, package, backend.url, backend.new_user(), name="chat", message="Go") as call:
        await backend.model.wait_for_requests()
        await backend.kill()
        await backend.start()

        assert await call.finish() == {"answer": WHOLE}
    assert len(backend.model.requests) == 2
    checks.passed(client, 2)


@clients
async def test_withdrawn_text_is_counted_in_characters(client: str, package: Path, checks: Checks) -> None:
    """A character outside the basic plane has two units in JavaScript."""
    events: list[EventData] = [
        ("turn.started", {}),
        ("message.delta", {"text": "🥛🥛"}),
        ("message.delta", {"text": "b"}),
        ("message.withdrawn", {"length": 1}),
        ("message.delta", {"text": "b"}),
        ("turn.completed", {}),
    ]
    requests: list[str] = []
    async with (
        answering(events_of(requests, events)) as url,
        calling(client, package, url, {"token": "x"}, name="stream", message="Go") as call,
    ):
        await call.finish()

    call.check_events(text=["🥛b"])
    checks.passed(client)


@clients
async def test_stream_ends_with_a_turn_that_waits_and_passes_one_that_went_on(
    client: str, package: Path, checks: Checks
) -> None:
    waiting: EventData = ("turn.waiting", {})
    resumed: EventData = ("turn.resumed", {"attempt": 2, "reason": "approval"})
    requests: list[str] = []
    async with (
        answering(events_of(requests, [("turn.started", {}), waiting, resumed, waiting])) as url,
        calling(client, package, url, {"token": "x"}, name="stream", message="Go") as call,
    ):
        await call.finish()

    call.check_events("turn.waiting", [])
    assert len(requests) == 1
    checks.passed(client, 2)


@clients
async def test_turn_without_further_events_ends_the_stream(client: str, package: Path, checks: Checks) -> None:
    requests: list[str] = []
    async with (
        answering(events_of(requests, [])) as url,
        calling(client, package, url, {"token": "x"}, name="follow", turn_id="x", after=4) as call,
    ):
        assert await call.finish() == {"text": ""}

    assert len(requests) == 1
    checks.passed(client, 2)


def events_of(requests: list[str], events: list[EventData]) -> Callable[[str, StreamWriter], Awaitable[None]]:
    """Answer each request with these events, in a response that is complete."""
    encoded = [json.dumps({"turn_id": "x", "seq": seq, **data}) for seq, (_, data) in enumerate(events, 1)]
    frames = [f"id: {seq}\nevent: {name}\ndata: {encoded[seq - 1]}\n\n" for seq, (name, _) in enumerate(events, 1)]

    async def answer(head: str, writer: StreamWriter) -> None:
        requests.append(head)
        body = "".join(frames).encode()
        headers = f"content-type: text/event-stream\r\ncontent-length: {len(body)}\r\nconnection: close"
        writer.write(f"HTTP/1.1 200 OK\r\n{headers}\r\n\r\n".encode() + body)

    return answer
