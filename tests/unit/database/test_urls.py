"""Database URLs in their usual forms."""

import ssl
import traceback
from typing import Any

import pytest

from latchkey.infrastructure.database.urls import UnusableUrl, parse

POOLED = "postgresql://neondb_owner:npg_secret@ep-cool-1-pooler.eu-central-1.aws.neon.tech/neondb"
DIRECT = POOLED.replace("-pooler", "")
NEON = "?sslmode=require&channel_binding=require"


def arguments(query: str, host: str = "db.example") -> dict[str, Any]:
    return parse(f"postgresql://user:secret@{host}/database?{query}")[1]


def test_neon_url_is_accepted_unchanged() -> None:
    """It gets verified TLS instead of channel binding, and no statement cache."""
    url, found = parse(POOLED + NEON)

    assert url.drivername == "postgresql+asyncpg"
    assert (url.username, url.password, url.database) == ("neondb_owner", "npg_secret", "neondb")
    assert url.host == "ep-cool-1-pooler.eu-central-1.aws.neon.tech"
    assert dict(url.query) == {}
    assert found.pop("statement_cache_size") == 0
    assert is_verified(found.pop("ssl"), name_too=True)
    assert found == {}


def test_direct_host_keeps_the_statement_cache() -> None:
    assert "statement_cache_size" not in parse(DIRECT + NEON)[1]


def test_statement_cache_can_be_disabled_by_parameter() -> None:
    assert arguments("statement_cache_size=0") == {"statement_cache_size": 0}


def test_pooler_host_disables_statement_cache_despite_parameter() -> None:
    assert parse(f"{POOLED}?statement_cache_size=100")[1] == {"statement_cache_size": 0}


def is_verified(context: ssl.SSLContext, *, name_too: bool) -> bool:
    return context.verify_mode == ssl.CERT_REQUIRED and context.check_hostname == name_too


@pytest.mark.parametrize("name", ["sslmode", "ssl"])
@pytest.mark.parametrize("mode", ["disable", "allow", "prefer", "require"])
def test_unverified_sslmode_is_passed_to_asyncpg(name: str, mode: str) -> None:
    assert arguments(f"{name}={mode}") == {"ssl": mode}


@pytest.mark.parametrize(("mode", "name_too"), [("verify-ca", False), ("verify-full", True)])
def test_verified_sslmode_uses_system_certificates(mode: str, name_too: bool) -> None:  # noqa: FBT001 # a parameter
    assert is_verified(arguments(f"sslmode={mode}")["ssl"], name_too=name_too)


@pytest.mark.parametrize("query", [NEON[1:], "channel_binding=require&sslmode=require", "channel_binding=require"])
def test_required_channel_binding_overrides_sslmode_in_any_order(query: str) -> None:
    assert is_verified(arguments(query)["ssl"], name_too=True)


@pytest.mark.parametrize("value", ["disable", "prefer"])
def test_optional_channel_binding_changes_nothing(value: str) -> None:
    assert arguments(f"sslmode=require&channel_binding={value}") == {"ssl": "require"}


def test_other_parameters_are_translated_for_asyncpg() -> None:
    assert arguments("connect_timeout=7&application_name=latchkey&host=/run/postgresql") == {
        "timeout": 7,
        "server_settings": {"application_name": "latchkey"},
        "host": "/run/postgresql",
    }
    assert arguments("prepared_statement_cache_size=0") == {"prepared_statement_cache_size": 0}


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+asyncpg"])
def test_every_scheme_of_postgresql_is_accepted(scheme: str) -> None:
    assert parse(f"{scheme}://host/database")[0].drivername == "postgresql+asyncpg"


@pytest.mark.parametrize("scheme", ["sqlite", "sqlite+aiosqlite"])
def test_every_scheme_of_sqlite_is_accepted(scheme: str) -> None:
    url, found = parse(f"{scheme}:///var/latchkey.db")
    assert (url.drivername, url.database, found) == ("sqlite+aiosqlite", "var/latchkey.db", {})


REFUSED = {
    "": "not a URL",
    "latchkey.db": "not a URL",
    "postgresql://user:secret@host:port/database": "not a URL",
    "mysql://user:secret@host/database": "mysql:// is not supported",
    "postgresql+psycopg://user:secret@host/database": "postgresql\\+psycopg:// is not supported",
    "postgresql://user:secret@host/database?sslrootcert=x": "unknown parameter sslrootcert: use .*sslmode",
    "postgresql://user:secret@host/database?password=secret": "unknown parameter password",
    "postgresql://user:secret@host/database?sslmode=secret": "sslmode must be disable, allow",
    "postgresql://user:secret@host/database?sslmode=require&sslmode=secret": "sslmode must be",
    "postgresql://user:secret@host/database?channel_binding=secret": "channel_binding must be",
    "postgresql://user:secret@host/database?connect_timeout=secret": "connect_timeout must be an integer",
    "postgresql://user:secret@host/database?statement_cache_size=-1": "statement_cache_size must be an integer",
    "sqlite://": "in-memory SQLite database cannot be shared",
    "sqlite:///:memory:": "in-memory SQLite database cannot be shared",
    "sqlite:///var/latchkey.db?timeout=30": "a SQLite URL takes no parameters",
}


@pytest.mark.parametrize(("text", "complaint"), REFUSED.items(), ids=REFUSED)
def test_unusable_url_is_refused_without_revealing_a_password(text: str, complaint: str) -> None:
    """Not even in the traceback."""
    with pytest.raises(UnusableUrl, match=complaint) as refused:
        parse(text)

    shown = [line for line in traceback.format_exception(refused.value) if not line.startswith("  File")]
    assert not any(secret in "".join(shown) for secret in ("secret", "'port'"))
