"""Streams of responses, and waiting for their end."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from litestar import Response

from latchkey.application.turns.executor import HANDED_OVER
from latchkey.application.turns.runner import TurnHandle, TurnRunner
from latchkey.application.turns.subscription import ReservedSubscription
from latchkey.domain.errors import Draining, StreamBroken
from latchkey.domain.turn import TurnId
from latchkey.domain.turn_event import TurnEvent
from latchkey.interfaces.http.event_stream import event_stream
from latchkey.interfaces.http.frontends.openai.ids import FIRST_PART, ResponsePart, response_id
from latchkey.interfaces.http.frontends.openai.translator import ResponseTranslator
from latchkey.interfaces.http.requests import ApiRequest


def stream_response(
    request: ApiRequest,
    subscription: ReservedSubscription,
    translator: ResponseTranslator,
    headers: dict[str, str] | None = None,
) -> Response[Any]:
    """Return the events of a response."""
    events = _events_of(subscription.follow(translator.turn_id, 0), translator.part)
    return event_stream(events, request.user.user_id, headers, translator.translate)


async def _events_of(
    events: AsyncGenerator[list[TurnEvent], None], part: ResponsePart
) -> AsyncGenerator[list[TurnEvent], None]:
    """Yield the events of a turn up to the end of the part."""
    async with aclosing(events) as batches:
        async for batch in batches:
            end = next((place for place, event in enumerate(batch, 1) if part.ends_with(event)), None)
            yield batch[:end]
            if end is not None:
                return


async def wait_for_turn(
    request: ApiRequest,
    runner: TurnRunner,
    subscription: ReservedSubscription,
    handle: TurnHandle,
    *,
    is_repeatable: bool,
) -> None:
    """Wait until the turn has ended or waits for the user, in this process or in another one."""
    if handle.task is None:
        if handle.original_request_id is None:
            await wait_for_end(subscription, handle.turn_id, FIRST_PART)
        return
    try:
        await runner.wait(request.user, handle)
    except Draining as failure:
        if is_repeatable:
            raise
        id = response_id(handle.turn_id, FIRST_PART)
        detail = f"This process is stopping. Another one completes the response: retrieve `{id}`."
        raise Draining(detail, response_id=id) from failure


async def wait_for_end(subscription: ReservedSubscription, turn_id: TurnId, part: ResponsePart) -> None:
    """Wait until this part of a turn has ended. Raises `Draining` if this process stops earlier."""
    try:
        async for _ in _events_of(subscription.follow(turn_id, part.start), part):
            pass
    except StreamBroken as failure:
        raise Draining(HANDED_OVER) from failure
