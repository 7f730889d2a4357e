"""What a thousand people who follow turns cost in memory: `python -m bench.followers`.

Twenty turns of a model that is silent, and fifty streams of each at `GET turns/{id}/events`.
"""

import asyncio
import json
from asyncio import StreamReader, StreamWriter
from pathlib import Path

import click

from bench.streaming import a_service, request, slow_model, token
from tests.e2e.service_process import Replica

TURNS = 20
MAX_SUBSCRIPTIONS_PER_USER = 1000


async def main() -> None:
    with slow_model(pause_s=60) as model_url, a_service(model_url) as replica:
        turns = [await begun(replica, f"user-{number}") for number in range(TURNS)]
        for turn in turns:
            await followed(replica, *turn)  # warms up
        before = rss(replica)
        streams = [await followed(replica, *turns[number % TURNS]) for number in range(MAX_SUBSCRIPTIONS_PER_USER)]
        after = rss(replica)
        each = (after - before) / MAX_SUBSCRIPTIONS_PER_USER
        click.echo(f"{len(streams)} streams: {each:.1f} KiB each ({before} to {after} KiB)")


async def begun(replica: Replica, user: str) -> tuple[str, str]:
    """The user, and the turn of theirs that is running now."""
    reader, writer = await connected(replica)
    writer.write(request(user, replica.url.rpartition(":")[2]))
    return user, json.loads((await first_event(reader)).removeprefix(b"data: "))["turn_id"]


async def followed(replica: Replica, user: str, turn_id: str) -> StreamWriter:
    """An open stream that has been sent what there is."""
    reader, writer = await connected(replica)
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


async def connected(replica: Replica) -> tuple[StreamReader, StreamWriter]:
    host, _, port = replica.url.removeprefix("http://").partition(":")
    return await asyncio.open_connection(host, int(port))


def rss(replica: Replica) -> int:
    """In KiB."""
    status = Path(f"/proc/{replica.process.pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0])


if __name__ == "__main__":
    asyncio.run(main())
