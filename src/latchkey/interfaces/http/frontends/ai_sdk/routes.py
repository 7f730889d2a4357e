"""The HTTP API that `useChat` expects (Vercel AI SDK): send, resume, stop, and the history of a chat."""

from typing import Annotated, Any
from uuid import UUID

from litestar import Controller, Response, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, HeaderParameter, QueryParameter
from litestar.response import Stream

from latchkey.application.dispatcher import Dispatcher
from latchkey.application.turns import log, read
from latchkey.application.turns.expire import with_expiry
from latchkey.application.turns.runner import TurnRunner
from latchkey.application.turns.subscription import ReservedSubscription, TurnSubscriptions
from latchkey.domain.turn import ClientRequest, TurnId
from latchkey.interfaces.http.event_stream import event_stream
from latchkey.interfaces.http.frontends.ai_sdk.history import ui_messages
from latchkey.interfaces.http.frontends.ai_sdk.requests import ChatRequest, UserMessage
from latchkey.interfaces.http.frontends.ai_sdk.translator import UIMessageTranslator
from latchkey.interfaces.http.frontends.messages import LENIENT
from latchkey.interfaces.http.requests import ASSISTANT_HEADER, ApiRequest, JsonBody

AssistantHeader = Annotated[str | None, HeaderParameter(name=ASSISTANT_HEADER)]
TurnsQuery = Annotated[int, QueryParameter(ge=1, le=200)]
BeforeQuery = Annotated[UUID | None, QueryParameter()]

_DEFAULT_TURNS = 50


class AiSdkController(Controller):
    """`{chat}` is the id that the client has given to the chat, or the id of a conversation."""

    path = "/ai-sdk/chat"
    include_in_schema = False
    opt = LENIENT

    @post(status_code=200)
    async def send_message(
        self,
        request: ApiRequest,
        dispatcher: NamedDependency[Dispatcher],
        runner: NamedDependency[TurnRunner],
        subscriptions: NamedDependency[TurnSubscriptions],
        data: JsonBody[ChatRequest],
        *,
        assistant: AssistantHeader = None,
    ) -> Stream:
        """Start a turn for the user's message and stream it; a repeated message gets the stream of its turn again.

        A running turn of the chat is cancelled: `stop` of the client only closes its connection.
        """
        data.check_id()
        message = data.user_message()
        text = message.text
        with subscriptions.reserve(request.user) as subscription:
            earlier = await _find_earlier(request, dispatcher, data, message)
            if earlier and await _is_repeated(request, dispatcher, data, message, earlier):
                return _stream(request, subscription, earlier.turn.id)
            replaces = earlier.turn.id if earlier else None
            new_message = data.new_message(text, replaces, assistant)
            client_request = ClientRequest(request.request_id, data.idempotency(message, replaces), message.id)
            turn = await runner.start_or_join(request.user, new_message, client_request)
            return _stream(request, subscription, turn.turn_id)

    @get("/{chat:str}")
    async def get_chat(
        self,
        request: ApiRequest,
        dispatcher: NamedDependency[Dispatcher],
        chat: FromPath[str],
        *,
        limit: TurnsQuery = _DEFAULT_TURNS,
        before: BeforeQuery = None,
    ) -> dict[str, Any]:
        """Return the messages of the newest turns, or of those before a turn. An unknown chat has none."""
        earlier_than = None if before is None else TurnId(before)
        history = await with_expiry(
            dispatcher, request.user, log.get_conversation_log, chat, limit, before=earlier_than
        )
        return {"id": chat, "messages": ui_messages(history), "activeStreamId": history.running_turn_id}

    @get("/{chat:str}/stream")
    async def resume(
        self,
        request: ApiRequest,
        dispatcher: NamedDependency[Dispatcher],
        subscriptions: NamedDependency[TurnSubscriptions],
        chat: FromPath[str],
    ) -> Response[None] | Stream:
        """Stream the running turn of the chat from its first event; 204 if none is running.

        Pages send this request on each load, also for a chat without messages.
        """
        with subscriptions.reserve(request.user) as subscription:
            turn_id = await with_expiry(dispatcher, request.user, log.find_running_turn, chat)
            return Response(None, status_code=204) if turn_id is None else _stream(request, subscription, turn_id)

    @get("/turn/{turn_id:uuid}/stream")
    async def follow_turn(
        self,
        request: ApiRequest,
        dispatcher: NamedDependency[Dispatcher],
        subscriptions: NamedDependency[TurnSubscriptions],
        turn_id: FromPath[UUID],
    ) -> Stream:
        """Stream a turn from its first event, also after its end."""
        with subscriptions.reserve(request.user) as subscription:
            await with_expiry(dispatcher, request.user, read.check_turn, TurnId(turn_id))
            return _stream(request, subscription, TurnId(turn_id))

    @post("/{chat:str}/stop", status_code=200, essential=True)
    async def stop(
        self, request: ApiRequest, dispatcher: NamedDependency[Dispatcher], chat: FromPath[str]
    ) -> dict[str, bool]:
        """Cancel the running turn of the chat, if there is one."""
        await dispatcher.call(request.user, log.cancel_running_turn, chat)
        return {"success": True}


async def _find_earlier(
    request: ApiRequest, dispatcher: Dispatcher, data: ChatRequest, message: UserMessage
) -> log.TurnLog | None:
    """Return the earlier turn of a message that is repeated, edited or regenerated; None for a new message."""
    ids = [data.message_id] if data.is_regeneration and isinstance(data.message_id, str) else []
    if message.id is not None:
        ids.append(message.id)
    if not ids and not data.is_regeneration:
        return None
    return await dispatcher.call(request.user, log.find_turn, data.id, ids)


async def _is_repeated(
    request: ApiRequest, dispatcher: Dispatcher, data: ChatRequest, message: UserMessage, earlier: log.TurnLog
) -> bool:
    """Whether the message was sent before, and is neither edited nor regenerated.

    An edit that does not change the text still counts as an edit if the page drops later messages.
    """
    if data.is_regeneration or earlier.message.content != message.text:
        return False
    if data.message_id != message.id:
        return True
    newest = await dispatcher.call(request.user, log.find_turn, data.id, [])
    return newest is not None and newest.turn.id == earlier.turn.id


def _stream(request: ApiRequest, subscription: ReservedSubscription, turn_id: TurnId) -> Stream:
    headers = {"x-vercel-ai-ui-message-stream": "v1", "x-resumable-stream-id": str(turn_id)}
    events = subscription.follow(turn_id, 0)
    return event_stream(events, request.user.user_id, headers, UIMessageTranslator().translate)
