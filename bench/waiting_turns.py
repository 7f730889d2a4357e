"""Turns that wait and go on: `python -m bench.waiting_turns [--sqlite] [--turns 10000]`.

Measures the time from a decision to the next request to the model, the memory of a process with many waiting turns,
and the time until a client, whose replica was killed, receives events again.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from itertools import count
from pathlib import Path
from signal import SIGKILL
from statistics import median, quantiles
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import click
import httpx2
import psutil

from latchkey.infrastructure.database.migrations import upgrade
from latchkey.testing.postgresql import postgresql
from tests.chaos.replicas import LEASE_S, Replicas
from tests.chaos.scripted_model import Hold, ScriptedModel, message_text, scripted_model

DECISIONS = 200
KILLS = 20
CONCURRENT_TURNS = 16
TURNS_PER_USER = 200
SETTINGS = {"LATCHKEY_REQUESTS_PER_MINUTE": "1000000"}

_numbers = count()


class Client:
    """Talks to one replica as one user."""

    def __init__(self, replicas: Replicas, replica: int, user: str) -> None:
        url = replicas.urls[replica]
        headers = {"authorization": f"Bearer {replicas.token(user)}"}
        self.http = httpx2.AsyncClient(base_url=f"{url}/api/{user}/", headers=headers, timeout=60)

    async def ask(self) -> tuple[str, dict[str, Any]]:
        """Send a message whose turn then waits. Returns its tag and the answer."""
        tag = f"bench{next(_numbers)}"
        response = await self.http.post("chat", json={"message": message_text(tag, 0, 1, asks=1)})
        if response.status_code != httpx2.codes.ACCEPTED:
            raise RuntimeError(response.text)
        answer: dict[str, Any] = response.json()
        return tag, answer

    async def approve(self, waiting: dict[str, Any]) -> None:
        path = f"turns/{waiting['turn_id']}/approvals/{waiting['approvals'][0]['id']}"
        (await self.http.post(path, json={"decision": "approve"})).raise_for_status()


async def measure_decisions(replicas: Replicas, model: ScriptedModel) -> None:
    times: list[float] = []
    for number in range(DECISIONS + 20):
        client = Client(replicas, 0, f"decides{number % 10}")
        async with client.http:
            tag, waiting = await client.ask()
            hold = Hold(tag, request=2)
            model.holds.append(hold)
            began = perf_counter()
            decided = asyncio.create_task(client.approve(waiting))
            await hold.reached.wait()
            times.append((perf_counter() - began) * 1000)
            hold.released.set()
            await decided
            model.holds.remove(hold)
    _print_times("decision to the next request to the model, ms", times[20:])


async def measure_memory(replicas: Replicas, turns: int) -> None:
    await _restart(replicas)
    before = await _warm_memory(replicas)
    slots = asyncio.Semaphore(CONCURRENT_TURNS)

    async def ask(user: str) -> None:
        async with slots:
            client = Client(replicas, 0, user)  # here, because each one prepares TLS
            async with client.http:
                await client.ask()

    await asyncio.gather(*(ask(f"waits{number // TURNS_PER_USER}") for number in range(turns)))
    click.echo(f"memory of the process that started {turns} waiting turns: {_memory(replicas) - before:+.1f} MB")
    await _restart(replicas)
    after = await _warm_memory(replicas)
    click.echo(f"memory of a new process beside them: {after:.1f} MB, without them {before:.1f} MB")


async def _warm_memory(replicas: Replicas) -> float:
    """The memory after some turns that wait, and some requests of each user."""
    for number in range(200):
        client = Client(replicas, 0, f"waits{number % 50}")
        async with client.http:
            await client.ask()
            (await client.http.get("approvals")).raise_for_status()
    return _memory(replicas)


async def measure_reconnections(replicas: Replicas, model: ScriptedModel) -> None:
    """Kill the replica of a streamed turn. The client resumes its stream at the other one at once."""
    times: list[float] = []
    for number in range(KILLS):
        tag = f"killed{number}"
        hold = Hold(tag, words=1)
        model.holds.append(hold)
        client, other = Client(replicas, 0, tag), Client(replicas, 1, tag)
        body = {"message": message_text(tag, 0, 5)}
        async with client.http, other.http:
            async with client.http.stream("POST", "chat", json=body, headers={"accept": "text/event-stream"}) as stream:
                last = await anext(event async for event in _events(stream) if event["name"] == "message.delta")
                await replicas.terminate(0, SIGKILL)
            began = perf_counter()
            model.holds.clear()
            headers = {"last-event-id": str(last["seq"])}
            async with other.http.stream("GET", f"turns/{last['turn_id']}/events", headers=headers) as stream:
                await anext(event async for event in _events(stream) if event["name"] == "message.delta")
                times.append((perf_counter() - began) * 1000)
        await replicas.start(0)
    _print_times(f"reconnection to the next text, with a lease of {LEASE_S:g} s, ms", times)


async def _events(stream: httpx2.Response) -> AsyncIterator[dict[str, Any]]:
    name = ""
    async for line in stream.aiter_lines():
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line.startswith("data: "):
            yield {"name": name, **json.loads(line.removeprefix("data: "))}


async def _restart(replicas: Replicas) -> None:
    await replicas.terminate(0, SIGKILL)
    await replicas.start(0)


def _memory(replicas: Replicas) -> float:
    rss: int = psutil.Process(replicas.process_id(0)).memory_info().rss
    return rss / 1e6


def _print_times(name: str, times: list[float]) -> None:
    click.echo(f"{name}: p50 {median(times):.1f}, p95 {quantiles(times, n=20)[-1]:.1f}, max {max(times):.1f}")


@asynccontextmanager
async def _replicas(home: Path, database_url: str, size: int) -> AsyncIterator[tuple[Replicas, ScriptedModel]]:
    async with scripted_model() as model:
        environment = {"LATCHKEY_DATABASE_URL": database_url, **SETTINGS}
        async with Replicas(home, size, environment, model.base_url).up() as replicas:
            yield replicas, model


@contextmanager
def _database(folder: Path, *, sqlite: bool) -> Iterator[str]:
    if sqlite:
        url = f"sqlite+aiosqlite:///{folder / 'latchkey.db'}"
        upgrade(url)
        yield url
        return
    with postgresql(folder / "postgresql.log") as server:
        url = server.create_database("latchkey_waiting")
        try:
            upgrade(url)
            yield url
        finally:
            server.drop_database("latchkey_waiting")


async def measure(folder: Path, url: str, turns: int) -> None:
    home = folder / "home"
    home.mkdir()
    is_sqlite = url.startswith("sqlite")
    async with _replicas(home, url, 1 if is_sqlite else 2) as (replicas, model):
        await measure_decisions(replicas, model)
        if not is_sqlite:
            await measure_reconnections(replicas, model)
        await measure_memory(replicas, turns)


@click.command()
@click.option("--sqlite", is_flag=True, help="use SQLite instead of PostgreSQL")
@click.option("--turns", default=10_000, show_default=True, type=click.IntRange(1), help="how many turns wait")
def main(*, sqlite: bool, turns: int) -> None:
    with TemporaryDirectory(prefix="latchkey-bench-") as path, _database(Path(path), sqlite=sqlite) as url:
        asyncio.run(measure(Path(path), url, turns))


if __name__ == "__main__":
    main()
