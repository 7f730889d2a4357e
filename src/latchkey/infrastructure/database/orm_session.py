"""The ORM session of a unit of work: on its connection, in its transaction, and scoped to its user."""

from typing import Any, NoReturn
from weakref import WeakKeyDictionary

from sqlalchemy import Connection, Dialect, event
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession
from sqlalchemy.orm import Session as SyncSession

from latchkey.infrastructure.database.sql.orm_guard import SESSION, orm_engine
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


def set_owner(uow: SqlUnitOfWork, entity: Any) -> None:
    """Set the user of the scope. Raises `UnscopedStatement` for an object of another user."""
    if entity.user_id is None:
        entity.user_id = uow.scope.user_id
    elif entity.user_id != uow.scope.user_id:
        raise UnscopedStatement(f"this {type(entity).__name__} belongs to another user than that of the scope")
