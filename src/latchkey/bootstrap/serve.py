"""`latchkey serve`: start-up checks, then one server process or several."""

from datetime import timedelta
from functools import partial
from typing import Any

import click

from latchkey.bootstrap.agents import AgentSelection, registered_agents, unused_model_server
from latchkey.bootstrap.database import prepare_database
from latchkey.bootstrap.identity import DEV_USER, create_signer
from latchkey.bootstrap.runtime import gc_paused, name_worker_process
from latchkey.config import ConfigurationError, Settings
from latchkey.infrastructure.agents.claude.workspace import remove_stale
from latchkey.infrastructure.telemetry import logging as telemetry
from latchkey.interfaces.http.server.listen import ListenAddress, listen

_DEV_TOKEN_TTL = timedelta(days=7)
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


def serve(settings: Settings, address: ListenAddress, *, migrate: bool) -> None:
    """Serve until the process is stopped.

    Raises `ConfigurationError`, `Unavailable` or `IsolationBroken` if the service must not start with these settings
    on this database.
    """
    telemetry.configure()
    settings.require_identity()
    AgentSelection.of(settings, registered_agents(settings))
    if settings.assistants or settings.app:
        _check_assistants(settings)
    if settings.dev and address.host not in _LOOPBACK:
        raise click.UsageError("--dev listens on loopback only: omit --host.")
    if address.workers > 1 and settings.database_url.startswith("sqlite"):
        raise click.UsageError(
            "SQLite supports one process only: for --workers, set LATCHKEY_DATABASE_URL to PostgreSQL."
        )
    prepare_database(settings, migrate=settings.dev or migrate)
    remove_stale()
    create = partial(create_worker, settings, address.host, address.port)
    announce = partial(_announce, settings, address)
    if not listen(create, address, announce, reloads=settings.assistants is not None):
        raise ConfigurationError(f"The service did not start on {address.host}:{address.port}; the log says why")


def _check_assistants(settings: Settings) -> None:
    """Raises `AssistantsError`: this process reports it in plain words, which a worker could not."""
    with gc_paused():
        from latchkey.bootstrap.assistant_definitions import read_assistants  # noqa: PLC0415
        from latchkey.bootstrap.registry import Registry  # noqa: PLC0415
    read_assistants(settings, Registry.read(settings))


def create_worker(settings: Settings, host: str, port: int) -> Any:
    """Create the ASGI application and configure logging; each worker process calls it by its name."""
    name_worker_process()
    with gc_paused():
        from latchkey.bootstrap.composition import create_asgi  # noqa: PLC0415 - only workers need it
    telemetry.configure()
    return create_asgi(settings, host, port)


def _announce(settings: Settings, address: ListenAddress) -> None:
    url = settings.reached_at(address.host, address.port)
    click.echo(f"Latchkey is at {url}")
    if not settings.dev:
        return
    if hint := unused_model_server(settings):
        click.echo(hint)
    click.echo("Open this address in a browser to chat.")
    token = create_signer(settings).sign(DEV_USER, _DEV_TOKEN_TTL)
    is_rehearsal = settings.agent_name == "rehearsal"
    message = '/add_task {\\"title\\": \\"Buy milk\\"}' if is_rehearsal else "Add a task: buy milk"
    click.echo(f"TOKEN={token}")
    click.echo(
        f"curl -s {url}/api/{DEV_USER}/chat -H 'Authorization: Bearer {token}'"
        f" -H 'Content-Type: application/json' -d '{{\"message\": \"{message}\"}}'"
    )
