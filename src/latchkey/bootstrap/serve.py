"""The service as a process, or as several."""

from datetime import timedelta
from functools import partial

import click

from latchkey.bootstrap import worker
from latchkey.bootstrap.agent_selection import Staffing
from latchkey.bootstrap.doctor import check_database, is_migrated
from latchkey.bootstrap.identity import create_signer
from latchkey.bootstrap.runtime import importing
from latchkey.config import ConfigurationError, Settings
from latchkey.domain.credentials import UserId
from latchkey.infrastructure.agents.claude.workspace import sweep
from latchkey.infrastructure.telemetry import logging as telemetry
from latchkey.interfaces.http.server.listen import Listening, listen

_DEV_USER = UserId("me")
_DEV_TTL = timedelta(days=7)
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


def serve(settings: Settings, listening: Listening, *, migrate: bool) -> None:
    """Until told to stop. Raises what says why it must not, or cannot."""
    telemetry.configure()
    settings.require_identity()
    Staffing.of(settings)
    if settings.dev and listening.host not in _LOOPBACK:
        raise click.UsageError("--dev serves on loopback only: leave --host out.")
    if listening.workers > 1 and settings.database_url.startswith("sqlite"):
        raise click.UsageError("SQLite is for one process: set LATCHKEY_DATABASE_URL to PostgreSQL for --workers.")
    if settings.dev or migrate:
        _migrate(settings.database_url)
    check_database(settings)
    sweep()
    create = partial(worker.create, settings, listening.host, listening.port)
    if not listen(create, listening, partial(_announce, settings, listening)):
        raise ConfigurationError(f"The service did not start on {listening.host}:{listening.port}; the log says why")


def _migrate(url: str) -> None:
    if is_migrated(url):
        return
    # Alembic is a quarter of a start, which a database that is at head is spared.
    with importing():
        from latchkey.infrastructure.database.migrations import upgrade  # noqa: PLC0415
    upgrade(url)


def _announce(settings: Settings, listening: Listening) -> None:
    url = settings.reached_at(listening.host, listening.port)
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
