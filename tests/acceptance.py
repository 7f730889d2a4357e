"""A turn that has been accepted, as whoever runs it has it."""

from latchkey.application.dispatcher import Dispatcher
from latchkey.application.turns.start import AcceptanceLimits, StartedTurn, start_turn
from latchkey.domain.conversation import ConversationId
from latchkey.domain.credentials import Grant, Owner
from latchkey.domain.message import NewMessage
from tests.builders import TASK_GRANTS, TERMS


async def accepted(
    app: Dispatcher,
    owner: Owner,
    text: str = "Hello",
    where: ConversationId | None = None,
    *,
    grants: list[Grant] = TASK_GRANTS,
    terms: AcceptanceLimits = TERMS,
) -> StartedTurn:
    """Raises what `start_turn` does."""
    turn = await app.call(owner, start_turn, NewMessage(text, where), "rehearsal", grants, terms)
    assert isinstance(turn, StartedTurn)
    return turn
