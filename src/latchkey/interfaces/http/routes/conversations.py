"""Conversations over HTTP, with their messages and turns."""

from typing import Annotated
from uuid import UUID

from litestar import Controller, Response, delete, get, patch, post
from litestar.params import FromPath, QueryParameter

from latchkey.application import conversations
from latchkey.application import conversations as messages
from latchkey.application.turns import read as turns
from latchkey.application.turns.results import PublishedTurn
from latchkey.domain.conversation import Conversation, ConversationChanges, ConversationId, NewConversation
from latchkey.domain.message import Message
from latchkey.domain.page import DEFAULT_LIMIT, Page, Window
from latchkey.domain.repositories import Order
from latchkey.interfaces.http.parameters import CursorQuery, LimitQuery
from latchkey.interfaces.http.requests import ApiRequest, JsonBody, PatchBody
from latchkey.interfaces.http.responses import LOCATION, JsonResponse

OrderQuery = Annotated[Order, QueryParameter(description="`desc` for the newest first.")]


class ConversationController(Controller):
    path = "/conversations"
    tags = ("conversations",)

    @post(response_headers=[LOCATION])
    async def add_conversation(self, request: ApiRequest, data: JsonBody[NewConversation]) -> Response[Conversation]:
        """Start an empty conversation."""
        conversation = await request.call(conversations.add_conversation, data)
        location = request.location_of("conversations", conversation.id)
        return JsonResponse(conversation, status_code=201, headers={"location": location})

    @get()
    async def list_conversations(
        self, request: ApiRequest, limit: LimitQuery = DEFAULT_LIMIT, cursor: CursorQuery = None
    ) -> Page[Conversation]:
        """List conversations, newest activity first."""
        return await request.call(conversations.list_conversations, Window(limit, cursor))

    @get("/{conversation_id:uuid}")
    async def get_conversation(self, request: ApiRequest, conversation_id: FromPath[UUID]) -> Conversation:
        """Show a conversation."""
        return await request.call(conversations.get_conversation, ConversationId(conversation_id))

    @patch("/{conversation_id:uuid}")
    async def update_conversation(
        self, request: ApiRequest, conversation_id: FromPath[UUID], data: PatchBody[ConversationChanges]
    ) -> Conversation:
        """Give a conversation another title, or none."""
        return await request.call(conversations.update_conversation, ConversationId(conversation_id), data)

    @delete("/{conversation_id:uuid}")
    async def delete_conversation(self, request: ApiRequest, conversation_id: FromPath[UUID]) -> None:
        """Delete a conversation with its messages, turns and tokens. Its to-do tasks stay."""
        await request.call(conversations.delete_conversation, ConversationId(conversation_id))

    @get("/{conversation_id:uuid}/messages")
    async def list_messages(
        self,
        request: ApiRequest,
        conversation_id: FromPath[UUID],
        order: OrderQuery = "asc",
        limit: LimitQuery = DEFAULT_LIMIT,
        cursor: CursorQuery = None,
    ) -> Page[Message]:
        """List the messages of a conversation, oldest first, each answer with the tool calls behind it."""
        return await request.call(messages.list_messages, ConversationId(conversation_id), Window(limit, cursor), order)

    @get("/{conversation_id:uuid}/turns")
    async def list_turns(
        self,
        request: ApiRequest,
        conversation_id: FromPath[UUID],
        limit: LimitQuery = DEFAULT_LIMIT,
        cursor: CursorQuery = None,
    ) -> Page[PublishedTurn]:
        """List the turns of a conversation, newest first."""
        return await request.look(turns.list_turns, ConversationId(conversation_id), Window(limit, cursor))
