"""Database URLs as people have them, made into what the drivers take."""

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
    """The database URL cannot be used; the text says why, without its password."""


def parse(text: str) -> tuple[URL, dict[str, Any]]:
    """The SQLAlchemy URL and the driver's `connect_args`. Raises `UnusableUrl`."""
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        # Not chained: what could not be read may be a piece of the password.
        raise UnusableUrl("it is not a URL: write postgresql://USER:PASSWORD@HOST/DATABASE or sqlite:///PATH") from None
    driver = _SCHEMES.get(url.drivername)
    if driver is None:
        raise UnusableUrl(f"{url.drivername}:// is not supported: write postgresql:// or sqlite:///")
    if driver == POSTGRESQL:
        return url.set(drivername=driver, query={}), _asyncpg_arguments(url)
    if url.database in (None, "", ":memory:"):
        raise UnusableUrl("SQLite must be a file, which several connections share: write sqlite:///PATH")
    return url.set(drivername=driver), {}


def session_arguments(text: str) -> dict[str, Any]:
    """What `asyncpg.connect` takes for a session of its own. Neon's pooled hosts have twins that give one."""
    url, arguments = parse(text)
    arguments.pop("prepared_statement_cache_size", None)
    host = (url.host or "").replace("-pooler.", ".") or None
    address = {"host": host, "port": url.port, "user": url.username, "password": url.password}
    return {**address, "database": url.database, **arguments}


def _asyncpg_arguments(url: URL) -> dict[str, Any]:
    """libpq's parameters in asyncpg's words.

    A pooler in transaction mode (PgBouncer, Neon's `-pooler` hosts) hands each transaction another
    connection, so nothing may be prepared for longer than one. SQLAlchemy keeps prepared statements too,
    but asyncpg then makes them without a name, and sends their text again each time.
    """
    unknown = sorted(url.query.keys() - _PARAMETERS.keys())
    if unknown:
        raise UnusableUrl(f"the parameter {unknown[0]} is not known: use {', '.join(sorted(_PARAMETERS))}")
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
    """asyncpg cannot bind channels; a verified certificate gives what `require` is for."""
    if value not in ("disable", "prefer", "require"):
        raise UnusableUrl(f"{name} must be disable, prefer or require")
    return _sslmode("sslmode", "verify-full") if value == "require" else {}


def _whole(name: str, value: str) -> dict[str, Any]:
    if not value.isdecimal():
        raise UnusableUrl(f"{name} must be a whole number")
    return {_ASYNCPG_NAMES.get(name, name): int(value)}


_ASYNCPG_NAMES = {"connect_timeout": "timeout"}

_PARAMETERS: dict[str, Callable[[str, str], dict[str, Any]]] = {
    "sslmode": _sslmode,
    "ssl": _sslmode,
    "channel_binding": _channel_binding,  # after the two, to be stronger than they are
    "connect_timeout": _whole,
    "statement_cache_size": _whole,
    "prepared_statement_cache_size": _whole,
    "application_name": lambda _, value: {"server_settings": {"application_name": value}},
    "host": lambda _, value: {"host": value},
}
