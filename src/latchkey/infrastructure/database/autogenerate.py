"""What Alembic's autogeneration compares for an app, and how the next revision is written."""

from collections.abc import Callable, Iterator
from typing import Any, Literal

from advanced_alchemy.types import DateTimeUTC
from alembic.autogenerate.api import AutogenContext
from alembic.operations import MigrateOperation, MigrationScript
from alembic.operations.ops import (
    AddColumnOp,
    CreateIndexOp,
    CreateTableOp,
    DropIndexOp,
    OpContainer,
    UpgradeOps,
)
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Column, Index, MetaData, text
from sqlalchemy.dialects import postgresql
from sqlalchemy.types import TypeEngine

from latchkey.infrastructure.database.app_operations import GrantReferenceTable, SecureEntityTable
from latchkey.infrastructure.database.app_schema import AppSchema


def options(schema: AppSchema) -> dict[str, Any]:
    """Return the options of Alembic's `context.configure` for the tables of the app alone."""
    tables = (*schema.entities, *schema.reference_tables)
    names = set(schema.table_names)

    def include_name(name: str | None, kind: str, _parents: object) -> bool:
        return kind != "table" or name in names

    def include_object(item: Any, name: str | None, kind: str, is_reflected: bool, compared: object) -> bool:  # noqa: FBT001 - Alembic's signature
        if kind == "table":
            return name in names
        return not (is_reflected and compared is None and _is_for_search(item))

    return {
        "target_metadata": list(dict.fromkeys(table.metadata for table in tables)) or MetaData(),
        "include_name": include_name,
        "include_object": include_object,
        "compare_type": _is_another_type,
        "render_item": _render_type,
        "render_as_batch": True,
    }


def _is_for_search(item: object) -> bool:
    """Return whether a column or an index is for full-text search, which a revision makes with SQL of its own."""
    if isinstance(item, Column):
        return isinstance(item.type, postgresql.TSVECTOR)
    return isinstance(item, Index) and item.dialect_kwargs.get("postgresql_using", "btree") != "btree"


def _is_another_type(
    context: MigrationContext, _reflected: object, column: Column[Any], _type: object, type_: TypeEngine[Any]
) -> bool | None:
    """Return False if SQLite has the type by name: SQLAlchemy reads some back as another. None leaves it to Alembic."""
    if context.dialect.name != "sqlite" or context.connection is None:
        return None
    query = text("SELECT type FROM pragma_table_info(:table) WHERE name = :name")
    names = {"table": column.table.name, "name": column.name}
    declared = context.connection.execute(query, names).scalar_one_or_none()
    return False if declared == type_.compile(context.dialect) else None


def _render_type(kind: str, item: Any, context: AutogenContext) -> str | Literal[False]:
    """Render a type that is not SQLAlchemy's own, and import it. False leaves the type to Alembic."""
    if kind != "type" or not isinstance(item, TypeEngine):
        return False
    variants = getattr(item, "_variant_mapping", {})
    if list(variants) == ["sqlite"] and isinstance(variants["sqlite"], DateTimeUTC):
        item = variants["sqlite"]  # the same column on both databases
    name, module = type(item).__name__, type(item).__module__
    if isinstance(item, postgresql.JSON):
        # Alembic would render an argument whose import is missing.
        context.imports.add("from sqlalchemy.dialects import postgresql")
        return f"postgresql.{name}()"
    if module.startswith("sqlalchemy."):
        return False
    if getattr(item, "_variant_mapping", None):
        # Alembic renders the module's name, and then the variants.
        context.imports.add(f"import {module}")
        return False
    package = "advanced_alchemy.types" if module.startswith("advanced_alchemy.types.") else module
    context.imports.add(f"from {package} import {name}")
    return repr(item)


def completed(
    schema: AppSchema, number: str, oldest_before: str | None, store: Callable[[str], None]
) -> Callable[[MigrationContext, object, list[MigrationScript]], None]:
    """Return a hook of Alembic that secures new tables, and drops a revision without operations.

    It stores the revision's `compatible_with`: that of the revision before if the operations only add, else its own
    number.
    """

    def process(_context: MigrationContext, _revision: object, scripts: list[MigrationScript]) -> None:
        upgrade = scripts[0].upgrade_ops
        if upgrade is None or upgrade.is_empty():
            scripts.clear()
            return
        upgrade.ops = list(_secured(schema, upgrade))
        only_adds = all(_is_expansion(operation) for operation in upgrade.ops)
        store(oldest_before if only_adds and oldest_before else number)

    return process


def _secured(schema: AppSchema, upgrade: UpgradeOps) -> Iterator[MigrateOperation]:
    entities = {table.name for table in schema.entities}
    for operation in upgrade.ops:
        yield operation
        if isinstance(operation, CreateTableOp):
            operation.info.clear()
            secure = SecureEntityTable if operation.table_name in entities else GrantReferenceTable
            yield secure(operation.table_name)


def _is_expansion(operation: MigrateOperation) -> bool:
    """Return whether the release before can go on beside it."""
    if isinstance(operation, OpContainer):
        return all(_is_expansion(part) for part in operation.ops)
    if isinstance(operation, AddColumnOp):
        return bool(operation.column.nullable) or operation.column.server_default is not None
    if isinstance(operation, CreateIndexOp):
        return not operation.unique
    return isinstance(operation, CreateTableOp | DropIndexOp | SecureEntityTable | GrantReferenceTable)
