"""The PostgreSQL and PgBouncer servers of the tests have the properties that the tests rely on."""

import asyncpg

from latchkey.testing.postgresql import PostgreSQL


async def test_owner_of_test_database_has_the_role_attributes_of_neon(empty_postgresql_url: str) -> None:
    """Not a superuser, but with BYPASSRLS, so that row-level security does not apply to it, and with CREATEROLE."""
    connection = await asyncpg.connect(empty_postgresql_url)
    attributes = await connection.fetchrow(
        "SELECT rolsuper, rolbypassrls, rolcreaterole, datdba = pg_roles.oid AS owns_the_database"
        " FROM pg_roles, pg_database WHERE rolname = current_user AND datname = current_database()",
    )
    await connection.close()

    assert attributes is not None
    assert dict(attributes) == {
        "rolsuper": False,
        "rolbypassrls": True,
        "rolcreaterole": True,
        "owns_the_database": True,
    }


async def test_pgbouncer_releases_a_connection_after_each_transaction(
    pgbouncer_server: PostgreSQL,
    empty_postgresql_url: str,
) -> None:
    """Two server connections serve five clients, which is only possible in transaction mode."""
    url = pgbouncer_server.url(empty_postgresql_url.rpartition("/")[2])
    clients = [await asyncpg.connect(url, statement_cache_size=0) for _ in range(5)]
    server_pids = {await client.fetchval("SELECT pg_backend_pid()") for client in clients}
    for client in clients:
        await client.close()

    assert 1 <= len(server_pids) <= 2
