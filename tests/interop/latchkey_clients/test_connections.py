"""Connections of the clients in `clients/` that are cut, and services that do not answer."""

import asyncio
import json
from asyncio import StreamWriter
from pathlib import Path
from time import monotonic

import pytest

from tests.browser.backend import Backend
from tests.integration.database.tcp_proxy import proxy_to
from tests.interop.check_counter import Checks
from tests.interop.latchkey_clients.calls import TEXT, answering, calling, clients, release, script
from tests.polling import wait_until

pytestmark = pytest.mark.asyncio(loop_scope="session")

UNAVAILABLE = {
    "type": "urn:latchkey:problem:unavailable",
    "title": "Unavailable",
    "status": 503,
    "detail": "Later.",
    "code": "unavailable",
    "request_id": "1",
}


@clients
async def test_stream_that_is_cut_twice_resumes_without_gap_or_repetition(
    client: str, package: Path, backend: Backend, checks: Checks
) -> None:
    user = backend.new_user()
    await script(backend, *TEXT)
    async with (
        proxy_to(backend.port) as proxy,
        calling(client, package, f"http://127.0.0.1:{proxy.port}", user, name="stream", message="Go") as call,
    ):
        for _ in range(2):
            await release(backend, 2)
            await call.read_text()
            await proxy.disconnect()
            await release(backend, 1)
            await proxy.restore()
        await backend.handlers["release_model"]()
        await call.finish()

    call.check_events()
    assert len(backend.model.requests) == 1
    checks.passed(client, 4)


@clients
async def test_stream_that_is_silent_for_too_long_is_resumed_on_a_new_connection(
    client: str, package: Path, backend: Backend, checks: Checks
) -> None:
    """A connection whose peer has vanished does not end by itself."""
    options = {"idleMs": 500} if client == "TypeScript client" else {"idle_s": 0.5}
    await script(backend, *TEXT)
    async with (
        proxy_to(backend.port) as proxy,
        calling(
            client,
            package,
            f"http://127.0.0.1:{proxy.port}",
            backend.new_user(),
            name="stream",
            message="Go",
            options=options,
        ) as call,
    ):
        await release(backend, 2)
        await call.read_text()
        connections = proxy.connections
        proxy.freeze()

        async def has_reconnected() -> bool:
            return proxy.connections > connections

        await wait_until(has_reconnected)
        await proxy.restore()
        await backend.handlers["release_model"]()
        await call.finish()

    call.check_events()
    checks.passed(client, 2)


@clients
async def test_chat_whose_connection_is_cut_gets_the_answer_of_its_turn(
    client: str, package: Path, backend: Backend, checks: Checks
) -> None:
    await script(backend, *TEXT)
    async with (
        proxy_to(backend.port) as proxy,
        calling(
            client, package, f"http://127.0.0.1:{proxy.port}", backend.new_user(), name="chat", message="Go"
        ) as call,
    ):
        await backend.model.wait_for_requests()
        await proxy.disconnect()
        await proxy.restore()
        await backend.handlers["release_model"]()

        assert await call.finish() == {"answer": "".join(TEXT)}
    assert len(backend.model.requests) == 1
    checks.passed(client, 2)


@clients
async def test_request_waits_for_a_service_that_starts(
    client: str, package: Path, backend: Backend, checks: Checks
) -> None:
    user = backend.new_user()
    await backend.kill()
    async with calling(client, package, backend.url, user, name="add_task", message="Buy milk") as call:
        await asyncio.sleep(0)
        await backend.start()

        assert await call.finish() == {"answer": "Buy milk"}
    checks.passed(client)


@clients
async def test_turn_is_followed_from_a_given_event(
    client: str, package: Path, backend: Backend, checks: Checks
) -> None:
    user = backend.new_user()
    await script(backend, *TEXT)
    await backend.handlers["release_model"]()
    async with calling(client, package, backend.url, user, name="stream", message="Go") as call:
        await call.finish()
    turn_id, number = call.events[0][2]["turn_id"], len(call.events)
    async with calling(client, package, backend.url, user, name="follow", turn_id=turn_id, after=2) as rest:
        await rest.finish()

    assert rest.events == call.events[2:number]
    checks.passed(client)


@clients
async def test_disconnect_from_a_stream_does_not_end_its_turn(
    client: str, package: Path, backend: Backend, checks: Checks
) -> None:
    user = backend.new_user()
    await script(backend, *TEXT)
    async with calling(client, package, backend.url, user, name="stream", message="Go", leave_after=2) as call:
        await release(backend, 2)
        assert await call.finish() == {"left": True}
    await backend.handlers["release_model"]()
    async with calling(
        client, package, backend.url, user, name="follow", turn_id=call.events[0][2]["turn_id"], after=0
    ) as again:
        await again.finish()

    again.check_events()
    checks.passed(client, 2)


@clients
async def test_problem_that_is_not_temporary_is_raised_at_once(
    client: str, package: Path, backend: Backend, checks: Checks
) -> None:
    user = backend.new_user()
    await backend.reset()
    unknown = "01a22770-5b1a-7c4e-9a3f-0d6c7e9b2f10"
    async with calling(client, package, backend.url, user, name="follow", turn_id=unknown, after=0) as call:
        missing = await call.finish()
    async with calling(client, package, backend.url, {**user, "token": "x"}, name="chat", message="Go") as call:
        refused = await call.finish()
    await backend.handlers["script_model"]([{"fails_with": 400}])
    async with calling(client, package, backend.url, user, name="chat", message="Go") as call:
        failed = await call.finish()

    assert missing["problem"][:3] == [404, "not-found", "There is no such turn."]
    assert refused["problem"][:2] == [401, "unauthenticated"]
    assert failed["problem"][:2] == [502, "model-unavailable"]
    assert len(backend.model.requests) == 1
    checks.passed(client, 3)


@clients
async def test_retry_waits_as_retry_after_says_and_keeps_its_idempotency_key(
    client: str, package: Path, checks: Checks
) -> None:
    requests: list[tuple[float, str]] = []

    async def answer(head: str, writer: StreamWriter) -> None:
        requests.append((monotonic(), next(line for line in head.split("\r\n") if line.startswith("idempotency-key"))))
        body = json.dumps(UNAVAILABLE if len(requests) == 1 else {"title": "Buy milk"})
        status, kind = ("503 No", "problem+json") if len(requests) == 1 else ("201 Created", "json")
        lines = [f"HTTP/1.1 {status}", f"content-type: application/{kind}", "retry-after: 1", "connection: close"]
        writer.write("\r\n".join([*lines, f"content-length: {len(body)}", "", body]).encode())

    async with (
        answering(answer) as url,
        calling(client, package, url, {"token": "x"}, name="add_task", message="Buy milk") as call,
    ):
        assert await call.finish() == {"answer": "Buy milk"}

    (first, key), (second, same_key) = requests
    assert key == same_key
    assert second - first >= 1
    checks.passed(client, 3)


@clients
async def test_stream_in_single_bytes_with_comments_and_unusual_line_ends_in_texts_is_read(
    client: str, package: Path, checks: Checks
) -> None:
    """U+2028 and U+0085 end a line for `str.splitlines`, and not in server-sent events."""
    text = ["Zürich 🥛", "a\u2028b\u0085c\x0bd", "\n\ndata: x\n\n"]
    texts = [{"text": piece} for piece in text]
    data = [{"agent": "openai"}, *texts, {"response": "".join(text)}]
    names = ["turn.started", *["message.delta"] * len(text), "turn.completed"]
    encoded = [json.dumps({"turn_id": "x", "seq": seq, **each}, ensure_ascii=False) for seq, each in enumerate(data, 1)]
    frames = [
        f"id: {seq}\nevent: {name}\ndata: {each}\n\n:\n\n"
        for seq, (name, each) in enumerate(zip(names, encoded, strict=True), 1)
    ]

    async def answer(_: str, writer: StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n")
        for byte in "".join(frames).encode():
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0)

    async with (
        answering(answer) as url,
        calling(client, package, url, {"token": "x"}, name="stream", message="Go") as call,
    ):
        await call.finish()

    call.check_events(text=text)
    checks.passed(client)
