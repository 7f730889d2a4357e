"""The tenant guard of the ORM: every statement that a unit of work's ORM session sends is pinned to the user.

The ORM builds statements that no author has seen: eager and lazy loads, merges, flushes, and those of a library. So
this guard checks no conditions. It writes them:

- Where a statement reads a table of users, the compiler writes `(SELECT * FROM table WHERE user_id = …) AS table`,
  whichever part of the statement the table stands in.
- An UPDATE and a DELETE get the condition on `user_id`; an INSERT gets the user as a value.
- What it cannot pin, it refuses: SQL as text, and a write inside another statement.
"""

from collections.abc import Iterator, Mapping
from copy import copy
from typing import Any
from weakref import WeakKeyDictionary

from sqlalchemy import (
    BindParameter,
    Delete,
    Dialect,
    Engine,
    ExceptionContext,
    Insert,
    SelectBase,
    String,
    Table,
    Update,
    bindparam,
    event,
    select,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import make_url
from sqlalchemy.pool import NullPool
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.util import await_

from latchkey.domain.quota import ROW_BYTES
from latchkey.domain.undo import Change
from latchkey.infrastructure.database.sql.recorded_tables import recording_of
from latchkey.infrastructure.database.sql.recording import dependents_of
from latchkey.infrastructure.database.sql.session import Session
from latchkey.infrastructure.database.sql.tenant_guard import USER, UnscopedStatement, is_reference_table

SESSION = "latchkey_session"
"""The execution option of a connection that has the session of its unit of work."""

_USER: BindParameter[str] = bindparam(USER, type_=String())
_CONSTANTS = {"1", "*"}
_DO_NOTHING = (postgresql.dml.OnConflictDoNothing, sqlite.dml.OnConflictDoNothing)
_DO_UPDATE = (postgresql.dml.OnConflictDoUpdate, sqlite.dml.OnConflictDoUpdate)
_pinned: WeakKeyDictionary[Update | Delete, Update | Delete] = WeakKeyDictionary()


def orm_engine(dialect: Dialect) -> Engine:
    """Return an engine that opens no connections, with the guard. It runs on connections of units of work."""
    pinning = copy(dialect)
    pinning.statement_compiler = type("PinningCompiler", (_Pinning, dialect.statement_compiler), {})
    engine = Engine(NullPool(_open_nothing), pinning, make_url(f"{dialect.name}://"), hide_parameters=True)
    event.listen(engine, "before_execute", _pin, retval=True)
    event.listen(engine, "before_cursor_execute", _before_cursor_execute)
    event.listen(engine, "handle_error", _keep_connection)
    return engine


def _open_nothing() -> Any:
    raise AssertionError("this engine has only the connections of units of work")


def _keep_connection(context: ExceptionContext) -> None:
    """Leave a dead connection to the unit of work, which discards it when it rolls back."""
    context.is_disconnect = False


class _Pinning(SQLCompiler):
    """Compiles each table of users as the rows of the user, and refuses SQL that was written as text."""

    def visit_table(  # type: ignore[override]
        self,
        table: Any,
        asfrom: bool = False,  # noqa: FBT001, FBT002 # as in SQLAlchemy
        iscrud: bool = False,  # noqa: FBT001, FBT002 # as in SQLAlchemy
        **options: Any,
    ) -> str:
        compiler: Any = super()
        sql: str = compiler.visit_table(table, asfrom=asfrom, iscrud=iscrud, **options)
        # The target of a write has been pinned before the statement was compiled.
        if not asfrom or iscrud or is_reference_table(table):
            return sql
        if not isinstance(table, Table) or "user_id" not in table.c:
            raise UnscopedStatement(f"{table} has no user_id and is no reference table")
        rows = f"(SELECT * FROM {sql} WHERE user_id = {self.process(_USER)})"  # noqa: S608 # the quoted name of a table
        alias = options.get("enclosing_alias")
        return rows if alias is not None and alias.element is table else f"{rows} AS {sql}"

    def visit_insert(self, insert_stmt: Any, *args: Any, **options: Any) -> str:
        compiler: Any = super()
        _check_outermost(self, insert_stmt)
        return str(compiler.visit_insert(insert_stmt, *args, **options))

    def visit_update(self, update_stmt: Any, *args: Any, **options: Any) -> str:
        compiler: Any = super()
        _check_outermost(self, update_stmt)
        return str(compiler.visit_update(update_stmt, *args, **options))

    def visit_delete(self, delete_stmt: Any, *args: Any, **options: Any) -> str:
        compiler: Any = super()
        _check_outermost(self, delete_stmt)
        return str(compiler.visit_delete(delete_stmt, *args, **options))

    def visit_textclause(self, textclause: Any, *args: Any, **options: Any) -> str:
        if textclause.text not in _CONSTANTS:
            raise UnscopedStatement(f"literal SQL text cannot be checked: {textclause.text}")
        compiler: Any = super()
        return str(compiler.visit_textclause(textclause, *args, **options))

    def visit_textual_select(self, taf: Any, *args: Any, **options: Any) -> str:
        raise UnscopedStatement(f"literal SQL text cannot be checked: {taf}")

    def visit_column(self, column: Any, *args: Any, **options: Any) -> str:
        if column.is_literal and column.name not in _CONSTANTS:
            raise UnscopedStatement(f"literal SQL text cannot be checked: {column.name}")
        compiler: Any = super()
        return str(compiler.visit_column(column, *args, **options))

    def get_statement_hint_text(self, hint_texts: Any) -> str:
        raise UnscopedStatement(f"literal SQL text cannot be checked: {hint_texts}")

    def get_select_hint_text(self, byfroms: Any) -> Any:
        raise UnscopedStatement(f"literal SQL text cannot be checked: {byfroms}")

    def format_from_hint_text(self, sqltext: Any, table: Any, hint: Any, iscrud: Any) -> Any:
        raise UnscopedStatement(f"literal SQL text cannot be checked: {hint}")


def _check_outermost(compiler: SQLCompiler, statement: Any) -> None:
    if compiler.stack:
        raise UnscopedStatement(f"a write inside another statement cannot be pinned: {statement}")


def _pin(connection: Any, statement: Any, multiparams: Any, params: Any, _options: Any) -> tuple[Any, Any, Any]:
    """Bind the user, and pin a write. Raises `UnscopedStatement`, and `ReadOnly` for a write in a read-only session."""
    session: Session = connection.get_execution_options()[SESSION]
    session.check_open()
    parameters = [{**values, USER: session.scope.user_id} for values in multiparams or [params or {}]]
    if isinstance(statement, Insert | Update | Delete):
        session.check_writable(statement)
        if session.is_recorded and recording_of(statement) and _is_more_than_objects(connection, statement, parameters):
            session.add_change(Change.not_recorded(str(statement.table.description)))
        if is_reference_table(statement.table):
            raise UnscopedStatement(
                f"{statement.table} is a reference table, which only migrations and operators write"
            )
        if isinstance(statement, Insert):
            parameters = list(_with_owner(statement, parameters, session))
        else:
            statement = _owned(statement)
        for values in parameters:
            if values.get("user_id", session.scope.user_id) != session.scope.user_id:
                raise UnscopedStatement(f"only the user of the scope may be bound: {statement}")
            session.add_written(values.values())
        for row in [{}] if isinstance(statement, Delete) else _rows_in(statement):
            session.written += ROW_BYTES * len(parameters)
            session.add_written(_value_of(value) for value in row.values())
    elif not isinstance(statement, SelectBase):
        raise UnscopedStatement(f"{type(statement).__name__} cannot be pinned: {statement}")
    return statement, parameters, {}


def _is_more_than_objects(connection: Any, statement: Insert | Update | Delete, rows: list[dict[str, Any]]) -> bool:
    """Whether a write changes other rows than those of the objects that are flushed, which are recorded."""
    session: Session = connection.get_execution_options()[SESSION]
    if not session.is_flushing_orm:
        return True
    if not isinstance(statement, Delete) or not isinstance(statement.table, Table):
        return False
    ids = [row["id"] for row in rows]
    return any(
        connection.execute(select(column).where(column.in_(ids)).limit(1)).first()
        for _, column in dependents_of(statement.table)
    )


def _with_owner(insert: Insert, parameters: list[dict[str, Any]], session: Session) -> Iterator[dict[str, Any]]:
    """Yield the parameters, each with the user. Raises `UnscopedStatement` if values in the statement have another."""
    if insert.select is not None:
        raise UnscopedStatement(f"an INSERT from a query cannot be pinned: {insert}")
    _check_conflict_clause(insert)
    rows = [row for row in _rows_in(insert) if insert._multi_values or "user_id" in row]  # noqa: SLF001 # there is no public access
    for row in rows:
        if _value_of(row.get("user_id")) != session.scope.user_id:
            raise UnscopedStatement(f"{insert.table} is not inserted for the user of the scope: {insert}")
    for values in parameters:
        yield values if rows else {"user_id": session.scope.user_id, **values}


def _rows_in(statement: Insert | Update) -> Iterator[dict[str, Any]]:
    """Yield the values in the statement itself, by the names of their columns."""
    multiple = statement._multi_values  # noqa: SLF001 # there is no public access
    for row in [row for rows in multiple for row in rows] or [statement._values or {}]:  # noqa: SLF001 # likewise
        if isinstance(row, Mapping):
            yield {_name_of(key): value for key, value in row.items()}
        else:
            yield dict(zip(statement.table.c.keys(), row, strict=False))


def _check_conflict_clause(insert: Insert) -> None:
    """Every unique key begins with the user, so that a conflicting row is the user's, if the INSERT is."""
    clause: Any = insert._post_values_clause  # noqa: SLF001 # there is no public access
    if clause is None or isinstance(clause, _DO_NOTHING):
        return
    if not isinstance(clause, _DO_UPDATE):
        raise UnscopedStatement(f"{type(clause).__name__} cannot be pinned: {insert}")
    targets = {_name_of(element) for element in clause.inferred_target_elements or ()}
    if "user_id" not in targets or "user_id" in {_name_of(key) for key in clause.update_values_to_set}:
        raise UnscopedStatement(f"ON CONFLICT must name user_id, and leave it as it is: {insert}")


def _owned(statement: Update | Delete) -> Update | Delete:
    """Return the statement with the condition on the user. The ORM keeps its statements, and so does this."""
    pinned = _pinned.get(statement)
    if pinned is None:
        if isinstance(statement, Update) and any("user_id" in row for row in _rows_in(statement)):
            raise UnscopedStatement(f"the update of {statement.table} would change a row's user: {statement}")
        if "user_id" not in statement.table.c:
            raise UnscopedStatement(f"{statement.table} has no user_id: {statement}")
        pinned = _pinned[statement] = statement.where(statement.table.c.user_id == _USER)
    return pinned


def _name_of(key: Any) -> Any:
    return getattr(key, "key", key)


def _value_of(value: Any) -> Any:
    return value.effective_value if isinstance(value, BindParameter) else value


def _before_cursor_execute(
    connection: Any, _cursor: Any, sql: str, _parameters: Any, context: Any, _executemany: Any
) -> None:
    """Send the waiting writes of the session first. Raises `UnscopedStatement` for SQL that `_pin` has not seen."""
    compiled = context.compiled
    if compiled is None:
        raise UnscopedStatement(f"literal SQL text cannot be checked: {sql}")
    writes = compiled.isinsert or compiled.isupdate or compiled.isdelete
    if writes and not isinstance(context.invoked_statement, Insert | Update | Delete):
        raise UnscopedStatement(f"a write inside another statement cannot be pinned: {sql}")
    await_(connection.get_execution_options()[SESSION].send_waiting())
