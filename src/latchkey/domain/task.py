"""A to-do task: something a person wants to get done."""

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
DueAt = Annotated[datetime, Meta(tz=True, description="When it is due, RFC 3339 with an offset.")]
Version = Annotated[int, Meta(ge=1, le=2**31 - 1, description="The version that the caller has seen.")]


def in_utc(due_at: datetime | None) -> datetime | None:
    """The same moment as it is stored and shown.

    Raises `Invalid` near the ends of time, where UTC has no such year, and databases say "infinity".
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
    """A merge patch (RFC 7396): left out means untouched, null clears. Title and status cannot be cleared."""

    title: Title | UnsetType = UNSET
    description: Description | None | UnsetType = UNSET
    due_at: DueAt | None | UnsetType = UNSET
    status: TaskStatus | UnsetType = UNSET


class Task(Struct, frozen=True):
    """A to-do task. `conversation_id` is the conversation in which it was made, if it was and is still there."""

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

    def at_version(self, expected: int | None) -> "Task":
        """Itself. Raises `StaleVersion` if the caller has seen another version."""
        if expected is not None and expected != self.version:
            raise StaleVersion(f"The task is at version {self.version}, not {expected}: read it again.")
        return self

    def changed(self, changes: TaskChanges, now: datetime) -> "Task":
        """The task with the changes; itself, version and all, if they change nothing."""
        wanted = {name: value for name, value in asdict(changes).items() if value is not UNSET}
        if "due_at" in wanted:
            wanted["due_at"] = in_utc(wanted["due_at"])
        if all(getattr(self, name) == value for name, value in wanted.items()):
            return self
        status = wanted.get("status", self.status)
        done_at = None if status == "pending" else self.completed_at or now
        return replace(self, **wanted, version=self.version + 1, updated_at=now, completed_at=done_at)
