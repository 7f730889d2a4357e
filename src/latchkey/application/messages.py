"""Use cases on messages."""

from latchkey.application.access import needs
from latchkey.domain.conversation import ConversationId
from latchkey.domain.message import Message
from latchkey.domain.page import Page, Window
from latchkey.domain.ports import Order, UnitOfWork
from latchkey.domain.scope import Grant


@needs(Grant.CONVERSATIONS_READ)
async def list_messages(
    work: UnitOfWork, conversation_id: ConversationId, window: Window, order: Order = "asc"
) -> Page[Message]:
    """List the messages of a conversation by their number, each answer with the tool calls behind it."""
    page = await work.messages.page(conversation_id, window, order)
    if not page.items:
        await work.conversations.get(conversation_id)
    return page
