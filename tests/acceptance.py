"""A turn that has been accepted, as whoever runs it has it."""

from latchkey.application.acceptance import Accepted, Terms, accept_turn
from latchkey.application.application import Application
from latchkey.domain.conversation import ConversationId
from latchkey.domain.message import NewMessage
from latchkey.domain.scope import Grant, Owner
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
