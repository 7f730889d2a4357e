"""The base of an app's repositories for the ORM: advanced-alchemy's repository, bound to a unit of work."""

import re
from collections.abc import Sequence
from typing import Any, TypeVar, get_args
from uuid import UUID

from advanced_alchemy.repository import SQLAlchemyAsyncRepository
from msgspec import defstruct
from sqlalchemy import ColumnElement, select

from latchkey.domain.errors import NotFound, StaleVersion
from latchkey.domain.page import PAGE_BYTES, TURN_PAGE_BYTES, Page, Window
from latchkey.infrastructure.database.entity_model import Entity, table_of
from latchkey.infrastructure.database.orm_session import OrmSession, orm_session, set_owner
from latchkey.infrastructure.database.sql.listing import size_of_row
from latchkey.infrastructure.database.sql.session import offsets
from latchkey.infrastructure.database.unit_of_work import SqlUnitOfWork

ModelT = TypeVar("ModelT", bound=Entity)

_FIRST_PAGE = Window()


class EntityRepository(SQLAlchemyAsyncRepository[ModelT]):
    """The rows of one entity. Get it with `UnitOfWork.repository`.

        class Reservations(EntityRepository[Reservation]): ...

    It has the methods of advanced-alchemy's repository, and `page`. They reach the rows of the scope's user only.
    Nothing is committed before the unit of work is. Errors are `NotFound`, `StaleVersion` and `Conflict`.
    """

    session: OrmSession

    def __init_subclass__(cls, **options: Any) -> None:
        """Raises `TypeError` for a class that names no entity."""
        super().__init_subclass__(**options)
        model = next((get_args(base)[0] for base in getattr(cls, "__orig_bases__", ()) if get_args(base)), None)
        if isinstance(model, type) and issubclass(model, Entity):
            cls.model_type = model  # type: ignore[assignment] # the argument of the generic class
        elif not hasattr(cls, "model_type"):
            raise TypeError(f"{cls.__name__} names no entity: class {cls.__name__}(EntityRepository[Entity]).")

    def __init__(self, uow: SqlUnitOfWork) -> None:
        self.uow = uow
        # Its errors would hide those of the database, which the unit of work maps.
        super().__init__(session=orm_session(uow), wrap_exceptions=False, auto_refresh=False)

    async def get(self, item_id: Any, **options: Any) -> ModelT:
        """Return the entity of this id. Raises `NotFound`."""
        return await super().get(item_id, **_by_id(item_id, options))

    async def page(
        self,
        window: Window = _FIRST_PAGE,
        *filters: ColumnElement[bool],
        **equal: Any,
    ) -> Page[ModelT]:
        """Return the newest entities that match, up to 2 MiB and the window's limit."""
        model, table = self.model_type, table_of(self.model_type)
        cursor: Any = defstruct(
            "Cursor", [("id", UUID)], tag=str(table.name), frozen=True, array_like=True, forbid_unknown_fields=True
        )
        last = window.decode_cursor(cursor)
        candidates = select(model.id, size_of_row(table).label("size")).where(*filters)
        candidates = candidates.where(*(getattr(model, name) == value for name, value in equal.items()))
        if last is not None:
            candidates = candidates.where(model.id < last.id)
        sized = offsets(
            candidates.order_by(model.id.desc()).limit(window.limit + 1).subquery(), "id", newest_first=True
        )
        rows = (
            await self.session.execute(
                select(model, sized.c.before, sized.c.count, size_of_row(table))
                .join(sized, model.id == sized.c.of_key)
                .where(sized.c.before < PAGE_BYTES)
                .order_by(model.id.desc())
            )
        ).all()
        count = rows[0][2] if rows else 0
        if self.uow.scope.turn_id:
            rows = [row for row in rows if not row[1] or row[1] + row[3] <= TURN_PAGE_BYTES]
        entities = [row[0] for row in rows]
        return window.to_page(entities, key=lambda entity: cursor(entity.id), has_more=len(rows) < count)

    async def update(self, data: ModelT, **options: Any) -> ModelT:
        """Store the values that are set in `data`, whose id exists. Raises `NotFound`, and `StaleVersion`.

        The version is compared if `data` has one. An entity that was read in this unit of work needs no more than this
        call, or `flush`.
        """
        if data in self.session:
            await self.session.flush()
            return data
        set_owner(self.uow, data)
        if data.version is not None:
            stored = await self.get(data.id)
            if stored.version != data.version:
                noun = _noun_of(self.model_type)
                raise StaleVersion(f"The {noun} is at version {stored.version}, not {data.version}: read it again.")
        return await super().update(data, **options)

    async def update_many(self, data: list[ModelT], **options: Any) -> list[ModelT]:
        """Store each of them as `update` does. A bulk UPDATE would not compare versions."""
        return [await self.update(entity, **options) for entity in data]

    async def upsert(self, data: ModelT, **options: Any) -> ModelT:
        """Update the entity of this id, or add it."""
        set_owner(self.uow, data)
        return await super().upsert(data, **options)

    async def upsert_many(self, data: list[ModelT], **options: Any) -> list[ModelT]:
        """Update the entities of these ids, and add the others. A bulk INSERT would not compare versions."""
        return [await self.upsert(entity, **options) for entity in data]

    async def delete(self, item_id: Any, **options: Any) -> ModelT:
        """Delete and return the entity of this id. Raises `NotFound`."""
        return await super().delete(item_id, **_by_id(item_id, options))

    async def delete_many(self, item_ids: list[Any], **options: Any) -> Sequence[ModelT]:
        """Delete and return the entities of these ids that exist."""
        if item_ids:
            options = _by_id(item_ids[0], options)
        return await super().delete_many(item_ids, **options)

    def check_not_found(self, item_or_none: ModelT | None) -> ModelT:  # type: ignore[override] # it needs the model
        """Raises `NotFound` for None."""
        if item_or_none is None:
            raise NotFound.of(_noun_of(self.model_type))
        return item_or_none


def _by_id(item_id: Any, options: dict[str, Any]) -> dict[str, Any]:
    """The id alone identifies a row of the user. advanced-alchemy expects all columns of the key, unless told."""
    return options if isinstance(item_id, tuple | dict) else {"id_attribute": "id", **options}


def _noun_of(model: type[Entity]) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", " ", model.__name__).lower()
