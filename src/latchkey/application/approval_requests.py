"""Questions to the user about tool calls: stored in place of the call, which is not made."""

from datetime import timedelta

from msgspec.structs import replace

from latchkey.domain.errors import DuplicateToolCall
from latchkey.domain.ports import UnitOfWork
from latchkey.domain.tool_call import ToolCall
from latchkey.domain.turn import TurnId
from latchkey.domain.turn_event import ApprovalRequestedEvent, EventData, ToolCallStartedEvent, numbered


async def ask_user(
    uow: UnitOfWork, turn_id: TurnId, call: ToolCall, call_id: str | None, max_calls: int, ttl: timedelta
) -> None:
    """Store a call of a running turn as a question, with its events.

    Raises `DuplicateToolCall` if a concurrent unit of work has stored the call, and what `Turns.count_tool_call` does.
    """
    expires_at = uow.now + ttl
    asked = await uow.questions.add(call, turn_id, call_id, expires_at)
    if asked is None:
        raise DuplicateToolCall("Another unit of work has stored this call.")
    call = replace(call, id=asked.id)
    events: list[EventData] = [] if asked.was_announced else [ToolCallStartedEvent(call.id, call.name, call.arguments)]
    events.append(ApprovalRequestedEvent(call.id, call.name, call.arguments, expires_at))
    await uow.turns.lock(turn_id)
    first_seq = await uow.turns.count_tool_call(turn_id, uow.now, len(events), max_calls)
    await uow.turn_events.add(*numbered(turn_id, first_seq - 1, *events))
