"""Runs the replicas of a cluster as processes on this machine."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from datetime import timedelta
from pathlib import Path
from signal import SIGKILL, Signals
from typing import Self

from latchkey.domain.credentials import UserId
from latchkey.infrastructure.identity.shared_secret import SharedSecret
from tests.chaos.history import ATTEMPTS
from tests.e2e.service_process import BASE_SETTINGS, Environment, Replica, running_service
from tests.polling import TIMEOUT_S

LEASE_S = 1.0


class Replicas:
    """Processes that share one database and one model. They are started and ended one at a time."""

    name = "replicas"

    def __init__(
        self, home: Path, size: int, environment: Environment, model_url: str, lease_s: float = LEASE_S
    ) -> None:
        self.lease_s = lease_s
        self._home = home
        self._environment = {
            **BASE_SETTINGS,
            "LATCHKEY_AGENT": "openai",
            "LATCHKEY_APP": "tests.chaos.app:app",
            "LATCHKEY_MODEL": "scripted",
            "LATCHKEY_TURN_LEASE_S": str(lease_s),
            "LATCHKEY_DRAIN_S": "0.5",
            "LATCHKEY_TURNS_PER_USER": "100",
            "OPENAI_BASE_URL": model_url,
            **environment,
        }
        self._signer = SharedSecret(self._environment["LATCHKEY_AUTH_SECRET"].encode(), "latchkey", "latchkey")
        self._running: list[tuple[Replica, ExitStack] | None] = [None] * size
        self._lock = asyncio.Lock()

    @property
    def urls(self) -> list[str | None]:
        return [running and running[0].url for running in self._running]

    def token(self, user_id: str) -> str:
        return self._signer.sign(UserId(user_id), timedelta(days=7))

    async def start(self, number: int, attempts: int = ATTEMPTS) -> None:
        async with self._lock:
            stack = ExitStack()
            environment = {**self._environment, "LATCHKEY_TURN_ATTEMPTS": str(attempts)}
            service = running_service(home=self._home, environment=environment)
            self._running[number] = await asyncio.to_thread(stack.enter_context, service), stack

    async def terminate(self, number: int, signal: Signals) -> None:
        """Raises `AssertionError` if the process does not end after the signal."""
        async with self._lock:
            replica, stack = self._remove(number)
            try:
                await asyncio.to_thread(_terminate, replica, signal)
            finally:
                await asyncio.to_thread(stack.close)

    def send_signal(self, number: int, signal: Signals) -> None:
        os.kill(self.process_id(number), signal)

    def process_id(self, number: int) -> int:
        running = self._running[number]
        assert running is not None
        return _process_id(running[0])

    @asynccontextmanager
    async def up(self) -> AsyncIterator[Self]:
        """Start all replicas, and kill them on exit."""
        try:
            for number in range(len(self._running)):
                await self.start(number)
            yield self
        finally:
            for number, running in enumerate(self._running):
                if running is not None:
                    await self.terminate(number, SIGKILL)

    def _remove(self, number: int) -> tuple[Replica, ExitStack]:
        """Take the replica out of `urls`, so that clients send it no more requests."""
        running, self._running[number] = self._running[number], None
        assert running is not None
        return running


def _terminate(replica: Replica, signal: Signals) -> None:
    os.kill(_process_id(replica), signal)
    replica.process.join(TIMEOUT_S)
    assert replica.process.exitcode is not None, f"The process still runs after {signal.name}:\n{replica.log_text}"


def _process_id(replica: Replica) -> int:
    assert replica.process.pid is not None
    return replica.process.pid
