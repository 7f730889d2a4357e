"""The memory of a thousand event streams: `python -m bench.followers`.

Twenty turns of a silent model, with fifty streams each at `GET turns/{id}/events`.
"""

import asyncio
import json
from asyncio import StreamReader, StreamWriter
from pathlib import Path

import click

from bench.streaming import model_service, request, slow_model, token
from tests.e2e.service_process import Replica

TURNS = 20
STREAMS = 1000


async def main() -> None:
    with slow_model(pause_s=60) as model_url, model_service(model_url) as replica:
        turns = [await start_turn(replica, f"user-{number}") for number in range(TURNS)]
        for turn in turns:
            await open_stream(replica, *turn)  # warms up
        before = rss(replica)
        streams = [await open_stream(replica, *turns[number % TURNS]) for number in range(STREAMS)]
        after = rss(replica)
        kib_per_stream = (after - before) / STREAMS
        click.echo(f"{len(streams)} streams: {kib_per_stream:.1f} KiB each ({before} to {after} KiB)")


async def start_turn(replica: Replica, user: str) -> tuple[str, str]:
    """Start a turn. Returns the user and the turn id."""
    reader, writer = await connect(replica)
    writer.write(request(user, replica.url.rpartition(":")[2]))
    return user, json.loads((await first_event(reader)).removeprefix(b"data: "))["turn_id"]


async def open_stream(replica: Replica, user: str, turn_id: str) -> StreamWriter:
    """Open an event stream and read its first event."""
    reader, writer = await connect(replica)
    path = f"/api/{user}/turns/{turn_id}/events"
    writer.write(
        f"GET {path} HTTP/1.1\r\nHost: {replica.url[7:]}\r\nAuthorization: Bearer {token(user)}\r\n\r\n".encode()
    )
    await first_event(reader)
    return writer


async def first_event(reader: StreamReader) -> bytes:
    while not (line := await reader.readline()).startswith(b"data: "):
        if not line:
            raise ConnectionError("the stream ended before its first event")
    return line


async def connect(replica: Replica) -> tuple[StreamReader, StreamWriter]:
    host, _, port = replica.url.removeprefix("http://").partition(":")
    return await asyncio.open_connection(host, int(port))


def rss(replica: Replica) -> int:
    """The resident memory of the replica, in KiB."""
    status = Path(f"/proc/{replica.process.pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0])


if __name__ == "__main__":
    asyncio.run(main())
