"""A turn that has been accepted, as whoever runs it has it."""

from latchkey.application.dispatcher import Application
from latchkey.application.turns.start import Accepted, Terms, accept_turn
from latchkey.domain.conversation import ConversationId
from latchkey.domain.credentials import Grant, Owner
from latchkey.domain.message import NewMessage
from tests.builders import TASK_GRANTS, TERMS


async def accepted(
    app: Application,
    owner: Owner,
    text: str = "Hello",
    where: ConversationId | None = None,
    *,
    grants: list[Grant] = TASK_GRANTS,
    terms: Terms = TERMS,
) -> Accepted:
    """Raises what `accept_turn` does."""
    turn = await app.call(owner, accept_turn, NewMessage(text, where), "rehearsal", grants, terms)
    assert isinstance(turn, Accepted)
    return turn
