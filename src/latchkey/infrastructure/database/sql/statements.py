"""Core statements as a driver takes them: checked by the guard, compiled once, and sent past SQLAlchemy.

What SQLAlchemy does at each execution costs more than the driver's own work: without it, adding a task takes
a quarter less CPU, and SQLite is asked in one hop to its thread instead of three.
"""

from collections.abc import Callable, Collection, Sequence
from typing import Any

from sqlalchemy import Delete, Dialect, Insert, Select, Update

from latchkey.infrastructure.database.sql.tenant_guard import USER, UnscopedStatement, check_statement

Statement = Select[*tuple[Any, ...]] | Insert | Update | Delete
Values = dict[str, Any]
Processor = Callable[[Any], Any]


class Prepared:
    """One statement in one dialect, with what its values go through on their way there and back."""

    def __init__(self, statement: Statement, dialect: Dialect, names: Collection[str]) -> None:
        """Raises `UnscopedStatement` for a statement that could touch another user's rows."""
        check_statement(statement)
        if "user_id" in names:
            raise UnscopedStatement(f"the user of the scope alone must be bound: {statement}")
        compiled = statement.compile(dialect=dialect, column_keys=[name for name in names if name != USER])
        given = {name: None for name, bound in compiled.binds.items() if bound.required}
        # What must stand in the text, for an index that holds only some rows to be used, is put there now.
        expanded = compiled.construct_expanded_state(given)
        self.sql = expanded.statement
        self.writes = not isinstance(statement, Select)
        self.table = None if isinstance(statement, Select) else statement.table
        self._constants = {name: bound.value for name, bound in compiled.binds.items() if not bound.required}
        self._parameters = [
            (name, compiled.binds[name].type.dialect_impl(dialect).bind_processor(dialect))
            for name in expanded.positiontup or ()
        ]
        types = [column.type.dialect_impl(dialect) for column in statement.exported_columns]
        readers = [kind.result_processor(dialect, None) for kind in types]
        self._readers = readers if any(readers) else None

    def arguments(self, values: Values) -> list[Any]:
        """The values in the order of the parameters, and between them those that are part of the statement."""
        given = self._constants | values
        return [
            value if (value := given[name]) is None or process is None else process(value)
            for name, process in self._parameters
        ]

    def read(self, row: Sequence[Any]) -> Sequence[Any]:
        """A row as Python has it."""
        if self._readers is None:
            return row
        return [value if reader is None else reader(value) for value, reader in zip(row, self._readers, strict=True)]


class Statements:
    """The statements of one engine, each prepared when it is first run."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self._prepared: dict[Statement, Prepared] = {}

    def prepared(self, statement: Statement, values: Values) -> Prepared:
        """Raises `UnscopedStatement`."""
        found = self._prepared.get(statement)
        if found is None:
            found = self._prepared[statement] = Prepared(statement, self._dialect, values)
        return found
