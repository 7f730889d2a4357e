"""Parses database URLs in their usual forms into the arguments of the drivers."""

import ssl
from collections.abc import Callable
from typing import Any

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from latchkey.domain.errors import Invalid

SQLITE = "sqlite+aiosqlite"
POSTGRESQL = "postgresql+asyncpg"

_SCHEMES = {
    "postgres": POSTGRESQL,
    "postgresql": POSTGRESQL,
    "postgresql+asyncpg": POSTGRESQL,
    "sqlite": SQLITE,
    "sqlite+aiosqlite": SQLITE,
}

_VERIFIED = ("verify-ca", "verify-full")


class UnusableUrl(Invalid):
    """The database URL cannot be used. The text says why and does not contain the password."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"LATCHKEY_DATABASE_URL: {reason}")


def parse(text: str) -> tuple[URL, dict[str, Any]]:
    """Return the SQLAlchemy URL and the driver's `connect_args`. Raises `UnusableUrl`."""
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        # Not chained: the original text may contain a part of the password.
        raise UnusableUrl("not a URL: write postgresql://USER:PASSWORD@HOST/DATABASE or sqlite:///PATH") from None
    driver = _SCHEMES.get(url.drivername)
    if driver is None:
        raise UnusableUrl(f"{url.drivername}:// is not supported: write postgresql:// or sqlite:///")
    if driver == POSTGRESQL:
        return url.set(drivername=driver, query={}), _asyncpg_arguments(url)
    if url.database in (None, "", ":memory:"):
        raise UnusableUrl("an in-memory SQLite database cannot be shared by connections: write sqlite:///PATH")
    if url.query:
        raise UnusableUrl("a SQLite URL takes no parameters: write sqlite:///PATH")
    return url.set(drivername=driver), {}


def location(text: str) -> str:
    """Return the place of the database for the operator, without user and password."""
    url, arguments = parse(text)
    if url.drivername == SQLITE:
        return str(url.database)
    host = arguments.get("host", url.host) or "localhost"
    return f"{url.database or 'the default database'} on {host}{f':{url.port}' if url.port else ''}"


def session_arguments(text: str) -> dict[str, Any]:
    """Return the arguments of `asyncpg.connect` for a session. Neon's pooled hosts are replaced by direct ones."""
    url, arguments = parse(text)
    arguments.pop("prepared_statement_cache_size", None)
    host = (url.host or "").replace("-pooler.", ".") or None
    address = {"host": host, "port": url.port, "user": url.username, "password": url.password}
    return {**address, "database": url.database, **arguments}


def _asyncpg_arguments(url: URL) -> dict[str, Any]:
    """Translate libpq's parameters to asyncpg's.

    A pooler in transaction mode (PgBouncer, Neon's `-pooler` hosts) may use another connection for each
    transaction, so prepared statements must not outlive a transaction: asyncpg's statement cache is turned off.
    """
    unknown = sorted(url.query.keys() - _PARAMETERS.keys())
    if unknown:
        raise UnusableUrl(f"unknown parameter {unknown[0]}: use {', '.join(sorted(_PARAMETERS))}")
    arguments: dict[str, Any] = {}
    for name, translate in _PARAMETERS.items():
        if name in url.query:
            arguments |= translate(name, str(url.query[name]))
    if "-pooler." in (url.host or ""):
        arguments["statement_cache_size"] = 0
    return arguments


def _sslmode(name: str, value: str) -> dict[str, Any]:
    if value not in ("disable", "allow", "prefer", "require", *_VERIFIED):
        raise UnusableUrl(f"{name} must be disable, allow, prefer, require, verify-ca or verify-full")
    if value not in _VERIFIED:
        return {"ssl": value}
    context = ssl.create_default_context()
    context.check_hostname = value == "verify-full"
    return {"ssl": context}


def _channel_binding(name: str, value: str) -> dict[str, Any]:
    """asyncpg has no channel binding. A verified certificate gives the protection that `require` asks for."""
    if value not in ("disable", "prefer", "require"):
        raise UnusableUrl(f"{name} must be disable, prefer or require")
    return _sslmode("sslmode", "verify-full") if value == "require" else {}


def _integer(name: str, value: str) -> dict[str, Any]:
    if not value.isdecimal():
        raise UnusableUrl(f"{name} must be an integer")
    return {_ASYNCPG_NAMES.get(name, name): int(value)}


_ASYNCPG_NAMES = {"connect_timeout": "timeout"}

_PARAMETERS: dict[str, Callable[[str, str], dict[str, Any]]] = {
    "sslmode": _sslmode,
    "ssl": _sslmode,
    "channel_binding": _channel_binding,  # last, so that it overrides sslmode and ssl
    "connect_timeout": _integer,
    "statement_cache_size": _integer,
    "prepared_statement_cache_size": _integer,
    "application_name": lambda _, value: {"server_settings": {"application_name": value}},
    "host": lambda _, value: {"host": value},
}
