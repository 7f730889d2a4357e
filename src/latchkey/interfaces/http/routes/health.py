"""Liveness and readiness probes."""

import asyncio
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Literal

from litestar import Controller, get, head
from litestar.di import NamedDependency
from msgspec import Struct

from latchkey.domain.errors import Unavailable

ReadinessCheck = Callable[[], Awaitable[None]]
"""Raises `Unavailable` while the service cannot serve."""


MAX_AGE_S = 1.0
"""How long the result of a readiness check is used again: probes without a credential must not load the database."""


class ReadinessCache:
    """Runs a readiness check at most once per `MAX_AGE_S`, for all probes together.

    A check takes as long as the database takes to answer. The probes that arrive meanwhile wait for it.
    """

    def __init__(self, check: ReadinessCheck) -> None:
        self._check = check
        self._running: asyncio.Task[None] | None = None
        self._expires_at = 0.0

    async def check(self) -> None:
        """Raises what the latest check raised."""
        if self._running is None or (self._running.done() and monotonic() >= self._expires_at):
            self._running = asyncio.create_task(self._check_now())
        # All probes share the task, so the cancellation of one must not cancel it.
        await asyncio.shield(self._running)

    async def _check_now(self) -> None:
        try:
            await self._check()
        finally:
            self._expires_at = monotonic() + MAX_AGE_S


class Health(Struct, frozen=True):
    status: Literal["live", "ready"]


class HealthController(Controller):
    path = "/health"
    tags = ("health",)

    @get("/live")
    async def get_liveness(self) -> Health:
        """Check that the process responds."""
        return Health("live")

    @get("/ready", failures=[Unavailable], example={"status": "ready"})
    async def get_readiness(self, check_ready: NamedDependency[ReadinessCheck]) -> Health:
        """Check that the service can serve: the database is reachable and its schema is at head."""
        await check_ready()
        return Health("ready")

    @head("/live", include_in_schema=False)
    async def head_liveness(self) -> None:
        """Answer probes of load balancers that use HEAD."""

    @head("/ready", include_in_schema=False)
    async def head_readiness(self, check_ready: NamedDependency[ReadinessCheck]) -> None:
        await check_ready()
