"""The HTTP API that `useChat` expects (Vercel AI SDK): send, approve, resume, stop, and the history of a chat."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
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
from latchkey.domain.errors import Conflict, NotFound
from latchkey.domain.tool_call import ToolCallId
from latchkey.domain.turn import ClientRequest, TurnId
from latchkey.domain.turn_event import TurnEvent, without_withdrawn
from latchkey.interfaces.http.event_stream import event_stream
from latchkey.interfaces.http.frontends.ai_sdk.approvals import (
    ContinuationTranslator,
    PostedDecisions,
    posted_decisions,
)
from latchkey.interfaces.http.frontends.ai_sdk.history import ui_messages
from latchkey.interfaces.http.frontends.ai_sdk.requests import ChatRequest, UserMessage
from latchkey.interfaces.http.frontends.ai_sdk.translator import UIMessageTranslator
from latchkey.interfaces.http.guards import LENIENT
from latchkey.interfaces.http.requests import ASSISTANT_HEADER, ApiRequest, JsonBody

AssistantHeader = Annotated[str | None, HeaderParameter(name=ASSISTANT_HEADER)]
TurnsQuery = Annotated[int, QueryParameter(ge=1, le=200)]
BeforeQuery = Annotated[UUID | None, QueryParameter()]

_DEFAULT_TURNS = 50
_VERSION_HEADER = "latchkey-ai-sdk"
"""Pages with ai 5, whose protocol has no approvals, send it with the value 5."""


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

        A running turn of the chat is cancelled: `stop` of the client only closes its connection. If the page has
        decided on tool calls instead, their turn goes on, and the rest of it is streamed.
        """
        data.check_id()
        if posted := posted_decisions(data):
            return await _decide(request, dispatcher, runner, subscriptions, posted)
        message = data.user_message()
        text = message.text
        with subscriptions.reserve(request.user) as subscription:
            earlier = await _find_earlier(request, dispatcher, data, message)
            if earlier and await _is_repeated(request, dispatcher, data, message, earlier):
                return await _replay(request, dispatcher, subscription, earlier.turn.id)
            replaces = earlier.turn.id if earlier else None
            new_message = data.new_message(text, replaces, assistant)
            client_request = ClientRequest(request.request_id, data.idempotency(message, replaces), message.id)
            turn = await runner.start_or_join(request.user, new_message, client_request)
            if turn.task is None:
                return await _replay(request, dispatcher, subscription, turn.turn_id)
            return _stream(request, subscription.follow(turn.turn_id, 0), turn.turn_id, _translator(request))

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
        messages = ui_messages(history, has_approvals=_has_approvals(request))
        return {"id": chat, "messages": messages, "activeStreamId": history.running_turn_id}

    @get("/{chat:str}/stream")
    async def resume(
        self,
        request: ApiRequest,
        dispatcher: NamedDependency[Dispatcher],
        subscriptions: NamedDependency[TurnSubscriptions],
        chat: FromPath[str],
    ) -> Response[None] | Stream:
        """Stream the running turn of the chat from its first event; 204 if none is running, or it waits for the user.

        Pages send this request on each load, also for a chat without messages.
        """
        with subscriptions.reserve(request.user) as subscription:
            turn_id = await with_expiry(dispatcher, request.user, log.find_running_turn, chat)
            if turn_id is None:
                return Response(None, status_code=204)
            return await _replay(request, dispatcher, subscription, turn_id)

    @get("/turn/{turn_id:uuid}/stream")
    async def follow_turn(
        self,
        request: ApiRequest,
        dispatcher: NamedDependency[Dispatcher],
        subscriptions: NamedDependency[TurnSubscriptions],
        turn_id: FromPath[UUID],
    ) -> Stream:
        """Stream a turn from its first event, also after its end. The stream ends where the turn waits for the user."""
        with subscriptions.reserve(request.user) as subscription:
            await with_expiry(dispatcher, request.user, read.check_turn, TurnId(turn_id))
            return await _replay(request, dispatcher, subscription, TurnId(turn_id))

    @post("/{chat:str}/stop", status_code=200, essential=True)
    async def stop(
        self, request: ApiRequest, dispatcher: NamedDependency[Dispatcher], chat: FromPath[str]
    ) -> dict[str, bool]:
        """Cancel the turn of the chat that is running or waits for the user, if there is one."""
        await dispatcher.call(request.user, log.cancel_unfinished_turn, chat)
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


async def _decide(
    request: ApiRequest,
    dispatcher: Dispatcher,
    runner: TurnRunner,
    subscriptions: TurnSubscriptions,
    posted: PostedDecisions,
) -> Stream:
    """Store the decisions, and stream what the page lacks of the turn.

    A decision that comes too late changes nothing: the stream shows the one that was made. Raises `Conflict` if none
    was made.
    """
    turn_id, conflicts = posted.turn_id, dict[ToolCallId, Conflict]()
    with subscriptions.reserve(request.user) as subscription:
        for call_id, decision in posted.decisions.items():
            try:
                await runner.decide(request.user, turn_id, call_id, decision)
            except Conflict as error:
                conflicts[call_id] = error
        if conflicts:
            # An expired question is declined when the turn is read.
            await with_expiry(dispatcher, request.user, read.check_turn, turn_id)
        for call_id, conflict in conflicts.items():
            try:
                await runner.find_decision_event(request.user, turn_id, call_id)
            except NotFound:
                raise conflict from None
        return _stream(request, subscription.follow(turn_id, 0), turn_id, ContinuationTranslator(posted))


async def _replay(
    request: ApiRequest, dispatcher: Dispatcher, subscription: ReservedSubscription, turn_id: TurnId
) -> Stream:
    """Stream a turn from its first event, without the text that was withdrawn."""
    stored = without_withdrawn(await dispatcher.call(request.user, log.list_withdrawing_events, turn_id))
    later = subscription.follow(turn_id, stored[-1].seq if stored else 0)
    return _stream(request, _followed_by(stored, later), turn_id, _translator(request))


async def _followed_by(
    stored: list[TurnEvent], later: AsyncGenerator[list[TurnEvent], None]
) -> AsyncGenerator[list[TurnEvent], None]:
    async with aclosing(later):
        if stored:
            yield stored
        async for batch in later:
            yield batch


def _stream(
    request: ApiRequest,
    events: AsyncGenerator[list[TurnEvent], None],
    turn_id: TurnId,
    translator: UIMessageTranslator | ContinuationTranslator,
) -> Stream:
    headers = {"x-vercel-ai-ui-message-stream": "v1", "x-resumable-stream-id": str(turn_id)}
    return event_stream(events, request.user.user_id, headers, translator.translate, translator.end)


def _translator(request: ApiRequest) -> UIMessageTranslator:
    return UIMessageTranslator(has_approvals=_has_approvals(request))


def _has_approvals(request: ApiRequest) -> bool:
    return not request.headers.get(_VERSION_HEADER, "").startswith("5")
