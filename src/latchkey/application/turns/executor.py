"""One turn on its way through its agent: what it tells is written down, and its lease is kept meanwhile."""

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
from latchkey.domain.agent import AgentRun, TextDelta, ToolRequest, ToolReturned
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
from latchkey.domain.turn import TurnError, TurnId, TurnStatus

_RENEWALS_PER_LEASE = 3
_PAUSE_S = 0.5
_OUR_MISTAKE = "The service made a mistake; it is in its log."


class TurnLimits(Struct, frozen=True):
    """What bounds a turn once it is accepted, and under what terms it is."""

    terms: AcceptanceLimits
    deadline: timedelta
    max_steps: int
    max_calls: int = 100


class TurnExecutor:
    """Carries one turn from its acceptance to its end, apart from whoever waits for it."""

    def __init__(self, dispatcher: Dispatcher, event_bus: EventBus, owner: Owner, limits: TurnLimits) -> None:
        self._dispatcher = dispatcher
        self._event_bus = event_bus
        self._owner = owner
        self._limits = limits
        self._working: asyncio.Task[None] | None = None
        self._is_stopping = False

    def interrupt(self) -> None:
        """Let it end as it stands."""
        self._is_stopping = True
        self._stop()

    async def run(self, agent: Agent, agent_run: AgentRun) -> TurnResult:
        """How the turn ended, whatever the agent did.

        Raises `NotFound` for a turn that was deleted meanwhile, and `Unavailable` if its end cannot be stored.
        """
        writer = TurnEventWriter(self._dispatcher, self._owner, agent_run.turn_id, self._stop)
        self._working = asyncio.create_task(self._work(agent, agent_run, writer))
        if self._is_stopping:
            self._stop()
        started = perf_counter()
        await asyncio.wait([self._working])
        await writer.close()
        status, error = self._outcome(self._working, started)
        return await self._finish(agent_run.turn_id, TurnOutcome(status, writer.usage, writer.text, error))

    def _stop(self) -> None:
        """Once: a second time would break into the cleaning up."""
        if self._working is not None and not self._working.cancelling():
            self._working.cancel()

    async def _work(self, agent: Agent, agent_run: AgentRun, writer: TurnEventWriter) -> None:
        """Let the agent work until it has answered. Raises a `TurnFailed`."""
        seconds, calls = self._limits.deadline.total_seconds(), 0
        try:
            async with (
                asyncio.timeout(seconds),
                self._held(agent_run.turn_id),
                aclosing(agent.run(agent_run)) as events,
            ):
                async for event in events:
                    if isinstance(event, TextDelta):
                        writer.say(event)
                    elif isinstance(event, ToolRequest):
                        calls += 1
                        self._check_calls(calls)
                        await writer.note(event)
                    elif isinstance(event, ToolReturned):
                        writer.note_return(event.call_id)
                    else:
                        writer.usage += event
        except TimeoutError as error:
            # An agent turns its own time-outs into a TurnFailed, so this one is ours.
            raise DeadlinePassed(f"The turn took longer than its {seconds:g} seconds.") from error

    def _check_calls(self, calls: int) -> None:
        """The ledger refuses what is too much; this ends a turn that goes on all the same."""
        if calls > self._limits.max_calls:
            raise MaxSteps(f"The agent called more than {self._limits.max_calls} tools, which is the limit.")

    @asynccontextmanager
    async def _held(self, turn_id: TurnId) -> AsyncIterator[None]:
        """The turn is ours meanwhile; if it turns out not to be, the work is stopped."""
        with self._event_bus.subscribe(self._owner, turn_id) as subscription:
            holding = asyncio.create_task(self._hold(turn_id, subscription))
            try:
                yield
            finally:
                holding.cancel()

    async def _hold(self, turn_id: TurnId, subscription: Subscription) -> None:
        """Renew the lease, and hear of it if somebody else ends the turn."""
        lease = self._limits.terms.lease
        clock = asyncio.get_running_loop().time
        period = lease.total_seconds() / _RENEWALS_PER_LEASE
        due = clock() + period
        while True:
            news = await subscription.next_events(max(0, due - clock()))
            if any(event.is_last for event in news):
                self._stop()
                return
            try:
                if not news:
                    await self._dispatcher.call(self._owner, renew_turn, turn_id, lease)
                    due = clock() + period
            except (Conflict, NotFound):
                self._stop()
                return
            except Exception:  # noqa: BLE001  # the journal has it
                # Mostly the database does not answer; there is time for another try before the lease passes.
                due = clock() + _PAUSE_S

    def _outcome(self, work: asyncio.Task[None], started: float) -> tuple[TurnStatus, TurnError | None]:
        """What the work came to, as it is stored and written into the journal."""
        journal = partial(self._dispatcher.journal, "run_turn", self._owner.user_id, started)
        try:
            work.result()
        except asyncio.CancelledError:
            journal(TurnInterrupted.code)
            return "interrupted", None
        except TurnFailed as failure:
            journal(failure.code)
            return "failed", TurnError(failure.code, failure.detail, failure.retry_after)
        except Exception:  # noqa: BLE001  # whatever it is, it is written down, and the turn ended
            journal(Failure.code)
            return "failed", TurnError(Failure.code, _OUR_MISTAKE)
        journal("ok")
        return "completed", None

    async def _finish(self, turn_id: TurnId, ending: TurnOutcome) -> TurnResult:
        """Store the end; if it cannot be stored now, for as long as the turn is ours."""
        clock = asyncio.get_running_loop().time
        last = clock() + self._limits.terms.lease.total_seconds()
        while True:
            try:
                return await self._dispatcher.call(self._owner, finish_turn, turn_id, ending)
            except (Conflict, NotFound):
                # Somebody else has ended it, or we have and were not told so.
                return await with_expiry(self._dispatcher, self._owner, get_turn_result, turn_id)
            except Unavailable:
                if self._is_stopping or clock() > last:
                    raise
                await asyncio.sleep(_PAUSE_S)
