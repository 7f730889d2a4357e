"""Runs one turn: consumes the agent's events, records them, and renews the turn's lease meanwhile."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from datetime import timedelta
from functools import partial
from time import perf_counter

from msgspec import Struct

from latchkey.application.dispatcher import Dispatcher
from latchkey.application.turns.event_writer import TurnEventWriter
from latchkey.application.turns.expire import with_expiry
from latchkey.application.turns.finish import TurnOutcome, TurnResult, finish_turn, get_turn_result
from latchkey.application.turns.record import renew_turn
from latchkey.application.turns.start import AcceptanceLimits
from latchkey.domain.agent import AgentRun, TextDelta
from latchkey.domain.credentials import Owner
from latchkey.domain.errors import (
    Conflict,
    DeadlinePassed,
    Failure,
    MaxSteps,
    NotFound,
    TurnFailed,
    TurnInterrupted,
    Unavailable,
)
from latchkey.domain.ports import Agent, EventBus, Subscription
from latchkey.domain.tool_call import ToolRequest, ToolReturned
from latchkey.domain.turn import TurnError, TurnId, TurnStatus

_RENEWALS_PER_LEASE = 3
_RETRY_INTERVAL_S = 0.5


class TurnLimits(Struct, frozen=True):
    """The limits of a turn: for starting it, and for its run."""

    acceptance: AcceptanceLimits
    deadline: timedelta
    max_steps: int
    max_calls: int = 100


class TurnExecutor:
    """Runs one started turn to its end, independently of the client that waits for it."""

    def __init__(self, dispatcher: Dispatcher, event_bus: EventBus, owner: Owner, limits: TurnLimits) -> None:
        self._dispatcher = dispatcher
        self._event_bus = event_bus
        self._owner = owner
        self._limits = limits
        self._agent_task: asyncio.Task[None] | None = None
        self._is_interrupted = False

    def interrupt(self) -> None:
        """End the turn as interrupted, with the answer so far."""
        self._is_interrupted = True
        self._stop_agent()

    async def run(self, agent: Agent, agent_run: AgentRun) -> TurnResult:
        """Run the agent and store the outcome, whatever the agent does.

        Raises `NotFound` if the turn was deleted meanwhile, and `Unavailable` if its end cannot be stored.
        """
        writer = TurnEventWriter(self._dispatcher, self._owner, agent_run.turn_id, on_lost=self._stop_agent)
        self._agent_task = asyncio.create_task(self._run_agent(agent, agent_run, writer))
        if self._is_interrupted:
            self._stop_agent()
        started = perf_counter()
        await asyncio.wait([self._agent_task])
        await writer.close()
        status, error = self._status_of(self._agent_task, started)
        return await self._finish(agent_run.turn_id, TurnOutcome(status, writer.usage, writer.text, error))

    def _stop_agent(self) -> None:
        """Cancel the agent once: a second cancellation would break into its clean-up."""
        if self._agent_task is not None and not self._agent_task.cancelling():
            self._agent_task.cancel()

    async def _run_agent(self, agent: Agent, agent_run: AgentRun, writer: TurnEventWriter) -> None:
        """Record the agent's events until the answer is complete. Raises a `TurnFailed`."""
        deadline_s, calls = self._limits.deadline.total_seconds(), 0
        try:
            async with (
                asyncio.timeout(deadline_s),
                self._lease_kept(agent_run.turn_id),
                aclosing(agent.run(agent_run)) as events,
            ):
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
                        writer.usage += event
        except TimeoutError as error:
            # An agent turns its own timeouts into a TurnFailed, so this one is the deadline.
            raise DeadlinePassed(f"The turn exceeded its deadline of {deadline_s:g} seconds.") from error

    def _check_calls(self, calls: int) -> None:
        """End a turn whose agent goes on although its tool calls are refused."""
        if calls > self._limits.max_calls:
            raise MaxSteps(f"The agent exceeded the limit of {self._limits.max_calls} tool calls.")

    @asynccontextmanager
    async def _lease_kept(self, turn_id: TurnId) -> AsyncIterator[None]:
        """Keep the turn's lease within this context; stop the agent if the turn is ended elsewhere."""
        with self._event_bus.subscribe(self._owner, turn_id) as subscription:
            task = asyncio.create_task(self._keep_lease(turn_id, subscription))
            try:
                yield
            finally:
                task.cancel()

    async def _keep_lease(self, turn_id: TurnId, subscription: Subscription) -> None:
        lease = self._limits.acceptance.lease
        clock = asyncio.get_running_loop().time
        period = lease.total_seconds() / _RENEWALS_PER_LEASE
        due = clock() + period
        while True:
            events = await subscription.next_events(max(0, due - clock()))
            if any(event.is_last for event in events):
                self._stop_agent()
                return
            try:
                if not events:
                    await self._dispatcher.call(self._owner, renew_turn, turn_id, lease)
                    due = clock() + period
            except (Conflict, NotFound):
                self._stop_agent()
                return
            except Exception:  # noqa: BLE001  # the dispatcher has logged it
                # Mostly the database does not answer; there is time to retry before the lease passes.
                due = clock() + _RETRY_INTERVAL_S

    def _status_of(self, agent_task: asyncio.Task[None], started: float) -> tuple[TurnStatus, TurnError | None]:
        """Translate how the agent's task ended into what is stored, and log it."""
        log = partial(self._dispatcher.log_call, "run_turn", self._owner.user_id, started)
        try:
            agent_task.result()
        except asyncio.CancelledError:
            log(TurnInterrupted.code)
            return "interrupted", None
        except TurnFailed as failure:
            log(failure.code)
            return "failed", TurnError(failure.code, failure.detail, failure.retry_after)
        except Exception:  # noqa: BLE001  # a bug, in the agent or in Latchkey, must end the turn too
            log(Failure.code)
            return "failed", TurnError(Failure.code, "Internal error: see the service's log.")
        log("ok")
        return "completed", None

    async def _finish(self, turn_id: TurnId, outcome: TurnOutcome) -> TurnResult:
        """Store the outcome; if the database does not answer, retry until the lease would have passed."""
        clock = asyncio.get_running_loop().time
        retry_until = clock() + self._limits.acceptance.lease.total_seconds()
        while True:
            try:
                return await self._dispatcher.call(self._owner, finish_turn, turn_id, outcome)
            except (Conflict, NotFound):
                # The turn was ended elsewhere, or an earlier attempt was committed and its confirmation was lost.
                return await with_expiry(self._dispatcher, self._owner, get_turn_result, turn_id)
            except Unavailable:
                if self._is_interrupted or clock() > retry_until:
                    raise
                await asyncio.sleep(_RETRY_INTERVAL_S)
