"""An open transaction: Core statements prepared once, deferred writes, and the user bound to each statement."""

from collections.abc import Awaitable, Callable, Collection, Iterable
from copy import copy
from typing import Any, NoReturn, Protocol

from msgspec import Struct, json
from sqlalchemy import (
    Column,
    ColumnElement,
    Delete,
    Dialect,
    FromClause,
    Insert,
    Integer,
    LargeBinary,
    Select,
    Subquery,
    Table,
    Update,
    bindparam,
    cast,
    func,
    insert,
    select,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import GenericFunction

from latchkey.domain.credentials import Scope
from latchkey.domain.quota import ROW_BYTES
from latchkey.domain.turn import NOT_UNDOABLE, UNDOABLE
from latchkey.domain.undo import Change
from latchkey.infrastructure.database.sql.driver import DriverConnection, Row, Write
from latchkey.infrastructure.database.sql.recorded_tables import recording_of
from latchkey.infrastructure.database.sql.tenant_guard import USER, UnscopedStatement, check_statement

Statement = Select[*tuple[Any, ...]] | Insert | Update | Delete
Values = dict[str, Any]

_MAX_CHANGES = 100
"""More changes by one tool call are not recorded."""

_LARGE_TYPES = (bytes, dict, list)
"""The types, besides text, of values whose size counts. A tuple: making a union for each value takes longer."""


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
        self.recording = None if isinstance(statement, Select) else recording_of(statement)
        self.references = _referenced_tables(statement.table) if isinstance(statement, Update) else frozenset()
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
        by_name = self.by_name(values)
        return [
            value if (value := by_name[name]) is None or process is None else process(value)
            for name, process in self._parameters
        ]

    def by_name(self, values: Values) -> Values:
        """Return the values with the statement's constants."""
        return self._constants | values

    def read(self, rows: Iterable[Row]) -> list[Row]:
        """Convert rows of the driver to Python values."""
        if not self._readers:
            return list(rows)
        converted: list[Row] = []
        for row in rows:
            values = list(row)
            for index, reader in self._readers:
                values[index] = reader(values[index])
            converted.append(values)
        return converted


def _referenced_tables(table: FromClause) -> frozenset[FromClause]:
    """Return the tables to which the table has foreign keys."""
    return frozenset(key.column.table for key in table.foreign_keys)


def _result_processors(statement: Statement, dialect: Dialect) -> list[tuple[int, Callable[[Any], Any]]]:
    """Return the index of each result column that needs a converter, and the converter."""
    types = [column.type.dialect_impl(dialect) for column in returned_columns(statement)]
    processors = [column_type.result_processor(dialect, None) for column_type in types]
    return [(index, processor) for index, processor in enumerate(processors) if processor is not None]


def returned_columns(statement: Statement) -> list[ColumnElement[Any]]:
    """Return the columns of the rows that a statement returns.

    They are read from a copy: SQLAlchemy caches them, also in statements that are made from this one later.
    """
    return list(copy(statement).exported_columns)


class StatementCache:
    """The statements of one engine. Each is compiled when it is first run."""

    def __init__(self, dialect: Dialect) -> None:
        self.dialect = dialect
        self._prepared: dict[Statement, PreparedStatement] = {}

    def prepare(self, statement: Statement, values: Values) -> PreparedStatement:
        """Raises `UnscopedStatement`."""
        prepared = self._prepared.get(statement)
        if prepared is None:
            prepared = self._prepared[statement] = PreparedStatement(statement, self.dialect, values)
        return prepared


class OrmChanges(Protocol):
    """The ORM session of a unit of work, if it has one."""

    @property
    def has_changes(self) -> bool: ...

    async def flush(self) -> None:
        """Send the changes, after the waiting writes of the session."""
        ...


class UnitOfWorkEnded(Exception):
    """A bug of the caller: a statement after the unit of work has ended, for example of a task that it left running.

    It was not sent: the connection may be in the transaction of another user.
    """

    def __init__(self) -> None:
        super().__init__("This unit of work has ended: run all of its statements before the tool returns.")


class _EndedConnection:
    def __getattr__(self, name: str) -> NoReturn:
        raise UnitOfWorkEnded


_ENDED: Any = _EndedConnection()


class ReadOnly(Exception):
    """A bug of ours: a write in a unit of work that was opened to read. It was not sent."""


class Session:
    """Runs statements for one scope. Repositories cannot bind another user: the session fills in the scope's.

    Writes of one unit of work wait and are sent together. PostgreSQL runs them as one `WITH` statement, whose parts
    do not see each other's rows. So a write that depends on a waiting one sends the waiting ones first:
    an UPDATE if a write of its table waits, or an INSERT into a table to which it has a foreign key; an INSERT if an
    UPDATE of its table waits. A DELETE cascades to other tables, so it never waits and always sends the waiting writes
    first.
    """

    def __init__(
        self,
        driver: DriverConnection,
        statements: StatementCache,
        scope: Scope,
        *,
        read_only: bool,
        record: "RecordedWrite | None" = None,
    ) -> None:
        """`record` runs a write of a turn's tool call and records the rows as they were before."""
        self._driver = driver
        self._statements = statements
        self._read_only = read_only
        self._record = record
        self._waiting: list[Write] = []
        self._inserted: set[FromClause] = set()
        self._updated: set[FromClause] = set()
        self.scope = scope
        self.written = 0
        self.orm: OrmChanges | None = None
        self.changes: list[Change] = []
        self.effects = 0
        """What the tool call does, as bits of `Turn.effects`."""
        self.is_flushing_orm = False

    async def fetch(self, statement: Statement, /, **values: Any) -> list[Row]:
        """Send the waiting writes, run the statement and return its rows."""
        prepared = self._prepare(statement, values)
        if self.orm or self._waiting:
            await self.flush()
        if self._record and prepared.recording and (result := await self._run_recorded(prepared, statement, values)):
            return result[0]
        return prepared.read(await self._driver.fetch(prepared.sql, prepared.arguments(values)))

    async def fetch_row(self, statement: Statement, /, **values: Any) -> Row | None:
        """Return the first row, or None."""
        rows = await self.fetch(statement, **values)
        return rows[0] if rows else None

    async def execute(self, statement: Statement, /, **values: Any) -> int:
        """Send the statement now, an UPDATE together with the waiting writes. Returns the number of changed rows."""
        prepared = self._prepare(statement, values)
        if self._record and prepared.recording and (result := await self._run_recorded(prepared, statement, values)):
            return result[1]
        if self.orm or not isinstance(statement, Update) or self._depends_on_waiting(statement, prepared):
            await self.flush()
        self._waiting.insert(0, (prepared.sql, prepared.arguments(values)))
        return await self.send_waiting()

    async def defer(self, statement: Insert | Update, /, **values: Any) -> None:
        """Send the statement later, in one round trip with other writes: at the next read or at the commit."""
        prepared = self._prepare(statement, values)
        if self._record and prepared.recording and await self._run_recorded(prepared, statement, values):
            return
        if self.orm or self._depends_on_waiting(statement, prepared):
            await self.flush()
        self._waiting.append((prepared.sql, prepared.arguments(values)))
        (self._inserted if isinstance(statement, Insert) else self._updated).add(statement.table)

    async def run(self, statement: Statement, values: Values) -> list[Row]:
        """Run a statement that was made of one whose values are counted, and return its rows."""
        prepared = self._statements.prepare(statement, values)
        return prepared.read(await self._driver.fetch(prepared.sql, prepared.arguments(values)))

    def add_change(self, change: Change) -> None:
        """Record a change by a tool call, up to `_MAX_CHANGES`."""
        if len(self.changes) >= _MAX_CHANGES:
            change = Change.not_recorded(change.table)
        self.effects |= NOT_UNDOABLE if change.reason else UNDOABLE
        if len(self.changes) <= _MAX_CHANGES:
            self.changes.append(change)

    async def recorded_changes(self) -> str:
        """Return the recorded changes as JSON, those of the ORM included, for the record of the tool call."""
        if self.orm:
            await self.flush()
        return json.encode(self.changes).decode()

    @property
    def is_recorded(self) -> bool:
        """Whether changes are recorded, because a tool of a turn makes them."""
        return self._record is not None

    async def flush(self) -> None:
        """Send the changes of the ORM and the waiting writes, in the order in which they were made."""
        if self.orm and self.orm.has_changes:
            await self.orm.flush()
        await self.send_waiting()

    async def send_waiting(self) -> int:
        """Send the waiting writes. Returns the number of rows that the first of them changed."""
        if not self._waiting:
            return 0
        return await self._driver.execute_many(self._take_waiting())

    async def commit(self) -> bool:
        """Send the waiting writes and commit. Returns False if the database rolled back instead."""
        if self.orm:
            await self.flush()
        driver = self._driver
        self.end()
        return await driver.commit(self._take_waiting())

    def end(self) -> None:
        """Let each further statement raise `UnitOfWorkEnded`."""
        self._driver = _ENDED

    async def _run_recorded(
        self, prepared: PreparedStatement, statement: Statement, values: Values
    ) -> tuple[list[Row], int] | None:
        """Record what a write of a tool call changes. Returns its result if it has been run for that."""
        if isinstance(statement, Select) or self._record is None:
            return None
        name = str(statement.table.description)
        if prepared.recording == "never":
            self.add_change(Change.not_recorded(name))
            return None
        by_name = prepared.by_name(values) if prepared.recording == "insert" else {}
        if "id" in by_name and "version" in by_name:
            self.add_change(Change("created", name, by_name["id"], by_name["version"]))
            return None
        await self.flush()
        return await self._record(self, statement, values)

    def _depends_on_waiting(self, statement: Insert | Update, prepared: PreparedStatement) -> bool:
        if statement.table in self._updated:
            return True
        if isinstance(statement, Insert):
            return False
        return statement.table in self._inserted or not prepared.references.isdisjoint(self._inserted)

    def _take_waiting(self) -> list[Write]:
        waiting, self._waiting = self._waiting, []
        self._inserted.clear()
        self._updated.clear()
        return waiting

    def _prepare(self, statement: Statement, values: Values) -> PreparedStatement:
        values[USER] = self.scope.user_id
        prepared = self._statements.prepare(statement, values)
        if prepared.writes:
            self.check_writable(statement)
            self.written += ROW_BYTES
            self.add_written(values.values())
        return prepared

    @property
    def dialect(self) -> Dialect:
        return self._statements.dialect

    def dbapi_connection(self) -> Any:
        """Return the connection for SQLAlchemy's ORM, inside this transaction."""
        return self._driver.dbapi_connection()

    def check_open(self) -> None:
        """Raises `UnitOfWorkEnded`."""
        if self._driver is _ENDED:
            raise UnitOfWorkEnded

    def check_writable(self, statement: Statement) -> None:
        """Raises `ReadOnly`. PostgreSQL would refuse the statement by itself; SQLite would write."""
        if self._read_only:
            raise ReadOnly(f"a read-only unit of work cannot run {type(statement).__name__}")

    def add_written(self, values: Iterable[Any]) -> None:
        """Count the bytes of values that are stored."""
        written = 0
        for value in values:
            if isinstance(value, str):
                written += len(value) if value.isascii() else len(value.encode())
            elif isinstance(value, _LARGE_TYPES):
                written += len(value) if isinstance(value, bytes) else len(json.encode(value))
        self.written += written


RecordedWrite = Callable[[Session, Insert | Update | Delete, Values], Awaitable[tuple[list[Row], int]]]
"""Runs a write, records the rows that it changes, and returns its own rows and how many it has changed."""


def owned_by_user(table: Table) -> ColumnElement[bool]:
    """Return the condition that every statement on a table must carry."""
    pinned: ColumnElement[bool] = table.c.user_id == bindparam(USER)
    return pinned


def insert_for_user(table: Table) -> Insert:
    """Return an INSERT of a row of the scope's user. The other columns are passed when it is run."""
    return insert(table).values(user_id=bindparam(USER))


def columns_of(table: Table, entity: type[Struct]) -> list[Column[Any]]:
    """Return the columns in the order of the entity's fields, so that `entity(*row)` is the entity."""
    return [table.c[field] for field in entity.__struct_fields__]


def columns_except(table: Table, *names: str) -> list[Column[Any]]:
    """Return the table's columns in their order, without `user_id` and the named ones."""
    return [column for column in table.c if column.name not in {"user_id", *names}]


def offsets(candidates: Subquery, key: str, *, newest_first: bool = False) -> Subquery:
    """Return `of_key`, the bytes `before` each row in this order, and the `count` of rows.

    The candidates have the columns `key` and `size`. A page that ends with the row that reaches a number of bytes has
    the rows that begin before it.
    """
    by_key = candidates.c[key].desc() if newest_first else candidates.c[key]
    before = func.sum(candidates.c.size).over(order_by=by_key) - candidates.c.size
    count = func.count().over()
    return select(candidates.c[key].label("of_key"), before.label("before"), count.label("count")).subquery()


class octet_length(GenericFunction[int]):  # noqa: N801 - the name of the SQL function
    """The size of a text in bytes. PostgreSQL knows it without reading the text; SQLite lacks it before 3.43."""

    type = Integer()
    inherit_cache = True


@compiles(octet_length, "sqlite")
def _compile_for_sqlite(element: octet_length, compiler: Any, **options: Any) -> str:
    (text,) = element.clauses
    return str(compiler.process(func.length(cast(text, LargeBinary())), **options))
