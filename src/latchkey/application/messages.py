"""Use cases on messages."""

from msgspec import Struct

from latchkey.application.access import needs
from latchkey.domain.conversation import Conversation, ConversationId
from latchkey.domain.message import Message
from latchkey.domain.page import Page, Window
from latchkey.domain.ports import UnitOfWork
from latchkey.domain.repositories import Order
from latchkey.domain.scope import Grant

TRANSCRIPT_MESSAGES = 2000
_PAGE = 200


class Transcript(Struct, frozen=True):
    """A conversation with its messages, oldest first; of a very long one, the newest so many."""

    conversation: Conversation
    messages: list[Message]


@needs(Grant.CONVERSATIONS_READ)
async def list_messages(
    work: UnitOfWork, conversation_id: ConversationId, window: Window, order: Order = "asc"
) -> Page[Message]:
    """List the messages of a conversation by their number, each answer with the tool calls behind it."""
    page = await work.messages.page(conversation_id, window, order)
    if not page.items:
        await work.conversations.get(conversation_id)
    return page


@needs(Grant.CONVERSATIONS_READ)
async def get_transcript(work: UnitOfWork, conversation_id: ConversationId) -> Transcript:
    """Show a conversation as a whole."""
    conversation = await work.conversations.get(conversation_id)
    messages: list[Message] = []
    cursor: str | None = None
    while len(messages) < TRANSCRIPT_MESSAGES:
        page = await work.messages.page(conversation_id, Window(_PAGE, cursor), "desc")
        messages += page.items
        cursor = page.next_cursor
        if cursor is None:
            break
    return Transcript(conversation, messages[::-1])
