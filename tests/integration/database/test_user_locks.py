"""The advisory lock of a user on PostgreSQL: one for all processes, and no other user can collide with it."""

from collections.abc import Iterable
from typing import Any

from latchkey.domain.credentials import Owner, UserId
from latchkey.infrastructure.database.sql.engine import create_engine
from latchkey.infrastructure.database.sql.postgresql import PostgreSQL, begin_sql, lock_key

ADA = Owner(UserId("ada"))
HELD = """
SELECT (classid::bigint << 32) | objid::bigint FROM pg_locks
WHERE locktype = 'advisory' AND pid = pg_backend_pid()
"""


async def held_keys(url: str) -> list[int]:
    """The keys of the advisory locks that an exclusive unit of work of a new process holds."""
    engine = create_engine(url)
    connection = await PostgreSQL(engine).begin(ADA, "exclusive")
    rows: Iterable[Any] = await connection.fetch(HELD, [])
    await connection.roll_back()
    await engine.dispose()
    return [row[0] for row in rows]


async def test_user_lock_is_the_same_in_all_processes(postgresql_url: str) -> None:
    (first,), (second,) = await held_keys(postgresql_url), await held_keys(postgresql_url)

    assert first == second


def test_user_lock_key_depends_on_a_secret_of_the_database() -> None:
    """So a collision cannot be computed from user ids alone."""
    keys = {lock_key(UserId(user_id), secret) for user_id in ("ada", "bob") for secret in (b"1", b"2")}

    assert len(keys) == 4
    assert all(-(2**63) <= key < 2**63 for key in keys)


def test_user_lock_key_is_not_computed_in_sql() -> None:
    """PostgreSQL's own text hashes have no key, and colliding texts are found in seconds."""
    assert "hashtext" not in begin_sql(ADA, "exclusive", b"secret")
