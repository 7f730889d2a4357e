"""Whether the process lives, and whether it can serve."""

from collections.abc import Awaitable, Callable

from litestar import Controller, Request, get
from litestar.datastructures import State

Probe = Callable[[], Awaitable[None]]
"""Raises `Unavailable` if the service cannot serve now."""


class HealthController(Controller):
    path = "/health"
    tags = ["health"]

    @get("/live")
    async def live(self) -> dict[str, str]:
        return {"status": "live"}

    @get("/ready")
    async def ready(self, request: Request[None, None, State]) -> dict[str, str]:
        probe: Probe = request.app.state.probe
        await probe()
        return {"status": "ready"}
