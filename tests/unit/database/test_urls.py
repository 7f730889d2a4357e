"""Database URLs are taken as people have them."""

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


def test_a_neon_url_works_as_it_is_copied() -> None:
    """Verified TLS in place of channel binding, and nothing prepared for longer than a transaction."""
    url, found = parse(POOLED + NEON)

    assert url.drivername == "postgresql+asyncpg"
    assert (url.username, url.password, url.database) == ("neondb_owner", "npg_secret", "neondb")
    assert url.host == "ep-cool-1-pooler.eu-central-1.aws.neon.tech"
    assert dict(url.query) == {}
    assert found.pop("statement_cache_size") == 0
    assert is_verified(found.pop("ssl"), name_too=True)
    assert found == {}


def test_a_host_that_is_no_pooler_may_prepare_statements() -> None:
    assert "statement_cache_size" not in parse(DIRECT + NEON)[1]


def test_any_pooler_can_be_named_as_such() -> None:
    assert arguments("statement_cache_size=0") == {"statement_cache_size": 0}


def test_a_pooler_stays_one_whatever_the_url_says() -> None:
    assert parse(f"{POOLED}?statement_cache_size=100")[1] == {"statement_cache_size": 0}


def is_verified(context: ssl.SSLContext, *, name_too: bool) -> bool:
    return context.verify_mode == ssl.CERT_REQUIRED and context.check_hostname == name_too


@pytest.mark.parametrize("name", ["sslmode", "ssl"])
@pytest.mark.parametrize("mode", ["disable", "allow", "prefer", "require"])
def test_unverified_tls_is_asyncpgs_own_affair(name: str, mode: str) -> None:
    assert arguments(f"{name}={mode}") == {"ssl": mode}


@pytest.mark.parametrize(("mode", "name_too"), [("verify-ca", False), ("verify-full", True)])
def test_verified_tls_trusts_the_systems_authorities(mode: str, name_too: bool) -> None:  # noqa: FBT001 # a parameter
    assert is_verified(arguments(f"sslmode={mode}")["ssl"], name_too=name_too)


@pytest.mark.parametrize("query", [NEON[1:], "channel_binding=require&sslmode=require", "channel_binding=require"])
def test_required_channel_binding_wins_in_every_order(query: str) -> None:
    assert is_verified(arguments(query)["ssl"], name_too=True)


@pytest.mark.parametrize("value", ["disable", "prefer"])
def test_channel_binding_that_is_not_required_changes_nothing(value: str) -> None:
    assert arguments(f"sslmode=require&channel_binding={value}") == {"ssl": "require"}


def test_the_other_parameters_in_asyncpgs_words() -> None:
    assert arguments("connect_timeout=7&application_name=latchkey&host=/run/postgresql") == {
        "timeout": 7,
        "server_settings": {"application_name": "latchkey"},
        "host": "/run/postgresql",
    }
    assert arguments("prepared_statement_cache_size=0") == {"prepared_statement_cache_size": 0}


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+asyncpg"])
def test_every_name_of_postgresql_is_known(scheme: str) -> None:
    assert parse(f"{scheme}://host/database")[0].drivername == "postgresql+asyncpg"


@pytest.mark.parametrize("scheme", ["sqlite", "sqlite+aiosqlite"])
def test_every_name_of_sqlite_is_known(scheme: str) -> None:
    url, found = parse(f"{scheme}:///var/latchkey.db")
    assert (url.drivername, url.database, found) == ("sqlite+aiosqlite", "var/latchkey.db", {})


REFUSED = {
    "": "it is not a URL",
    "latchkey.db": "it is not a URL",
    "postgresql://user:secret@host:port/database": "it is not a URL",
    "mysql://user:secret@host/database": "mysql:// is not supported",
    "postgresql+psycopg://user:secret@host/database": "postgresql\\+psycopg:// is not supported",
    "postgresql://user:secret@host/database?sslrootcert=x": "sslrootcert is not known: use .*sslmode",
    "postgresql://user:secret@host/database?password=secret": "password is not known",
    "postgresql://user:secret@host/database?sslmode=secret": "sslmode must be disable, allow",
    "postgresql://user:secret@host/database?sslmode=require&sslmode=secret": "sslmode must be",
    "postgresql://user:secret@host/database?channel_binding=secret": "channel_binding must be",
    "postgresql://user:secret@host/database?connect_timeout=secret": "connect_timeout must be a whole number",
    "postgresql://user:secret@host/database?statement_cache_size=-1": "statement_cache_size must be a whole number",
    "sqlite://": "must be a file",
    "sqlite:///:memory:": "must be a file",
}


@pytest.mark.parametrize(("text", "complaint"), REFUSED.items(), ids=REFUSED)
def test_what_cannot_be_used_is_refused_without_showing_a_secret(text: str, complaint: str) -> None:
    """Not even in what a traceback shows."""
    with pytest.raises(UnusableUrl, match=complaint) as refused:
        parse(text)

    shown = [line for line in traceback.format_exception(refused.value) if not line.startswith("  File")]
    assert not any(secret in "".join(shown) for secret in ("secret", "'port'"))
