"""Tables of an app: each key and index begins with the user, and a repository's entity fits its table."""

from datetime import datetime
from uuid import UUID

import pytest
from msgspec import Struct
from sqlalchemy import (
    Column,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
)
from sqlalchemy.orm import Mapped, mapped_column
from sqlalchemy.schema import SchemaItem

from latchkey.infrastructure.database.entity import (
    check_entity_table,
    entity_table,
    reference_table,
    user_foreign_key,
)
from latchkey.infrastructure.database.entity_model import Entity
from latchkey.infrastructure.database.entity_repository import EntityRepository
from latchkey.infrastructure.database.repository import Repository

FAULTS: dict[str, list[SchemaItem]] = {
    "index": [Column("day", Integer()), Index("ix_day", "day")],
    "index of one column": [Column("day", Integer(), index=True)],
    "unique key": [Column("day", Integer()), UniqueConstraint("day", "user_id")],
    "unique column": [Column("day", Integer(), unique=True)],
    "foreign key": [Column("other_id", Uuid(), ForeignKey("others.id"))],
    "foreign key in another order": [
        Column("other_id", Uuid()),
        ForeignKeyConstraint(["other_id", "user_id"], ["others.id", "others.user_id"]),
    ],
}


class Item(Struct, frozen=True):
    id: UUID
    title: str
    version: int
    created_at: datetime
    updated_at: datetime


class Untitled(Struct, frozen=True):
    id: UUID
    version: int
    created_at: datetime
    colour: str


def test_entity_table_begins_with_the_user() -> None:
    metadata = MetaData()
    reference_table("bicycles", Column("id", Integer(), primary_key=True), metadata=metadata)
    others = entity_table("others", metadata=metadata)
    items = entity_table(
        "items",
        Column("title", Text()),
        Column("bicycle_id", Integer(), ForeignKey("bicycles.id")),
        Column("other_id", Uuid()),
        user_foreign_key("other_id", others),
        Index("ix_items_title", "user_id", "title"),
        metadata=metadata,
    )

    assert [column.name for column in items.c] == [
        "user_id",
        "id",
        "title",
        "bicycle_id",
        "other_id",
        "version",
        "created_at",
        "updated_at",
    ]
    assert [column.name for column in items.primary_key] == ["user_id", "id"]
    assert items.info == others.info == {"latchkey": "entity", "undo": "rows"}


@pytest.mark.parametrize("items", FAULTS.values(), ids=FAULTS)
def test_entity_table_with_a_key_without_user_is_refused(items: list[SchemaItem]) -> None:
    metadata = MetaData()
    entity_table("others", metadata=metadata)
    with pytest.raises(ValueError, match=r"The table items does not isolate users: its .* must begin with user_id"):
        entity_table("items", *items, metadata=metadata)


def test_table_without_user_id_is_refused() -> None:
    table = Table("items", MetaData(), Column("id", Uuid(), primary_key=True))
    with pytest.raises(ValueError, match="it has no column user_id: make it with `entity_table`"):
        check_entity_table(table)


def test_table_with_nullable_user_id_is_refused() -> None:
    table = Table(
        "items", MetaData(), Column("user_id", String()), Column("id", Uuid()), PrimaryKeyConstraint("user_id", "id")
    )
    table.c.user_id.nullable = True
    with pytest.raises(ValueError, match="its column user_id must be a text and NOT NULL"):
        check_entity_table(table)


def test_reference_table_with_user_id_is_refused() -> None:
    with pytest.raises(ValueError, match="The reference table items has a column user_id"):
        reference_table("items", Column("user_id", String()), metadata=MetaData())


def test_table_with_the_name_of_a_built_in_table_is_refused() -> None:
    with pytest.raises(ValueError, match="Latchkey has a table tasks itself: choose another name"):
        entity_table("tasks", metadata=MetaData())
    with pytest.raises(ValueError, match="Latchkey has a table tasks itself: choose another name"):
        reference_table("tasks", metadata=MetaData())


def test_repository_entity_that_does_not_fit_the_table_is_refused() -> None:
    items = entity_table("items", Column("title", Text()), metadata=MetaData())

    class Items(Repository[Item], table=items):
        pass

    with pytest.raises(TypeError, match="Untitled does not fit the table items, see colour, updated_at"):

        class Wrong(Repository[Untitled], table=items):
            pass

    with pytest.raises(TypeError, match=r"Nameless names no entity: class Nameless\(Repository\[Entity\], table=…\)"):

        class Nameless(Repository, table=items):  # type: ignore[type-arg] # the fault
            pass


def test_repository_without_a_table_is_refused() -> None:
    class Items(Repository[Item]):
        pass

    with pytest.raises(TypeError, match=r"Items has no table: class Items\(Repository\[Entity\], table=…\)"):
        Items(None)  # type: ignore[arg-type] # refused before it is used


def test_repository_of_the_orm_without_an_entity_is_refused() -> None:
    with pytest.raises(TypeError, match="Items names no entity"):

        class Items(EntityRepository):  # type: ignore[type-arg] # the fault
            pass


class Base(Entity):
    __abstract__ = True
    metadata = MetaData()


def test_model_with_a_key_without_user_is_refused() -> None:
    with pytest.raises(ValueError, match="The table items does not isolate users: its index ix_items_day must begin"):

        class Item(Base):
            __tablename__ = "items"
            day: Mapped[int] = mapped_column(index=True)


def test_model_without_versions_is_refused() -> None:
    with pytest.raises(TypeError, match="Unversioned compares no versions"):

        class Unversioned(Base):
            __tablename__ = "unversioned"
            __mapper_args__ = {"eager_defaults": False}  # noqa: RUF012 # SQLAlchemy's form
