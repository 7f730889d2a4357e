"""The models of a small app for SQLAlchemy's ORM, with a relationship."""

from uuid import UUID

from sqlalchemy import ForeignKeyConstraint, Index, MetaData, String
from sqlalchemy.orm import Mapped, mapped_column, relationship

from latchkey.infrastructure.database.app_schema import AppSchema
from latchkey.infrastructure.database.entity_model import Entity, table_of
from latchkey.infrastructure.database.entity_repository import EntityRepository


class Base(Entity):
    __abstract__ = True
    metadata = MetaData()


class Booking(Base):
    __tablename__ = "bookings"
    __table_args__ = (Index("uq_bookings_code", "user_id", "code", unique=True),)

    comment: Mapped[str]
    code: Mapped[str | None] = mapped_column(String(8))
    tags: Mapped[list[str] | None]
    notes: Mapped[list["BookingNote"]] = relationship(back_populates="booking", cascade="all, delete-orphan")


class BookingNote(Base):
    __tablename__ = "booking_notes"
    __table_args__ = (
        ForeignKeyConstraint(["user_id", "booking_id"], ["bookings.user_id", "bookings.id"], ondelete="CASCADE"),
    )

    booking_id: Mapped[UUID]
    text: Mapped[str]
    booking: Mapped[Booking] = relationship(back_populates="notes")


class Bookings(EntityRepository[Booking]):
    """No statement of its own."""


class BookingNotes(EntityRepository[BookingNote]):
    """No statement of its own."""


bookings = table_of(Booking)
booking_notes = table_of(BookingNote)
SCHEMA = AppSchema(entities=(bookings, booking_notes))
