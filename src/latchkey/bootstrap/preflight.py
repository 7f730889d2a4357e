"""What must hold before the service starts, and what `doctor` looks at."""

import asyncio
from collections.abc import Iterator

from latchkey.config import ConfigurationError, Settings
from latchkey.domain.errors import Unavailable
from latchkey.infrastructure.database.engine import create_engine
from latchkey.infrastructure.database.isolation import IsolationBroken, verify
from latchkey.infrastructure.database.migration import is_at_head
from latchkey.interfaces.cli import Finding


def check_database(settings: Settings) -> None:
    """Raises `Unavailable` or `IsolationBroken`, which say why the service must not serve on this database."""
    asyncio.run(_check_database(settings))


def examine(settings: Settings) -> Iterator[Finding]:
    """What is configured, reachable and missing."""
    yield _examine_identity(settings)
    yield _examine_database(settings)
    agent = settings.agent_name
    text = f"{agent} answers turns" if agent else "none, so /chat answers 503: set LATCHKEY_AGENT or OPENAI_API_KEY"
    yield Finding("agent", text, ok=agent is not None, needed=False)


def _examine_identity(settings: Settings) -> Finding:
    try:
        settings.require_identity()
    except ConfigurationError as error:
        return Finding("identity", "; ".join(error.faults), ok=False)
    return Finding("identity", f"users are vouched for by: {settings.identity}")


def _examine_database(settings: Settings) -> Finding:
    try:
        check_database(settings)
    except (Unavailable, IsolationBroken) as error:
        return Finding("database", str(error), ok=False)
    return Finding("database", f"{settings.database_url!r} is reachable, at head, and keeps users apart")


async def _check_database(settings: Settings) -> None:
    engine = create_engine(settings.database_url)
    try:
        try:
            at_head = await is_at_head(engine)
        except Exception as error:
            raise Unavailable(f"The database cannot be reached: {error}") from error
        if not at_head:
            raise Unavailable("The schema is not at head: run `latchkey migrate`, or serve with --migrate.")
        await verify(engine)
    finally:
        await engine.dispose()
