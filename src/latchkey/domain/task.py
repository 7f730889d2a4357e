"""To-do tasks."""

from datetime import MAXYEAR, MINYEAR, UTC, datetime
from typing import Annotated, Literal, NewType
from uuid import UUID

from msgspec import UNSET, Meta, Struct, UnsetType
from msgspec.structs import asdict, replace

from latchkey.domain.conversation import ConversationId
from latchkey.domain.errors import Invalid, StaleVersion
from latchkey.domain.values import Description, Instant, Title

TaskId = NewType("TaskId", UUID)
TaskStatus = Literal["pending", "completed"]
DueAt = Annotated[datetime, Meta(tz=True, description="The due time, RFC 3339 with an offset.")]
Version = Annotated[int, Meta(ge=1, le=2**31 - 1, description="The version that the caller has read.")]


def in_utc(due_at: datetime | None) -> datetime | None:
    """Convert a due time to UTC.

    Raises `Invalid` for the years 1 and 9999: the result could be out of range, which databases take for infinity.
    """
    if due_at is None:
        return None
    if not MINYEAR < due_at.year < MAXYEAR:
        raise Invalid.at("$.due_at", "Expected a time in the years 2 to 9998")
    return due_at.astimezone(UTC)


class NewTask(Struct, frozen=True, forbid_unknown_fields=True):
    title: Title
    description: Description | None = None
    due_at: DueAt | None = None


class TaskChanges(Struct, frozen=True, forbid_unknown_fields=True):
    """A merge patch (RFC 7396): a member that is left out stays unchanged, null clears it.

    Title and status cannot be null.
    """

    title: Title | UnsetType = UNSET
    description: Description | None | UnsetType = UNSET
    due_at: DueAt | None | UnsetType = UNSET
    status: TaskStatus | UnsetType = UNSET


class Task(Struct, frozen=True):
    """A to-do task. `conversation_id` is the conversation in which it was made, unless that was deleted."""

    id: TaskId
    title: str
    description: str | None
    due_at: Instant | None
    status: TaskStatus
    version: int
    conversation_id: ConversationId | None
    created_at: Instant
    updated_at: Instant
    completed_at: Instant | None

    def check_version(self, expected: int | None) -> None:
        """Raises `StaleVersion` if the expected version is not the current one."""
        if expected is not None and expected != self.version:
            raise StaleVersion(f"The task is at version {self.version}, not {expected}: read it again.")

    def with_changes(self, changes: TaskChanges, now: datetime) -> "Task":
        """Return the next version with the changes; the same object if they change nothing."""
        values = {name: value for name, value in asdict(changes).items() if value is not UNSET}
        if "due_at" in values:
            values["due_at"] = in_utc(values["due_at"])
        if all(getattr(self, name) == value for name, value in values.items()):
            return self
        status = values.get("status", self.status)
        completed_at = None if status == "pending" else self.completed_at or now
        return replace(self, **values, version=self.version + 1, updated_at=now, completed_at=completed_at)
