"""Use cases on conversations."""

from latchkey.application.access import needs, owner_only
from latchkey.domain.conversation import Conversation, ConversationChanges, ConversationId, NewConversation
from latchkey.domain.page import Page, Window
from latchkey.domain.ports import UnitOfWork
from latchkey.domain.scope import Grant


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
