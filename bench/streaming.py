"""How fast what a model says reaches those who read along: `python -m bench.streaming`.

A model that says 20 words a second to each of many turns at once, each word the time at which it was said. Told are
the delay of the first word of each turn, and the time between two events at the client. SQLite, or the database that
LATCHKEY_DATABASE_URL names.
"""

import asyncio
import json
import multiprocessing
import os
import tempfile
from asyncio import StreamReader, StreamWriter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from itertools import pairwise
from pathlib import Path
from time import monotonic

import click

from latchkey.domain.credentials import UserId
from latchkey.infrastructure.identity.shared_secret import SharedSecret
from tests.e2e.service_process import BASE_SETTINGS, Replica, migrate_database, running_service
from tests.fakes.model_script import Answer
from tests.fakes.responses_events import responses_events
from tests.process_supervision import free_port

WORDS = 400
PAUSE_S = 0.05
FILLING_S = 8
"""In which the turns of a crowd begin, one after the other. None ends in the next as many seconds."""
CROWDS = (50, 200)

_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"


async def main() -> None:
    with slow_model() as model_url, a_service(model_url) as replica:
        await crowd(replica, 1)  # warms up
        for turns in CROWDS:
            await crowd(replica, turns)


@contextmanager
def a_service(model_url: str) -> Iterator[Replica]:
    """One worker that asks that model."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        home.mkdir()
        given = {**BASE_SETTINGS, "LATCHKEY_AGENT": "openai", "LATCHKEY_MODEL": "slow", "OPENAI_BASE_URL": model_url}
        if url := os.environ.get("LATCHKEY_DATABASE_URL"):
            given["LATCHKEY_DATABASE_URL"] = url
        migrate_database(home, given)
        with running_service(home=home, environment=given) as replica:
            yield replica


async def crowd(replica: Replica, turns: int) -> None:
    """So many turns: how soon each begins to speak, and how evenly they do once there are so many."""
    full = monotonic() + FILLING_S

    async def later(number: int) -> tuple[float, list[float]]:
        await asyncio.sleep(number * FILLING_S / turns)
        return await follow(replica, f"user-{number}")

    followed = await asyncio.gather(*map(later, range(turns)))
    delays = sorted(delay for delay, _ in followed)
    times = [[time for time in arrived if full <= time <= full + FILLING_S] for _, arrived in followed]
    gaps = sorted(later - sooner for one in times for sooner, later in pairwise(one))
    click.echo(
        f"{turns} turns: first word after {at(delays, 0.5)} (p50), {at(delays, 0.99)} (p99);"
        f" {len(gaps)} times between events: {at(gaps, 0.5)}, {at(gaps, 0.99)}"
    )


async def follow(replica: Replica, user: str) -> tuple[float, list[float]]:
    """The delay of the first word, and when the events with words arrived, in seconds."""
    host, _, port = replica.url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(request(user, port))
    arrived: list[float] = []
    delay = 0.0
    while (line := await reader.readline()) and not line.startswith(b"event: turn.completed"):
        if line.startswith(b"event: message.delta"):
            arrived.append(monotonic())
            text = json.loads((await reader.readline()).removeprefix(b"data: "))["text"]
            delay = delay or arrived[0] - float(text.split()[0])
    writer.close()
    return delay, arrived


def request(user: str, port: str) -> bytes:
    body = b'{"message":"Tell me the time"}'
    head = (
        f"POST /api/{user}/chat HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAccept: text/event-stream\r\n"
        f"Authorization: Bearer {token(user)}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def token(user: str) -> str:
    signer = SharedSecret(BASE_SETTINGS["LATCHKEY_AUTH_SECRET"].encode(), "latchkey", "latchkey")
    return signer.sign(UserId(user), timedelta(hours=1))


def at(times: list[float], share: float) -> str:
    return f"{times[int(len(times) * share)] * 1000:.0f} ms"


@contextmanager
def slow_model(pause_s: float = PAUSE_S) -> Iterator[str]:
    """The base URL of a model in a process of its own."""
    port = free_port()
    process = multiprocessing.get_context("spawn").Process(target=_serve, args=(port, pause_s), daemon=True)
    process.start()
    yield f"http://127.0.0.1:{port}/v1"
    process.kill()


def _serve(port: int, pause_s: float) -> None:
    async def listen() -> None:
        async with await asyncio.start_server(partial(_speak, pause_s), "127.0.0.1", port, backlog=1000) as server:
            await server.serve_forever()

    asyncio.run(listen())


async def _speak(pause_s: float, reader: StreamReader, writer: StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    said, end = responses_events(Answer(("@",) * WORDS))
    writer.write(_HEAD)
    for event in said:
        if b'"delta": "@"' in event:
            await asyncio.sleep(pause_s)
            event = event.replace(b'"delta": "@"', f'"delta": "{monotonic()} "'.encode())  # noqa: PLW2901
        writer.write(event)
    writer.writelines(end)
    await writer.drain()
    writer.close()


if __name__ == "__main__":
    asyncio.run(main())
