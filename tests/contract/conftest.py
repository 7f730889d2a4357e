"""The shared service, for what is tried on every wire."""

from tests.integration.http.conftest import (
    ada,
    bob,
    service,
    shared_database_url,
    shared_postgresql_url,
    shared_sqlite_url,
)

__all__ = ["ada", "bob", "service", "shared_database_url", "shared_postgresql_url", "shared_sqlite_url"]
