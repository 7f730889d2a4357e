"""Use cases on conversations."""

from msgspec import Struct

from latchkey.application.access import needs, owner_only
from latchkey.domain.conversation import Conversation, ConversationChanges, ConversationId, NewConversation
from latchkey.domain.credentials import Grant
from latchkey.domain.message import Message
from latchkey.domain.page import Page, Window
from latchkey.domain.ports import UnitOfWork
from latchkey.domain.repositories import Order


@owner_only("write", stores=True)
async def add_conversation(work: UnitOfWork, new: NewConversation) -> Conversation:
    """Start an empty conversation."""
    conversation = Conversation(
        id=ConversationId(work.new_id()), title=new.title, created_at=work.now, updated_at=work.now
    )
    await work.conversations.add(conversation)
    return conversation


@needs(Grant.CONVERSATIONS_READ)
async def list_conversations(work: UnitOfWork, window: Window) -> Page[Conversation]:
    """List conversations, newest activity first."""
    return await work.conversations.page(window)


@needs(Grant.CONVERSATIONS_READ)
async def get_conversation(work: UnitOfWork, conversation_id: ConversationId) -> Conversation:
    """Show one conversation."""
    return await work.conversations.get(conversation_id)


@owner_only("write", stores=True)
async def update_conversation(
    work: UnitOfWork, conversation_id: ConversationId, changes: ConversationChanges
) -> Conversation:
    """Give a conversation another title, or none."""
    conversation = await work.conversations.get(conversation_id, for_update=True)
    changed = conversation.changed(changes, work.now)
    if changed is not conversation:
        await work.conversations.replace(changed)
    return changed


@owner_only("serial")
async def delete_conversation(work: UnitOfWork, conversation_id: ConversationId) -> None:
    """Delete a conversation with its messages, turns and tokens. Its to-do tasks stay."""
    await work.conversations.remove(conversation_id)


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
