"""`latchkey doctor`: checks of the configuration, the database, the agents, and risky but valid settings."""

import asyncio
import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path
from stat import S_IRWXG, S_IRWXO, S_IWGRP, S_IWOTH
from urllib.parse import urlsplit

import httpx2

from latchkey.bootstrap.agents import OPENAI_API_AGENTS, AgentSelection, registered_agents, unused_model_server
from latchkey.bootstrap.database import check_database
from latchkey.bootstrap.identity import DEV_KEY
from latchkey.config import VARIABLES, ConfigurationError, Settings
from latchkey.domain.errors import Failure, Unavailable
from latchkey.infrastructure.agents.claude.cli import TESTED_VERSION, cli_version
from latchkey.infrastructure.database.clock import WARNING_OFFSET, measure_clock_offset
from latchkey.infrastructure.database.sql.engine import create_engine
from latchkey.infrastructure.database.sql.sqlite import database_files
from latchkey.infrastructure.database.unit_of_work import SqlUnitsOfWork
from latchkey.infrastructure.database.urls import SQLITE, UnusableUrl, parse
from latchkey.infrastructure.identity.jwks_document import JwksDocument
from latchkey.interfaces.cli import Finding

_OPENAI_URL = "https://api.openai.com/v1"
_MODEL_TIMEOUT_S = 5.0

_PORT = re.compile(r":\d+\Z")
_OTHERS_ANY = S_IRWXG | S_IRWXO
_OTHERS_WRITE = S_IWGRP | S_IWOTH
_UNENCRYPTED_SSL = {None, "disable", "allow", "prefer"}
"""Values of asyncpg's `ssl` with which the server, or an attacker in between, can turn encryption off."""
_MIN_DISTINCT_CHARACTERS = 10
"""A random secret of 32 hexadecimal digits has fewer in about one of 10,000 cases."""

_VARIABLE_NAMES = {variable.name: name for name, variable in VARIABLES.items()}
_HIGHEST_USEFUL = {
    "requests_per_minute": 60_000,
    "bytes_per_user": 1 << 40,
    "turns_per_user": 50,
    "turn_max_calls": 500,
}
"""A limit beyond these values protects from nothing."""


def examine(settings: Settings) -> Iterator[Finding]:
    """Yield the findings: first whether the service can start, then warnings about risky settings."""
    yield _examine_identity(settings)
    database = _examine_database(settings)
    yield database
    if database.ok and not settings.database_url.startswith("sqlite"):
        yield asyncio.run(_examine_clock(settings.database_url))
    yield from _examine_agents(settings)
    yield from _examine_assistants(settings)
    yield from _warnings(settings)


def _examine_identity(settings: Settings) -> Finding:
    try:
        settings.require_identity()
    except ConfigurationError as error:
        return Finding("identity", "; ".join(error.faults), ok=False)
    if settings.auth_jwks_url is not None:
        return asyncio.run(_examine_jwks(settings.auth_jwks_url))
    return Finding("identity", f"users are authenticated by: {settings.identity}")


async def _examine_jwks(url: str) -> Finding:
    document = JwksDocument(url)
    try:
        keys = await document.fetch()
    except Unavailable as error:
        return Finding("identity", f"LATCHKEY_AUTH_JWKS_URL returns no keys: {error.detail}", ok=False)
    finally:
        await document.aclose()
    return Finding("identity", f"users are authenticated by: jwks, with {len(keys)} signing keys")


def _examine_database(settings: Settings) -> Finding:
    try:
        check_database(settings)
    except (ConfigurationError, Failure) as error:
        return Finding("database", str(error), ok=False)
    return Finding("database", f"{settings.database_url!r} is reachable, up to date, and isolates users")


async def _examine_clock(url: str) -> Finding:
    engine = create_engine(url)
    try:
        offset = await measure_clock_offset(engine, SqlUnitsOfWork(engine))
    finally:
        await engine.dispose()
    text = f"differs by {abs(offset).total_seconds():.1f} s from the database's clock"
    if abs(offset) <= WARNING_OFFSET:
        return Finding("clock", text)
    return Finding("clock", f"{text}: synchronise this machine's clock with NTP", ok=False, needed=False)


def _examine_agents(settings: Settings) -> Iterator[Finding]:
    """An agent that cannot work stops the service; without an agent, only turns fail."""
    try:
        selection = AgentSelection.of(settings, registered_agents(settings))
    except ConfigurationError as error:
        yield Finding("agent", "; ".join(error.faults), ok=False)
        return
    file_variables = "LATCHKEY_FILE_AGENT, LATCHKEY_AGENT or OPENAI_API_KEY"
    yield _agent_finding("agent", selection.chat, "runs chat turns", "LATCHKEY_AGENT or OPENAI_API_KEY")
    yield _agent_finding("file agent", selection.files, "creates files", file_variables)
    if hint := unused_model_server(settings):
        yield Finding("model server", hint, ok=False, needed=False)
    if {selection.chat, selection.files} & set(OPENAI_API_AGENTS):
        yield asyncio.run(_examine_model_server(settings))
    yield _examine_claude_cli(selection)


def _examine_assistants(settings: Settings) -> Iterator[Finding]:
    if settings.assistants is None and settings.app is None:
        return
    from latchkey.bootstrap.assistant_definitions import read_assistants  # noqa: PLC0415 - imports slowly
    from latchkey.bootstrap.registry import Registry  # noqa: PLC0415

    try:
        names = [assistant.name for assistant in read_assistants(settings, Registry.read(settings))]
    except ConfigurationError as error:
        yield Finding("assistants", "; ".join(error.faults), ok=False)
    else:
        yield Finding("assistants", f"declared: {', '.join(sorted(names)) or 'none'}")


async def _examine_model_server(settings: Settings) -> Finding:
    """List the models, which costs nothing. A server without such a list answers 404, and remains untested."""
    url = f"{(settings.openai_base_url or _OPENAI_URL).rstrip('/')}/models"
    headers = {"Authorization": f"Bearer {settings.openai_api_key}"} if settings.openai_api_key else {}
    try:
        async with httpx2.AsyncClient(timeout=_MODEL_TIMEOUT_S) as client, asyncio.timeout(_MODEL_TIMEOUT_S):
            response = await client.get(url, headers=headers)
    except (httpx2.TimeoutException, TimeoutError):
        return _model_finding(f"does not answer within {_MODEL_TIMEOUT_S:g} seconds", ok=False)
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        return _model_finding(
            f"cannot be reached: {str(error) or type(error).__name__}: check OPENAI_BASE_URL", ok=False
        )
    return _model_response_finding(response, has_key=bool(headers))


def _model_response_finding(response: httpx2.Response, *, has_key: bool) -> Finding:
    status = response.status_code
    if status in {httpx2.codes.UNAUTHORIZED, httpx2.codes.FORBIDDEN}:
        return _model_finding(f"refuses the key (status {status}): check OPENAI_API_KEY", ok=False)
    if status in {httpx2.codes.NOT_FOUND, httpx2.codes.METHOD_NOT_ALLOWED, httpx2.codes.NOT_IMPLEMENTED}:
        return _model_finding("not tried: it is reachable and has no list of models", ok=True)
    if status != httpx2.codes.OK:
        return _model_finding(f"answers the request for its models with status {status}", ok=False)
    if response.content.lstrip().startswith(b"<"):
        return _model_finding("answers with a web page: check OPENAI_BASE_URL", ok=False)
    return _model_finding("is reachable, and accepts the key" if has_key else "is reachable", ok=True)


def _model_finding(text: str, *, ok: bool) -> Finding:
    """Without a model server only turns fail, so that this stops no service."""
    return Finding("model server", text, ok=ok, needed=False)


def _agent_finding(name: str, agent: str | None, role: str, variables: str) -> Finding:
    text = f"{agent} {role}" if agent else f"none, so /chat responds with 503: set {variables}"
    return Finding(name, text, ok=agent is not None, needed=False)


def _examine_claude_cli(selection: AgentSelection) -> Finding:
    """The adapter relies on undocumented behaviour of the CLI, so any other version than the tested one is noted."""
    if selection.claude_cli is None:
        return Finding("claude cli", "not installed, and not needed")
    version = cli_version(selection.claude_cli)
    text = f"{selection.claude_cli} is version {version or 'unknown'}"
    if version == TESTED_VERSION:
        return Finding("claude cli", f"{text}, the tested version; its API key was not tried")
    is_needed = version is None and "claude" in {selection.chat, selection.files}
    return Finding("claude cli", f"{text}; the tested version is {TESTED_VERSION}", ok=False, needed=is_needed)


def _warnings(settings: Settings) -> Iterator[Finding]:
    for name, (fine, check) in _CHECKS.items():
        texts = list(check(settings))
        yield Finding(name, "; ".join(texts) or fine, ok=not texts, needed=False)


def _check_secret(settings: Settings) -> Iterator[str]:
    if settings.auth_secret and len(set(settings.auth_key)) < _MIN_DISTINCT_CHARACTERS:
        yield (
            f"LATCHKEY_AUTH_SECRET has fewer than {_MIN_DISTINCT_CHARACTERS} different characters and can be guessed:"
            " generate one with `openssl rand -hex 32`"
        )


def _check_urls(settings: Settings) -> Iterator[str]:
    for field in ("public_url", "auth_issuer", "openai_base_url", "anthropic_base_url"):
        if _is_plain_http(getattr(settings, field) or ""):
            yield f"{_VARIABLE_NAMES[field]} is plain http to another machine: use https"
    if settings.public_url and settings.allowed_hosts and not _is_allowed(settings.public_url, settings.allowed_hosts):
        yield "LATCHKEY_ALLOWED_HOSTS does not contain the host of LATCHKEY_PUBLIC_URL: clients will get 421"


def _check_origins(settings: Settings) -> Iterator[str]:
    plain = [origin for origin in settings.allowed_origins if _is_plain_http(origin)]
    if plain:
        yield f"LATCHKEY_ALLOWED_ORIGINS contains {', '.join(plain)}, whose pages can be changed in transit: use https"


def _check_database_encryption(settings: Settings) -> Iterator[str]:
    """An unusable URL is reported elsewhere. The text names no host: in a mistyped URL it can be a password."""
    try:
        url, arguments = parse(settings.database_url)
    except UnusableUrl:
        return
    host = arguments.get("host", url.host)
    if url.drivername != SQLITE and host and not _is_local(host) and arguments.get("ssl") in _UNENCRYPTED_SSL:
        yield "the connection may be unencrypted: add ?sslmode=verify-full to LATCHKEY_DATABASE_URL"


def _check_files(settings: Settings) -> Iterator[str]:
    private = [DEV_KEY, Path(".env"), *_database_files(settings)]
    yield from _with_permission(private, _OTHERS_ANY, "can be read by other users: run `chmod 600 {path}`")
    if settings.instructions:
        text = "can be written by other users: run `chmod go-w {path}`"
        yield from _with_permission([settings.instructions], _OTHERS_WRITE, text)


def _database_files(settings: Settings) -> list[Path]:
    try:
        url, _ = parse(settings.database_url)
    except UnusableUrl:
        return []
    return database_files(url) if url.drivername == SQLITE else []


def _with_permission(paths: Iterable[Path], mode: int, text: str) -> Iterator[str]:
    for path in paths:
        # Not a warning if the file does not exist, or if this user may not look at it.
        with suppress(OSError):
            if path.stat().st_mode & mode:
                yield f"{path} {text.format(path=path)}"


def _check_account(_: Settings) -> Iterator[str]:
    if os.geteuid() == 0:
        yield "the service runs as root: run it as a user of its own"


def _check_limits(settings: Settings) -> Iterator[str]:
    for field, highest in _HIGHEST_USEFUL.items():
        if getattr(settings, field) > highest:
            yield f"{_VARIABLE_NAMES[field]} is more than {highest}, which is as good as no limit"


def _is_plain_http(url: str) -> bool:
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return parts.scheme == "http" and not _is_local(parts.hostname or "")


def _is_local(host: str) -> bool:
    """Whether the host is this machine: loopback, or the path of a Unix socket."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host.startswith("/") or host == "localhost" or host.endswith(".localhost")


def _is_allowed(url: str, hosts: Iterable[str]) -> bool:
    """Apply the rule of `SecurityMiddleware`: a host without a port allows each of its ports."""
    host = url.lower().partition("://")[2].partition("/")[0]
    return bool({host, _PORT.sub("", host)} & {host.lower() for host in hosts})


_CHECKS: dict[str, tuple[str, Callable[[Settings], Iterator[str]]]] = {
    "secret": ("no shared secret, or one with many different characters", _check_secret),
    "urls": ("no plain http to another machine", _check_urls),
    "origins": ("no allowed origin uses plain http", _check_origins),
    "database encryption": ("encrypted, or on this machine", _check_database_encryption),
    "files": ("private files can be read by their owner only", _check_files),
    "account": ("not root", _check_account),
    "limits": ("all limits are effective", _check_limits),
}
"""Per check: the text if there is nothing to warn about, and the function that yields the warnings."""
