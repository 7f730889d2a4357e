"""Tool calls: the effect of one and its row in the ledger are a single transaction."""

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, suppress
from time import perf_counter
from typing import Any, Concatenate, ParamSpec

import msgspec
from msgspec import Raw, Struct
from msgspec.structs import replace

from latchkey.application.access import Permission, permission_of
from latchkey.application.artifacts import created_artifacts
from latchkey.application.dispatcher import Dispatcher
from latchkey.domain.credentials import Credential, Owner
from latchkey.domain.errors import (
    ConcurrentWrite,
    DuplicateToolCall,
    Failure,
    Forbidden,
    NotFound,
    TooManyCalls,
    Unauthenticated,
    Unavailable,
)
from latchkey.domain.ports import Transaction, TransactionMode, UnitOfWork
from latchkey.domain.tool_call import ToolCall, ToolCallId
from latchkey.domain.turn_event import EventData, ToolCallCompletedEvent, ToolCallStartedEvent, numbered

P = ParamSpec("P")

_ATTEMPTS = 5
"""Only text that is told meanwhile can overtake a call that is alone, and only so often."""

_encode = msgspec.json.Encoder().encode
_encode_sorted = msgspec.json.Encoder(order="deterministic").encode


class ToolOutcome(Struct, frozen=True):
    """What a tool answers: the structured content, or for an error `{code, detail}`; both also as JSON."""

    content: Any
    json: bytes
    is_error: bool = False


class ToolInvocation(Struct, frozen=True):
    """A tool call as it came in: the tool's name, the JSON of its arguments, and the caller's own name of the call.

    A call that is repeated under its `call_id` in the same turn is answered as it was the first time. It is taken not
    to be `announced`, and done anew where it turns out that it is; so it is where others were faster, each `attempt`
    after the first alone.
    """

    name: str
    arguments: bytes
    call_id: str | None = None
    announced: bool = False
    attempt: int = 1


class ToolCallExecutor:
    """Performs tool calls through the door. Those of a turn leave a row, whether they worked or not."""

    def __init__(self, dispatcher: Dispatcher, most_calls: int = 100) -> None:
        self._dispatcher = dispatcher
        self._most_calls = most_calls

    async def execute(
        self,
        credential: Credential,
        invocation: ToolInvocation,
        use_case: Callable[Concatenate[UnitOfWork, P], Awaitable[object]],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> ToolOutcome:
        """The outcome of the call, failures included, but for those that are not about the call itself.

        Raises `Unauthenticated`, `Forbidden` and `Unavailable`: then nothing has happened and nothing is recorded.
        """
        started = perf_counter()

        async def attempt(invocation: ToolInvocation) -> ToolOutcome:
            async with self._unit(credential, invocation, use_case) as uow:
                result = await use_case(uow, *args, **kwargs)
                outcome = ToolOutcome(result, _encode(result))
                await self._record(uow, invocation, outcome, started)
                await uow.commit()
            return outcome

        try:
            return await self._settled(credential, invocation, use_case, attempt)
        except (Unauthenticated, Forbidden, Unavailable):
            raise
        except Failure as failure:
            return await self.refuse(credential, invocation, use_case, failure)

    async def refuse(
        self, credential: Credential, invocation: ToolInvocation, use_case: Callable[..., object], failure: Failure
    ) -> ToolOutcome:
        """A call that had no effect: recorded, and answered with what was wrong. Raises like `perform`."""
        outcome = _refused(failure)

        async def attempt(invocation: ToolInvocation) -> ToolOutcome:
            async with self._unit(credential, invocation, use_case, stores=False) as uow:
                await self._record(uow, invocation, outcome, perf_counter())
                await uow.commit()
            return outcome

        return await self._settled(credential, invocation, use_case, attempt)

    async def _settled(
        self,
        credential: Credential,
        invocation: ToolInvocation,
        use_case: Callable[..., object],
        attempt: Callable[[ToolInvocation], Awaitable[ToolOutcome]],
    ) -> ToolOutcome:
        """What an attempt comes to, made again where others were faster, or had announced the call."""
        while True:
            try:
                return await attempt(invocation)
            except ConcurrentWrite:
                if invocation.attempt == _ATTEMPTS:
                    raise
                invocation = replace(invocation, attempt=invocation.attempt + 1)
            except TooManyCalls as failure:
                return await self._beyond(credential, invocation, use_case, failure)
            except DuplicateToolCall:
                if first := await self._repeat(credential, invocation, use_case):
                    return first
                invocation = replace(invocation, announced=True)

    async def _repeat(
        self, credential: Credential, invocation: ToolInvocation, use_case: Callable[..., object]
    ) -> ToolOutcome | None:
        """What the call under this id was answered; None if it was announced, and not answered yet.

        Only one that is not the same call is a mistake.
        """
        async with self._unit(credential, invocation, use_case, stores=False) as uow:
            if uow.scope.turn_id is None or invocation.call_id is None:
                raise LookupError(invocation.call_id)  # only calls with both are recorded under an id
            first = await uow.tool_calls.find(uow.scope.turn_id, invocation.call_id)
        if not first.has_result:
            return None
        if first.name != invocation.name or _canonical(first.arguments) != _canonical(invocation.arguments):
            return _refused(DuplicateToolCall("Another call was made under this id: give each its own."))
        json = bytes(first.result)
        return ToolOutcome(msgspec.json.decode(json), json, first.is_error)

    async def _beyond(
        self, credential: Credential, invocation: ToolInvocation, use_case: Callable[..., object], failure: TooManyCalls
    ) -> ToolOutcome:
        """A call that is one too many is refused, unless it repeats one of those that were not."""
        first = None
        if invocation.call_id is not None:
            with suppress(NotFound):
                first = await self._repeat(credential, invocation, use_case)
        return first or _refused(failure)

    def _unit(
        self,
        credential: Credential,
        invocation: ToolInvocation,
        use_case: Callable[..., object],
        *,
        stores: bool = True,
    ) -> AbstractAsyncContextManager[Transaction]:
        """A token's unit may write, whatever the use case does: the turn's ledger is part of it."""
        access = permission_of(use_case)
        mode: TransactionMode = "exclusive" if invocation.attempt > 1 else "write"
        if isinstance(credential, Owner):
            mode = access.mode
        access = Permission(access.grant, mode, access.stores and stores)
        return self._dispatcher.unit(credential, access, invocation.name)

    async def _record(self, uow: Transaction, invocation: ToolInvocation, outcome: ToolOutcome, started: float) -> None:
        """Row and events of a call of a turn."""
        if uow.scope.turn_id is None:
            return
        turn_id = uow.scope.turn_id
        call = ToolCall(
            id=ToolCallId(uow.new_id()),
            name=invocation.name,
            arguments=Raw(invocation.arguments),
            result=Raw(outcome.json),
            is_error=outcome.is_error,
            started_at=uow.now,
            duration_ms=round((perf_counter() - started) * 1000),
        )
        happened: list[EventData] = []
        if invocation.announced and invocation.call_id:
            call = replace(call, id=await uow.tool_calls.set_result(turn_id, invocation.call_id, call))
        else:
            await uow.tool_calls.add(call, turn_id, invocation.call_id)
            happened.append(ToolCallStartedEvent(call.id, call.name, call.arguments))
        happened.append(ToolCallCompletedEvent(call.id, call.name, call.result, call.is_error, call.duration_ms))
        happened += created_artifacts([call])
        first = await uow.turns.count_tool_call(turn_id, uow.now, len(happened), self._most_calls)
        await uow.turn_events.add(*numbered(turn_id, first - 1, *happened))


def _refused(failure: Failure) -> ToolOutcome:
    content = {"code": failure.code, "detail": failure.detail}
    return ToolOutcome(content, _encode(content), is_error=True)


def _canonical(json: bytes | Raw) -> bytes:
    """The same for the same value, however its members are ordered; as Python's values, `1` would equal `true`."""
    return _encode_sorted(msgspec.json.decode(json))
