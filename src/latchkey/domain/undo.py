"""Undo of a turn: what its tool calls changed, what was reverted, and what prevents an undo."""

from typing import Any, Literal
from uuid import UUID

from msgspec import Struct

from latchkey.domain.errors import Conflict
from latchkey.domain.tool_call import ToolCallId

Effect = Literal["created", "updated", "deleted"]

ConflictReason = Literal["changed", "deleted", "exists", "in-use", "constraint", "external", "not-recorded"]
"""Why an effect cannot be undone.

- `changed`: the entry was changed since.
- `deleted`: the entry was deleted since.
- `exists`: the deleted entry exists again.
- `in-use`: other entries refer to it.
- `constraint`: the database refuses it, for example because another entry has a value that must be unique.
- `external`: the tool ran outside a transaction, and may have changed something in another service.
- `not-recorded`: the state before the call was not recorded.
"""


class Change(Struct, frozen=True, omit_defaults=True):
    """One change of a row by a tool call, as stored with the call. `version` is that of the row after the change.

    `before` has the columns that an update changed, or all columns of a deleted row, always with the version. A change
    without an `id` cannot be undone, for this reason.
    """

    effect: Effect
    table: str
    id: UUID | None = None
    version: int = 0
    before: dict[str, Any] = {}
    reason: ConflictReason | None = None

    @classmethod
    def not_recorded(cls, table: str) -> "Change":
        """Return a change whose state before is not recorded, so that it cannot be undone."""
        return cls("updated", table, reason="not-recorded")


class UndoneEffect(Struct, frozen=True):
    """An effect that was reverted: what the tool call had done to which entry.

    `kind` is the name of the entry's table: `tasks`, `artifacts`, `notes`, or one of an app. `version` is the version
    that the restored entry has now, and `restored_version` the one whose state it has again; both are null for an
    entry that the call had created.
    """

    tool_call_id: ToolCallId
    kind: str
    id: UUID
    effect: Effect
    version: int | None
    restored_version: int | None


class UndoConflict(Struct, frozen=True):
    """An effect that cannot be undone. `kind` and `id` are null if the call, and no single entry, is the reason."""

    tool_call_id: ToolCallId
    kind: str | None
    id: UUID | None
    reason: ConflictReason


class NotUndoable(Conflict):
    """The turn cannot be undone, and nothing was. `conflicts` lists the effects that prevent it."""
