"""The latency of streamed words: `python -m bench.streaming`.

The model sends 20 words per second to each of many concurrent turns; each word is the time at which it was sent. Prints
the delay of the first word of each turn, and the time between two events at the client. On SQLite, or the database of
LATCHKEY_DATABASE_URL.
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
from latchkey.testing.processes import free_port
from tests.e2e.service_process import BASE_SETTINGS, Replica, migrate_database, running_service
from tests.fakes.model_script import Answer
from tests.fakes.responses_events import responses_events

WORDS = 400
PAUSE_S = 0.05
FILLING_S = 8
"""The turns start within this time, one after the other. None ends within the same time after that."""
TURN_COUNTS = (50, 200)

_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"


async def main() -> None:
    with slow_model() as model_url, model_service(model_url) as replica:
        await measure_turns(replica, 1)  # warms up
        for turns in TURN_COUNTS:
            await measure_turns(replica, turns)


@contextmanager
def model_service(model_url: str, **more: str) -> Iterator[Replica]:
    """A service with one worker that uses that model. `more` are further settings."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        home.mkdir()
        settings = {**BASE_SETTINGS, "LATCHKEY_AGENT": "openai", "LATCHKEY_MODEL": "slow", "OPENAI_BASE_URL": model_url}
        settings |= more
        if url := os.environ.get("LATCHKEY_DATABASE_URL"):
            settings["LATCHKEY_DATABASE_URL"] = url
        migrate_database(home, settings)
        with running_service(home=home, environment=settings) as replica:
            yield replica


async def measure_turns(replica: Replica, turns: int) -> None:
    """Run so many turns, and print the delays of their first words and the gaps between events."""
    full = monotonic() + FILLING_S

    async def later(number: int) -> tuple[float, list[float]]:
        await asyncio.sleep(number * FILLING_S / turns)
        return await follow(replica, f"user-{number}")

    followed = await asyncio.gather(*map(later, range(turns)))
    delays = sorted(delay for delay, _ in followed)
    times = [[time for time in arrived if full <= time <= full + FILLING_S] for _, arrived in followed]
    gaps = sorted(later - sooner for one in times for sooner, later in pairwise(one))
    click.echo(
        f"{turns} turns: first word after {percentile(delays, 0.5)} (p50), {percentile(delays, 0.99)} (p99);"
        f" {len(gaps)} times between events: {percentile(gaps, 0.5)}, {percentile(gaps, 0.99)}"
    )


async def follow(replica: Replica, user: str) -> tuple[float, list[float]]:
    """The delay of the first word, and the arrival times of the deltas, in seconds."""
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


def percentile(times: list[float], share: float) -> str:
    return f"{times[int(len(times) * share)] * 1000:.0f} ms"


@contextmanager
def slow_model(pause_s: float = PAUSE_S, words: int = WORDS) -> Iterator[str]:
    """Run the model in a separate process. Returns its base URL."""
    port = free_port()
    process = multiprocessing.get_context("spawn").Process(target=_serve, args=(port, pause_s, words), daemon=True)
    process.start()
    yield f"http://127.0.0.1:{port}/v1"
    process.kill()


def _serve(port: int, pause_s: float, words: int) -> None:
    async def listen() -> None:
        answer = partial(_answer, pause_s, words)
        async with await asyncio.start_server(answer, "127.0.0.1", port, backlog=1000) as server:
            await server.serve_forever()

    asyncio.run(listen())


async def _answer(pause_s: float, words: int, reader: StreamReader, writer: StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    events, end = responses_events(Answer(("@",) * words))
    writer.write(_HEAD)
    for event in events:
        if b'"delta": "@"' in event:
            await asyncio.sleep(pause_s)
            event = event.replace(b'"delta": "@"', f'"delta": "{monotonic()} "'.encode())  # noqa: PLW2901
        writer.write(event)
    writer.writelines(end)
    await writer.drain()
    writer.close()


if __name__ == "__main__":
    asyncio.run(main())
