"""What each process that serves begins with."""
# ruff: noqa: PLC0415  # a worker is spawned by the name of `create`, and what it needs is imported as `importing` has it

from typing import Any

from latchkey.bootstrap.runtime import importing
from latchkey.config import Settings


def create(settings: Settings, host: str, port: int) -> Any:
    """The service as an ASGI application, and its log."""
    with importing():
        from latchkey.bootstrap.composition import create_asgi
        from latchkey.infrastructure.telemetry import logging as telemetry
    telemetry.configure()
    return create_asgi(settings, host, port)
