"""The commands, done with the real parts."""

import asyncio
import os
from collections.abc import Iterable
from datetime import timedelta
from functools import partial

import click
from litestar.types import ASGIApp

from latchkey.bootstrap.agents import Staffing
from latchkey.bootstrap.composition import create_asgi, create_core, create_signer
from latchkey.bootstrap.preflight import check_database, examine
from latchkey.config import ConfigurationError, Settings
from latchkey.domain.errors import Failure
from latchkey.domain.scope import TokenSecret, UserId, user_id_of
from latchkey.infrastructure import telemetry
from latchkey.infrastructure.agents.claude_home import sweep
from latchkey.infrastructure.database.isolation import IsolationBroken
from latchkey.infrastructure.database.migration import upgrade
from latchkey.infrastructure.database.urls import UnusableUrl
from latchkey.interfaces.cli import Finding
from latchkey.interfaces.http.server import Listening, listen
from latchkey.interfaces.mcp.stdio import serve_stdio

REFUSALS = (ConfigurationError, Failure, IsolationBroken, UnusableUrl)
"""What a command refuses to do, with a text for whoever asked; anything else is a bug."""

_DEV_USER = UserId("me")
_DEV_TTL = timedelta(days=7)
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


class Console:
    """What `latchkey.interfaces.cli` asks for."""

    def serve(self, host: str, port: int, workers: int, *, dev: bool, migrate: bool) -> None:
        telemetry.configure()
        settings = Settings.read(os.environ, dev=dev)
        settings.require_identity()
        Staffing.of(settings)
        if dev and host not in _LOOPBACK:
            raise click.UsageError("--dev serves on loopback only: leave --host out.")
        if workers > 1 and settings.database_url.startswith("sqlite"):
            raise click.UsageError("SQLite is for one process: set LATCHKEY_DATABASE_URL to PostgreSQL for --workers.")
        if dev or migrate:
            upgrade(settings.database_url)
        check_database(settings)
        sweep()
        create = partial(_create_worker, settings, host, port)
        announce = partial(_announce, settings, host, port)
        if not listen(create, Listening(host, port, workers), announce):
            raise ConfigurationError(f"The service did not start on {host}:{port}; the log says why")

    def migrate(self) -> None:
        upgrade(Settings.read(os.environ).database_url)

    def token(self, user: str, ttl: timedelta) -> str:
        user_id = user_id_of(user)
        if user_id is None:
            raise click.UsageError("USER is 1-128 characters of A-Z a-z 0-9 . _ ~ : @ | - and not . or ..")
        dev = not any(name in os.environ for name in ("LATCHKEY_AUTH_SECRET", "LATCHKEY_AUTH_JWKS_URL"))
        return create_signer(Settings.read(os.environ, dev=dev)).sign(user_id, ttl)

    def mcp(self) -> None:
        telemetry.configure()
        settings = Settings.read(os.environ)
        if settings.context_token is None:
            raise ConfigurationError("LATCHKEY_CONTEXT_TOKEN: must be set to a context token, which begins with lk_")
        asyncio.run(_serve_stdio(settings, TokenSecret(settings.context_token)))

    def doctor(self) -> Iterable[Finding]:
        yield from examine(Settings.read(os.environ))


def _create_worker(settings: Settings, host: str, port: int) -> ASGIApp:
    telemetry.configure()
    return create_asgi(settings, host, port)


async def _serve_stdio(settings: Settings, secret: TokenSecret) -> None:
    core = create_core(settings)
    try:
        await core.application.scope_of(secret)
        async with core.feed.run():
            await serve_stdio(core.mcp_server, secret)
    finally:
        await core.engine.dispose()


def _announce(settings: Settings, host: str, port: int) -> None:
    url = settings.reached_at(host, port)
    click.echo(f"Latchkey is at {url}")
    if not settings.dev:
        return
    token = create_signer(settings).sign(_DEV_USER, _DEV_TTL)
    rehearsing = settings.agent_name == "rehearsal"
    message = '/add_task {\\"title\\": \\"Buy milk\\"}' if rehearsing else "Add a task: buy milk"
    click.echo(f"TOKEN={token}")
    click.echo(
        f"curl -s {url}/api/{_DEV_USER}/chat -H 'Authorization: Bearer {token}'"
        f" -H 'Content-Type: application/json' -d '{{\"message\": \"{message}\"}}'"
    )
