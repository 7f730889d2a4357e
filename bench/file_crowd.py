"""The effect of eight concurrent file turns on other requests: `python -m bench.file_crowd`.

Measures the latency of `GET tasks` for two clients in a separate process, first alone and then during eight file turns.
The fake Messages API answers at once: the worst case, because the CLI then does nothing but start.
"""

import asyncio
import http.client
import multiprocessing
import tempfile
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from threading import Event
from time import perf_counter
from urllib.parse import urlsplit

import click
import httpx2

from bench.file_turn import file_turn
from tests.e2e.claude_service import ClaudeService, claude_service, claude_settings, save_artifact_step
from tests.e2e.service_process import BASE_SETTINGS, issue_token, migrate_database
from tests.fakes.model_script import says
from tests.fakes.model_server import model_server

CLIENTS = 2
TURNS = 8
ALONE_S = 3.0


async def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        home.mkdir()
        async with model_server() as model:
            model.script += [save_artifact_step(), says("Here it is.")] * (TURNS + 1)
            settings = {**BASE_SETTINGS, **claude_settings(model), "LATCHKEY_TURNS_PER_USER": str(TURNS)}
            migrate_database(home, settings)
            with claude_service(home, settings, issue_token("ada", home, settings)) as service:
                await compare(service)


async def compare(service: ClaudeService) -> None:
    authorization = {"authorization": f"Bearer {service.token}"}
    with multiprocessing.Manager() as manager, ProcessPoolExecutor(1) as executor:
        async with httpx2.AsyncClient(base_url=service.replica.url, headers=authorization) as client:
            await file_turn(client)  # warms up
            for turns in (0, TURNS):
                over, began = manager.Event(), perf_counter()
                measuring = executor.submit(latencies, service.replica.url, authorization, over)
                await asyncio.gather(*(file_turn(client) for _ in range(turns)))
                await asyncio.sleep(0 if turns else ALONE_S)
                over.set()
                times = await asyncio.wrap_future(measuring)
                p50, p99 = (times[int(len(times) * share)] * 1000 for share in (0.5, 0.99))
                took = perf_counter() - began
                click.echo(f"{turns} file turns, {took:.1f} s: {len(times)} requests, p50 {p50:.2f}, p99 {p99:.2f} ms")


def latencies(url: str, headers: dict[str, str], over: Event) -> list[float]:
    """Latencies of consecutive requests until `over` is set, in seconds, sorted."""

    def ask(_: int) -> list[float]:
        connection = http.client.HTTPConnection(urlsplit(url).netloc)
        times: list[float] = []
        while not over.is_set():
            began = perf_counter()
            connection.request("GET", "/api/ada/tasks", headers=headers)
            connection.getresponse().read()
            times.append(perf_counter() - began)
        return times

    with ThreadPoolExecutor(CLIENTS) as clients:
        return sorted(chain.from_iterable(clients.map(ask, range(CLIENTS))))


if __name__ == "__main__":
    asyncio.run(main())
