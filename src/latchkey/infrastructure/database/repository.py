"""The base of an app's repositories in SQLAlchemy Core: what `add_task` does, for any entity table."""

import re
from typing import Any, Generic, TypeVar, get_args
from uuid import UUID

from msgspec import Struct
from msgspec.structs import asdict, replace
from sqlalchemy import Insert, Table, Update, bindparam, delete, select, update

from latchkey.domain.errors import NotFound, StaleVersion
from latchkey.domain.page import Page, Window
from latchkey.infrastructure.database.entity import check_entity_table
from latchkey.infrastructure.database.sql.driver import Row
from latchkey.infrastructure.database.sql.listing import Listing, max_row_bytes
from latchkey.infrastructure.database.sql.session import Statement, columns_of, insert_for_user, owned_by_user
from latchkey.infrastructure.database.unit_of_work import SqlUnitOfWork

T = TypeVar("T", bound=Struct)

_FIRST_PAGE = Window()
_REQUIRED = {"id", "version", "created_at", "updated_at"}


class _Statements(Generic[T]):
    """The prepared statements of one repository class."""

    def __init__(self, table: Table, entity: type[T], noun: str | None) -> None:
        self.noun = noun or re.sub(r"(?<!^)(?=[A-Z])", " ", entity.__name__).lower()
        self.listing = Listing(table, entity, max_bytes=max_row_bytes(table))
        has_id = table.c.id == bindparam("row_id")
        self.by_id = select(*columns_of(table, entity)).where(owned_by_user(table), has_id)
        self.by_id_for_update = self.by_id.with_for_update(key_share=True)
        self.insert = insert_for_user(table)
        self.update = update(table).where(owned_by_user(table), has_id, table.c.version == bindparam("row_version"))
        self.delete = delete(table).where(owned_by_user(table), has_id)


class Repository(Generic[T]):
    """The rows of one entity table as entities, newest first. Get it with `UnitOfWork.repository`.

        class Reservations(Repository[Reservation], table=reservations): ...

    The entity is a frozen `msgspec.Struct` whose fields are columns of the table, without `user_id`. Methods of a
    subclass run statements of their own with `fetch`, `fetch_row`, `execute` and `defer`. Each statement is built once,
    outside of the method, and pins each table of users with `owned_by_user`.
    """

    table: Table
    _statements: _Statements[T]
    _entity: type[T]

    def __init_subclass__(cls, *, table: Table | None = None, noun: str | None = None) -> None:
        """`noun` names the entity in errors; by default the name of its class does.

        Raises `TypeError` if the entity does not fit the table, `ValueError` for a table that isolates no users.
        """
        super().__init_subclass__()
        if table is None:
            return
        entity = next((get_args(base)[0] for base in getattr(cls, "__orig_bases__", ()) if get_args(base)), None)
        if not (isinstance(entity, type) and issubclass(entity, Struct)):
            raise TypeError(f"{cls.__name__} names no entity: class {cls.__name__}(Repository[Entity], table=…).")
        check_entity_table(table)
        fields = set(entity.__struct_fields__)
        if faults := sorted((fields - set(table.c.keys())) | (_REQUIRED - fields) | (fields & {"user_id"})):
            raise TypeError(
                f"{entity.__name__} does not fit the table {table.name}, see {', '.join(faults)}: its fields must be"
                f" columns without user_id, and include {', '.join(sorted(_REQUIRED))}."
            )
        cls.table = table
        cls._entity = entity  # type: ignore[assignment] # the argument of the generic class
        cls._statements = _Statements(table, cls._entity, noun)

    def __init__(self, uow: SqlUnitOfWork) -> None:
        """Raises `TypeError` for a class without a table."""
        if not hasattr(self, "_statements"):
            name = type(self).__name__
            raise TypeError(f"{name} has no table: class {name}(Repository[Entity], table=…).")
        self.uow = uow
        self._session = uow.session

    async def add(self, entity: T) -> None:
        """Store a new entity. Its row is sent with the next statement that needs it, or with the commit."""
        await self._session.defer(self._statements.insert, **asdict(entity))

    async def get(self, id: UUID, *, for_update: bool = False) -> T:
        """Return the entity; `for_update` locks its row until the end of the unit of work. Raises `NotFound`."""
        statements = self._statements
        row = await self._session.fetch_row(statements.by_id_for_update if for_update else statements.by_id, row_id=id)
        if row is None:
            raise NotFound.of(statements.noun)
        return self._entity(*row)

    async def page(self, window: Window = _FIRST_PAGE, **equal: Any) -> Page[T]:
        """Return the newest entities, those whose columns have the given values, up to 2 MiB and the window's limit."""
        return await self._statements.listing.page(self._session, window, equal)

    async def update(self, entity: T) -> T:
        """Store the entity if its version is still the stored one. Return it with the next version.

        Raises `NotFound`, and `StaleVersion` if it has been changed since it was read.
        """
        stored: Any = entity
        changed: Any = replace(stored, version=stored.version + 1, updated_at=self.uow.now)
        values = {name: value for name, value in asdict(changed).items() if name != "id"}
        if not await self._session.execute(
            self._statements.update, row_id=stored.id, row_version=stored.version, **values
        ):
            current: Any = await self.get(stored.id)
            noun = self._statements.noun
            raise StaleVersion(f"The {noun} is at version {current.version}, not {stored.version}: read it again.")
        return changed  # type: ignore[no-any-return] # of the type of the entity

    async def delete(self, id: UUID) -> None:
        """Raises `NotFound`."""
        if not await self._session.execute(self._statements.delete, row_id=id):
            raise NotFound.of(self._statements.noun)

    async def fetch(self, statement: Statement, /, **values: Any) -> list[Row]:
        """Run the statement and return its rows. The user is bound by the unit of work, the other values are given."""
        return await self._session.fetch(statement, **values)

    async def fetch_row(self, statement: Statement, /, **values: Any) -> Row | None:
        """Return the first row, or None."""
        return await self._session.fetch_row(statement, **values)

    async def execute(self, statement: Statement, /, **values: Any) -> int:
        """Run the statement and return the number of changed rows."""
        return await self._session.execute(statement, **values)

    async def defer(self, statement: Insert | Update, /, **values: Any) -> None:
        """Run the statement later: with the next statement that needs it, or with the commit."""
        await self._session.defer(statement, **values)
