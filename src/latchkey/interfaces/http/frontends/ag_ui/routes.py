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
    get_conversation_log,
    get_log_up_to,
)
from latchkey.application.turns.runner import TurnRunner
from latchkey.application.turns.subscription import ReservedSubscription, TurnSubscriptions
from latchkey.domain.errors import Invalid, NotFound
from latchkey.domain.turn import TurnId
from latchkey.interfaces.errors import invalid
from latchkey.interfaces.http.event_stream import MEDIA_TYPE
from latchkey.interfaces.http.frontends.ag_ui.history import open_interrupts, thread_messages
from latchkey.interfaces.http.frontends.ag_ui.resume import decide
from latchkey.interfaces.http.frontends.ag_ui.run import BEGINNING, Run
from latchkey.interfaces.http.frontends.ag_ui.run_input import RunAgentInput
from latchkey.interfaces.http.frontends.ag_ui.start import start_turn
from latchkey.interfaces.http.frontends.ag_ui.stream import RunStream
from latchkey.interfaces.http.frontends.ag_ui.tanstack import hydration
from latchkey.interfaces.http.guards import LENIENT
from latchkey.interfaces.http.requests import ApiRequest, ClientId, JsonBody

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

        With `resume`, decide on tool calls, and stream the rest of their turn; if a decision comes too late, show the
        thread. With `Last-Event-ID`, the stream of the client's run continues after that event.
        """
        owner, after, message = request.user, _position(request), data.user_message()
        run = Run(data.thread_id, data.run_id, data.knows_cancelled, after=after or BEGINNING)
        with subscriptions.reserve(owner) as subscription:
            if data.resume:
                continued, has_message = await decide(owner, dispatcher, runner, data, message)
                if continued:
                    run = replace(run, begins_after=continued.begins_after)
                    return _follow(request, dispatcher, subscription, continued.turn_id, run)
                message = message if has_message else None
            elif after and (client_run := await with_expiry(dispatcher, owner, find_run, data.run_id)):
                return _follow(request, dispatcher, subscription, client_run.turn_id, run)
            run = replace(run, after=BEGINNING)
            if message:
                turn_id = await start_turn(request, dispatcher, runner, data, message, is_resumed=after is not None)
                return _follow(request, dispatcher, subscription, turn_id, run)
            log = await _log(request, dispatcher, data.thread_id, ThreadQuery())
            run = replace(run, snapshot=thread_messages(log))
            if log.running_turn_id:
                return _follow(request, dispatcher, subscription, log.running_turn_id, run)
            last = run.interrupted(open_interrupts(log))
            return Response(run.encode(0, [*run.started(), last]), media_type=MEDIA_TYPE)

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
        """Get the messages of a thread, for the `initialMessages` of an agent, and its open questions."""
        log = await _log(request, dispatcher, thread_id, ThreadQuery.of(request))
        messages, interrupts = thread_messages(log), open_interrupts(log)
        return {
            "threadId": thread_id,
            "messages": messages,
            "activeTurnId": log.running_turn_id,
            "interrupts": interrupts,
        }


async def _log(request: ApiRequest, dispatcher: Dispatcher, thread_id: str, query: ThreadQuery) -> ConversationLog:
    limit, before = query.limit, query.before
    return await with_expiry(dispatcher, request.user, get_conversation_log, thread_id, limit, before)


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
