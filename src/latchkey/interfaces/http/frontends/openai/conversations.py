"""Conversations of OpenAI's API, and the items in them: messages and tool calls."""

from typing import Annotated, Any

from litestar import Controller, Response, delete, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, QueryParameter

from latchkey.application import conversations
from latchkey.application.deletion import delete_and_remove, delete_conversation
from latchkey.application.dispatcher import Dispatcher
from latchkey.application.turns.expire import with_expiry
from latchkey.application.turns.log import ConversationLog, get_conversation_log
from latchkey.domain.conversation import Conversation, ConversationChanges, ConversationId, NewConversation
from latchkey.domain.errors import NotFound
from latchkey.domain.turn import TurnId
from latchkey.domain.turn_repositories import Order
from latchkey.interfaces.http.frontends.openai.history import read_items
from latchkey.interfaces.http.frontends.openai.ids import CONVERSATION, decode_id
from latchkey.interfaces.http.frontends.openai.objects import conversation_object
from latchkey.interfaces.http.frontends.openai.requests import ConversationBody
from latchkey.interfaces.http.guards import LENIENT
from latchkey.interfaces.http.requests import ApiRequest, IdempotencyKey, JsonBody
from latchkey.interfaces.http.responses import respond_once

_DEFAULT_ITEMS, _MAX_ITEMS = 20, 100

ItemLimit = Annotated[int, QueryParameter(ge=1, le=_MAX_ITEMS)]


class OpenAIConversationController(Controller):
    path = "/openai/v1/conversations"
    include_in_schema = False
    opt = LENIENT

    @post(status_code=200)
    async def create_conversation(
        self,
        request: ApiRequest,
        dispatcher: NamedDependency[Dispatcher],
        data: JsonBody[ConversationBody],
        idempotency_key: IdempotencyKey = None,
    ) -> Response[Any]:
        """Create an empty conversation."""

        def respond(conversation: Conversation) -> Response[Any]:
            return Response(conversation_object(conversation), status_code=200)

        content = NewConversation(data.title or None)
        add = conversations.add_conversation
        return await respond_once(request, dispatcher, idempotency_key, respond, add, content)

    @get("/{conversation_id:str}")
    async def get_conversation(
        self, request: ApiRequest, dispatcher: NamedDependency[Dispatcher], conversation_id: FromPath[str]
    ) -> dict[str, Any]:
        """Show a conversation."""
        id = _conversation_id(conversation_id)
        return conversation_object(await dispatcher.call(request.user, conversations.get_conversation, id))

    @post("/{conversation_id:str}", status_code=200)
    async def update_conversation(
        self,
        request: ApiRequest,
        dispatcher: NamedDependency[Dispatcher],
        conversation_id: FromPath[str],
        data: JsonBody[ConversationBody],
    ) -> dict[str, Any]:
        """Change or remove the title of a conversation."""
        id, changes = _conversation_id(conversation_id), ConversationChanges(data.title)
        return conversation_object(await dispatcher.call(request.user, conversations.update_conversation, id, changes))

    @delete("/{conversation_id:str}", status_code=200, essential=True)
    async def delete_conversation(
        self, request: ApiRequest, dispatcher: NamedDependency[Dispatcher], conversation_id: FromPath[str]
    ) -> dict[str, Any]:
        """Delete a conversation with its messages and turns."""
        await delete_and_remove(dispatcher, request.user, delete_conversation, _conversation_id(conversation_id))
        return {"id": conversation_id, "object": "conversation.deleted", "deleted": True}

    @get("/{conversation_id:str}/items")
    async def list_items(
        self,
        request: ApiRequest,
        dispatcher: NamedDependency[Dispatcher],
        conversation_id: FromPath[str],
        *,
        order: FromQuery[Order] = "desc",
        limit: ItemLimit = _DEFAULT_ITEMS,
        after: FromQuery[str | None] = None,
    ) -> dict[str, Any]:
        """List the items of a conversation, by default newest first."""
        id = _conversation_id(conversation_id)

        async def read_log(turns: int, **position: TurnId | None) -> ConversationLog:
            log = await with_expiry(
                dispatcher, request.user, get_conversation_log, str(id), turns, **position, with_running=True
            )
            if log.conversation_id != id:
                raise NotFound.of("conversation")
            return log

        return await read_items(read_log, order, limit, after)


def _conversation_id(text: str) -> ConversationId:
    return ConversationId(decode_id(CONVERSATION, text))
