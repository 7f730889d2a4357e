"""Starts the turn of the user's message in a run, or joins the turn that answers it."""

from msgspec.structs import replace

from latchkey.application.dispatcher import Dispatcher
from latchkey.application.turns.expire import with_expiry
from latchkey.application.turns.log import find_turn
from latchkey.application.turns.runner import TurnRunner
from latchkey.domain.turn import ClientRequest, TurnId
from latchkey.interfaces.http.frontends.ag_ui.run_input import RunAgentInput, UserMessage, idempotency_of
from latchkey.interfaces.http.requests import ASSISTANT_HEADER, ApiRequest


async def start_turn(
    request: ApiRequest,
    dispatcher: Dispatcher,
    runner: TurnRunner,
    data: RunAgentInput,
    message: UserMessage,
    *,
    is_resumed: bool,
) -> TurnId:
    """Return the turn that answers the message.

    If a running or waiting turn answers the message, that turn is returned. An ended turn is returned if the client
    resumes a run that joined it. If the message has been sent in another run, the user has edited it or wants another
    answer: the new turn replaces that turn and all turns after it. Raises what `TurnRunner.start_or_join` raises.
    """
    new_message = data.new_message(message, request.headers.get(ASSISTANT_HEADER))
    idempotency = idempotency_of(data.run_id, message, new_message)
    if message.id and (earlier := await with_expiry(dispatcher, request.user, find_turn, data.thread_id, [message.id])):
        is_followed = earlier.turn.status in {"running", "waiting"} or is_resumed
        if is_followed and earlier.message.content == message.text:
            return earlier.turn.id
        if earlier.turn.run_id != data.run_id:
            new_message = replace(new_message, replaces=earlier.turn.id)
    client_request = ClientRequest(request.request_id, idempotency, message.id, data.run_id)
    return (await runner.start_or_join(request.user, new_message, client_request)).turn_id
