"""Conversations over HTTP, with their messages and turns."""

from typing import Annotated
from uuid import UUID

from litestar import Controller, Response, delete, get, patch, post
from litestar.di import NamedDependency
from litestar.params import FromPath, QueryParameter

from latchkey.application import conversations
from latchkey.application.deletion import delete_and_remove, delete_conversation
from latchkey.application.dispatcher import Dispatcher
from latchkey.application.turns import read
from latchkey.application.turns.expire import with_expiry
from latchkey.application.turns.finish import PublishedTurn
from latchkey.domain.conversation import Conversation, ConversationChanges, ConversationId, NewConversation
from latchkey.domain.errors import IdempotencyMismatch
from latchkey.domain.message import Message
from latchkey.domain.page import DEFAULT_LIMIT, Page, Window
from latchkey.domain.turn_repositories import Order
from latchkey.interfaces.http.requests import (
    REPLAYED,
    ApiRequest,
    CursorQuery,
    IdempotencyKey,
    JsonBody,
    LimitQuery,
    PatchBody,
)
from latchkey.interfaces.http.responses import LOCATION, respond_once

OrderQuery = Annotated[Order, QueryParameter(description="`asc` for oldest first, `desc` for newest first.")]

ReplacedQuery = Annotated[
    bool, QueryParameter(description="Include the messages of turns that others have replaced, such as before an edit.")
]


class ConversationController(Controller):
    path = "/conversations"
    tags = ("conversations",)

    @post(response_headers=[LOCATION, REPLAYED], failures=[IdempotencyMismatch])
    async def add_conversation(
        self,
        request: ApiRequest,
        dispatcher: NamedDependency[Dispatcher],
        data: JsonBody[NewConversation],
        idempotency_key: IdempotencyKey = None,
    ) -> Response[Conversation]:
        """Create an empty conversation."""

        def respond(conversation: Conversation) -> Response[Conversation]:
            location = request.location_of("conversations", conversation.id)
            return Response(conversation, status_code=201, headers={"location": location})

        return await respond_once(request, dispatcher, idempotency_key, respond, conversations.add_conversation, data)

    @get()
    async def list_conversations(
        self,
        request: ApiRequest,
        dispatcher: NamedDependency[Dispatcher],
        limit: LimitQuery = DEFAULT_LIMIT,
        cursor: CursorQuery = None,
    ) -> Page[Conversation]:
        """List conversations, most recent activity first."""
        return await dispatcher.call(request.user, conversations.list_conversations, Window(limit, cursor))

    @get("/{conversation_id:uuid}")
    async def get_conversation(
        self, request: ApiRequest, dispatcher: NamedDependency[Dispatcher], conversation_id: FromPath[UUID]
    ) -> Conversation:
        """Get a conversation."""
        return await dispatcher.call(request.user, conversations.get_conversation, ConversationId(conversation_id))

    @patch("/{conversation_id:uuid}")
    async def update_conversation(
        self,
        request: ApiRequest,
        dispatcher: NamedDependency[Dispatcher],
        conversation_id: FromPath[UUID],
        data: PatchBody[ConversationChanges],
    ) -> Conversation:
        """Change or remove the title of a conversation."""
        id = ConversationId(conversation_id)
        return await dispatcher.call(request.user, conversations.update_conversation, id, data)

    @delete("/{conversation_id:uuid}", essential=True)
    async def delete_conversation(
        self, request: ApiRequest, dispatcher: NamedDependency[Dispatcher], conversation_id: FromPath[UUID]
    ) -> None:
        """Delete a conversation with its messages, turns and tokens. Its to-do tasks are kept.

        It is gone at once, and its running turn is cancelled. What is stored of a large conversation is removed in
        steps; the response comes after the last one. If there is no response, the next deletion of a conversation or
        an artifact removes the rest.
        """
        id = ConversationId(conversation_id)
        await delete_and_remove(dispatcher, request.user, delete_conversation, id)

    @get("/{conversation_id:uuid}/messages")
    async def list_messages(  # noqa: PLR0913 - one for each parameter of the request
        self,
        request: ApiRequest,
        dispatcher: NamedDependency[Dispatcher],
        conversation_id: FromPath[UUID],
        *,
        order: OrderQuery = "asc",
        replaced: ReplacedQuery = False,
        limit: LimitQuery = DEFAULT_LIMIT,
        cursor: CursorQuery = None,
    ) -> Page[Message]:
        """List the messages of a conversation, by default oldest first. Each answer includes its tool calls."""
        id, window = ConversationId(conversation_id), Window(limit, cursor)
        return await dispatcher.call(request.user, conversations.list_messages, id, window, order, replaced=replaced)

    @get("/{conversation_id:uuid}/turns")
    async def list_turns(
        self,
        request: ApiRequest,
        dispatcher: NamedDependency[Dispatcher],
        conversation_id: FromPath[UUID],
        limit: LimitQuery = DEFAULT_LIMIT,
        cursor: CursorQuery = None,
    ) -> Page[PublishedTurn]:
        """List the turns of a conversation, newest first."""
        id, window = ConversationId(conversation_id), Window(limit, cursor)
        return await with_expiry(dispatcher, request.user, read.list_turns, id, window)
