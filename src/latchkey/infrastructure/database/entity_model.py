"""The base of an app's models for SQLAlchemy's ORM: a row of a user, with a version and times."""

from datetime import datetime
from typing import Any
from uuid import UUID

from advanced_alchemy.base import CommonTableAttributes
from sqlalchemy import JSON, Integer, String, Table, Text, Uuid
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncAttrs
from sqlalchemy.orm import DeclarativeBase, Mapped, declared_attr, mapped_column
from uuid_utils.compat import uuid7

from latchkey.infrastructure.database.entity import APP_METADATA, ENTITY, check_entity_table
from latchkey.infrastructure.database.schema import TIME
from latchkey.infrastructure.database.undo_rules import ROWS, UNDO

_JSON = JSON().with_variant(JSONB(), "postgresql")


class Entity(CommonTableAttributes, AsyncAttrs, DeclarativeBase):
    """A model whose rows belong to users: advanced-alchemy's base with `(user_id, id)` as its key.

    The unit of work sets the user, the id, the version and the times. A changed row has the next version; to store one
    that has been changed meanwhile raises `StaleVersion`. A class whose keys do not begin with `user_id` is refused
    with a `ValueError` when it is defined.
    """

    __abstract__ = True
    metadata = APP_METADATA
    # advanced-alchemy's own types for JSON and dict cannot be used with SQLAlchemy 2.1.
    type_annotation_map = {  # noqa: RUF012 # SQLAlchemy's name and form
        str: Text(),
        datetime: TIME,
        UUID: Uuid(),
        dict[str, Any]: _JSON,
        list[Any]: _JSON,
        list[str]: _JSON,
    }

    user_id: Mapped[str] = mapped_column(String(128), primary_key=True, sort_order=-2)
    id: Mapped[UUID] = mapped_column(Uuid(), primary_key=True, default=uuid7, sort_order=-1)
    version: Mapped[int] = mapped_column(Integer(), sort_order=1)
    created_at: Mapped[datetime] = mapped_column(TIME, sort_order=2)
    updated_at: Mapped[datetime] = mapped_column(TIME, sort_order=3)

    @declared_attr.directive
    @classmethod
    def __mapper_args__(cls) -> dict[str, Any]:
        return {"version_id_col": cls.version}

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "__table__" in cls.__dict__:
            if cls.__mapper__.version_id_col is None:
                raise TypeError(f"{cls.__name__} compares no versions: add {{**Entity.__mapper_args__, …}} to its own.")
            table = table_of(cls)
            table.info |= {"latchkey": ENTITY, UNDO: ROWS}
            check_entity_table(table)


def table_of(model: type[Entity]) -> Table:
    """Return the table of a model."""
    return model.__table__  # type: ignore[return-value] # SQLAlchemy's type also allows views
