"""The effect of slow tools on other users: `python -m bench.slow_tool [--sqlite]`.

Measures the latency of `POST tasks` for a user in a separate process, alternately alone and while eight tool calls of
another user wait for a service that does not answer.
"""

import asyncio
import http.client
import json
from concurrent.futures import Executor, ProcessPoolExecutor
from datetime import timedelta
from time import perf_counter
from typing import Any
from urllib.parse import urlsplit

import click
import httpx2

from bench.environment import ROOT, SECRET, bench_environment
from latchkey.domain.credentials import UserId
from latchkey.infrastructure.identity.shared_secret import SharedSecret
from tests.fakes.shop_server import ShopServer, shop_server

CALLS = 8
ROUNDS = 5
ROUND_S = 4.0
CREATED = 201
SLOW_USER, OTHER_USER = UserId("slow"), UserId("other")


def bearer(user_id: UserId) -> dict[str, str]:
    token = SharedSecret(SECRET.encode(), "latchkey", "latchkey").sign(user_id, timedelta(hours=1))
    return {"authorization": f"Bearer {token}"}


def latencies(url: str, headers: dict[str, str]) -> list[float]:
    """Latencies of consecutive requests within `ROUND_S`, in milliseconds."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc)
    times: list[float] = []
    until = perf_counter() + ROUND_S
    while (began := perf_counter()) < until:
        connection.request(
            "POST",
            f"/api/{OTHER_USER}/tasks",
            json.dumps({"title": "Milk"}),
            {**headers, "content-type": "application/json"},
        )
        if (response := connection.getresponse()).status != CREATED:
            raise RuntimeError(response.read())
        response.read()
        times.append((perf_counter() - began) * 1000)
    return times


async def measure(executor: Executor, url: str) -> list[float]:
    return await asyncio.get_running_loop().run_in_executor(executor, latencies, url, bearer(OTHER_USER))


async def measure_with_calls(executor: Executor, url: str, shop: ShopServer, number: int) -> list[float]:
    """Measure while the calls wait, and then let them end."""
    shop.is_open.clear()
    expected = shop.orders + CALLS
    headers = {**bearer(SLOW_USER), "accept": "application/json, text/event-stream"}
    async with httpx2.AsyncClient(base_url=url, headers=headers, timeout=120) as client:
        calls = [asyncio.create_task(client.post("/mcp", json=message(f"{number}-{n}"))) for n in range(CALLS)]
        while shop.orders < expected:
            shop.received.clear()
            await shop.received.wait()
        times = await measure(executor, url)
        shop.is_open.set()
        for response in await asyncio.gather(*calls):
            if response.json()["result"]["isError"]:
                raise RuntimeError(response.text)
    return times


def message(call_id: str) -> dict[str, Any]:
    params = {"name": "order_item", "arguments": {"sku": "bell"}, "_meta": {"latchkey/callId": call_id}}
    return {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}


def report(name: str, times: list[float]) -> float:
    times.sort()
    p50, p99 = (times[int(len(times) * share)] for share in (0.5, 0.99))
    click.echo(f"{name:>12}: {len(times)} requests, p50 {p50:.2f}, p99 {p99:.2f} ms")
    return p99


async def compare(url: str, shop: ShopServer) -> None:
    alone: list[float] = []
    beside: list[float] = []
    with ProcessPoolExecutor(1) as executor:
        await measure(executor, url)  # warms up
        for number in range(ROUNDS):
            alone += await measure(executor, url)
            beside += await measure_with_calls(executor, url, shop, number)
    ratio = report("with calls", beside) / report("alone", alone)
    click.echo(f"p99 with {CALLS} slow calls: {ratio:.2f} times that without")


@click.command()
@click.option("--sqlite", is_flag=True)
def main(*, sqlite: bool) -> None:
    # The environment is started while no event loop runs, as its helpers need it; the shop has the same loop before.
    with asyncio.Runner() as runner:
        shops = shop_server()
        shop = runner.run(shops.__aenter__())
        variables = {"LATCHKEY_APP": "tests.apps.shop:app", "SHOP_URL": shop.url, "PYTHONPATH": str(ROOT)}
        with (
            bench_environment("sqlite" if sqlite else "postgresql") as environment,
            environment.latchkey(workers=1, **variables) as server,
        ):
            runner.run(compare(f"http://{server.target.host}", shop))
        runner.run(shops.__aexit__(None, None, None))


if __name__ == "__main__":
    main()
