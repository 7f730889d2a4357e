"""Starts a turn through the dispatcher, without running an agent."""

from latchkey.application.dispatcher import Dispatcher
from latchkey.application.turns.start import AcceptanceLimits, StartedTurn, start_turn
from latchkey.domain.conversation import ConversationId
from latchkey.domain.credentials import Grant, Owner
from latchkey.domain.message import NewMessage
from tests.builders import LIMITS, TASK_GRANTS


async def started_turn(
    dispatcher: Dispatcher,
    owner: Owner,
    text: str = "Hello",
    conversation_id: ConversationId | None = None,
    *,
    grants: list[Grant] = TASK_GRANTS,
    limits: AcceptanceLimits = LIMITS,
) -> StartedTurn:
    """Start a turn for that message. Raises what `start_turn` raises."""
    turn = await dispatcher.call(owner, start_turn, NewMessage(text, conversation_id), "rehearsal", grants, limits)
    assert isinstance(turn, StartedTurn)
    return turn
