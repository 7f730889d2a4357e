"""Conversations over HTTP, with their messages and turns."""

from typing import Annotated
from uuid import UUID

from litestar import Controller, Response, delete, get, patch, post
from litestar.params import QueryParameter

from latchkey.application import conversations, messages, turns
from latchkey.domain.conversation import Conversation, ConversationChanges, ConversationId, NewConversation
from latchkey.domain.message import Message
from latchkey.domain.page import DEFAULT_LIMIT, Page, Window
from latchkey.domain.ports import Order
from latchkey.domain.turn import PublishedTurn
from latchkey.interfaces.http.paging import CursorQuery, LimitQuery
from latchkey.interfaces.http.request import ApiRequest

OrderQuery = Annotated[Order, QueryParameter(description="`desc` for the newest first.")]


class ConversationController(Controller):
    path = "/conversations"
    tags = ["conversations"]

    @post()
    async def add(self, request: ApiRequest, data: NewConversation) -> Response[Conversation]:
        conversation = await request.call(conversations.add_conversation, data)
        location = f"/api/{request.user.user_id}/conversations/{conversation.id}"
        return Response(conversation, status_code=201, headers={"location": location})

    @get()
    async def list(
        self, request: ApiRequest, limit: LimitQuery = DEFAULT_LIMIT, cursor: CursorQuery = None
    ) -> Page[Conversation]:
        return await request.call(conversations.list_conversations, Window(limit, cursor))

    @get("/{conversation_id:uuid}")
    async def show(self, request: ApiRequest, conversation_id: UUID) -> Conversation:
        return await request.call(conversations.get_conversation, ConversationId(conversation_id))

    @patch("/{conversation_id:uuid}")
    async def change(
        self, request: ApiRequest, conversation_id: UUID, data: ConversationChanges
    ) -> Conversation:
        return await request.call(conversations.update_conversation, ConversationId(conversation_id), data)

    @delete("/{conversation_id:uuid}")
    async def remove(self, request: ApiRequest, conversation_id: UUID) -> None:
        await request.call(conversations.delete_conversation, ConversationId(conversation_id))

    @get("/{conversation_id:uuid}/messages")
    async def list_messages(
        self,
        request: ApiRequest,
        conversation_id: UUID,
        order: OrderQuery = "asc",
        limit: LimitQuery = DEFAULT_LIMIT,
        cursor: CursorQuery = None,
    ) -> Page[Message]:
        return await request.call(
            messages.list_messages, ConversationId(conversation_id), Window(limit, cursor), order
        )

    @get("/{conversation_id:uuid}/turns")
    async def list_turns(
        self,
        request: ApiRequest,
        conversation_id: UUID,
        limit: LimitQuery = DEFAULT_LIMIT,
        cursor: CursorQuery = None,
    ) -> Page[PublishedTurn]:
        return await request.call(turns.list_turns, ConversationId(conversation_id), Window(limit, cursor))
