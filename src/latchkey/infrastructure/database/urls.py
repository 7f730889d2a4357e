"""Database URLs as people have them, made into what the drivers take."""

import ssl
from collections.abc import Callable
from typing import Any

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

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


class UnusableUrl(ValueError):
    """The database URL cannot be used; the text says why, without its password."""


def parse(text: str) -> tuple[URL, dict[str, Any]]:
    """The SQLAlchemy URL and the driver's `connect_args`. Raises `UnusableUrl`."""
    try:
        url = make_url(text)
    except (ArgumentError, ValueError) as error:
        raise UnusableUrl("it is not a URL: write postgresql://USER:PASSWORD@HOST/DATABASE or sqlite:///PATH") from error
    driver = _SCHEMES.get(url.drivername)
    if driver is None:
        raise UnusableUrl(f"{url.drivername}:// is not supported: write postgresql:// or sqlite:///")
    url = url.set(drivername=driver)
    return (url, {}) if driver == SQLITE else (url.set(query={}), _asyncpg_arguments(url))


def _asyncpg_arguments(url: URL) -> dict[str, Any]:
    """libpq's parameters in asyncpg's words.

    A pooler in transaction mode (PgBouncer, Neon's `-pooler` hosts) hands each transaction another
    connection, so nothing may be prepared for longer than one.
    """
    arguments: dict[str, Any] = {}
    pooled = "-pooler." in (url.host or "")
    for name, value in url.query.items():
        if name not in _PARAMETERS:
            known = ", ".join(sorted(_PARAMETERS))
            raise UnusableUrl(f"the parameter {name} is not known: use {known}")
        arguments |= _PARAMETERS[name](str(value))
    if pooled:
        arguments["statement_cache_size"] = 0
    return arguments


def _sslmode(value: str) -> dict[str, Any]:
    if value not in ("disable", "allow", "prefer", "require", *_VERIFIED):
        raise UnusableUrl(f"sslmode={value} is not one of libpq's")
    if value not in _VERIFIED:
        return {"ssl": value}
    context = ssl.create_default_context()
    context.check_hostname = value == "verify-full"
    return {"ssl": context}


def _channel_binding(value: str) -> dict[str, Any]:
    """asyncpg cannot bind channels; a verified certificate gives what `require` is for."""
    return _sslmode("verify-full") if value == "require" else {}


_PARAMETERS: dict[str, Callable[[str], dict[str, Any]]] = {
    "sslmode": _sslmode,
    "ssl": _sslmode,
    "channel_binding": _channel_binding,
    "connect_timeout": lambda value: {"timeout": float(value)},
    "statement_cache_size": lambda value: {"statement_cache_size": int(value)},
    "prepared_statement_cache_size": lambda value: {"prepared_statement_cache_size": int(value)},
    "application_name": lambda value: {"server_settings": {"application_name": value}},
    "host": lambda value: {"host": value},
}
