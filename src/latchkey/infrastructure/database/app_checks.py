"""Checks of the app's tables inside the transaction of its migrations, which is rolled back if they isolate nobody."""

from collections.abc import Iterator
from functools import partial
from typing import Any

from sqlalchemy import Connection, inspect
from sqlalchemy.engine import Inspector

from latchkey.infrastructure.database.app_schema import AppSchema
from latchkey.infrastructure.database.schema import TABLE_NAMES
from latchkey.infrastructure.database.sql.postgresql import RUNTIME_ROLE
from latchkey.infrastructure.database.startup_checks import IsolationBroken, app_table_faults
from latchkey.infrastructure.database.table_checks import Fault, entity_faults

_OTHER_USER_TABLES = """
SELECT relname FROM pg_class JOIN pg_attribute ON attrelid = pg_class.oid AND attname = 'user_id' AND NOT attisdropped
WHERE relkind IN ('r', 'p') AND relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = current_schema())
AND has_any_column_privilege($1, pg_class.oid, 'SELECT') AND relname <> ALL($2::text[]) ORDER BY relname
"""


def refuse_unsafe_tables(connection: Connection, schema: AppSchema) -> None:
    """Raises `IsolationBroken`, with the remedies, if a table of the app does not isolate users."""
    texts = list(_key_faults(inspect(connection), schema))
    if connection.dialect.name == "postgresql":
        driver_connection: Any = connection.connection.dbapi_connection
        faults = driver_connection.run_async(partial(_row_security_faults, schema=schema))
        texts += [fault.text for fault in faults]
    if texts:
        heading = "The app's migrations were rolled back, because its tables would not isolate users:"
        raise IsolationBroken("\n".join([heading, *texts]))


async def _row_security_faults(connection: Any, schema: AppSchema) -> list[Fault]:
    """Also of tables of users that the app does not list, which an earlier or the next release may use."""
    faults = await app_table_faults(connection, schema)
    listed = [*TABLE_NAMES, *schema.table_names]
    for row in await connection.fetch(_OTHER_USER_TABLES, RUNTIME_ROLE, listed):
        faults += [fault for fault in await entity_faults(connection, row["relname"]) if not fault.repair]
    return faults


def _key_faults(inspector: Inspector, schema: AppSchema) -> Iterator[str]:
    existing = set(inspector.get_table_names())
    reference_tables = {table.name for table in schema.reference_tables}
    for table in schema.entities:
        if table.name in existing:
            yield from _faults_of_entity(inspector, table.name, reference_tables)


def _faults_of_entity(inspector: Inspector, table: str, reference_tables: set[str]) -> Iterator[str]:
    key = inspector.get_pk_constraint(table)["constrained_columns"]
    if key[:1] != ["user_id"]:
        yield f"The primary key of {table} is ({', '.join(key)}): it must begin with user_id."
    unique = {str(item["name"]): list(item["column_names"]) for item in inspector.get_unique_constraints(table)}
    unique |= {str(item["name"]): _columns(item) for item in inspector.get_indexes(table) if item["unique"]}
    for name, columns in unique.items():
        if columns[:1] != ["user_id"]:
            yield (
                f"The unique key {name} of {table} is ({', '.join(columns)}): it must begin with user_id, because one"
                " user's rows would refuse those of another."
            )
    for foreign_key in inspector.get_foreign_keys(table):
        parents, columns = foreign_key["referred_table"], foreign_key["constrained_columns"]
        if parents in reference_tables or (columns[0], foreign_key["referred_columns"][0]) == ("user_id", "user_id"):
            continue
        yield (
            f"The foreign key ({', '.join(columns)}) of {table} refers to {parents}: it must begin with user_id on both"
            f" sides, or {parents} must be a reference table of the app."
        )


def _columns(index: Any) -> list[str]:
    """Return the columns or expressions of an index."""
    return [str(column) for column in index.get("expressions", index["column_names"])]
