"""The tenant guard passes statements that are pinned to the user of the scope, and no others."""

import ast
import importlib
import pkgutil
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import (
    BindParameter,
    ClauseElement,
    Column,
    Delete,
    Insert,
    Integer,
    MetaData,
    Select,
    Text,
    Update,
    and_,
    bindparam,
    case,
    column,
    delete,
    exists,
    false,
    func,
    insert,
    lateral,
    literal,
    literal_column,
    not_,
    or_,
    select,
    table,
    text,
    true,
    tuple_,
    union_all,
    update,
)
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

import latchkey.infrastructure.database
from latchkey.infrastructure.database.entity import reference_table
from latchkey.infrastructure.database.schema import conversations, tasks, turns
from latchkey.infrastructure.database.sql import tenant_guard
from latchkey.infrastructure.database.sql.session import insert_for_user, owned_by_user
from latchkey.infrastructure.database.sql.tenant_guard import USER, UnscopedStatement, check_statement

ME: BindParameter[str] = bindparam(USER)
other = tasks.alias("other")
mine_in_other = other.c.user_id == ME
a_task = select(tasks.c.id).where(owned_by_user(tasks))
any_task = select(tasks.c.id)
any_in_cte = any_task.cte("anything")
mine_in_cte = a_task.cte("pinned")
both = tasks.join(conversations, tasks.c.conversation_id == conversations.c.id)
bicycles = reference_table("bicycles", Column("id", Integer()), Column("name", Text()), metadata=MetaData())
same = conversations.c.id == tasks.c.conversation_id

PINNED: dict[str, ClauseElement] = {
    "a select": a_task,
    "a select with more conditions": a_task.where(tasks.c.status == "pending", or_(tasks.c.version > 1, true())),
    "a select for update": a_task.with_for_update(),
    "an alias": select(other.c.id).where(mine_in_other),
    "a table with itself": select(tasks.c.id, other.c.id).where(owned_by_user(tasks), mine_in_other),
    "a join": select(tasks.c.id).select_from(both).where(owned_by_user(tasks), owned_by_user(conversations)),
    "an outer join": select(tasks.c.id).outerjoin(turns, true()).where(owned_by_user(tasks), owned_by_user(turns)),
    "a subquery": select(a_task.subquery().c.id),
    "a cte": select(mine_in_cte.c.id),
    "a scalar subquery": select(a_task.scalar_subquery()),
    "an exists": a_task.where(exists(select(turns.c.id).where(owned_by_user(turns)))),
    "a membership": a_task.where(tasks.c.id.in_(select(turns.c.id).where(owned_by_user(turns)))),
    "a function": select(func.now()),
    "a count": select(func.count()).select_from(tasks).where(owned_by_user(tasks)),
    "an update": update(tasks).where(owned_by_user(tasks)).values(title="x"),
    "an update from another table": update(tasks).where(
        owned_by_user(tasks), owned_by_user(turns), tasks.c.id == turns.c.id
    ),
    "a delete": delete(tasks).where(owned_by_user(tasks)),
    "a reference table": select(bicycles.c.id),
    "an alias of a reference table": select(bicycles.alias("other").c.id),
    "a join with a reference table": select(tasks.c.id)
    .select_from(tasks.join(bicycles, bicycles.c.name == tasks.c.title))
    .where(owned_by_user(tasks)),
    "an update from a reference table": update(tasks)
    .where(owned_by_user(tasks), bicycles.c.name == tasks.c.title)
    .values(title=bicycles.c.name),
    "an insert": insert_for_user(tasks),
    "an insert that may find it there": postgresql_insert(tasks).values(user_id=ME).on_conflict_do_nothing(),
    "the same on SQLite": sqlite_insert(tasks).values(user_id=ME).on_conflict_do_nothing(),
    "an insert with an answer": insert_for_user(tasks).returning(tasks.c.id),
}

UNPINNED: dict[str, ClauseElement] = {
    "a select": any_task,
    "a select of another condition": any_task.where(tasks.c.id == ME),
    "a select of another parameter": any_task.where(tasks.c.user_id == bindparam("user_id")),
    "a select of a fixed user": any_task.where(tasks.c.user_id == "me"),
    "a select of another parameter's name made unique": any_task.where(tasks.c.user_id == bindparam(USER, unique=True)),
    "a comparison with a column": any_task.where(tasks.c.user_id == tasks.c.user_id),
    "a comparison of another kind": any_task.where(tasks.c.user_id >= ME),
    "a likeness": any_task.where(tasks.c.user_id.like(ME)),
    "an inequality": any_task.where(tasks.c.user_id != ME),
    "a membership": any_task.where(tasks.c.user_id.in_([ME])),
    "a function of the column": any_task.where(func.lower(tasks.c.user_id) == ME),
    "a function of the user": any_task.where(tasks.c.user_id == func.lower(ME)),
    "a tuple": any_task.where(tuple_(tasks.c.user_id, tasks.c.id) == tuple_(ME, bindparam("id"))),
    "an or": any_task.where(or_(owned_by_user(tasks), tasks.c.version > 1)),
    "an or within an and": any_task.where(and_(true(), or_(owned_by_user(tasks), tasks.c.version > 1))),
    "a not": any_task.where(not_(owned_by_user(tasks))),
    "a not of an and": any_task.where(not_(and_(owned_by_user(tasks), tasks.c.version > 1))),
    "a case": any_task.where(case((tasks.c.version > 1, true()), else_=owned_by_user(tasks))),
    "a condition that is never asked": any_task.where(or_(false(), owned_by_user(tasks), true())),
    "a having": any_task.group_by(tasks.c.id).having(owned_by_user(tasks)),
    "an alias beside a pinned table": select(tasks.c.id, other.c.id).where(owned_by_user(tasks)),
    "a table beside its pinned alias": select(tasks.c.id, other.c.id).where(mine_in_other),
    "a join of two, one pinned": select(tasks.c.id).select_from(both).where(owned_by_user(tasks)),
    "a join, the other pinned": select(tasks.c.id).select_from(both).where(owned_by_user(conversations)),
    "an outer join pinned where it joins": select(tasks.c.id)
    .outerjoin(turns, owned_by_user(turns))
    .where(owned_by_user(tasks)),
    "a second table in a condition": a_task.where(same),
    "a subquery": select(any_task.subquery().c.id),
    "a lateral": select(tasks.c.id, lateral(select(turns.c.id), "l").c.id).where(owned_by_user(tasks)),
    "a scalar subquery": a_task.add_columns(select(turns.c.id).scalar_subquery()),
    "an exists": a_task.where(exists(select(turns.c.id).where(turns.c.conversation_id == tasks.c.conversation_id))),
    "a membership of a query": a_task.where(tasks.c.id.in_(select(turns.c.id))),
    "a cte": select(any_in_cte.c.id),
    "an order by a query": a_task.order_by(select(turns.c.id).scalar_subquery()),
    "a sample": select(func.count()).select_from(tasks.tablesample(10)),
    "a union": union_all(a_task, any_task),
    "a union of two that are pinned": union_all(a_task, a_task),
    "a union in a subquery": select(union_all(a_task, any_task).subquery().c.id),
    "a table known by name alone": select(column("id")).select_from(table("tasks", column("id"))),
    "text": text("SELECT * FROM tasks WHERE user_id = :scope_user"),
    "text as a condition": a_task.where(text("1=1 OR 1=1")),
    "text as a column": a_task.add_columns(text("(SELECT title FROM tasks LIMIT 1)")),
    "a literal column": a_task.add_columns(literal_column("(SELECT title FROM tasks LIMIT 1)")),
    "text as a table": select(text("*")).select_from(text("tasks")),
    "text in an order": a_task.order_by(text("(SELECT title FROM tasks LIMIT 1)")),
    "text in front": a_task.prefix_with("id FROM tasks --"),
    "text behind": a_task.suffix_with("UNION SELECT id FROM tasks"),
    "an update": update(tasks).values(title="x"),
    "an update of another user's": update(tasks).where(tasks.c.user_id == "you").values(title="x"),
    "an update from another table": update(tasks).where(owned_by_user(tasks), same),
    "an update to another table's value": update(tasks).where(owned_by_user(tasks)).values(title=conversations.c.title),
    "an update to a query's value": update(tasks).where(owned_by_user(tasks)).values(title=any_task.scalar_subquery()),
    "an update that gives away": update(tasks).where(owned_by_user(tasks)).values(user_id="you"),
    "an update that may give away": update(tasks).where(owned_by_user(tasks)).values(user_id=bindparam("new_owner")),
    "a delete": delete(tasks),
    "a delete by another table": delete(tasks).where(owned_by_user(tasks), same),
    "a delete by a query": delete(tasks).where(owned_by_user(tasks), tasks.c.id.in_(any_task)),
    "a join with a reference table alone": select(tasks.c.id).join(bicycles, bicycles.c.name == tasks.c.title),
    "an insert into a reference table": insert(bicycles).values(name="x"),
    "an update of a reference table": update(bicycles).values(name="x"),
    "an update of a reference table from a pinned table": update(bicycles)
    .where(owned_by_user(tasks), bicycles.c.name == tasks.c.title)
    .values(name="x"),
    "a delete from a reference table": delete(bicycles),
    "an insert without a user": insert(tasks).values(title="x"),
    "an insert of nothing": insert(tasks),
    "an insert of a fixed user": insert(tasks).values(user_id="you"),
    "an insert with the user in another place": insert(tasks).values(user_id=literal("you"), title=ME),
    "an insert of a function of the user": insert(tasks).values(user_id=func.lower(ME)),
    "an insert of several": insert(tasks).values([{"user_id": ME}, {"user_id": "you"}]),
    "an insert from a query": insert(tasks).from_select(["user_id", "id"], select(literal("you"), ME)),
    "an insert that may change what is there": postgresql_insert(tasks)
    .values(user_id=ME)
    .on_conflict_do_update(index_elements=["id"], set_={"user_id": "you"}),
    "an insert with a query inside": insert_for_user(tasks).values(title=any_task.scalar_subquery()),
    "an insert in a cte": select(insert(tasks).values(user_id="you").returning(tasks.c.id).cte("made").c.id),
    "a delete in a cte": select(delete(tasks).returning(tasks.c.id).cte("gone").c.id),
}


@pytest.mark.parametrize("statement", PINNED.values(), ids=PINNED)
def test_pinned_statement_passes(statement: ClauseElement) -> None:
    """Also when it is checked again."""
    check_statement(statement)
    check_statement(statement)


@pytest.mark.filterwarnings("ignore:Column.*is marked as a member of the primary key")
@pytest.mark.parametrize("statement", UNPINNED.values(), ids=UNPINNED)
def test_unpinned_statement_is_refused(statement: ClauseElement) -> None:
    """Also when it is checked again."""
    for _ in range(2):
        with pytest.raises(UnscopedStatement):
            check_statement(statement)


def test_refusal_names_the_unpinned_table() -> None:
    with pytest.raises(UnscopedStatement, match="conversations is not pinned to the user of the scope: SELECT"):
        check_statement(a_task.where(same))


def statements() -> dict[str, Any]:
    """Every prepared statement of our modules."""
    package = latchkey.infrastructure.database
    names = [module.name for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")]
    return {
        f"{name.rpartition('.')[2]} {key}": value
        for name in names
        for key, value in vars(importlib.import_module(name)).items()
        if isinstance(value, Select | Insert | Update | Delete)
    }


@pytest.mark.parametrize("statement", statements().values(), ids=statements())
def test_every_statement_of_the_repositories_passes(statement: ClauseElement) -> None:
    check_statement(statement)


def test_statements_of_the_repositories_are_found() -> None:
    assert len(statements()) > 30


def test_private_names_of_sqlalchemy_exist() -> None:
    """The guard cannot do without them. Some are read with a default, so that a missing one would go unnoticed."""
    owners: dict[str, list[Any]] = {
        "_values": [insert(tasks).values(title="x"), update(tasks).values(title="x")],
        "_multi_values": [insert(tasks)],
        "_post_values_clause": [insert(tasks)],
        "_from_objects": [tasks, tasks.c.id],
        "_prefixes": [select(tasks), insert(tasks)],
        "_suffixes": [select(tasks)],
        "_hints": [select(tasks)],
        "_statement_hints": [select(tasks)],
    }
    tree = ast.parse(Path(tenant_guard.__file__).read_text())
    attributes = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    used = {name for name in attributes if name.startswith("_") and not name.startswith("__")}

    assert {*used, *tenant_guard._TEXTS} == owners.keys()
    for name, objects in owners.items():
        for owner in objects:
            assert hasattr(owner, name), f"SQLAlchemy no longer has {type(owner).__name__}.{name}"
