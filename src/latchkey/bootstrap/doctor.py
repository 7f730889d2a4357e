"""What `doctor` warns of: the service could serve like that, and somebody might be sorry."""

import asyncio
import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path
from stat import S_IRWXG, S_IRWXO, S_IWGRP, S_IWOTH
from urllib.parse import urlsplit

from sqlalchemy.ext.asyncio import AsyncEngine

from latchkey.bootstrap.agent_selection import AgentSelection
from latchkey.bootstrap.identity import DEV_KEY
from latchkey.config import VARIABLES, ConfigurationError, Settings
from latchkey.domain.errors import Unavailable
from latchkey.infrastructure.agents.claude.cli import TESTED_VERSION, cli_version
from latchkey.infrastructure.database.revision import is_at_head
from latchkey.infrastructure.database.sql.engine import create_engine, files_of
from latchkey.infrastructure.database.startup_checks import IsolationBroken, verify
from latchkey.infrastructure.database.urls import SQLITE, UnusableUrl, parse
from latchkey.infrastructure.identity.jwks_document import JwksDocument
from latchkey.infrastructure.identity.strength import ENOUGH_BITS, bits_of
from latchkey.interfaces.cli import Finding

_PORT = re.compile(r":\d+\Z")
_OTHERS = S_IRWXG | S_IRWXO
_OTHERS_WRITE = S_IWGRP | S_IWOTH
_IN_THE_CLEAR = {None, "disable", "allow", "prefer"}
"""What asyncpg takes for `ssl`, where the server, or whoever is in between, may say that there is none."""

_NAMES = {read.name: name for name, read in VARIABLES.items()}
_PLENTY = {"requests_per_minute": 60_000, "bytes_per_user": 1 << 40, "turns_per_user": 50, "turn_max_calls": 500}
"""So much is nobody's honest need: a limit beyond it is as good as off."""


def warnings(settings: Settings) -> Iterator[Finding]:
    """One finding for each precaution; none of them is needed to serve."""
    for name, (fine, examine) in _PRECAUTIONS.items():
        found = list(examine(settings))
        yield Finding(name, "; ".join(found) or fine, ok=not found, needed=False)


def _secret(settings: Settings) -> Iterator[str]:
    if settings.auth_secret and bits_of(settings.auth_key) < ENOUGH_BITS:
        yield "LATCHKEY_AUTH_SECRET can be guessed, and whoever does may be anybody: try `openssl rand -hex 32`"


def _addresses(settings: Settings) -> Iterator[str]:
    """Tokens, keys and conversations go over them."""
    for field in ("public_url", "auth_issuer", "openai_base_url", "anthropic_base_url"):
        if _is_plain(getattr(settings, field) or ""):
            yield f"{_NAMES[field]} is plain http to another machine: use https"
    if settings.public_url and settings.allowed_hosts and not _answers_at(settings.public_url, settings.allowed_hosts):
        yield "LATCHKEY_ALLOWED_HOSTS does not have the host of LATCHKEY_PUBLIC_URL: clients will get 421"


def _pages(settings: Settings) -> Iterator[str]:
    plain = [origin for origin in settings.allowed_origins if _is_plain(origin)]
    if plain:
        yield f"LATCHKEY_ALLOWED_ORIGINS has {', '.join(plain)}, pages that can be changed on their way: use https"


def _database(settings: Settings) -> Iterator[str]:
    """One that cannot be used at all is told of elsewhere. No host is named: in a mistyped URL it is a password."""
    try:
        url, arguments = parse(settings.database_url)
    except UnusableUrl:
        return
    host = arguments.get("host", url.host)
    if url.drivername != SQLITE and host and not _is_near(host) and arguments.get("ssl") in _IN_THE_CLEAR:
        yield "it may leave this machine in the clear: add ?sslmode=verify-full to LATCHKEY_DATABASE_URL"


def _files(settings: Settings) -> Iterator[str]:
    secret = [DEV_KEY, Path(".env"), *_of_database(settings)]
    yield from _open(secret, _OTHERS, "can be read by others than its owner: `chmod 600 {path}`")
    if settings.instructions:
        yield from _open([settings.instructions], _OTHERS_WRITE, "can be written by others: `chmod go-w {path}`")


def _of_database(settings: Settings) -> list[Path]:
    try:
        url, _ = parse(settings.database_url)
    except UnusableUrl:
        return []
    return files_of(url) if url.drivername == SQLITE else []


def _open(paths: Iterable[Path], to: int, said: str) -> Iterator[str]:
    for path in paths:
        # One that is not there, or that we may not even look at, is nothing to warn of.
        with suppress(OSError):
            if path.stat().st_mode & to:
                yield f"{path} {said.format(path=path)}"


def _account(_: Settings) -> Iterator[str]:
    if os.geteuid() == 0:
        yield "this is root, who may do anything on this machine: run the service as a user of its own"


def _limits(settings: Settings) -> Iterator[str]:
    for field, plenty in _PLENTY.items():
        if getattr(settings, field) > plenty:
            yield f"{_NAMES[field]} is more than {plenty}, which limits nobody"


def _is_plain(url: str) -> bool:
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return parts.scheme == "http" and not _is_near(parts.hostname or "")


def _is_near(host: str) -> bool:
    """Whether it is this machine: a socket in the file system, or loopback."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host.startswith("/") or host == "localhost" or host.endswith(".localhost")


def _answers_at(url: str, hosts: Iterable[str]) -> bool:
    """As the edge decides it: a host without a port stands for each of its ports."""
    host = url.lower().partition("://")[2].partition("/")[0]
    return bool({host, _PORT.sub("", host)} & {host.lower() for host in hosts})


_PRECAUTIONS: dict[str, tuple[str, Callable[[Settings], Iterator[str]]]] = {
    "secret": ("no shared secret, or one that is hard to guess", _secret),
    "addresses": ("nothing goes to another machine by plain http", _addresses),
    "pages": ("no page that others could change may call this", _pages),
    "database wire": ("encrypted, or not leaving this machine", _database),
    "files": ("what is private can be read by its owner alone", _files),
    "account": ("not root", _account),
    "limits": ("every one limits somebody", _limits),
}


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
    document = JwksDocument(url)
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
        selection = AgentSelection.of(settings)
    except ConfigurationError as error:
        yield Finding("agent", "; ".join(error.faults), ok=False)
        return
    yield _agent("agent", selection.chat, "answers turns", "LATCHKEY_AGENT or OPENAI_API_KEY")
    yield _agent("file agent", selection.files, "makes files", "LATCHKEY_FILE_AGENT, LATCHKEY_AGENT or OPENAI_API_KEY")
    yield _examine_claude(selection)


def _agent(kind: str, name: str | None, does: str, variables: str) -> Finding:
    text = f"{name} {does}" if name else f"none, so /chat answers 503: set {variables}"
    return Finding(kind, text, ok=name is not None, needed=False)


def _examine_claude(selection: AgentSelection) -> Finding:
    """Much of what is relied on is documented nowhere, so another version is worth a note, whoever uses it."""
    if selection.cli is None:
        return Finding("claude cli", "none is found, and none is needed")
    found = cli_version(selection.cli)
    text = f"{selection.cli} is version {found or 'unknown'}"
    if found == TESTED_VERSION:
        return Finding("claude cli", f"{text}, the one that was tested")
    needed = found is None and "claude" in {selection.chat, selection.files}
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
