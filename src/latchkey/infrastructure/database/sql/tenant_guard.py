"""The tenant guard: refuses statements on a tenant's table that do not pin `user_id` to the scope's user.

No other module uses private names of SQLAlchemy. A test fails if one of them goes.
"""

from collections.abc import Iterator
from typing import Any
from weakref import WeakSet

from sqlalchemy import (
    BindParameter,
    BooleanClauseList,
    ClauseElement,
    Column,
    ColumnClause,
    Delete,
    Engine,
    FromClause,
    Insert,
    Join,
    Select,
    SelectBase,
    Table,
    TextClause,
    Update,
    event,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.sql import operators, visitors
from sqlalchemy.sql.elements import BinaryExpression
from sqlalchemy.sql.selectable import AliasedReturnsRows

USER = "scope_user"
"""The name of the bound parameter that holds the user of the scope."""

REFERENCE = "reference"
"""The value of `Table.info["latchkey"]` of a table that belongs to no user: every statement may read it."""

_DO_NOTHING = (postgresql.dml.OnConflictDoNothing, sqlite.dml.OnConflictDoNothing)
_TEXTS = ("_prefixes", "_suffixes", "_hints", "_statement_hints")
_checked: WeakSet[ClauseElement] = WeakSet()


class UnscopedStatement(Exception):
    """A bug of ours: a statement that could reach another user's rows. It was not sent."""


def install_tenant_guard(engine: Engine) -> None:
    """Make the engine refuse statements that `check_statement` refuses, and parameters that bind another user."""

    @event.listens_for(engine, "before_execute")
    def before_execute(_: Any, statement: Any, multiparams: Any, params: Any, _options: Any) -> None:
        check_statement(statement)
        for parameters in multiparams or [params]:
            if not parameters.get(USER) or "user_id" in parameters:
                raise UnscopedStatement(f"only the user of the scope may be bound: {statement}")


def check_statement(statement: ClauseElement) -> None:
    """Raises `UnscopedStatement` unless the statement pins each of its tables to the bound user."""
    if statement in _checked:
        return
    if not isinstance(statement, Select | Insert | Update | Delete):
        raise UnscopedStatement(f"only Core statements can be checked, not {type(statement).__name__}: {statement}")
    for element in visitors.iterate(statement):
        for fault in _faults(element):
            raise UnscopedStatement(f"{fault}: {statement}")
    _checked.add(statement)


def _faults(element: Any) -> Iterator[str]:
    if isinstance(element, Insert | Update | Delete) and is_reference_table(element.table):
        yield f"{element.table} is a reference table, which only migrations and operators write"
    if _holds_text(element):
        yield "literal SQL text cannot be checked"
    elif isinstance(element, Insert):
        if not _inserts_for_user(element):
            yield f"{element.table} is not inserted for the user of the scope"
    elif isinstance(element, Select | Update | Delete):
        pinned = {column.table for column in _pinned_columns(element.whereclause)}
        for source in _sources(element):
            if source not in pinned and not is_reference_table(source):
                yield f"{source} is not pinned to the user of the scope"
    if isinstance(element, Update) and "user_id" in (element._values or {}):  # noqa: SLF001 # there is no public access
        yield f"the update of {element.table} would change a row's user"


def is_reference_table(source: FromClause) -> bool:
    """Return whether it is a reference table or an alias of one."""
    table = source.element if isinstance(source, AliasedReturnsRows) else source
    return isinstance(table, Table) and table.info.get("latchkey") == REFERENCE


def _holds_text(element: Any) -> bool:
    if isinstance(element, ColumnClause):
        return element.is_literal and element.name != "*"
    return isinstance(element, TextClause) or any(getattr(element, part, ()) for part in _TEXTS)


def _inserts_for_user(insert: Insert) -> bool:
    """Return whether it inserts a single row of the bound user and changes no existing row."""
    values: Any = insert._values  # noqa: SLF001 # there is no public access
    rows = insert._multi_values  # noqa: SLF001 # likewise
    plain = insert.select is None and not rows and (always_inserts(insert) or _does_nothing(insert))
    return plain and values is not None and _is_scope_user(values.get("user_id"))


def always_inserts(insert: Insert) -> bool:
    """Return whether it fails if there is a conflicting row."""
    return insert._post_values_clause is None  # noqa: SLF001 # there is no public access


def _does_nothing(insert: Insert) -> bool:
    return isinstance(insert._post_values_clause, _DO_NOTHING)  # noqa: SLF001 # there is no public access


def _sources(element: Select[Any] | Update | Delete) -> Iterator[FromClause]:
    """Return the tables that it reads or writes. A subquery is checked as an element of its own."""
    if isinstance(element, Select):
        sources = list(element.get_final_froms())
    else:
        parts = [element.table, element.whereclause, *(getattr(element, "_values", None) or {}).values()]
        sources = [source for part in parts if part is not None for source in part._from_objects]  # noqa: SLF001
    for source in sources:
        yield from _tables_of(source)


def _tables_of(source: FromClause) -> Iterator[FromClause]:
    if isinstance(source, Join):
        yield from _tables_of(source.left)
        yield from _tables_of(source.right)
    elif not (isinstance(source, AliasedReturnsRows) and isinstance(source.element, SelectBase)):
        yield source


def _pinned_columns(clause: Any) -> Iterator[Column[Any]]:
    """Return the `user_id` columns that the clause requires to equal the bound user."""
    is_and = isinstance(clause, BooleanClauseList) and clause.operator is operators.and_
    for conjunct in clause.clauses if is_and else [clause]:
        if (
            isinstance(conjunct, BinaryExpression)
            and conjunct.operator is operators.eq
            and isinstance(conjunct.left, Column)
            and conjunct.left.name == "user_id"
            and _is_scope_user(conjunct.right)
        ):
            yield conjunct.left


def _is_scope_user(value: Any) -> bool:
    return isinstance(value, BindParameter) and value.key == USER
