"""The test servers are what the tests take them for."""

import asyncpg

from tests.postgresql import PostgreSQL


async def test_the_owner_of_a_test_database_is_such_as_neon_makes_them(empty_postgresql_url: str) -> None:
    """No superuser, but one whom row-level security does not bind by itself, and who may make roles."""
    connection = await asyncpg.connect(empty_postgresql_url)
    powers = await connection.fetchrow(
        "SELECT rolsuper, rolbypassrls, rolcreaterole, datdba = pg_roles.oid AS owns_the_database"
        " FROM pg_roles, pg_database WHERE rolname = current_user AND datname = current_database()",
    )
    await connection.close()

    assert powers is not None
    assert dict(powers) == {
        "rolsuper": False,
        "rolbypassrls": True,
        "rolcreaterole": True,
        "owns_the_database": True,
    }


async def test_pgbouncer_gives_a_connection_back_at_the_end_of_each_transaction(
    pgbouncer_server: PostgreSQL,
    empty_postgresql_url: str,
) -> None:
    """Five clients are served by the two connections it has, which only transaction mode can do."""
    url = pgbouncer_server.url(empty_postgresql_url.rpartition("/")[2])
    clients = [await asyncpg.connect(url, statement_cache_size=0) for _ in range(5)]
    served_by = {await client.fetchval("SELECT pg_backend_pid()") for client in clients}
    for client in clients:
        await client.close()

    assert 1 <= len(served_by) <= 2
