"""SIGTERM and SIGINT: the service finishes running turns within the drain timeout, then exits."""

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
    """Terminate the replica and return the seconds until it has ended."""
    started_at = time.monotonic()
    replica.process.terminate()
    replica.process.join(TIMEOUT_S)
    assert replica.process.exitcode == 0, replica.log_text
    return time.monotonic() - started_at


def test_sigterm_ends_idle_service_despite_open_connections(home: Path, configured: Environment) -> None:
    with running_service(home=home, environment=configured) as replica, httpx2.Client(base_url=replica.url) as client:
        client.get("/health/live")
        with socket.create_connection(("127.0.0.1", int(replica.url.rpartition(":")[2]))) as half_open:
            half_open.sendall(b"GET /health/live HTTP/1.1\r\n")

            assert stopped(replica) < 10


def test_sigint_ends_idle_service(home: Path, configured: Environment) -> None:
    with running_service(home=home, environment=configured) as replica:
        started_at = time.monotonic()
        assert replica.process.pid
        os.kill(replica.process.pid, signal.SIGINT)
        replica.process.join(TIMEOUT_S)

        assert (replica.process.exitcode, "Aborted" in replica.log_text) == (0, False)
        assert time.monotonic() - started_at < 10


def test_sigterm_waits_for_running_turn(home: Path, configured: Environment, token: str) -> None:
    """The signal arrives while the model answers."""
    answer, _ = asyncio.run(_stop_in_a_turn(home, {**configured, "LATCHKEY_DRAIN_S": "20"}, token, release=True))

    assert (answer.status_code, answer.json()["response"]) == (200, "Done.")


def test_sigterm_hands_turn_over_after_drain_timeout(home: Path, configured: Environment, token: str) -> None:
    """The service that is started next goes on with it, here with another agent."""
    answer, seconds = asyncio.run(_stop_in_a_turn(home, {**configured, "LATCHKEY_DRAIN_S": "1"}, token, release=False))
    with running_service(home=home, environment=configured) as restarted:
        path = f"/api/ada/turns/{answer.json()['turn_id']}"
        events = restarted.request("GET", f"{path}/events", token).text
        turn = restarted.request("GET", path, token).json()

    assert (answer.status_code, answer.json()["code"]) == (503, "draining")
    assert "event: turn.completed" in events
    assert (turn["status"], turn["attempt"]) == ("completed", 2)
    assert seconds < 15


async def _stop_in_a_turn(
    home: Path, environment: Environment, token: str, *, release: bool
) -> tuple[httpx2.Response, float]:
    """The response to the client of the turn, and the seconds from the signal to the end."""
    async with model_server() as model:
        finish = Event()
        model.script.append(says("Done.").held(finish))
        settings = {**environment, "LATCHKEY_AGENT": "openai", "LATCHKEY_MODEL": "x", "OPENAI_BASE_URL": model.base_url}
        stopping = asyncio.create_task(asyncio.to_thread(_stop, home, settings, token, model))
        await wait_until(lambda: _is_draining(home))
        if release:
            finish.set()
        return await stopping


def _stop(home: Path, environment: Environment, token: str, model: ModelServer) -> tuple[httpx2.Response, float]:
    with running_service(home=home, environment=environment) as replica, ThreadPoolExecutor() as executor:
        options = {"json": {"message": "hello"}}
        answer = executor.submit(replica.request, "POST", "/api/ada/chat", token, **options)
        wait_until_sync(lambda: len(model.requests) == 1)
        seconds = stopped(replica)
        return answer.result(), seconds


async def _is_draining(home: Path) -> bool:
    """Whether the log says that the service is draining."""
    return any("draining" in path.read_text() for path in home.parent.glob("*.log"))
