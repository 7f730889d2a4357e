"""Tool calls: the effect of a call, its record and its events are one transaction, executed once per call id."""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from time import perf_counter
from typing import Concatenate, ParamSpec

import msgspec
from msgspec import Raw, Struct
from msgspec.structs import replace

from latchkey.application.access import Permission, creates_artifact, permission_of
from latchkey.application.approval_requests import NOT_APPROVED, WAITING, ask_user
from latchkey.application.dispatcher import Dispatcher, LoggedOutcome
from latchkey.domain.artifact import ArtifactReference
from latchkey.domain.credentials import Credential, Owner
from latchkey.domain.errors import (
    ApprovalRequired,
    ConcurrentWrite,
    Conflict,
    DuplicateToolCall,
    Exhausted,
    Failure,
    Forbidden,
    TooManyCalls,
    Unauthenticated,
    Unavailable,
)
from latchkey.domain.ports import ToolBug, Transaction, UnitOfWork
from latchkey.domain.tool_call import (
    ANNOUNCE_AFTER_S,
    NO_RESULT,
    IdempotentCall,
    StoredCall,
    ToolCall,
    ToolCallId,
    ToolInvocation,
    ToolOutcome,
    canonical_json,
    failed_outcome,
)
from latchkey.domain.turn_event import EventData, ToolCallCompletedEvent, ToolCallStartedEvent, numbered

P = ParamSpec("P")

_ATTEMPTS = 5
"""A first attempt may collide with a concurrent write to the turn. Later attempts hold the user's exclusive lock, and
only text that the agent writes at the same time can collide with them."""

CALL_LIMIT_S = 30.0
"""How long a call may take, in addition to the time limit of a tool outside a transaction."""

_SLOW_S = ANNOUNCE_AFTER_S / 2
"""A use case that took longer may have been announced while it ran."""

_SMALL_RECORD_BYTES = 2 * 1024
"""A failed call of this size, or one that was announced, is recorded even if the storage quota is reached."""

TOOL_BUG = Failure("Internal error of the tool: see the service's log.")
"""What is said of an unknown exception of a tool."""

_encode = msgspec.json.Encoder().encode


class _Execution(Struct, frozen=True):
    """The function that each attempt of a call runs, the name in its log line, and when it came in (`perf_counter`).

    `is_deletion` says that the call stores nothing but its record, so that the storage quota never refuses it.
    `is_repeatable` says that a repetition outside a turn may run again: it changes nothing, or its failure may pass.
    `is_refused` says that it records a failure, about which the user is not asked.
    """

    run: Callable[[UnitOfWork], Awaitable[ToolOutcome]]
    name: str
    started: float
    is_deletion: bool = False
    is_repeatable: bool = False
    is_refused: bool = False


class ToolCallExecutor:
    """Executes tool calls as use cases. A call of a turn is recorded with its outcome, also if it failed."""

    def __init__(
        self, dispatcher: Dispatcher, max_calls: int = 100, approval_ttl: timedelta = timedelta(days=1)
    ) -> None:
        """A question to the user expires after `approval_ttl`."""
        self._dispatcher = dispatcher
        self.max_calls = max_calls
        self._approval_ttl = approval_ttl

    async def execute(
        self,
        credential: Credential,
        invocation: ToolInvocation,
        use_case: Callable[Concatenate[UnitOfWork, P], Awaitable[object]],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> ToolOutcome:
        """Execute a tool call and return its outcome. A failure of the call itself is an outcome, too.

        Raises `Unauthenticated`, `Forbidden` and `Unavailable`: then the call has no effect and is not recorded.
        """
        started = perf_counter()
        bug: Exception | None = None

        async def run(uow: UnitOfWork) -> ToolOutcome:
            nonlocal bug
            try:
                result = await use_case(uow, *args, **kwargs)
            except Exception as error:
                bug = error
                raise
            return ToolOutcome(result, _encode(result))

        try:
            permission = permission_of(use_case)
            is_deletion = permission.mode != "read" and not permission.stores
            execution = _Execution(run, invocation.name, started, is_deletion, permission.mode == "read")
            return await self._with_retries(credential, invocation, permission, execution)
        except (Unauthenticated, Forbidden, Unavailable):
            raise
        except Failure as error:
            failure = error
        except Exception as error:
            if error is not bug:
                # A bug of Latchkey: it is unknown whether the call was stored.
                raise
            self._dispatcher.log(ToolBug(invocation.name, invocation.call_id, credential.user_id, error))
            failure = TOOL_BUG
        # The failed attempt has been logged as a call of the tool.
        if isinstance(credential, Owner) and invocation.call_id is None:
            # It belongs to no turn, and no repetition can be recognized: there is nothing to record or to find.
            return failed_outcome(failure)
        return await self._record_failure(credential, invocation, use_case, failure, "record_failure")

    async def record_failure(
        self, credential: Credential, invocation: ToolInvocation, use_case: Callable[..., object], failure: Failure
    ) -> ToolOutcome:
        """Record a call that failed before it was executed, and return its outcome. Raises what `execute` does."""
        return await self._record_failure(credential, invocation, use_case, failure, invocation.name)

    async def _record_failure(
        self,
        credential: Credential,
        invocation: ToolInvocation,
        use_case: Callable[..., object],
        failure: Failure,
        name: str,
    ) -> ToolOutcome:
        async def run(_: UnitOfWork) -> ToolOutcome:
            return failed_outcome(failure)

        permission = replace(permission_of(use_case), stores=False)
        is_repeatable = permission.mode == "read" or isinstance(failure, Exhausted | ConcurrentWrite)
        execution = _Execution(run, name, perf_counter(), is_repeatable=is_repeatable, is_refused=True)
        try:
            return await self._with_retries(credential, invocation, permission, execution)
        except Exhausted:
            # No storage is left for a record. The call of a running turn fails nevertheless.
            return failed_outcome(failure)

    async def _with_retries(
        self,
        credential: Credential,
        invocation: ToolInvocation,
        permission: Permission,
        execution: _Execution,
    ) -> ToolOutcome:
        """Attempt the call until no concurrent write to the turn rolls it back."""
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                return await self._attempt(
                    credential, invocation, _recording_permission(permission, credential, attempt), execution
                )
            except ConcurrentWrite:
                if attempt == _ATTEMPTS:
                    raise
            except DuplicateToolCall:
                if first := await self._find_outcome(credential, invocation, permission):
                    return first
            except TooManyCalls as failure:
                # A call over the limit fails, unless it repeats a call that was within the limit.
                return await self._find_outcome(credential, invocation, permission) or failed_outcome(failure)
        raise ConcurrentWrite("Concurrent writes to the turn prevented the call: try again.")

    async def _attempt(
        self,
        credential: Credential,
        invocation: ToolInvocation,
        permission: Permission,
        execution: _Execution,
    ) -> ToolOutcome:
        logged = LoggedOutcome()
        async with self._dispatcher.unit_of_work(credential, permission, execution.name, logged) as uow:
            opened = perf_counter()
            if first := await find_first(uow, invocation):
                logged.code = first.code
                return first
            announced = await _find_announced(uow, invocation)
            if announced and announced.is_asked:
                return waiting_outcome(announced.call, invocation)
            if announced and (announced.is_started or announced.call.has_result):
                outcome = outcome_of(announced.call, invocation)
                logged.code = outcome.code
                return outcome
            if not execution.is_refused and invocation.must_wait(uow.scope):
                return await self.ask(uow, invocation, logged)
            outcome = await execution.run(uow)
            logged.code = outcome.code
            is_slow = perf_counter() - opened > _SLOW_S
            duration_ms = round((perf_counter() - execution.started) * 1000)
            call = build_call(uow, invocation, outcome, duration_ms)
            is_small_refusal = call.is_error and (announced is not None or call.size <= _SMALL_RECORD_BYTES)
            is_remembered = has_own_id(uow, invocation) and not execution.is_repeatable
            if is_remembered or (uow.scope.turn_id and not is_small_refusal):
                self._check_storage(uow, execution)
            if is_remembered:
                await uow.idempotent_calls.add(build_idempotent(uow, invocation, outcome))
            await self._record(uow, call, invocation.call_id, is_announced=announced is not None, is_slow=is_slow)
            await uow.commit()
        return outcome

    async def ask(self, uow: Transaction, invocation: ToolInvocation, logged: LoggedOutcome) -> ToolOutcome:
        """Store the question to the user, and commit. A call outside a turn is refused, and nothing is stored."""
        logged.code = ApprovalRequired.code
        if (turn_id := uow.scope.turn_id) is None:
            return NOT_APPROVED
        self._dispatcher.check_known_storage(uow.scope.user_id)
        call = build_call(uow, invocation, NO_OUTCOME, 0)
        await ask_user(
            uow, turn_id, replace(call, result=NO_RESULT), invocation.call_id, self.max_calls, self._approval_ttl
        )
        await uow.commit()
        return WAITING

    def _check_storage(self, uow: UnitOfWork, execution: _Execution) -> None:
        if not execution.is_deletion:
            self._dispatcher.check_known_storage(uow.scope.user_id)

    async def _find_outcome(
        self, credential: Credential, invocation: ToolInvocation, permission: Permission
    ) -> ToolOutcome | None:
        """Return the recorded outcome of the call with this id; None if there is none yet."""
        permission = _recording_permission(replace(permission, stores=False), credential, attempt=1)
        async with self._dispatcher.unit_of_work(credential, permission, "find_duplicate_call") as uow:
            if uow.scope.turn_id is None or invocation.call_id is None:
                return await find_first(uow, invocation)
            stored = await uow.tool_calls.find(uow.scope.turn_id, invocation.call_id)
        return outcome_of(stored.call, invocation) if stored and (stored.is_started or stored.call.has_result) else None

    async def _record(
        self, uow: Transaction, call: ToolCall, call_id: str | None, *, is_announced: bool, is_slow: bool
    ) -> None:
        """Record the call of a turn, and append its events to the turn's log.

        While a slow call ran, it may have been announced and text may have been appended. So this checks for the
        announcement, and locks the turn before it takes event numbers.
        """
        if uow.scope.turn_id is None:
            return
        turn_id = uow.scope.turn_id
        if call_id and is_slow and not is_announced:
            is_announced = not await uow.tool_calls.add_if_absent(call, turn_id, call_id)
        elif not is_announced:
            await uow.tool_calls.add(call, turn_id, call_id)
        events: list[EventData] = []
        if call_id and is_announced:
            call = replace(call, id=await uow.tool_calls.set_result(turn_id, call_id, call))
        else:
            events.append(ToolCallStartedEvent(call.id, call.name, call.arguments))
        events.append(ToolCallCompletedEvent(call.id, call.name, call.result, call.is_error, call.duration_ms))
        events += created_artifacts([call])
        if is_slow:
            await uow.turns.lock(turn_id)
        first_seq = await uow.turns.count_tool_call(turn_id, uow.now, len(events), self.max_calls)
        await uow.turn_events.add(*numbered(turn_id, first_seq - 1, *events))


def build_call(uow: UnitOfWork, invocation: ToolInvocation, outcome: ToolOutcome, duration_ms: int) -> ToolCall:
    """Return the record of a call."""
    return ToolCall(
        id=ToolCallId(uow.new_id()),
        name=invocation.name,
        arguments=Raw(invocation.arguments),
        result=Raw(outcome.json),
        is_error=outcome.is_error,
        started_at=uow.now,
        duration_ms=duration_ms,
    )


def _recording_permission(permission: Permission, credential: Credential, attempt: int) -> Permission:
    """Return the permission with the transaction mode in which a context token's call can be recorded."""
    if isinstance(credential, Owner):
        return permission
    return replace(permission, mode="write" if attempt == 1 else "exclusive")


def has_own_id(uow: UnitOfWork, invocation: ToolInvocation) -> bool:
    """Whether the call is identified by its id and credential, because it belongs to no turn."""
    return uow.scope.turn_id is None and invocation.call_id is not None


async def find_first(uow: UnitOfWork, invocation: ToolInvocation) -> ToolOutcome | None:
    """Return the outcome of the first call with this id outside a turn; an error if that was another call."""
    if uow.scope.turn_id is not None or invocation.call_id is None:
        return None
    first = await uow.idempotent_calls.find(uow.scope.caller, invocation.call_id, uow.now)
    if first is None:
        return None
    if first.digest != invocation.digest:
        return _other_call()
    return ToolOutcome(msgspec.json.decode(first.response), first.response.encode(), first.is_error)


def build_idempotent(uow: UnitOfWork, invocation: ToolInvocation, outcome: ToolOutcome) -> IdempotentCall:
    """Return the record of a call outside a turn, by which repetitions find its outcome."""
    return IdempotentCall(
        caller=uow.scope.caller,
        key=invocation.call_id or "",
        digest=invocation.digest,
        response=outcome.json.decode(),
        is_error=outcome.is_error,
        created_at=uow.now,
    )


async def _find_announced(uow: UnitOfWork, invocation: ToolInvocation) -> StoredCall | None:
    """Find the turn's call with this id, if the turn has announced calls at all."""
    turn_id, call_id = uow.scope.turn_id, invocation.call_id
    if turn_id is None or call_id is None or not await uow.turns.has_announced_calls(turn_id):
        return None
    return await uow.tool_calls.find(turn_id, call_id)


def outcome_of(call: ToolCall, invocation: ToolInvocation) -> ToolOutcome:
    """Return the recorded outcome for a repeated call; an error if another call was made with the same id.

    A call that was started outside a transaction and has no result is not run again: its outcome is `NO_OUTCOME`.
    """
    if not _is_same(call, invocation):
        return _other_call()
    if not call.has_result:
        return NO_OUTCOME
    json = bytes(call.result)
    return ToolOutcome(msgspec.json.decode(json), json, call.is_error)


def waiting_outcome(call: ToolCall, invocation: ToolInvocation) -> ToolOutcome:
    """Return the outcome of a call that waits for the user; an error if another call was made with the same id."""
    return WAITING if _is_same(call, invocation) else _other_call()


def _other_call() -> ToolOutcome:
    return failed_outcome(DuplicateToolCall("Another call was made with this id: give each call its own id."))


NO_OUTCOME = failed_outcome(
    Conflict(
        "no result recorded: the call was started, and is still running or was stopped. It does not run again under"
        " this id. Repeat it later to get its result, if it has one by then."
    )
)
"""The outcome of a repeated call that was started outside a transaction and has no result."""


def _is_same(call: ToolCall, invocation: ToolInvocation) -> bool:
    return call.name == invocation.name and canonical_json(call.arguments) == canonical_json(invocation.arguments)


def created_artifacts(calls: list[ToolCall]) -> list[ArtifactReference]:
    """Return the artifacts that these tool calls created or revised, in order, each at its last version."""
    references = [
        msgspec.json.decode(call.result, type=ArtifactReference)
        for call in calls
        if not call.is_error and creates_artifact(call.name)
    ]
    return list({artifact.id: artifact for artifact in references}.values())
