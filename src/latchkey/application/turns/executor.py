"""Runs one turn: consumes the agent's events, records them, and renews the turn's lease meanwhile."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, suppress
from datetime import timedelta
from time import perf_counter

from msgspec import Struct

from latchkey.application.dispatcher import Dispatcher
from latchkey.application.turns.event_writer import TurnEventWriter
from latchkey.application.turns.expire import with_expiry
from latchkey.application.turns.finish import TurnOutcome, TurnResult, finish_turn, get_turn_result
from latchkey.application.turns.record import release_turn, renew_turn
from latchkey.application.turns.start import AcceptanceLimits
from latchkey.domain.agent import RUN_METRICS, AgentEvent, AgentRun, RunMetrics, TextDelta, TurnWaiting
from latchkey.domain.concurrency import FairSlots
from latchkey.domain.credentials import Owner, UserId
from latchkey.domain.errors import (
    Conflict,
    DeadlinePassed,
    Draining,
    Failure,
    MaxSteps,
    NotFound,
    TurnFailed,
    TurnInterrupted,
    Unavailable,
    cause_of,
)
from latchkey.domain.ports import Agent, EventBus, Subscription, TurnReport
from latchkey.domain.tool_call import ToolRequest, ToolReturned
from latchkey.domain.turn import TurnError, TurnStatus, Usage
from latchkey.domain.turn_event import EVENT_NAMES, TurnResumedEvent

_RENEWALS_PER_LEASE = 3
_RETRY_INTERVAL_S = 0.5
_MAX_DETAIL_CHARS = 500
_MAX_NAME_CHARS = 64
_RESUMED = EVENT_NAMES[TurnResumedEvent]
_UNSTORABLE = TurnError(Failure.code, "Internal error: the answer cannot be stored. See the service's log.")
HANDED_OVER = "This process is stopping. The turn goes on in another one: send the request again."
_MAX_WAIT_DEADLINES = 3
"""A turn waits this many deadlines for a slot: turns that hang hold theirs for one deadline."""


class TurnLimits(Struct, frozen=True):
    """The limits of a turn: for starting it, and for its run."""

    acceptance: AcceptanceLimits
    deadline: timedelta
    max_steps: int
    max_calls: int = 100


class TurnExecutor:
    """Runs one started turn to its end, independently of the client that waits for it."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        event_bus: EventBus,
        owner: Owner,
        limits: TurnLimits,
        slots: FairSlots[UserId] | None = None,
    ) -> None:
        """With `slots`, the agent runs while it holds one of them. The deadline begins then."""
        self._slots = slots
        self._dispatcher = dispatcher
        self._event_bus = event_bus
        self._owner = owner
        self._limits = limits
        self._agent_task: asyncio.Task[None] | None = None
        self._is_interrupted = False
        self._past_calls = 0
        self._metrics = RunMetrics()

    def interrupt(self) -> None:
        """Hand the turn over to another process, or end it as interrupted if this is its last attempt."""
        self._is_interrupted = True
        self._stop_agent()

    async def run(self, agent: Agent, agent_run: AgentRun, title: str | None = None) -> TurnResult | None:
        """Run the agent, store the outcome, whatever the agent does, and log the turn.

        A completed turn gives its conversation the title if it has none. Returns None if another attempt runs the turn.

        Raises `NotFound` if the turn was deleted meanwhile, `Unavailable` if its end cannot be stored, and `Draining`
        if it was handed over to another process.
        """
        RUN_METRICS.set(self._metrics)
        writer = TurnEventWriter(self._dispatcher, self._owner, agent_run, on_lost=self._stop_agent)
        self._past_calls = sum(len(step.tool_calls) for step in agent_run.steps)
        self._agent_task = asyncio.create_task(self._run_agent(agent, agent_run, writer))
        if self._is_interrupted:
            self._stop_agent()
        record = _RunRecord(self._owner.user_id, agent.name, agent_run, perf_counter(), self._metrics)
        result: TurnResult | None = None
        await asyncio.wait([self._agent_task])
        await writer.close()
        record.first_text_at, record.cached_tokens = writer.first_text_at, writer.cached_tokens
        status, error, record.exception = _end_of(self._agent_task)
        model = writer.model or agent_run.options.model or agent.model
        outcome = TurnOutcome(status, writer.usage, writer.text, error, model, title, agent_run.attempt)
        try:
            if status == "interrupted" and self._limits.acceptance.attempts > 1:
                result = await self._leave_to_next_attempt(agent_run)
            else:
                result = await self._finish(agent_run, outcome)
            record.is_continued = result is None
        except Draining:
            record.is_continued = True
            raise
        finally:
            self._dispatcher.log(_report(record, outcome, result))
        return result

    def _stop_agent(self) -> None:
        """Cancel the agent, but only once: a second cancellation would interrupt its clean-up."""
        if self._agent_task is not None and not self._agent_task.cancelling():
            self._agent_task.cancel()

    async def _run_agent(self, agent: Agent, agent_run: AgentRun, writer: TurnEventWriter) -> None:
        """Record the agent's events until the answer is complete. Raises a `TurnFailed`."""
        if agent_run.max_steps < 1:
            raise MaxSteps.of_turn()
        deadline_s = self._limits.deadline.total_seconds()
        async with self._renewing_lease(agent_run), self._slot(_MAX_WAIT_DEADLINES * deadline_s):
            try:
                async with asyncio.timeout(deadline_s), aclosing(agent.run(agent_run)) as events:
                    await self._record_events(events, writer)
            except TimeoutError as error:
                # An agent reports its own timeouts as TurnFailed, so this timeout is the deadline.
                raise DeadlinePassed(f"The turn exceeded its deadline of {deadline_s:g} seconds.") from error

    @asynccontextmanager
    async def _slot(self, timeout_s: float) -> AsyncIterator[None]:
        """Hold one of the slots. Raises `DeadlinePassed` if none becomes free in time."""
        async with AsyncExitStack() as stack:
            if self._slots is not None:
                started = perf_counter()
                try:
                    await stack.enter_async_context(self._slots.slot(self._owner.user_id, timeout_s))
                except TimeoutError as error:
                    detail = f"The turn has waited for {timeout_s:g} seconds and was not started: try again later."
                    raise DeadlinePassed(detail) from error
                finally:
                    self._metrics.waited_ms = (perf_counter() - started) * 1000
            yield

    async def _record_events(self, events: AsyncIterator[AgentEvent], writer: TurnEventWriter) -> None:
        calls = self._past_calls
        async for event in events:
            if isinstance(event, TextDelta):
                writer.append_text(event)
            elif isinstance(event, ToolRequest):
                calls += 1
                self._check_calls(calls)
                await writer.record_tool_call(event)
            elif isinstance(event, ToolReturned):
                writer.acknowledge(event.call_id)
            else:
                writer.record_model_call(event)

    def _check_calls(self, calls: int) -> None:
        """Raises `MaxSteps` over the limit. Tool calls over it are refused, but the agent may still request more."""
        if calls > self._limits.max_calls:
            raise MaxSteps(f"The agent exceeded the limit of {self._limits.max_calls} tool calls.")

    @asynccontextmanager
    async def _renewing_lease(self, agent_run: AgentRun) -> AsyncIterator[None]:
        """Renew the turn's lease within this context; stop the agent if the turn is ended or continued elsewhere."""
        with self._event_bus.subscribe(self._owner, agent_run.turn_id) as subscription:
            task = asyncio.create_task(self._renew_lease(agent_run, subscription))
            try:
                yield
            finally:
                task.cancel()

    async def _renew_lease(self, agent_run: AgentRun, subscription: Subscription) -> None:
        lease = self._limits.acceptance.lease
        clock = asyncio.get_running_loop().time
        period = lease.total_seconds() / _RENEWALS_PER_LEASE
        due = clock() + period
        while True:
            events = await subscription.next_events(max(0, due - clock()))
            if any(event.is_last or event.name == _RESUMED for event in events):
                self._stop_agent()
                return
            try:
                if not events:
                    await self._dispatcher.call(self._owner, renew_turn, agent_run.turn_id, lease, agent_run.attempt)
                    due = clock() + period
            except (Conflict, NotFound):
                self._stop_agent()
                return
            except Exception:  # noqa: BLE001  # the dispatcher has logged it
                # Usually the database does not answer. There is time to retry before the lease expires.
                due = clock() + _RETRY_INTERVAL_S

    async def _leave_to_next_attempt(self, agent_run: AgentRun) -> TurnResult | None:
        """Leave the turn to the next attempt, and return how it has ended; None if it has not.

        The agent is also stopped if a write found the lease expired. A slow renewal may have been stored since then, so
        the turn can look like one that this process still runs: its end must not be stored.
        """
        if self._is_interrupted:
            await self._hand_over(agent_run)
        return await with_expiry(self._dispatcher, self._owner, get_turn_result, agent_run.turn_id)

    async def _hand_over(self, agent_run: AgentRun) -> None:
        """Let another process continue the turn at once. Raises `Draining`; returns if the turn cannot be released.

        A turn that is not released is continued when its lease has expired.
        """
        with suppress(Conflict, NotFound):
            with suppress(Unavailable):  # the dispatcher has logged it
                await self._dispatcher.call(self._owner, release_turn, agent_run.turn_id, agent_run.attempt)
                self._event_bus.wake(self._owner, agent_run.turn_id)
            raise Draining(HANDED_OVER, turn_id=agent_run.turn_id, conversation_id=agent_run.scope.conversation_id)

    async def _finish(self, agent_run: AgentRun, outcome: TurnOutcome) -> TurnResult | None:
        """Store the outcome; if the database does not answer, retry until the lease would have expired.

        An outcome that cannot be stored at all is replaced by a failure that has nothing of it: a turn that stays
        running would block its conversation until the lease expires.
        """
        clock = asyncio.get_running_loop().time
        retry_until = clock() + self._limits.acceptance.lease.total_seconds()
        while True:
            try:
                return await self._dispatcher.call(self._owner, finish_turn, agent_run.turn_id, outcome)
            except (Conflict, NotFound):
                # Another process has ended or continued the turn, the lease has expired and this process continues it
                # now, or an earlier try was committed and its confirmation was lost.
                return await with_expiry(self._dispatcher, self._owner, get_turn_result, agent_run.turn_id)
            except Unavailable:
                if self._is_interrupted or clock() > retry_until:
                    raise
                await asyncio.sleep(_RETRY_INTERVAL_S)
            except Exception:  # the dispatcher has logged it
                if outcome.error == _UNSTORABLE:
                    raise
                outcome = TurnOutcome("failed", Usage(), error=_UNSTORABLE, attempt=agent_run.attempt)


def _end_of(agent_task: asyncio.Task[None]) -> tuple[TurnStatus, TurnError | None, Exception | None]:
    """Translate how the agent's task ended into what is stored, and return the exception that it raised."""
    try:
        agent_task.result()
    except asyncio.CancelledError:
        return "interrupted", None, None
    except TurnWaiting:
        return "waiting", None, None
    except TurnFailed as failure:
        return "failed", TurnError(failure.code, failure.detail, failure.retry_after), failure
    except Exception as error:  # noqa: BLE001  # a bug, in the agent or in Latchkey, must end the turn too
        return "failed", TurnError(Failure.code, "Internal error: see the service's log."), error
    return "completed", None, None


class _RunRecord(Struct):
    """What is known of a run before its end is stored. Times are values of `perf_counter`.

    `exception` is what the agent raised; None for an answer and for a cancelled agent. `is_continued` says that
    another attempt runs the turn, or will.
    """

    user_id: UserId
    agent: str
    agent_run: AgentRun
    started: float
    metrics: RunMetrics
    first_text_at: float | None = None
    cached_tokens: int = 0
    exception: Exception | None = None
    is_continued: bool = False


def _report(run: _RunRecord, outcome: TurnOutcome, result: TurnResult | None) -> TurnReport:
    """Report a turn. `result` is the turn as stored, which may have been ended elsewhere; None if that failed."""
    calls = result.turn.tool_calls if result else []
    error = result.turn.error if result else outcome.error
    is_bug = run.exception is not None and not isinstance(run.exception, TurnFailed)
    return TurnReport(
        turn_id=run.agent_run.turn_id,
        conversation_id=run.agent_run.scope.conversation_id,
        user_id=run.user_id,
        agent=run.agent,
        assistant=result.turn.assistant if result else None,
        model=result.turn.model if result else outcome.model,
        attempt=run.agent_run.attempt,
        status=result.turn.status if result else "running" if run.is_continued else outcome.status,
        code=None if run.is_continued else _code(outcome, result),
        detail=_detail(error),
        cause=cause_of(run.exception) if run.exception else None,
        is_stored=result is not None,
        usage=outcome.usage,
        tools=dict(Counter(call.name[:_MAX_NAME_CHARS] for call in calls)),
        failed_calls=sum(call.is_error for call in calls),
        tools_ms=sum(call.duration_ms for call in calls),
        metrics=run.metrics,
        cached_tokens=run.cached_tokens,
        first_text_ms=run.first_text_at and (run.first_text_at - run.started) * 1000,
        duration_ms=(perf_counter() - run.started) * 1000,
        bug=run.exception if is_bug else None,
    )


def _code(outcome: TurnOutcome, result: TurnResult | None) -> str | None:
    if result is not None:
        return result.failure.code if result.failure else None
    if outcome.error is not None:
        return outcome.error.code
    return TurnInterrupted.code if outcome.status == "interrupted" else None


def _detail(error: TurnError | None) -> str | None:
    return error.detail[:_MAX_DETAIL_CHARS] if error else None
