"""SIGTERM: the service finishes what it can in the time that it has, and ends."""

import asyncio
import os
import signal
import socket
import time
from asyncio import Event
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2

from tests.e2e.service_process import Environment, Replica, running_service
from tests.fakes.model_script import says
from tests.fakes.model_server import ModelServer, model_server
from tests.polling import TIMEOUT_S, wait_until, wait_until_sync


def stopped(replica: Replica) -> float:
    """Seconds from the signal to the end."""
    begun = time.monotonic()
    replica.process.terminate()
    replica.process.join(TIMEOUT_S)
    assert replica.process.exitcode == 0, replica.log_text
    return time.monotonic() - begun


def test_an_idle_service_ends_at_once_whoever_is_connected(home: Path, configured: Environment) -> None:
    with running_service(home=home, environment=configured) as replica, httpx2.Client(base_url=replica.url) as client:
        client.get("/health/live")
        with socket.create_connection(("127.0.0.1", int(replica.url.rpartition(":")[2]))) as half_open:
            half_open.sendall(b"GET /health/live HTTP/1.1\r\n")

            assert stopped(replica) < 10


def test_interrupted_at_a_terminal_it_ends_like_that_too(home: Path, configured: Environment) -> None:
    with running_service(home=home, environment=configured) as replica:
        begun = time.monotonic()
        assert replica.process.pid
        os.kill(replica.process.pid, signal.SIGINT)
        replica.process.join(TIMEOUT_S)

        assert (replica.process.exitcode, "Aborted" in replica.log_text) == (0, False)
        assert time.monotonic() - begun < 10


def test_a_turn_that_ends_in_time_is_answered(home: Path, configured: Environment, token: str) -> None:
    """The signal comes while the model thinks."""
    answer, _ = asyncio.run(_stop_in_a_turn(home, {**configured, "LATCHKEY_DRAIN_S": "20"}, token, release=True))

    assert (answer.status_code, answer.json()["response"]) == (200, "Done.")


def test_a_turn_that_does_not_is_interrupted_and_told_so(home: Path, configured: Environment, token: str) -> None:
    answer, seconds = asyncio.run(_stop_in_a_turn(home, {**configured, "LATCHKEY_DRAIN_S": "1"}, token, release=False))
    with running_service(home=home, environment=configured) as again:
        turn = again.request("GET", f"/api/ada/turns/{answer.json()['turn_id']}", token).json()

    assert (answer.status_code, answer.json()["code"]) == (503, "turn-interrupted")
    assert turn["status"] == "interrupted"
    assert seconds < 15


async def _stop_in_a_turn(
    home: Path, environment: Environment, token: str, *, release: bool
) -> tuple[httpx2.Response, float]:
    """What the client of the turn was answered, and how long the end took."""
    async with model_server() as model:
        rest = Event()
        model.script.append(says("Done.").held(rest))
        given = {**environment, "LATCHKEY_AGENT": "openai", "LATCHKEY_MODEL": "x", "OPENAI_BASE_URL": model.base_url}
        stopping = asyncio.create_task(asyncio.to_thread(_stop, home, given, token, model))
        await wait_until(lambda: _was_told_to_stop(home))
        if release:
            rest.set()
        return await stopping


def _stop(home: Path, environment: Environment, token: str, model: ModelServer) -> tuple[httpx2.Response, float]:
    with running_service(home=home, environment=environment) as replica, ThreadPoolExecutor() as talkers:
        said = {"json": {"message": "hello"}}
        answer = talkers.submit(replica.request, "POST", "/api/ada/chat", token, **said)
        wait_until_sync(lambda: len(model.requests) == 1)
        seconds = stopped(replica)
        return answer.result(), seconds


async def _was_told_to_stop(home: Path) -> bool:
    """The service says so once it has noticed."""
    return any("draining" in path.read_text() for path in home.parent.glob("*.log"))
