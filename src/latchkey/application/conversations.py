"""Use cases on conversations."""

from msgspec import Struct

from latchkey.application.access import owner_only, requires
from latchkey.domain.conversation import Conversation, ConversationChanges, ConversationId, NewConversation
from latchkey.domain.credentials import CONVERSATIONS_READ
from latchkey.domain.message import Message
from latchkey.domain.page import PAGE_BYTES, Page, Window
from latchkey.domain.ports import UnitOfWork
from latchkey.domain.turn_repositories import Order


@owner_only("write", stores=True)
async def add_conversation(uow: UnitOfWork, new: NewConversation) -> Conversation:
    """Add an empty conversation."""
    conversation = Conversation(
        id=ConversationId(uow.new_id()), title=new.title, created_at=uow.now, updated_at=uow.now
    )
    await uow.conversations.add(conversation)
    return conversation


@requires(CONVERSATIONS_READ)
async def list_conversations(uow: UnitOfWork, window: Window) -> Page[Conversation]:
    """List conversations, newest activity first."""
    return await uow.conversations.page(window)


@requires(CONVERSATIONS_READ)
async def get_conversation(uow: UnitOfWork, conversation_id: ConversationId) -> Conversation:
    """Show one conversation."""
    return await uow.conversations.get(conversation_id)


@owner_only("write", stores=True)
async def update_conversation(
    uow: UnitOfWork, conversation_id: ConversationId, changes: ConversationChanges
) -> Conversation:
    """Change or clear the title of a conversation."""
    conversation = await uow.conversations.get(conversation_id, for_update=True)
    changed = conversation.with_changes(changes, uow.now)
    if changed is not conversation:
        await uow.conversations.update(changed)
    return changed


TRANSCRIPT_MESSAGES = 2000
TRANSCRIPT_BYTES = 2 * PAGE_BYTES
_PAGE_SIZE = 200


class Transcript(Struct, frozen=True):
    """A conversation with its messages, oldest first.

    Of a long one, only the newest: at most `TRANSCRIPT_MESSAGES`, and about `TRANSCRIPT_BYTES`.
    """

    conversation: Conversation
    messages: list[Message]


@requires(CONVERSATIONS_READ)
async def list_messages(
    uow: UnitOfWork, conversation_id: ConversationId, window: Window, order: Order = "asc", *, replaced: bool = False
) -> Page[Message]:
    """List the messages of a conversation by `seq`, each answer with its tool calls.

    With `replaced`, the messages of replaced turns are included.
    """
    page = await uow.messages.page(conversation_id, window, order, replaced=replaced)
    if not page.items:
        await uow.conversations.get(conversation_id)
    return page


@requires(CONVERSATIONS_READ)
async def get_transcript(uow: UnitOfWork, conversation_id: ConversationId) -> Transcript:
    """Show a conversation with its messages."""
    conversation = await uow.conversations.get(conversation_id)
    messages: list[Message] = []
    cursor: str | None = None
    size = 0
    while len(messages) < TRANSCRIPT_MESSAGES and size < TRANSCRIPT_BYTES:
        page = await uow.messages.page(conversation_id, Window(_PAGE_SIZE, cursor), "desc")
        messages += page.items
        size += sum(message.size for message in page.items)
        cursor = page.next_cursor
        if cursor is None:
            break
    return Transcript(conversation, messages[::-1])
