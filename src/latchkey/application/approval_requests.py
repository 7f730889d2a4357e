"""Questions to the user about tool calls: stored in place of the call, which is not made."""

from datetime import timedelta

from msgspec.structs import replace

from latchkey.domain.errors import ApprovalRequired, DuplicateToolCall
from latchkey.domain.ports import UnitOfWork
from latchkey.domain.tool_call import ToolCall, failed_outcome
from latchkey.domain.turn import TurnId
from latchkey.domain.turn_event import ApprovalRequestedEvent, EventData, ToolCallStartedEvent, numbered

WAITING = replace(
    failed_outcome(
        ApprovalRequired(
            "Nothing was done: the user must approve this call first. Open questions are listed at GET"
            " /api/{user_id}/approvals, and on the service's page."
        )
    ),
    is_waiting=True,
)
"""The outcome of a turn's call that waits for the user."""

NOT_APPROVED = failed_outcome(
    ApprovalRequired(
        "Nothing was done: the user must approve this call first. Make it with the user's own JWT, from an MCP client"
        " that speaks protocol version 2026-07-28 and supports elicitation in form mode: the client asks the user. Or"
        " ask for it in a chat: its turn waits until the user approves on the service's page, or with POST"
        " /api/{user_id}/turns/{turn_id}/approvals/{call_id}."
    )
)
"""The outcome of a call outside a turn that the user has not approved."""


async def ask_user(
    uow: UnitOfWork, turn_id: TurnId, call: ToolCall, call_id: str | None, max_calls: int, ttl: timedelta
) -> None:
    """Store a call of a running turn as a question, with its events.

    Raises `DuplicateToolCall` if a concurrent unit of work has stored the call, and what `Turns.count_tool_call` does.
    """
    expires_at = uow.now + ttl
    stored = await uow.questions.add(call, turn_id, call_id, expires_at)
    if stored is None:
        raise DuplicateToolCall("Another unit of work has stored this call.")
    call = replace(call, id=stored.id)
    events: list[EventData] = [] if stored.was_announced else [ToolCallStartedEvent(call.id, call.name, call.arguments)]
    events.append(ApprovalRequestedEvent(call.id, call.name, call.arguments, expires_at))
    await uow.turns.lock(turn_id)
    first_seq = await uow.turns.count_tool_call(turn_id, uow.now, len(events), max_calls)
    await uow.turn_events.add(*numbered(turn_id, first_seq - 1, *events))
