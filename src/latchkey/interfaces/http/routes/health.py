"""Whether the process lives, and whether it can serve."""

from collections.abc import Awaitable, Callable
from typing import Literal

from litestar import Controller, Request, get
from litestar.datastructures import State
from msgspec import Struct

from latchkey.domain.errors import Unavailable

Probe = Callable[[], Awaitable[None]]
"""Raises `Unavailable` if the service cannot serve now."""


class Health(Struct, frozen=True):
    status: Literal["live", "ready"]


class HealthController(Controller):
    path = "/health"
    tags = ("health",)

    @get("/live")
    async def get_liveness(self) -> Health:
        """Whether the process lives."""
        return Health("live")

    @get("/ready", failures=[Unavailable])
    async def get_readiness(self, request: Request[None, None, State]) -> Health:
        """Whether the service can serve: the database is reachable, and its schema at head."""
        probe: Probe = request.app.state.probe
        await probe()
        return Health("ready")
