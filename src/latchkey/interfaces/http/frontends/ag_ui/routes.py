"""AG-UI over HTTP: the endpoint of `HttpAgent`, of CopilotKit's runtime and of TanStack AI."""

import re
from typing import Annotated, Any

import msgspec
from litestar import Controller, Response, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath
from msgspec import Meta, Struct
from msgspec.structs import replace

from latchkey.application.dispatcher import Dispatcher
from latchkey.application.turns.expire import with_expiry
from latchkey.application.turns.log import (
    ConversationLog,
    find_run,
    find_turn,
    get_conversation_log,
    get_log_up_to,
)
from latchkey.application.turns.runner import TurnRunner
from latchkey.application.turns.subscription import ReservedSubscription, TurnSubscriptions
from latchkey.domain.errors import Invalid, NotFound
from latchkey.domain.turn import ClientRequest, TurnId
from latchkey.interfaces.errors import invalid
from latchkey.interfaces.http.event_stream import MEDIA_TYPE
from latchkey.interfaces.http.frontends.ag_ui.history import thread_messages
from latchkey.interfaces.http.frontends.ag_ui.run import BEGINNING, Run
from latchkey.interfaces.http.frontends.ag_ui.run_input import RunAgentInput, UserMessage, idempotency_of
from latchkey.interfaces.http.frontends.ag_ui.stream import RunStream
from latchkey.interfaces.http.frontends.ag_ui.tanstack import hydration
from latchkey.interfaces.http.frontends.messages import LENIENT
from latchkey.interfaces.http.requests import ASSISTANT_HEADER, ApiRequest, ClientId, JsonBody

MAX_TURNS = 100
"""How many turns of a thread are shown at once: the newest ones."""
_POSITION = re.compile(r"([0-9]{1,9})\.([0-9]{1,9})")


class ThreadQuery(Struct, frozen=True, rename="camel"):
    """The query parameters of both GET requests. `before` is the turn that the page ends at, as in `page.cursor`."""

    run_id: ClientId | None = None
    thread_id: ClientId | None = None
    limit: Annotated[int, Meta(ge=1, le=MAX_TURNS)] = MAX_TURNS
    before: TurnId | None = None

    @classmethod
    def of(cls, request: ApiRequest) -> "ThreadQuery":
        """Read the query parameters of a request. Raises `Invalid`."""
        try:
            return msgspec.convert(dict(request.query_params), cls, strict=False)
        except msgspec.ValidationError as error:
            raise invalid(error) from error


class AgUiController(Controller):
    path = "/ag-ui"
    include_in_schema = False
    opt = LENIENT

    @post(status_code=200)
    async def run_agent(
        self,
        request: ApiRequest,
        dispatcher: NamedDependency[Dispatcher],
        runner: NamedDependency[TurnRunner],
        subscriptions: NamedDependency[TurnSubscriptions],
        data: JsonBody[RunAgentInput],
    ) -> Response[Any]:
        """Send the user's message, and stream its run; without one, show the thread and its running turn.

        With `Last-Event-ID`, the stream of the client's run continues after that event.
        """
        run, message = Run(data.thread_id, data.run_id, data.knows_cancelled), data.user_message()
        after = _position(request)
        with subscriptions.reserve(request.user) as subscription:
            if after and (client_run := await with_expiry(dispatcher, request.user, find_run, data.run_id)):
                return _follow(request, dispatcher, subscription, client_run.turn_id, replace(run, after=after))
            if message:
                turn_id = await _start_turn(request, dispatcher, runner, data, message)
                return _follow(request, dispatcher, subscription, turn_id, run)
            log = await _log(request, dispatcher, data.thread_id, ThreadQuery())
            run = replace(run, snapshot=thread_messages(log))
            if log.running_turn_id:
                return _follow(request, dispatcher, subscription, log.running_turn_id, run)
            return Response(run.encode(0, [*run.started(), run.finished()]), media_type=MEDIA_TYPE)

    @get()
    async def get_run_or_thread(
        self,
        request: ApiRequest,
        dispatcher: NamedDependency[Dispatcher],
        subscriptions: NamedDependency[TurnSubscriptions],
    ) -> Response[Any]:
        """Stream a run, from its first event or after `Last-Event-ID`; or get a thread. TanStack AI requests both."""
        query = ThreadQuery.of(request)
        if query.run_id:
            with subscriptions.reserve(request.user) as subscription:
                client_run = await with_expiry(dispatcher, request.user, find_run, query.run_id)
                if client_run is None:
                    raise NotFound.of("run")
                run = Run(client_run.thread_id, query.run_id, after=_position(request) or BEGINNING)
                return _follow(request, dispatcher, subscription, client_run.turn_id, run)
        if query.thread_id:
            return Response(hydration(await _log(request, dispatcher, query.thread_id, query)))
        raise Invalid.at("threadId", "Expected `threadId` or `runId` as a query parameter")

    @get("/{thread_id:str}")
    async def get_thread(
        self, request: ApiRequest, dispatcher: NamedDependency[Dispatcher], thread_id: FromPath[str]
    ) -> dict[str, Any]:
        """Get the messages of a thread, for the `initialMessages` of an agent."""
        log = await _log(request, dispatcher, thread_id, ThreadQuery.of(request))
        return {"threadId": thread_id, "messages": thread_messages(log), "activeTurnId": log.running_turn_id}


async def _log(request: ApiRequest, dispatcher: Dispatcher, thread_id: str, query: ThreadQuery) -> ConversationLog:
    limit, before = query.limit, query.before
    return await with_expiry(dispatcher, request.user, get_conversation_log, thread_id, limit, before)


async def _start_turn(
    request: ApiRequest, dispatcher: Dispatcher, runner: TurnRunner, data: RunAgentInput, message: UserMessage
) -> TurnId:
    """Return the turn that answers the message.

    If a running turn answers the message, that turn is returned. An ended turn is returned if the client resumes a run
    that joined it. If the message has been sent in another run, the user has edited it or
    wants another answer: the new turn replaces that turn and all turns after it.
    """
    new_message = data.new_message(message, request.headers.get(ASSISTANT_HEADER))
    idempotency = idempotency_of(data.run_id, message, new_message)
    if message.id and (earlier := await with_expiry(dispatcher, request.user, find_turn, data.thread_id, [message.id])):
        is_followed = earlier.turn.status == "running" or _position(request) is not None
        if is_followed and earlier.message.content == message.text:
            return earlier.turn.id
        if earlier.turn.run_id != data.run_id:
            new_message = replace(new_message, replaces=earlier.turn.id)
    client_request = ClientRequest(request.request_id, idempotency, message.id, data.run_id)
    return (await runner.start_or_join(request.user, new_message, client_request)).turn_id


def _follow(
    request: ApiRequest, dispatcher: Dispatcher, subscription: ReservedSubscription, turn_id: TurnId, run: Run
) -> Response[Any]:
    async def read_log(turn_id: TurnId, seq: int) -> ConversationLog:
        return await with_expiry(dispatcher, request.user, get_log_up_to, turn_id, seq, MAX_TURNS)

    return RunStream(subscription.follow(turn_id, 0), run, read_log).response(request.user.user_id)


def _position(request: ApiRequest) -> tuple[int, int] | None:
    """Return the number of the last received event and the index within it; None for an id of another form."""
    match = _POSITION.fullmatch(request.headers.get("last-event-id", ""))
    return (int(match[1]), int(match[2])) if match else None
