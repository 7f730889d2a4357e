"""Tool calls outside a transaction: recorded as started, run without a connection, and recorded with their result.

A call that has been started never runs again under the same id, whatever happens to the process that runs it.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from time import perf_counter
from typing import Any
from uuid import NAMESPACE_OID, uuid5

import msgspec
from msgspec import Raw, Struct
from msgspec.structs import replace

from latchkey.application.access import Permission, permission_of
from latchkey.application.call_results import store_result_with_retries
from latchkey.application.dispatcher import Dispatcher, LoggedOutcome
from latchkey.application.tool_calls import (
    NO_OUTCOME,
    TOOL_BUG,
    ToolCallExecutor,
    build_call,
    build_idempotent,
    find_first,
    outcome_of,
    waiting_outcome,
)
from latchkey.domain.credentials import Credential, Owner, Scope, UserId
from latchkey.domain.errors import (
    ConcurrentWrite,
    Conflict,
    DuplicateToolCall,
    Exhausted,
    Failure,
    ToolTimeout,
    TooManyCalls,
    Unauthenticated,
    Unavailable,
    cause_of,
)
from latchkey.domain.ports import (
    EventBus,
    Subscription,
    ToolBug,
    ToolContexts,
    UnitOfWork,
    UseCaseCall,
)
from latchkey.domain.tool_call import IdempotentCall, ToolCall, ToolInvocation, ToolOutcome, failed_outcome
from latchkey.domain.turn import TurnId
from latchkey.domain.turn_event import ToolCallCompletedEvent, ToolCallStartedEvent, numbered

MAX_RUNNING_PER_USER = 20
"""In one process. Each running call can hold connections to other services, and so file descriptors."""

_CHECK_INTERVAL_S = 5.0
"""How often the token of a running call is checked, in case the event bus misses the end of the turn."""

_ATTEMPTS = 5

_NO_RESULT_YET = ToolOutcome(None, b"null", is_error=True)
_NOT_STORED = failed_outcome(
    Conflict(
        "The turn ended, or the credential expired or was revoked, while the tool ran: its result is not stored."
        " What it did in other services stays."
    )
)

_encode = msgspec.json.Encoder().encode


class ExternalTool(Struct, frozen=True):
    """A function whose first parameter is a `ToolCallContext`, and how many seconds it may take."""

    function: Callable[..., Awaitable[object]]
    timeout_s: float

    @property
    def permission(self) -> Permission:
        """The declared permission of the function."""
        return permission_of(self.function)


class _Call(Struct, frozen=True):
    """A started call.

    - `record`: its row, without a result.
    - `key`: the id under which the tool calls other services, and which the log shows.
    - `idempotent`: its record outside a turn, if repetitions of it are recognized.
    - `started`: when it came in (`perf_counter`).
    """

    scope: Scope
    record: ToolCall
    key: str
    idempotent: IdempotentCall | None
    started: float = 0.0


class _Turn(Struct):
    """Whether the turn of a running call has ended."""

    has_ended: bool = False


class ExternalCallExecutor:
    """Executes tools outside a transaction. `executor` records the calls that fail before they are started."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        executor: ToolCallExecutor,
        event_bus: EventBus,
        contexts: ToolContexts,
    ) -> None:
        self._dispatcher = dispatcher
        self._executor = executor
        self._event_bus = event_bus
        self._contexts = contexts
        self._recordings: set[asyncio.Task[ToolOutcome]] = set()
        self._running = Counter[UserId]()

    async def execute(
        self, credential: Credential, invocation: ToolInvocation, tool: ExternalTool, args: Sequence[Any]
    ) -> ToolOutcome:
        """Execute a tool call and return its outcome. A failure of the tool, and a timeout, is an outcome, too.

        Raises `Unauthenticated`, `Forbidden` and `Unavailable` if the call was not started, and `Unavailable` if its
        result cannot be stored: then a repetition says that no result is recorded.
        """
        started, code, user_id, cause = perf_counter(), Failure.code, None, None
        try:
            call = await self._start(credential, invocation, tool, started)
            user_id = credential.user_id
            if isinstance(call, ToolOutcome):
                code = call.code
                return call
            try:
                outcome, cause = await self._run(credential, call, tool, args)
            finally:
                self.release(user_id)
            if outcome is not _NOT_STORED:
                outcome = await self._complete(credential, tool.permission, call, outcome)
            code = outcome.code
            return outcome  # noqa: TRY300  # belongs to the call that is logged
        except Failure as failure:
            code, cause = failure.code, cause_of(failure)
            raise
        except asyncio.CancelledError:
            code = "cancelled"
            raise
        finally:
            self._dispatcher.log(UseCaseCall(invocation.name, user_id, code, (perf_counter() - started) * 1000, cause))

    async def run_approved(
        self, owner: Owner, scope: Scope, record: ToolCall, tool: ExternalTool, args: Sequence[Any]
    ) -> ToolOutcome:
        """Run a call that the user has approved and that is recorded as started, and return its outcome."""
        started, code, cause = perf_counter(), Failure.code, None
        call = _Call(scope, record, str(record.id), None, started)
        try:
            outcome, cause = await self._run(owner, call, tool, args)
            code = outcome.code
        finally:
            self._dispatcher.log(
                UseCaseCall(record.name, owner.user_id, code, (perf_counter() - started) * 1000, cause)
            )
        return outcome

    async def _start(
        self, credential: Credential, invocation: ToolInvocation, tool: ExternalTool, started: float
    ) -> _Call | ToolOutcome:
        """Record the call as started. Returns the outcome of the first call for one that repeats its id."""
        try:
            for _ in range(_ATTEMPTS):
                try:
                    return await self._attempt_start(credential, invocation, tool.permission, started)
                except (ConcurrentWrite, DuplicateToolCall):
                    # A concurrent unit of work has started or announced the call: the next attempt finds it.
                    continue
        except TooManyCalls as failure:
            return failed_outcome(failure)
        except Exhausted as failure:
            return await self._executor.record_failure(credential, invocation, tool.function, failure)
        raise ConcurrentWrite("Concurrent writes to the turn prevented the call: try again.")

    async def _attempt_start(
        self, credential: Credential, invocation: ToolInvocation, permission: Permission, started: float
    ) -> _Call | ToolOutcome:
        is_remembered = permission.mode != "read" and invocation.call_id is not None
        logged, starting = LoggedOutcome(), _recording(permission, credential, is_recorded=is_remembered)
        async with self._dispatcher.unit_of_work(credential, starting, "start_tool_call", logged) as uow:
            if is_remembered or uow.scope.turn_id:
                self._dispatcher.check_known_storage(uow.scope.user_id)
            if first := await find_first(uow, invocation) or await _find_in_turn(uow, invocation):
                logged.code = first.code
                return first
            if invocation.must_wait(uow.scope):
                return await self._executor.ask(uow, invocation, logged)
            max_calls, is_read = self._executor.max_calls, permission.mode == "read"
            call = await start_tool_call(uow, invocation, max_calls, is_remembered=is_remembered, is_read=is_read)
            self.reserve(uow.scope.user_id)
            try:
                await uow.commit()
            except BaseException:
                self.release(uow.scope.user_id)
                raise
        return replace(call, started=started)

    def reserve(self, user_id: UserId) -> None:
        """Count a running call of a verified user. Raises `Exhausted` if there are too many."""
        if self._running[user_id] >= MAX_RUNNING_PER_USER:
            raise Exhausted(
                f"Limit of {MAX_RUNNING_PER_USER} running calls of tools outside a transaction reached: wait until one"
                " has ended."
            )
        self._running[user_id] += 1

    def release(self, user_id: UserId) -> None:
        self._running -= Counter({user_id: 1})

    async def _run(
        self, credential: Credential, call: _Call, tool: ExternalTool, args: Sequence[Any]
    ) -> tuple[ToolOutcome, str | None]:
        """Run the tool, and return its outcome and the cause of a failure for the log."""
        turn, deadline = _Turn(), datetime.now(UTC) + timedelta(seconds=tool.timeout_s)
        try:
            async with (
                self._contexts.open(call.scope, call.key, deadline) as context,
                asyncio.timeout(tool.timeout_s) as limit,
                self._stopped_with_turn(credential, call.scope, limit, turn),
            ):
                result = await tool.function(context, *args)
            return ToolOutcome(result, _encode(result)), None
        except TimeoutError as error:
            if turn.has_ended:
                return _NOT_STORED, None
            detail = f"The tool took longer than its limit of {tool.timeout_s:g} seconds. It may have had its effect."
            return failed_outcome(ToolTimeout(detail)), cause_of(error)
        except Failure as failure:
            return failed_outcome(failure), cause_of(failure)
        except Exception as error:  # noqa: BLE001  # logged: a bug of a tool must not end the agent's turn
            self._dispatcher.log(ToolBug(call.record.name, call.key, call.scope.user_id, error))
            return failed_outcome(TOOL_BUG), None

    @asynccontextmanager
    async def _stopped_with_turn(
        self, credential: Credential, scope: Scope, limit: asyncio.Timeout, turn: _Turn
    ) -> AsyncIterator[None]:
        """Let `limit` expire when the turn ends, in whatever process."""
        if scope.turn_id is None:
            yield
            return
        with self._event_bus.subscribe(Owner(scope.user_id), scope.turn_id) as subscription:
            watch = asyncio.create_task(self._watch_turn(credential, subscription, limit, turn))
            try:
                yield
            finally:
                watch.cancel()

    async def _watch_turn(
        self, credential: Credential, subscription: Subscription, limit: asyncio.Timeout, turn: _Turn
    ) -> None:
        while not turn.has_ended:
            events = await subscription.next_events(_CHECK_INTERVAL_S)
            turn.has_ended = any(event.is_last for event in events) or (not events and await self._is_dead(credential))
        limit.reschedule(asyncio.get_running_loop().time())

    async def _is_dead(self, credential: Credential) -> bool:
        """Whether the token of the turn is no longer valid: its turn has ended, or its lease has expired."""
        try:
            await self._dispatcher.resolve_scope(credential)
        except Unauthenticated:
            return True
        except Unavailable:
            return False
        return False

    async def _complete(
        self, credential: Credential, permission: Permission, call: _Call, outcome: ToolOutcome
    ) -> ToolOutcome:
        """Store the result, also if the caller is cancelled meanwhile. A token is verified again in any case."""
        if isinstance(credential, Owner) and call.idempotent is None:
            return outcome
        completing = _recording(replace(permission, stores=False), credential, is_recorded=True)
        recording = asyncio.create_task(self._record(credential, completing, call, outcome))
        self._recordings.add(recording)
        recording.add_done_callback(self._recordings.discard)
        return await asyncio.shield(recording)

    async def _record(
        self, credential: Credential, permission: Permission, call: _Call, outcome: ToolOutcome
    ) -> ToolOutcome:
        async def store() -> None:
            logged = LoggedOutcome(outcome.code)
            async with self._dispatcher.unit_of_work(credential, permission, "complete_tool_call", logged) as uow:
                await complete_tool_call(uow, call, outcome)
                await uow.commit()

        return outcome if await store_result_with_retries(store) else _NOT_STORED


async def start_tool_call(
    uow: UnitOfWork, invocation: ToolInvocation, max_calls: int, *, is_remembered: bool, is_read: bool
) -> _Call:
    """Record the call as started. The caller has checked that it does not repeat the id of another one.

    Raises `DuplicateToolCall` if a concurrent unit of work has started the call, and what `Turns.count_tool_call` does.
    """
    record, idempotent = build_call(uow, invocation, _NO_RESULT_YET, 0), None
    if uow.scope.turn_id is not None:
        turn_id, call_id = uow.scope.turn_id, invocation.call_id
        record = await _start_in_turn(uow, turn_id, record, call_id, max_calls, is_read=is_read)
    elif is_remembered:
        idempotent = build_idempotent(uow, invocation, NO_OUTCOME)
        await uow.idempotent_calls.add(idempotent)
    return _Call(uow.scope, record, _key(uow.scope, invocation, record), idempotent)


async def complete_tool_call(uow: UnitOfWork, call: _Call, outcome: ToolOutcome) -> None:
    """Store the result of a started call, unless an earlier attempt was committed and its confirmation was lost."""
    if call.idempotent is not None:
        completed = replace(call.idempotent, response=outcome.json.decode(), is_error=outcome.is_error)
        await uow.idempotent_calls.complete(completed, pending=call.idempotent.response)
    if (turn_id := call.scope.turn_id) is None:
        return
    duration_ms = round((perf_counter() - call.started) * 1000)
    record = replace(call.record, result=Raw(outcome.json), is_error=outcome.is_error, duration_ms=duration_ms)
    if await uow.tool_calls.complete(turn_id, record):
        event = ToolCallCompletedEvent(record.id, record.name, record.result, record.is_error, record.duration_ms)
        await uow.turns.lock(turn_id)
        seq = await uow.turns.take_event_numbers(turn_id, uow.now, 1)
        await uow.turn_events.add(*numbered(turn_id, seq - 1, event))


async def _start_in_turn(
    uow: UnitOfWork, turn_id: TurnId, record: ToolCall, call_id: str | None, max_calls: int, *, is_read: bool
) -> ToolCall:
    """Record the call as started, with its event unless it was announced. Returns the record as stored."""
    start = await uow.tool_calls.start(record, turn_id, call_id, is_read=is_read)
    if start is None:
        raise DuplicateToolCall("Another process has started this call.")
    record = replace(record, id=start.id)
    event = ToolCallStartedEvent(record.id, record.name, record.arguments)
    events = [] if start.was_announced else [event]
    await uow.turns.lock(turn_id)
    first_seq = await uow.turns.count_tool_call(turn_id, uow.now, len(events), max_calls)
    await uow.turn_events.add(*numbered(turn_id, first_seq - 1, *events))
    return record


async def _find_in_turn(uow: UnitOfWork, invocation: ToolInvocation) -> ToolOutcome | None:
    """Return the outcome of the turn's call with this id, unless it was only announced."""
    if uow.scope.turn_id is None or invocation.call_id is None:
        return None
    stored = await uow.tool_calls.find(uow.scope.turn_id, invocation.call_id)
    if stored is not None and stored.is_asked:
        return waiting_outcome(stored.call, invocation)
    if stored is None or not (stored.is_started or stored.call.has_result):
        return None
    return outcome_of(stored.call, invocation)


def _recording(permission: Permission, credential: Credential, *, is_recorded: bool) -> Permission:
    """Return the permission with the mode of a unit of work that records the call.

    A token may be that of a turn, which is known only in the unit of work.
    """
    if isinstance(credential, Owner):
        return replace(permission, mode="write" if is_recorded else "read")
    return replace(permission, mode="exclusive")


def _key(scope: Scope, invocation: ToolInvocation, record: ToolCall) -> str:
    """Return an id of the call that is unique among all users, and the same for each repetition of the call."""
    if scope.turn_id is not None or invocation.call_id is None:
        return str(record.id)
    return str(uuid5(NAMESPACE_OID, f"{scope.user_id}\n{scope.caller}\n{invocation.call_id}"))
