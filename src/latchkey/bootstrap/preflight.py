"""What must hold before the service starts, and what `doctor` looks at."""

import asyncio
from collections.abc import Iterator

from sqlalchemy.ext.asyncio import AsyncEngine

from latchkey.bootstrap.precautions import warnings
from latchkey.bootstrap.staffing import Staffing
from latchkey.config import ConfigurationError, Settings
from latchkey.domain.errors import Unavailable
from latchkey.infrastructure.agents.claude_cli import TESTED_VERSION, version_of
from latchkey.infrastructure.database.engine import create_engine
from latchkey.infrastructure.database.isolation import IsolationBroken, verify
from latchkey.infrastructure.database.revision import is_at_head
from latchkey.infrastructure.identity.key_document import KeyDocument
from latchkey.interfaces.cli import Finding


def check_database(settings: Settings) -> None:
    """Raises `Unavailable` or `IsolationBroken`, which say why the service must not serve on this database."""
    asyncio.run(_check_database(settings.database_url))


def is_migrated(url: str) -> bool:
    """Whether there is nothing to migrate: whatever else is the matter, whoever migrates will say."""
    try:
        return asyncio.run(_is_migrated(url))
    except Unavailable:
        return False


def examine(settings: Settings) -> Iterator[Finding]:
    """What is configured, reachable and missing, and what somebody might be sorry for."""
    yield _examine_identity(settings)
    yield _examine_database(settings)
    yield from _examine_agents(settings)
    yield from warnings(settings)


def _examine_identity(settings: Settings) -> Finding:
    try:
        settings.require_identity()
    except ConfigurationError as error:
        return Finding("identity", "; ".join(error.faults), ok=False)
    if settings.auth_jwks_url is not None:
        return asyncio.run(_examine_keys(settings.auth_jwks_url))
    return Finding("identity", f"users are vouched for by: {settings.identity}")


async def _examine_keys(url: str) -> Finding:
    document = KeyDocument(url)
    try:
        keys = await document.fetch()
    except Unavailable as error:
        return Finding("identity", f"LATCHKEY_AUTH_JWKS_URL gives no keys: {error.detail}", ok=False)
    finally:
        await document.aclose()
    return Finding("identity", f"users are vouched for by: jwks, with {len(keys)} keys that may sign")


def _examine_database(settings: Settings) -> Finding:
    try:
        check_database(settings)
    except (Unavailable, IsolationBroken) as error:
        return Finding("database", str(error), ok=False)
    return Finding("database", f"{settings.database_url!r} is reachable, at head, and keeps users apart")


def _examine_agents(settings: Settings) -> Iterator[Finding]:
    """An agent that could not work stops the service; that there is none stops nothing but turns."""
    try:
        staffing = Staffing.of(settings)
    except ConfigurationError as error:
        yield Finding("agent", "; ".join(error.faults), ok=False)
        return
    yield _agent("agent", staffing.chat, "answers turns", "LATCHKEY_AGENT or OPENAI_API_KEY")
    yield _agent("file agent", staffing.files, "makes files", "LATCHKEY_FILE_AGENT, LATCHKEY_AGENT or OPENAI_API_KEY")
    yield _examine_claude(staffing)


def _agent(kind: str, name: str | None, does: str, variables: str) -> Finding:
    text = f"{name} {does}" if name else f"none, so /chat answers 503: set {variables}"
    return Finding(kind, text, ok=name is not None, needed=False)


def _examine_claude(staffing: Staffing) -> Finding:
    """Much of what is relied on is documented nowhere, so another version is worth a note, whoever uses it."""
    if staffing.cli is None:
        return Finding("claude cli", "none is found, and none is needed")
    found = version_of(staffing.cli)
    text = f"{staffing.cli} is version {found or 'unknown'}"
    if found == TESTED_VERSION:
        return Finding("claude cli", f"{text}, the one that was tested")
    needed = found is None and "claude" in {staffing.chat, staffing.files}
    return Finding("claude cli", f"{text}; {TESTED_VERSION} was tested", ok=False, needed=needed)


async def _check_database(url: str) -> None:
    engine = create_engine(url)
    try:
        if not await _at_head(engine):
            raise Unavailable("The schema is not at head: run `latchkey migrate`, or serve with --migrate.")
        await verify(engine)
    finally:
        await engine.dispose()


async def _is_migrated(url: str) -> bool:
    engine = create_engine(url)
    try:
        return await _at_head(engine)
    finally:
        await engine.dispose()


async def _at_head(engine: AsyncEngine) -> bool:
    try:
        return await is_at_head(engine)
    except Exception as error:
        raise Unavailable(f"The database cannot be reached: {error}") from error
