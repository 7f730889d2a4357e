"""Responses of OpenAI's API: a response is a turn."""

from functools import partial
from typing import Annotated, Any

from litestar import Controller, Response, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, QueryParameter
from msgspec.structs import replace

from latchkey.application.dispatcher import Dispatcher
from latchkey.application.turns import finish
from latchkey.application.turns.expire import with_expiry
from latchkey.application.turns.log import TurnLog, get_next_turn, get_turn_log
from latchkey.application.turns.runner import TurnRunner
from latchkey.application.turns.subscription import TurnSubscriptions
from latchkey.domain.conversation import ConversationId
from latchkey.domain.errors import Invalid
from latchkey.domain.message import NewMessage
from latchkey.domain.turn import ClientRequest, Idempotency, TurnId
from latchkey.interfaces.http.frontends.messages import new_message
from latchkey.interfaces.http.frontends.openai.approvals import decide
from latchkey.interfaces.http.frontends.openai.history import new_translator, response_of, translated
from latchkey.interfaces.http.frontends.openai.ids import (
    CONVERSATION,
    FIRST_PART,
    decode_id,
    decode_response_id,
)
from latchkey.interfaces.http.frontends.openai.objects import list_object, user_item
from latchkey.interfaces.http.frontends.openai.requests import NewResponse
from latchkey.interfaces.http.frontends.openai.streams import stream_response, wait_for_end, wait_for_turn
from latchkey.interfaces.http.guards import LENIENT
from latchkey.interfaces.http.requests import (
    ASSISTANT_HEADER,
    REPLAYED,
    ApiRequest,
    IdempotencyKey,
    JsonBody,
    idempotency_of,
)

_MAX_NUMBER = 2**31 - 1

StartingAfter = Annotated[int, QueryParameter(ge=-1, le=_MAX_NUMBER)]


class OpenAIResponseController(Controller):
    path = "/openai/v1/responses"
    include_in_schema = False
    opt = LENIENT

    @post(status_code=200)
    async def create_response(
        self,
        request: ApiRequest,
        dispatcher: NamedDependency[Dispatcher],
        runner: NamedDependency[TurnRunner],
        subscriptions: NamedDependency[TurnSubscriptions],
        data: JsonBody[NewResponse],
        idempotency_key: IdempotencyKey = None,
    ) -> Response[Any]:
        """Start a turn. Return its events, the running response (`background`), or the response when it has ended.

        A turn that failed is no error of the request: the SDKs would send the message again. Decisions on tool calls
        continue the turn that waits for them.
        """
        if data.approvals:
            return await self._continue(request, dispatcher, runner, subscriptions, data)
        message = await _new_message(request, dispatcher, runner, data)
        client_request = ClientRequest(request.request_id, _idempotency_of(request, idempotency_key, data))
        with subscriptions.reserve(request.user) as subscription:
            handle = await runner.start_or_join(request.user, message, client_request)
            headers = {REPLAYED.name: "true"} if handle.original_request_id else {}
            if not data.stream and not data.background:
                await wait_for_turn(request, runner, subscription, handle, is_repeatable=idempotency_key is not None)
            log = await _log_of(request, dispatcher, handle.turn_id)
            if data.stream:
                return stream_response(request, subscription, new_translator(log, FIRST_PART), headers)
            return Response(response_of(log), headers=headers)

    async def _continue(
        self,
        request: ApiRequest,
        dispatcher: Dispatcher,
        runner: TurnRunner,
        subscriptions: TurnSubscriptions,
        data: NewResponse,
    ) -> Response[Any]:
        """Store the decisions on tool calls. Return the rest of the turn as another response."""
        with subscriptions.reserve(request.user) as subscription:
            log, part = await decide(request.user, runner, partial(_log_of, request, dispatcher), data)
            if data.stream:
                return stream_response(request, subscription, new_translator(log, part))
            if not data.background:
                await wait_for_end(subscription, log.turn.id, part)
                log = await _log_of(request, dispatcher, log.turn.id)
            return Response(response_of(log, part))

    @get("/{response_id:str}")
    async def get_response(
        self,
        request: ApiRequest,
        dispatcher: NamedDependency[Dispatcher],
        subscriptions: NamedDependency[TurnSubscriptions],
        response_id: FromPath[str],
        *,
        stream: FromQuery[bool] = False,
        starting_after: StartingAfter = -1,
    ) -> Response[Any]:
        """Show a response, or stream its events after the one with the number `starting_after`."""
        turn_id, part = decode_response_id(response_id)
        if not stream:
            return Response(response_of(await _log_of(request, dispatcher, turn_id), part))
        with subscriptions.reserve(request.user) as subscription:
            log = await _log_of(request, dispatcher, turn_id)
            return stream_response(request, subscription, new_translator(log, part, starting_after))

    @post("/{response_id:str}/cancel", status_code=200, essential=True)
    async def cancel_response(
        self, request: ApiRequest, dispatcher: NamedDependency[Dispatcher], response_id: FromPath[str]
    ) -> dict[str, Any]:
        """Cancel a response. A response that has ended does not change."""
        turn_id, part = decode_response_id(response_id)
        await dispatcher.call(request.user, finish.cancel_turn, turn_id)
        return response_of(await _log_of(request, dispatcher, turn_id), part)

    @get("/{response_id:str}/input_items")
    async def list_input_items(
        self, request: ApiRequest, dispatcher: NamedDependency[Dispatcher], response_id: FromPath[str]
    ) -> dict[str, Any]:
        """List the input of a response: the message of the user, or the user's decisions on tool calls."""
        turn_id, part = decode_response_id(response_id)
        log = await _log_of(request, dispatcher, turn_id)
        items = translated(log, part).decisions if part.start else [user_item(log)]
        return list_object(items, has_more=False)


async def _new_message(
    request: ApiRequest, dispatcher: Dispatcher, runner: TurnRunner, data: NewResponse
) -> NewMessage:
    """Return the message of a request. Raises `Invalid`, and `NotFound` for unknown ids."""
    conversation_id, replaced = None, None
    if data.previous_response_id:
        if data.conversation_id:
            raise Invalid.at("$.conversation", "Expected null: `previous_response_id` names the conversation")
        previous, _ = decode_response_id(data.previous_response_id)
        conversation_id, replaced = await dispatcher.call(request.user, get_next_turn, previous)
    elif data.conversation_id:
        conversation_id = ConversationId(decode_id(CONVERSATION, data.conversation_id))
    assistant = request.headers.get(ASSISTANT_HEADER) or (data.model if data.model in runner.profiles.chat else None)
    metadata = data.metadata or {}
    message = {
        "message": data.text,
        "conversation_id": conversation_id,
        "artifact_generation": metadata.get("artifact_generation") == "true",
        "assistant": assistant,
        "metadata": metadata or None,
        "replaces": replaced,
    }
    return new_message(message)


def _idempotency_of(request: ApiRequest, key: str | None, data: NewResponse) -> Idempotency | None:
    """Return the key with the fingerprint of the request, which does not depend on `stream` and `background`."""
    if key is None:
        return None
    return idempotency_of(key, [replace(data, stream=None, background=None), request.headers.get(ASSISTANT_HEADER)])


async def _log_of(request: ApiRequest, dispatcher: Dispatcher, turn_id: TurnId) -> TurnLog:
    return await with_expiry(dispatcher, request.user, get_turn_log, turn_id, with_running=True)
