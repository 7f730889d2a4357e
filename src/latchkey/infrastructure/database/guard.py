"""The statement guard: no statement reaches a tenant's table without pinning `user_id` to one user."""

from collections.abc import Iterator
from typing import Any
from weakref import WeakSet

from sqlalchemy import (
    Alias,
    BindParameter,
    BooleanClauseList,
    ClauseElement,
    Column,
    Delete,
    Engine,
    FromClause,
    Insert,
    Join,
    Select,
    Table,
    Update,
    event,
)
from sqlalchemy.sql import operators, visitors
from sqlalchemy.sql.elements import BinaryExpression

USER = "scope_user"
"""The bound parameter that holds the user of the scope."""

_known: WeakSet[ClauseElement] = WeakSet()


class UnpinnedStatement(Exception):
    """A bug of ours: a statement that could touch another user's rows. It was not sent."""


def guard(engine: Engine) -> None:
    """From now on this engine refuses every statement that `check` refuses."""

    @event.listens_for(engine, "before_execute")
    def before_execute(_: Any, statement: Any, many: Any, one: Any, _options: Any) -> None:
        check(statement)
        for parameters in many or [one]:
            if not parameters.get(USER):
                raise UnpinnedStatement(f"no user is bound: {statement}")


def check(statement: ClauseElement) -> None:
    """Raises `UnpinnedStatement` unless each tenant table in it is pinned to the bound user."""
    if statement in _known:
        return
    for element in visitors.iterate(statement):
        for table in _loose_tables(element):
            raise UnpinnedStatement(f"{table} is not pinned to the user of the scope: {statement}")
    if not isinstance(statement, Select | Insert | Update | Delete):
        raise UnpinnedStatement(f"only Core statements can be checked, not {type(statement).__name__}: {statement}")
    _known.add(statement)


def _loose_tables(element: Any) -> Iterator[FromClause]:
    if isinstance(element, Insert):
        bound = element.compile(column_keys=element.table.c.keys()).params
        if USER not in bound or "user_id" in bound:
            yield element.table
        return
    if isinstance(element, Select):
        sources = [table for source in element.get_final_froms() for table in _tables_of(source)]
    elif isinstance(element, Update | Delete):
        sources = list(_tables_of(element.table))
    else:
        return
    pinned = {column.table for column in _pinned_columns(element.whereclause)}
    yield from (source for source in sources if source not in pinned)


def _tables_of(source: FromClause) -> Iterator[FromClause]:
    """The tables and aliases of tables in a FROM. A subquery in it is an element of its own."""
    if isinstance(source, Join):
        yield from _tables_of(source.left)
        yield from _tables_of(source.right)
    elif isinstance(source, Table) or (isinstance(source, Alias) and isinstance(source.element, Table)):
        yield source


def _pinned_columns(clause: Any) -> Iterator[Column[Any]]:
    """The `user_id` columns that a conjunct of the clause compares with the bound user."""
    conjuncts = clause.clauses if isinstance(clause, BooleanClauseList) and clause.operator is operators.and_ else [clause]
    for conjunct in conjuncts:
        if (
            isinstance(conjunct, BinaryExpression)
            and conjunct.operator is operators.eq
            and isinstance(conjunct.left, Column)
            and conjunct.left.name == "user_id"
            and isinstance(conjunct.right, BindParameter)
            and conjunct.right.key == USER
        ):
            yield conjunct.left
