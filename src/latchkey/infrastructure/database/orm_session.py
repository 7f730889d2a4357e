"""The ORM session of a unit of work: on its connection, in its transaction, and scoped to its user."""

from typing import Any, NoReturn
from weakref import WeakKeyDictionary

from sqlalchemy import Connection, Dialect, Table, event
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession
from sqlalchemy.orm import InstanceState, UOWTransaction
from sqlalchemy.orm import Session as SyncSession

from latchkey.domain.undo import Change
from latchkey.infrastructure.database.sql.orm_guard import SESSION, orm_engine
from latchkey.infrastructure.database.sql.recording import deletion, update_of
from latchkey.infrastructure.database.sql.session import Session
from latchkey.infrastructure.database.sql.tenant_guard import UnscopedStatement
from latchkey.infrastructure.database.unit_of_work import SqlUnitOfWork

_UNIT_OF_WORK = "latchkey_unit_of_work"
_engines: WeakKeyDictionary[Dialect, AsyncEngine] = WeakKeyDictionary()


class _ScopedSession(SyncSession):
    """Sets the user and the times of the objects that it flushes."""


class OrmSession(AsyncSession):
    """The session of one unit of work, which commits and rolls back: the session itself does neither."""

    @property
    def has_changes(self) -> bool:
        return bool(self.new or self.deleted or self.dirty)

    async def commit(self) -> NoReturn:
        raise RuntimeError("The unit of work commits when the tool has returned: use `flush` to send changes before.")

    async def rollback(self) -> NoReturn:
        raise RuntimeError("The unit of work rolls back when the tool raises an error.")

    async def close(self) -> NoReturn:
        raise RuntimeError("The unit of work closes its connection.")


def orm_session(uow: SqlUnitOfWork) -> OrmSession:
    """Return the ORM session of the unit of work: always the same one, so that an object exists once."""
    if isinstance(uow.session.orm, OrmSession):
        return uow.session.orm
    dialect = uow.session.dialect
    engine = _engines.get(dialect)
    if engine is None:
        engine = _engines[dialect] = AsyncEngine(orm_engine(dialect))
    connection = Connection(engine.sync_engine, uow.session.dbapi_connection())
    scoped = connection.execution_options(**{SESSION: uow.session})
    session = OrmSession(
        AsyncConnection(engine, scoped),
        sync_session_class=_ScopedSession,
        expire_on_commit=False,
        info={_UNIT_OF_WORK: uow},
    )
    uow.session.orm = session
    return session


@event.listens_for(_ScopedSession, "before_flush")
def _set_owner_and_times(session: SyncSession, _context: Any, _instances: Any) -> None:
    """Raises `UnscopedStatement` for an object of another user."""
    uow: SqlUnitOfWork = session.info[_UNIT_OF_WORK]
    uow.session.is_flushing_orm = True
    for entity in session.new:
        set_owner(uow, entity)
        if entity.created_at is None:
            entity.created_at = uow.now
        if entity.updated_at is None:
            entity.updated_at = uow.now
    for entity in session.dirty:
        set_owner(uow, entity)
        if session.is_modified(entity):
            entity.updated_at = uow.now


@event.listens_for(_ScopedSession, "after_flush")
def _record_changes(session: SyncSession, context: UOWTransaction) -> None:
    """Record the objects that have been flushed, if a tool of a turn has changed them."""
    recorded: Session = session.info[_UNIT_OF_WORK].session
    recorded.is_flushing_orm = False
    if not recorded.is_recorded:
        return
    changes: list[Change] = []
    for state, (is_deleted, is_only_listed) in context.states.items():
        change = None if is_only_listed else _change_of(state, is_deleted=is_deleted)
        if change is not None:
            changes.append(change)
    for change in _in_order(changes, context):
        recorded.add_change(change)


def _in_order(changes: list[Change], context: UOWTransaction) -> list[Change]:
    """Return the changes so that no row is there without a row that it refers to: deletions last and backwards."""
    collections = {
        table.metadata: None for state in context.states if isinstance(table := state.mapper.local_table, Table)
    }
    names = [str(table.name) for metadata in collections for table in metadata.sorted_tables]
    ordered = sorted(changes, key=lambda change: names.index(change.table) if change.table in names else 0)
    deletions = [change for change in ordered if change.effect == "deleted"]
    return [change for change in ordered if change.effect != "deleted"] + deletions[::-1]


def _change_of(state: InstanceState[Any], *, is_deleted: bool) -> Change | None:
    """Return the change of an object; None if it is stored as it was. One that was not loaded is not recorded."""
    table, entity = state.mapper.local_table, state.obj()
    name = str(table.description)
    if not isinstance(table, Table) or entity is None:
        return Change.not_recorded(name)
    if state.key is None:
        return Change("created", name, entity.id, entity.version)
    before: dict[str, Any] = {}
    for attribute in state.mapper.column_attrs:
        history = state.attrs[attribute.key].history
        values = history.deleted or (history.unchanged if is_deleted else ())
        if values:
            before[str(attribute.columns[0].name)] = values[0]
        elif is_deleted or history.added:
            return Change.not_recorded(name)
    if is_deleted:
        return deletion(table, before)
    return update_of(table, entity.id, entity.version, {**before, "version": entity.version - 1}) if before else None


def set_owner(uow: SqlUnitOfWork, entity: Any) -> None:
    """Set the user of the scope. Raises `UnscopedStatement` for an object of another user."""
    if entity.user_id is None:
        entity.user_id = uow.scope.user_id
    elif entity.user_id != uow.scope.user_id:
        raise UnscopedStatement(f"this {type(entity).__name__} belongs to another user than that of the scope")
