"""Composition root: creates the ASGI application with all its parts from the settings."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from functools import partial
from urllib.parse import urlsplit

from litestar import Litestar
from litestar.types import ASGIApp
from sqlalchemy.ext.asyncio import AsyncEngine

from latchkey.application.turns.executor import TurnLimits
from latchkey.application.turns.runner import TurnRunner
from latchkey.application.turns.start import AcceptanceLimits
from latchkey.application.turns.subscription import TurnSubscriptions
from latchkey.bootstrap.agents import Agents
from latchkey.bootstrap.assistants import ReloadableAssistants
from latchkey.bootstrap.core import Core, create_core
from latchkey.bootstrap.identity import DEV_USER, create_identity
from latchkey.bootstrap.registry import Registry
from latchkey.bootstrap.runtime import before_termination, tuned
from latchkey.config import BUILT_IN_AGENTS, Settings
from latchkey.domain.errors import Failure, Unavailable
from latchkey.infrastructure.database.clock import synchronized_clock
from latchkey.infrastructure.database.revision import RevisionHistory, check_schema, histories
from latchkey.infrastructure.identity.jwks import JwksIdentity
from latchkey.infrastructure.identity.shared_secret import SharedSecret
from latchkey.infrastructure.telemetry.logging import RequestLog
from latchkey.interfaces.http.app import HttpServices, create_app
from latchkey.interfaces.http.console import Console
from latchkey.interfaces.http.dev_sign_in import DevSignIn
from latchkey.interfaces.http.middleware.security import SecurityMiddleware
from latchkey.interfaces.http.routes.health import ReadinessCache
from latchkey.interfaces.http.routes.resource_metadata import PATH as METADATA_PATH
from latchkey.interfaces.http.routes.resource_metadata import ResourceMetadata
from latchkey.interfaces.mcp.http.endpoint import McpEndpoint
from latchkey.interfaces.mcp.http.transport import StatelessTransport
from latchkey.interfaces.mcp.principal import connect

_LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
_PAGE_TOKEN_TTL = timedelta(hours=1)
"""The page gets a new token before this one expires."""


def create_asgi(settings: Settings, host: str, port: int, registry: Registry | None = None) -> ASGIApp:
    """Create the service as one ASGI application that listens on this host and port.

    It serves the app of the settings, unless a registry is given. Raises `ConfigurationError` if the settings configure
    no authentication, or an agent that cannot work, `AppError`, and `AssistantsError`.
    """
    core, identity = create_core(settings, registry), create_identity(settings)
    public_url = settings.reached_at(host, port)
    local_url = f"http://{_local_host(host)}:{port}"
    agents = Agents(settings, partial(connect, core.mcp_server), f"{local_url}/mcp", core.registry.agents)
    hosts = (*(settings.allowed_hosts or (*_LOOPBACK, urlsplit(public_url).netloc)), urlsplit(local_url).netloc)
    console, origins = _console(settings, identity), _origins(settings, public_url)
    metadata = _resource_metadata(settings, f"{public_url}/mcp")
    metadata_url = f"{public_url}{METADATA_PATH}" if metadata else None
    transport = StatelessTransport(core.mcp_server)
    endpoint = McpEndpoint(transport, core.dispatcher, identity, f"{public_url}/mcp", metadata_url)
    assistants = ReloadableAssistants(settings, core.registry, agents, identity)
    profiles, limits = assistants.load_first(), _limits(settings)
    runner = TurnRunner(core.dispatcher, core.event_bus, profiles, limits, core.approvals)
    subscriptions = TurnSubscriptions(core.dispatcher, core.event_bus)
    services = HttpServices(
        dispatcher=core.dispatcher,
        runner=runner,
        subscriptions=subscriptions,
        identity=identity,
        check_ready=_readiness(core, runner),
        mcp=endpoint,
        resource_metadata=metadata,
        console=console,
        origins=origins,
        grants=core.registry.grants,
        agents=(*BUILT_IN_AGENTS, *core.registry.agents),
        controllers=core.registry.controllers,
    )

    @asynccontextmanager
    async def lifespan(_: Litestar) -> AsyncIterator[None]:
        async with synchronized_clock(core.engine, core.units), core.event_bus.run(), endpoint.run():
            drain = partial(_drain, runner, subscriptions, settings.drain_s)
            with before_termination(drain), assistants.reload_at_signal(runner):
                async with tuned():
                    yield
            await runner.aclose()
        await agents.aclose()
        if isinstance(identity, JwksIdentity):
            await identity.aclose()
        await core.engine.dispose()

    app = create_app(services, [lifespan])
    return SecurityMiddleware(app, hosts, origins, runner, RequestLog(), by_https=public_url.startswith("https://"))


async def _drain(runner: TurnRunner, subscriptions: TurnSubscriptions, seconds: float) -> None:
    """Wait at most this long for the running turns to end; then interrupt the rest and end all event streams."""
    try:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await runner.drain()
    finally:
        await runner.aclose()
        subscriptions.close()


def _console(settings: Settings, identity: SharedSecret | JwksIdentity) -> Console | None:
    """Return the console if the settings turn it on. With `--dev` it signs in by itself, if this service can sign."""
    if not (settings.dev or settings.console):
        return None
    if not settings.dev or isinstance(identity, JwksIdentity):
        return Console()
    return Console(DevSignIn(partial(identity.sign, DEV_USER, _PAGE_TOKEN_TTL), os.getuid()).token_for)


def _resource_metadata(settings: Settings, resource: str) -> ResourceMetadata | None:
    """None without an identity provider: with a shared secret there is no authorization server to name."""
    if settings.identity != "jwks":
        return None
    return ResourceMetadata(resource, [settings.issuer], ["header"])


def _limits(settings: Settings) -> TurnLimits:
    acceptance = AcceptanceLimits(
        lease=timedelta(seconds=settings.turn_lease_s),
        turns_per_user=settings.turns_per_user,
        history_turns=settings.history_turns,
        history_chars=settings.history_chars,
        attempts=settings.turn_attempts,
    )
    deadline = timedelta(seconds=settings.turn_deadline_s)
    return TurnLimits(acceptance, deadline, settings.turn_max_steps, settings.turn_max_calls)


def _readiness(core: Core, runner: TurnRunner) -> Callable[[], Awaitable[None]]:
    check = partial(_check_database, core.engine, histories(core.registry.schema))
    return partial(_check_ready, runner, ReadinessCache(check))


async def _check_ready(runner: TurnRunner, database: ReadinessCache) -> None:
    """Raises `Unavailable` while the service drains, or if the database cannot be used."""
    runner.check_open()
    await database.check()


async def _check_database(engine: AsyncEngine, schemas: Sequence[RevisionHistory]) -> None:
    try:
        await check_schema(engine, schemas)
    except Failure:
        raise
    except Exception as error:
        raise Unavailable("The database does not respond.") from error


def _local_host(host: str) -> str:
    """Return the host name by which a process on this machine reaches a service that listens on `host`."""
    if host in {"0.0.0.0", ""}:  # noqa: S104 - compared, not listened on
        return "127.0.0.1"
    return "[::1]" if host == "::" else f"[{host}]" if ":" in host else host


def _origins(settings: Settings, public_url: str) -> tuple[str, ...]:
    """Return the origins whose pages may call the API. The console's own are always among them."""
    loopback, public = [f"http://{name}" for name in _LOOPBACK], _origin(public_url)
    if not settings.allowed_origins or settings.dev:
        return (*settings.allowed_origins, *loopback, public)
    return (*settings.allowed_origins, public) if settings.console else settings.allowed_origins


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"
