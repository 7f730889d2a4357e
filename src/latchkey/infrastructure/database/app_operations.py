"""Alembic operations for the revisions of an app: `op.secure_entity_table` and `op.grant_reference_table`.

On SQLite they do nothing: it has neither row-level security nor roles.
"""

from alembic.autogenerate import renderers
from alembic.autogenerate.api import AutogenContext
from alembic.operations import MigrateOperation, Operations

from latchkey.infrastructure.database.table_checks import grant_reference_table_sql, secure_entity_table_sql


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


@Operations.implementation_for(SecureEntityTable)
def _secure(operations: Operations, operation: SecureEntityTable) -> None:
    _execute(operations, secure_entity_table_sql(operation.table_name))


@Operations.implementation_for(GrantReferenceTable)
def _grant(operations: Operations, operation: GrantReferenceTable) -> None:
    _execute(operations, grant_reference_table_sql(operation.table_name))


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
