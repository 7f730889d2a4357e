"""The service as a process, or as several."""

from datetime import timedelta
from functools import partial

import click

from latchkey.bootstrap import worker
from latchkey.bootstrap.agent_selection import AgentSelection
from latchkey.bootstrap.doctor import check_database, is_migrated
from latchkey.bootstrap.identity import create_signer
from latchkey.bootstrap.runtime import importing
from latchkey.config import ConfigurationError, Settings
from latchkey.domain.credentials import UserId
from latchkey.infrastructure.agents.claude.workspace import remove_stale
from latchkey.infrastructure.telemetry import logging as telemetry
from latchkey.interfaces.http.server.listen import ListenAddress, listen

_DEV_USER = UserId("me")
_DEV_TTL = timedelta(days=7)
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


def serve(settings: Settings, address: ListenAddress, *, migrate: bool) -> None:
    """Until told to stop. Raises what says why it must not, or cannot."""
    telemetry.configure()
    settings.require_identity()
    AgentSelection.of(settings)
    if settings.dev and address.host not in _LOOPBACK:
        raise click.UsageError("--dev serves on loopback only: leave --host out.")
    if address.workers > 1 and settings.database_url.startswith("sqlite"):
        raise click.UsageError("SQLite is for one process: set LATCHKEY_DATABASE_URL to PostgreSQL for --workers.")
    if settings.dev or migrate:
        _migrate(settings.database_url)
    check_database(settings)
    remove_stale()
    create = partial(worker.create, settings, address.host, address.port)
    if not listen(create, address, partial(_announce, settings, address)):
        raise ConfigurationError(f"The service did not start on {address.host}:{address.port}; the log says why")


def _migrate(url: str) -> None:
    if is_migrated(url):
        return
    # Alembic is a quarter of a start, which a database that is at head is spared.
    with importing():
        from latchkey.infrastructure.database.migrations import upgrade  # noqa: PLC0415
    upgrade(url)


def _announce(settings: Settings, address: ListenAddress) -> None:
    url = settings.reached_at(address.host, address.port)
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
