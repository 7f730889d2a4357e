"""Liveness and readiness probes."""

from collections.abc import Awaitable, Callable
from typing import Literal

from litestar import Controller, get, head
from litestar.di import NamedDependency
from msgspec import Struct

from latchkey.domain.errors import Unavailable

ReadinessCheck = Callable[[], Awaitable[None]]
"""Raises `Unavailable` while the service cannot serve."""


class Health(Struct, frozen=True):
    status: Literal["live", "ready"]


class HealthController(Controller):
    path = "/health"
    tags = ("health",)

    @get("/live")
    async def get_liveness(self) -> Health:
        """Check that the process responds."""
        return Health("live")

    @get("/ready", failures=[Unavailable])
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
