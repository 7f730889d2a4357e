"""The effect of a flood by one user on another user: `python -m bench.flood`.

Measures the latency of a user who reads and writes tasks, alone and while another user sends as many requests as 64
connections carry, first within its rate limit and then above it. On SQLite, or the database of LATCHKEY_DATABASE_URL.
"""

import asyncio
import http.client
import json
import multiprocessing
import os
import tempfile
from collections import Counter
from multiprocessing.synchronize import Event
from pathlib import Path
from time import perf_counter, sleep
from uuid import uuid4

import click

from bench.streaming import token
from tests.e2e.service_process import BASE_SETTINGS, Replica, migrate_database, running_service

CONNECTIONS = 64
SECONDS = 6.0
PAUSE_S = 0.005
LIMITS = {"served": "10000000", "refused": "60"}


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        home.mkdir()
        settings = {**BASE_SETTINGS, "LATCHKEY_DATABASE_URL": os.environ.get("LATCHKEY_DATABASE_URL", "")}
        migrate_database(home, settings)
        for outcome, limit in LIMITS.items():
            limited = {**settings, "LATCHKEY_REQUESTS_PER_MINUTE": limit}
            with running_service(home=home, environment=limited) as replica:
                compare(replica, outcome)


def compare(replica: Replica, outcome: str) -> None:
    """The measured requests come from a new user every 50 requests, so that they reach no rate limit."""
    latencies(replica, 1)  # warms up
    click.echo(f"alone: {summary(latencies(replica, SECONDS))}")
    for method, path, body in (("GET", "tasks", b""), ("POST", "tasks", b'{"title":"Flood"}')):
        over = multiprocessing.Event()
        flood = multiprocessing.Process(target=run_flood, args=(replica.url, method, path, body, over))
        flood.start()
        sleep(1)
        times = latencies(replica, SECONDS)
        over.set()
        flood.join()
        click.echo(f"beside {CONNECTIONS} connections of {method} {path}, {outcome}: {summary(times)}")


def latencies(replica: Replica, seconds: float) -> list[float]:
    """Latencies of consecutive requests, in milliseconds, sorted."""
    connection = http.client.HTTPConnection(replica.url.removeprefix("http://"))
    times: list[float] = []
    end = perf_counter() + seconds
    while perf_counter() < end:
        user = f"bob-{uuid4().hex}"
        headers = {"authorization": f"Bearer {token(user)}", "content-type": "application/json"}
        for number in range(50):
            request_line = ("POST", json.dumps({"title": "Milk"})) if number % 2 else ("GET", None)
            began = perf_counter()
            connection.request(request_line[0], f"/api/{user}/tasks", request_line[1], headers)
            connection.getresponse().read()
            times.append((perf_counter() - began) * 1000)
            sleep(PAUSE_S)
    return sorted(times)


def summary(times: list[float]) -> str:
    p50, p99 = (times[int(len(times) * share)] for share in (0.5, 0.99))
    return f"{len(times)} requests, p50 {p50:.1f}, p99 {p99:.1f} ms"


def run_flood(url: str, method: str, path: str, body: bytes, over: Event) -> None:
    statuses = asyncio.run(flood(url, method, path, body, over))
    click.echo(f"  (the flood: {dict(statuses)})")


async def flood(url: str, method: str, path: str, body: bytes, over: Event) -> Counter[str]:
    """Send as many requests of one user as the connections carry. Returns the number of responses by status."""
    host, _, port = url.removeprefix("http://").partition(":")
    head = f"{method} /api/ada/{path} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {token('ada')}\r\n"
    request = f"{head}content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body
    statuses: Counter[str] = Counter()

    async def ask() -> None:
        reader, writer = await asyncio.open_connection(host, int(port))
        while not over.is_set():
            writer.write(request)
            answer = await reader.readuntil(b"\r\n\r\n")
            length = int(answer.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            await reader.readexactly(length)
            statuses[answer[9:12].decode()] += 1
        writer.close()

    await asyncio.gather(*(ask() for _ in range(CONNECTIONS)))
    return statuses


if __name__ == "__main__":
    main()
