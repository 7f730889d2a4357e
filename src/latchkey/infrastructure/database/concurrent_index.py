"""Indexes on large tables: a revision makes and drops them while the service writes to the table.

PostgreSQL does so outside a transaction only. The statements of the same run before it are committed, with their
revisions.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from alembic import op
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError, PendingRollbackError

from latchkey.domain.errors import Unavailable
from latchkey.infrastructure.database.repair import LOCK_TIMEOUT_MS, MIGRATION_LOCK

_KEY = {"key": MIGRATION_LOCK}
_POOLER_PROBES = 10
_IS_VALID = text("SELECT indisvalid AND indisready FROM pg_index WHERE indexrelid = to_regclass(quote_ident(:name))")


def create_index_concurrently(name: str, table: str, columns: list[str], **options: Any) -> None:
    """Create an index, with the options of `op.create_index`. On SQLite this is the same as `op.create_index`.

    An interrupted attempt leaves an invalid index, which the next one replaces. Raises `Unavailable` behind a
    connection pooler in transaction mode.
    """
    if op.get_bind().dialect.name != "postgresql":
        op.create_index(name, table, columns, **options)
        return
    with _outside_transaction():
        is_valid = op.get_bind().execute(_IS_VALID, {"name": name}).scalar()
        if is_valid:
            return
        if is_valid is False:
            op.drop_index(name, table, postgresql_concurrently=True)
        op.create_index(name, table, columns, postgresql_concurrently=True, **options)


def drop_index_concurrently(name: str, table: str) -> None:
    """Drop an index. On SQLite this is the same as `op.drop_index`. Raises like `create_index_concurrently`."""
    if op.get_bind().dialect.name != "postgresql":
        op.drop_index(name, table)
        return
    with _outside_transaction():
        op.drop_index(name, table, postgresql_concurrently=True, if_exists=True)


@contextmanager
def _outside_transaction() -> Iterator[None]:
    """Commit the transaction and begin another one afterwards. No other process can migrate in between.

    The session takes the advisory lock that the transaction holds, and the next transaction takes it from the session.
    """
    connection = op.get_bind()
    _refuse_pooler(connection)
    connection.execute(text("SELECT pg_advisory_lock(:key)"), _KEY)
    lost: DBAPIError | None = None
    try:
        with op.get_context().autocommit_block():
            try:
                yield
            except DBAPIError as error:
                lost = error
                raise
    except PendingRollbackError as error:
        # Alembic begins a transaction after a failure too, also on a lost connection.
        raise lost or error from error
    connection = op.get_bind()
    connection.execute(text("SELECT pg_advisory_xact_lock(:key), pg_advisory_unlock(:key)"), _KEY)
    connection.execute(text(f"SET LOCAL lock_timeout = {LOCK_TIMEOUT_MS}"))


def _refuse_pooler(connection: Connection) -> None:
    """Raises `Unavailable` if two connections use the same server process, each in turn, and so share its locks."""
    query = "SELECT pg_backend_pid()"
    with connection.engine.connect() as one, connection.engine.connect() as other:
        process = one.exec_driver_sql(query).scalar()
        one.rollback()
        for _ in range(_POOLER_PROBES):
            if other.exec_driver_sql(query).scalar() == process:
                raise Unavailable(
                    "A revision makes or drops an index concurrently, which needs a lock of the session, and this"
                    " connection goes through a pooler in transaction mode: run `latchkey migrate` with a"
                    " LATCHKEY_DATABASE_URL that connects to PostgreSQL directly."
                )
            other.rollback()
