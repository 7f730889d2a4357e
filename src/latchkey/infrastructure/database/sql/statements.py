"""Prepared statements: SQLAlchemy Core statements, checked by the tenant guard and compiled once for the driver.

The driver runs the compiled SQL directly. SQLAlchemy's own execution costs more than the driver's work
(docs/performance.md).
"""

from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import Delete, Dialect, Insert, Select, Update

from latchkey.infrastructure.database.sql.tenant_guard import USER, UnscopedStatement, check_statement

Statement = Select[*tuple[Any, ...]] | Insert | Update | Delete
Values = dict[str, Any]


class PreparedStatement:
    """One statement compiled for one dialect, with the converters of its parameters and result columns."""

    def __init__(self, statement: Statement, dialect: Dialect, names: Collection[str]) -> None:
        """Raises `UnscopedStatement` for a statement that could reach another user's rows."""
        check_statement(statement)
        if "user_id" in names:
            raise UnscopedStatement(f"only the user of the scope may be bound: {statement}")
        compiled = statement.compile(dialect=dialect, column_keys=[name for name in names if name != USER])
        required = {name: None for name, parameter in compiled.binds.items() if parameter.required}
        # Renders literals into the SQL text: a partial index is used only if its condition stands there.
        expanded = compiled.construct_expanded_state(required)
        self.sql = expanded.statement
        self.writes = not isinstance(statement, Select)
        self._constants = {
            name: parameter.value for name, parameter in compiled.binds.items() if not parameter.required
        }
        self._parameters = [
            (name, compiled.binds[name].type.dialect_impl(dialect).bind_processor(dialect))
            for name in expanded.positiontup or ()
        ]
        self._readers = _result_processors(statement, dialect)

    def arguments(self, values: Values) -> list[Any]:
        """Return the driver's arguments in the order of the parameters, the statement's constants included."""
        by_name = self._constants | values
        return [
            value if (value := by_name[name]) is None or process is None else process(value)
            for name, process in self._parameters
        ]

    def read(self, row: Sequence[Any]) -> Sequence[Any]:
        """Convert a row of the driver to Python values."""
        if self._readers is None:
            return row
        return [value if reader is None else reader(value) for value, reader in zip(row, self._readers, strict=True)]


def _result_processors(statement: Statement, dialect: Dialect) -> list[Any] | None:
    """Return a converter per result column, or None if no column needs one."""
    types = [column.type.dialect_impl(dialect) for column in statement.exported_columns]
    processors = [column_type.result_processor(dialect, None) for column_type in types]
    return processors if any(processors) else None


class StatementCache:
    """The statements of one engine. Each is compiled when it is first run."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self._prepared: dict[Statement, PreparedStatement] = {}

    def prepare(self, statement: Statement, values: Values) -> PreparedStatement:
        """Raises `UnscopedStatement`."""
        prepared = self._prepared.get(statement)
        if prepared is None:
            prepared = self._prepared[statement] = PreparedStatement(statement, self._dialect, values)
        return prepared
