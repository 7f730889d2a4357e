"""Alembic operations for the revisions of an app.

They care for row-level security and privileges. SQLite has neither.
"""

from alembic.autogenerate import renderers
from alembic.autogenerate.api import AutogenContext
from alembic.operations import MigrateOperation, Operations

from latchkey.infrastructure.database.table_checks import grant_reference_table_sql, quoted, secure_entity_table_sql


@Operations.register_operation("secure_entity_table")
class SecureEntityTable(MigrateOperation):
    """Let a transaction see and write only the rows of its user. It may be repeated."""

    def __init__(self, table_name: str) -> None:
        self.table_name = table_name

    @classmethod
    def secure_entity_table(cls, operations: Operations, table_name: str) -> None:
        operations.invoke(cls(table_name))


@Operations.register_operation("grant_reference_table")
class GrantReferenceTable(MigrateOperation):
    """Let every user read the table, and no user write it. It may be repeated."""

    def __init__(self, table_name: str) -> None:
        self.table_name = table_name

    @classmethod
    def grant_reference_table(cls, operations: Operations, table_name: str) -> None:
        operations.invoke(cls(table_name))


@Operations.register_operation("execute_for_all_users")
class ExecuteForAllUsers(MigrateOperation):
    """Execute a statement that reads or changes the rows of all users in these entity tables.

    Without this operation the statement fails on PostgreSQL, unless the login has BYPASSRLS.
    """

    def __init__(self, statement: str, table_names: tuple[str, ...]) -> None:
        self.statement = statement
        self.table_names = table_names

    @classmethod
    def execute_for_all_users(cls, operations: Operations, statement: str, *table_names: str) -> None:
        operations.invoke(cls(statement, table_names))


@Operations.implementation_for(SecureEntityTable)
def _secure(operations: Operations, operation: SecureEntityTable) -> None:
    _execute(operations, secure_entity_table_sql(operation.table_name))


@Operations.implementation_for(GrantReferenceTable)
def _grant(operations: Operations, operation: GrantReferenceTable) -> None:
    _execute(operations, grant_reference_table_sql(operation.table_name))


@Operations.implementation_for(ExecuteForAllUsers)
def _execute_for_all_users(operations: Operations, operation: ExecuteForAllUsers) -> None:
    """Row-level security is forced again before the commit; no other transaction sees it off."""
    tables = [quoted(name) for name in operation.table_names]
    _execute(operations, [f"ALTER TABLE {table} NO FORCE ROW LEVEL SECURITY" for table in tables])
    operations.execute(operation.statement)
    _execute(operations, [f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY" for table in tables])


def _execute(operations: Operations, statements: list[str]) -> None:
    if operations.get_context().dialect.name == "postgresql":
        for statement in statements:
            operations.execute(statement)


@renderers.dispatch_for(SecureEntityTable)
def _render_secure(_: AutogenContext, operation: SecureEntityTable) -> str:
    return f'op.secure_entity_table("{operation.table_name}")'


@renderers.dispatch_for(GrantReferenceTable)
def _render_grant(_: AutogenContext, operation: GrantReferenceTable) -> str:
    return f'op.grant_reference_table("{operation.table_name}")'
