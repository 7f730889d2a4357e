"""Approvals as interrupts of AG-UI: a run ends with the open questions, and a later run's `resume` has the answers."""

from collections.abc import Mapping
from typing import Any

from msgspec import Raw

from latchkey.domain.tool_call import ToolCallId
from latchkey.domain.turn_event import ApprovalDecidedEvent, ApprovalRequestedEvent, EventData

Interrupt = dict[str, Any]

_ANSWER = {
    "type": "object",
    "properties": {"approved": {"type": "boolean"}, "reason": {"type": "string"}},
    "required": ["approved"],
}


class Interrupts:
    """The open questions of a turn, from its events."""

    def __init__(self) -> None:
        self._open: dict[ToolCallId, Interrupt] = {}

    @property
    def open(self) -> list[Interrupt]:
        """The questions that are not decided, oldest first."""
        return [*self._open.values()]

    def update(self, data: EventData | None, arguments: Mapping[ToolCallId, Raw]) -> None:
        """Apply the next event. `arguments` are those of the calls without a result, as they are shown."""
        if isinstance(data, ApprovalRequestedEvent):
            self._open[data.id] = _interrupt_of(data, arguments.get(data.id, data.arguments))
        elif isinstance(data, ApprovalDecidedEvent):
            self._open.pop(data.id, None)


def _interrupt_of(request: ApprovalRequestedEvent, arguments: Raw) -> Interrupt:
    """Return the question about a call. Its id is that of the call.

    TanStack AI shows the call as one that needs approval because of `reason` and `metadata`. With the reason
    `tool_call`, CopilotKit would take the answer for the result of the call.
    """
    return {
        "id": request.id,
        "reason": "approval_required",
        "message": f"The assistant asks to call `{request.name}`.",
        "toolCallId": request.id,
        "responseSchema": _ANSWER,
        "expiresAt": request.expires_at,
        "metadata": {"kind": "approval", "toolName": request.name, "input": arguments},
    }
