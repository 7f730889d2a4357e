"""The user's decisions on tool calls: an approved call is made once, with the rights of the turn that asked."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from functools import partial
from time import perf_counter
from typing import Any

import msgspec
from msgspec import Raw, Struct
from msgspec.structs import replace

from latchkey.application.access import name_of, owner_only, permission_of
from latchkey.application.call_results import store_result_with_retries
from latchkey.application.dispatcher import Dispatcher, LoggedOutcome
from latchkey.application.external_calls import ExternalCallExecutor, ExternalTool
from latchkey.application.tool_calls import CALL_LIMIT_S, TOOL_BUG
from latchkey.application.turns.start import TurnProfiles
from latchkey.application.turns.waiting import (
    add_waiting_events,
    failure_result,
    is_call_running,
    store_decision,
    store_result,
)
from latchkey.domain.approval import Approval, DecidedApproval, Decision, NewDecision, Question
from latchkey.domain.credentials import Delegate, Owner
from latchkey.domain.errors import ConcurrentWrite, Conflict, Exhausted, Failure, NotFound, Unavailable
from latchkey.domain.page import PAGE_BYTES, Page, Window
from latchkey.domain.ports import ToolBug, UnitOfWork
from latchkey.domain.tool_call import ToolCall, ToolCallId
from latchkey.domain.turn import Turn, TurnId


class BoundTool(Struct, frozen=True):
    """A tool with its arguments. `external` is None for a tool that runs in a transaction."""

    use_case: Callable[..., Awaitable[object]]
    args: Sequence[Any]
    external: ExternalTool | None = None


BindTool = Callable[[str, Any], BoundTool]
"""Returns the tool with this name and the arguments of a stored call. Raises a `Failure` if it cannot be called."""

_ATTEMPTS = 5
_PAGE_EVENTS = 512
_encode = msgspec.json.Encoder().encode


class StoredDecision(Struct, frozen=True):
    """A decision that is stored. `task` runs an approved call outside a transaction; None for any other."""

    approval: DecidedApproval
    task: asyncio.Task[None] | None = None


class _Call(Struct, frozen=True):
    """A call that the user approves, in its turn, with the credential under which it is made."""

    turn_id: TurnId
    record: ToolCall
    decision: Decision
    owner: Owner
    delegate: Delegate


class Approvals:
    """Stores decisions, and makes the calls that are approved. Turns have a lease of this length."""

    def __init__(
        self, dispatcher: Dispatcher, external: ExternalCallExecutor, bind: BindTool, lease: timedelta
    ) -> None:
        self._dispatcher = dispatcher
        self._external = external
        self._bind = bind
        self._lease = lease

    async def decide(
        self, owner: Owner, turn_id: TurnId, call_id: ToolCallId, new: NewDecision, profiles: TurnProfiles
    ) -> StoredDecision:
        """Store a decision, together with the effect of the call if it runs in a transaction.

        Repeating a decision answers the same. Raises `NotFound`; `Conflict` for the opposite decision, for a question
        that has expired, and if the turn has ended; `Exhausted` if the storage quota is reached: then the question
        stays open.
        """
        decision = Decision(new.decision, "user", new.reason)
        if decision.name == "decline":
            return StoredDecision(
                await self._dispatcher.call(owner, decide_call, turn_id, call_id, decision, self._lease)
            )
        open_question = await self._dispatcher.call(owner, find_question, turn_id, call_id, decision)
        if isinstance(open_question, DecidedApproval):
            return StoredDecision(open_question)
        turn, question = open_question
        profile = profiles.of_turn(turn)
        if profile is None:
            raise Conflict("The assistant of this turn no longer exists, so that the turn cannot go on: decline.")
        delegate = Delegate(owner.user_id, scope=profile.scope_of(turn, owner.user_id))
        call = _Call(turn_id, question.call, decision, owner, delegate)
        for _ in range(_ATTEMPTS - 1):
            with suppress(ConcurrentWrite):  # it had no effect, and can be tried again at once
                return await self._approve(call)
        return await self._approve(call)

    async def _approve(self, call: _Call) -> StoredDecision:
        try:
            bound = self._bind(call.record.name, msgspec.json.decode(call.record.arguments))
            if bound.external is not None:
                return await self._start(call, bound, bound.external)
            return StoredDecision(await self._execute(call, bound))
        except (Exhausted, Unavailable, _NotOpen):
            raise
        except Failure as error:
            failure = error
        except _ToolError as error:
            failure = error.exception if isinstance(error.exception, Failure) else TOOL_BUG
            if failure is TOOL_BUG:
                bug = ToolBug(call.record.name, str(call.record.id), call.owner.user_id, error.exception)
                self._dispatcher.log(bug)
        result = failure_result(failure)
        return StoredDecision(
            await self._dispatcher.call(
                call.owner, decide_call, call.turn_id, call.record.id, call.decision, self._lease, result
            )
        )

    async def _execute(self, call: _Call, bound: BoundTool) -> DecidedApproval:
        """Make the call, and store the decision and the result, in one unit of work in the scope of the turn.

        Raises `Unavailable` if it takes longer than any call may: then the question stays open.
        """
        try:
            async with asyncio.timeout(CALL_LIMIT_S):
                return await self._execute_in_scope(call, bound)
        except TimeoutError as error:
            raise Unavailable("The call took too long, and nothing was done: decide again.") from error

    async def _execute_in_scope(self, call: _Call, bound: BoundTool) -> DecidedApproval:
        permission, started, logged = permission_of(bound.use_case), perf_counter(), LoggedOutcome()
        permission = replace(permission, mode="exclusive")
        async with self._dispatcher.unit_of_work(call.delegate, permission, name_of(bound.use_case), logged) as uow:
            turn, question = await _lock_question(uow, call.turn_id, call.record.id)
            if earlier := _earlier_decision(uow, turn, question, call.decision):
                return earlier
            try:
                result = _encode(await bound.use_case(uow, *bound.args))
            except Unavailable:
                raise
            except Exception as error:
                raise _ToolError(error) from error
            duration_ms = round((perf_counter() - started) * 1000)
            record = replace(question.call, result=Raw(result), is_error=False, duration_ms=duration_ms)
            decided = await _store(uow, turn, question, call.decision, record, self._lease)
            await uow.commit()
        return DecidedApproval.of(turn, decided)

    async def _start(self, call: _Call, bound: BoundTool, tool: ExternalTool) -> StoredDecision:
        """Store the decision and the start of a call outside a transaction, and run it.

        Raises `Exhausted` if the user has too many running calls: then the question stays open.
        """
        tool.permission.check(call.delegate.scope)
        is_external, user_id = tool.permission.mode != "read", call.owner.user_id
        self._external.reserve(user_id)
        task: asyncio.Task[None] | None = None
        try:
            decided = await self._dispatcher.call(
                call.owner,
                start_call,
                call.turn_id,
                call.record.id,
                call.decision,
                self._lease,
                is_external=is_external,
            )
            if isinstance(decided, DecidedApproval):
                return StoredDecision(decided)
            turn, question = decided
            task = asyncio.create_task(self._run(call, bound, tool))
            task.add_done_callback(lambda _: self._external.release(user_id))
            return StoredDecision(DecidedApproval.of(turn, question), task)
        finally:
            if task is None:
                self._external.release(user_id)

    async def _run(self, call: _Call, bound: BoundTool, tool: ExternalTool) -> None:
        """Run a call outside a transaction, and store its result unless the turn has ended meanwhile."""
        async with self._renewing_lease(call):
            started, scope = perf_counter(), call.delegate.scope
            outcome = await self._external.run_approved(call.owner, scope, call.record, tool, bound.args)
            duration_ms = round((perf_counter() - started) * 1000)
            record = replace(call.record, result=Raw(outcome.json), is_error=outcome.is_error, duration_ms=duration_ms)
            store = partial(self._dispatcher.call, call.owner, complete_call, call.turn_id, record, self._lease)
            await store_result_with_retries(store)

    @asynccontextmanager
    async def _renewing_lease(self, call: _Call) -> AsyncIterator[None]:
        """Keep other processes from continuing the turn before the call has ended."""
        task = asyncio.create_task(self._renew_lease(call))
        try:
            yield
        finally:
            task.cancel()

    async def _renew_lease(self, call: _Call) -> None:
        while True:
            await asyncio.sleep(self._lease.total_seconds() / _RENEWALS_PER_LEASE)
            with suppress(Exception):  # the dispatcher has logged it, and there is time to try again
                await self._dispatcher.call(call.owner, renew_waiting_turn, call.turn_id, self._lease)


_RENEWALS_PER_LEASE = 3


class _ToolError(Exception):
    """A failure of the tool itself, or its unknown exception."""

    def __init__(self, exception: Exception) -> None:
        super().__init__(exception)
        self.exception = exception


class _NotOpen(Conflict):
    """The question cannot be decided any more."""


@owner_only("read")
async def list_approvals(uow: UnitOfWork, window: Window) -> Page[Approval]:
    """List the open questions about tool calls, oldest first."""
    return await uow.questions.page_of_open(uow.now, window)


@owner_only("read")
async def find_decision_event(uow: UnitOfWork, turn_id: TurnId, call_id: ToolCallId) -> int:
    """Return the number of the event of the decision on this call. Raises `NotFound`."""
    await uow.turns.get(turn_id)
    seq = 0
    while events := await uow.turn_events.list_after(turn_id, seq, _PAGE_EVENTS, PAGE_BYTES):
        for event in events:
            if event.decided_call == call_id:
                return event.seq
        seq = events[-1].seq
    raise NotFound.of("event")


@owner_only("read")
async def find_question(
    uow: UnitOfWork, turn_id: TurnId, call_id: ToolCallId, decision: Decision
) -> tuple[Turn, Question] | DecidedApproval:
    """Return an open question and its turn, or the same decision if it was made before.

    Raises `NotFound` and `Conflict`.
    """
    turn = await uow.turns.get(turn_id)
    question = await _question(uow, turn, call_id)
    return _earlier_decision(uow, turn, question, decision) or (turn, question)


@owner_only("exclusive")
async def decide_call(
    uow: UnitOfWork,
    turn_id: TurnId,
    call_id: ToolCallId,
    decision: Decision,
    lease: timedelta,
    error: Raw | None = None,
) -> DecidedApproval:
    """Decline a call, or store the approval of one that has failed without an effect, with this error as its result.

    Raises `NotFound` and `Conflict`.
    """
    turn, question = await _lock_question(uow, turn_id, call_id)
    if earlier := _earlier_decision(uow, turn, question, decision):
        return earlier
    record = None if error is None else replace(question.call, result=error, is_error=True)
    return DecidedApproval.of(turn, await _store(uow, turn, question, decision, record, lease))


@owner_only("exclusive")
async def start_call(
    uow: UnitOfWork,
    turn_id: TurnId,
    call_id: ToolCallId,
    decision: Decision,
    lease: timedelta,
    *,
    is_external: bool,
) -> tuple[Turn, Question] | DecidedApproval:
    """Store the approval of a call outside a transaction, which counts as started: the caller runs it.

    Returns the earlier approval if there is one: then another request runs the call. Raises `NotFound` and `Conflict`.
    """
    turn, question = await _lock_question(uow, turn_id, call_id)
    if earlier := _earlier_decision(uow, turn, question, decision):
        return earlier
    decided = await _store(uow, turn, question, decision, None, lease)
    if is_external:
        await uow.tool_calls.set_external(turn_id, call_id)
    return turn, decided


@owner_only("exclusive")
async def complete_call(uow: UnitOfWork, turn_id: TurnId, call: ToolCall, lease: timedelta) -> None:
    """Store the result of an approved call outside a transaction.

    Raises `NotFound`, and `Conflict` if the turn has ended.
    """
    turn = await uow.turns.get(turn_id, for_update=True)
    _check_unfinished(turn)
    if events := await store_result(uow, turn, call):
        await add_waiting_events(uow, turn, events, lease)


@owner_only("exclusive")
async def renew_waiting_turn(uow: UnitOfWork, turn_id: TurnId, lease: timedelta) -> None:
    """Extend the lease of a turn that waits for a call that the user has approved. Raises `NotFound`.

    The turn waits for that call even if its other questions expire meanwhile.
    """
    turn = await uow.turns.get(turn_id, for_update=True)
    questions = await uow.questions.list_of_turn(turn_id)
    if turn.status == "waiting" and is_call_running(questions):
        is_undecided = any(question.is_open for question in questions)
        until = max(turn.lease_until, uow.now + lease) if is_undecided else uow.now + lease
        await uow.turns.update(replace(turn, lease_until=until))


async def _lock_question(uow: UnitOfWork, turn_id: TurnId, call_id: ToolCallId) -> tuple[Turn, Question]:
    """Lock the turn, and return it with the question. Raises `NotFound`."""
    turn = await uow.turns.get(turn_id, for_update=True)
    return turn, await _question(uow, turn, call_id)


async def _question(uow: UnitOfWork, turn: Turn, call_id: ToolCallId) -> Question:
    for question in await uow.questions.list_of_turn(turn.id):
        if question.call.id == call_id:
            return question
    raise NotFound.of("approval")


async def _store(
    uow: UnitOfWork, turn: Turn, question: Question, decision: Decision, record: ToolCall | None, lease: timedelta
) -> Question:
    """Store a decision, with the result of the call if there is one, and return the decided question."""
    decided, events = await store_decision(uow, turn, question, decision)
    if record is not None:
        events += await store_result(uow, turn, record)
        decided = replace(decided, call=record)
    await add_waiting_events(uow, turn, events, lease)
    return decided


def _earlier_decision(uow: UnitOfWork, turn: Turn, question: Question, decision: Decision) -> DecidedApproval | None:
    """Return the same decision if it was made before; None if the question is open.

    Raises `Conflict` if it was decided otherwise, has expired, or its turn has ended.
    """
    if question.is_open:
        _check_open(uow, turn, question)
        return None
    if question.decision == decision.name and question.by == "user":
        return DecidedApproval.of(turn, question)
    verb = "approved" if question.decision == "approve" else "declined"
    why = {"expiry": " because it expired", "message": " by a further message", "cancel": " with its turn"}
    raise _NotOpen(f"This call was {verb} before{why.get(question.by or '', '')}: the decision stays.")


def _check_open(uow: UnitOfWork, turn: Turn, question: Question) -> None:
    """Raises `Conflict` if the question can no longer be decided."""
    _check_unfinished(turn)
    if uow.now >= question.expires_at:
        raise _NotOpen("This question has expired, so that the call counts as declined: send a new message.")


def _check_unfinished(turn: Turn) -> None:
    if turn.status not in {"running", "waiting"}:
        raise _NotOpen("The turn has ended: send a new message.")
