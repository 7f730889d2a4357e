"""The replicas of a cluster as processes of this machine."""

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
from tests.e2e.service_process import BASE_SETTINGS, Environment, Replica, running_service
from tests.polling import TIMEOUT_S

LEASE_S = 1.0


class Replicas:
    """Processes that serve one database and ask one model. Their processes are started and ended one at a time."""

    name = "replicas"

    def __init__(self, home: Path, size: int, environment: Environment, model_url: str) -> None:
        self.lease_s = LEASE_S
        self._home = home
        self._environment = {
            **BASE_SETTINGS,
            "LATCHKEY_AGENT": "openai",
            "LATCHKEY_MODEL": "clockwork",
            "LATCHKEY_TURN_LEASE_S": str(LEASE_S),
            "LATCHKEY_DRAIN_S": "0.5",
            "LATCHKEY_TURNS_PER_USER": "100",
            "OPENAI_BASE_URL": model_url,
            **environment,
        }
        self._signer = SharedSecret(self._environment["LATCHKEY_AUTH_SECRET"].encode(), "latchkey", "latchkey")
        self._running: list[tuple[Replica, ExitStack] | None] = [None] * size
        self._one_at_a_time = asyncio.Lock()

    @property
    def urls(self) -> list[str | None]:
        return [one and one[0].url for one in self._running]

    def token(self, user_id: str) -> str:
        return self._signer.sign(UserId(user_id), timedelta(days=7))

    async def start(self, nth: int) -> None:
        async with self._one_at_a_time:
            stack = ExitStack()
            replica = running_service(home=self._home, environment=self._environment)
            self._running[nth] = await asyncio.to_thread(stack.enter_context, replica), stack

    async def end(self, nth: int, signal: Signals) -> None:
        """Raises `AssertionError` if it does not end by itself when it is told to."""
        async with self._one_at_a_time:
            replica, stack = self._taken(nth)
            try:
                await asyncio.to_thread(_end, replica, signal)
            finally:
                await asyncio.to_thread(stack.close)

    def send(self, nth: int, signal: Signals) -> None:
        running = self._running[nth]
        assert running is not None
        os.kill(_process_id(running[0]), signal)

    @asynccontextmanager
    async def up(self) -> AsyncIterator[Self]:
        """All of them, until the end; then they are killed."""
        try:
            for nth in range(len(self._running)):
                await self.start(nth)
            yield self
        finally:
            for nth, running in enumerate(self._running):
                if running is not None:
                    await self.end(nth, SIGKILL)

    def _taken(self, nth: int) -> tuple[Replica, ExitStack]:
        """The replica, which nobody is sent to from now on."""
        running, self._running[nth] = self._running[nth], None
        assert running is not None
        return running


def _end(replica: Replica, signal: Signals) -> None:
    os.kill(_process_id(replica), signal)
    replica.process.join(TIMEOUT_S)
    assert replica.process.exitcode is not None, f"It lives on after {signal.name}:\n{replica.log_text}"


def _process_id(replica: Replica) -> int:
    assert replica.process.pid is not None
    return replica.process.pid
