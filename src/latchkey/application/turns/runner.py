"""Turns apart from whoever waits for them: a client that leaves neither stops nor loses one."""

import asyncio

from msgspec import Struct

from latchkey.application.dispatcher import Dispatcher
from latchkey.application.turns.executor import TurnExecutor, TurnLimits
from latchkey.application.turns.finish import TurnResult, get_turn_result
from latchkey.application.turns.prompts import instructions
from latchkey.application.turns.start import RepeatedTurn, StartedTurn, find_duplicate_turn, start_turn
from latchkey.domain.agent import AgentRun
from latchkey.domain.credentials import Grant, Owner
from latchkey.domain.errors import AgentNotConfigured, Draining, Exhausted
from latchkey.domain.message import NewMessage
from latchkey.domain.ports import Agent, EventBus
from latchkey.domain.turn import Idempotency, TurnId

CHAT_GRANTS = [Grant.TASKS_READ, Grant.TASKS_WRITE]
FILE_GRANTS = [Grant.ARTIFACTS_WRITE]
_LAST_WRITES_S = 3


class TurnProfile(Struct, frozen=True):
    """A kind of turn: who carries it, what they are told, and what its token grants."""

    agent: Agent | None
    system_prompt: str
    grants: list[Grant]


class TurnHandle(Struct, frozen=True):
    """A turn that is under way, or has ended if it was begun before: then `first` says by which request."""

    turn_id: TurnId
    carried: asyncio.Task[TurnResult] | None
    first: Idempotency | None = None


class TurnRunner:
    """Begins turns, and sees to it that each comes to an end."""

    def __init__(
        self, dispatcher: Dispatcher, event_bus: EventBus, chat: TurnProfile, files: TurnProfile, limits: TurnLimits
    ) -> None:
        self._dispatcher = dispatcher
        self._event_bus = event_bus
        self._chat = chat
        self._files = files
        self._limits = limits
        self._running: dict[asyncio.Task[TurnResult], TurnExecutor] = {}
        self._beginning: set[asyncio.Task[TurnHandle]] = set()
        self.is_draining = False
        self._is_closed = False

    async def begin(self, owner: Owner, said: NewMessage, idempotency: Idempotency | None = None) -> TurnHandle:
        """Accept a turn and set it going.

        Raises what `start_turn` does; `AgentNotConfigured` and `Draining` before anything is stored.
        """
        self.check_open()
        beginning = asyncio.create_task(self._begin(owner, said, idempotency))
        self._beginning.add(beginning)
        beginning.add_done_callback(self._beginning.discard)
        return await asyncio.shield(beginning)

    async def _begin(self, owner: Owner, said: NewMessage, idempotency: Idempotency | None) -> TurnHandle:
        kind = self._files if said.artifact_generation else self._chat
        if kind.agent is None:
            raise AgentNotConfigured("No agent is configured for this: set LATCHKEY_AGENT, or OPENAI_API_KEY.")
        try:
            accepted = await self._dispatcher.call(
                owner, start_turn, said, kind.agent.name, kind.grants, self._limits.terms, idempotency
            )
        except Exhausted:
            first = await self._dispatcher.call(owner, find_duplicate_turn, idempotency) if idempotency else None
            if first is None:
                raise
            accepted = first
        if isinstance(accepted, RepeatedTurn):
            return TurnHandle(accepted.turn_id, None, accepted.first)
        run = TurnExecutor(self._dispatcher, self._event_bus, owner, self._limits)
        if self._is_closed:
            run.interrupt()
        carried = asyncio.create_task(run.run(kind.agent, self._assignment(kind, accepted, said)))
        self._running[carried] = run
        carried.add_done_callback(self._forget)
        return TurnHandle(accepted.turn.id, carried)

    async def ended(self, owner: Owner, begun: TurnHandle) -> TurnResult:
        """How the turn ended, once it has. Whoever waits may leave."""
        if begun.carried is None:
            return await self._dispatcher.call(owner, get_turn_result, begun.turn_id)
        return await asyncio.shield(begun.carried)

    def check_open(self) -> None:
        """Raises `Draining` once no new turns are taken."""
        if self.is_draining:
            raise Draining("This process is about to end and takes no new turns: try again, elsewhere.")

    async def drain(self) -> None:
        """Take no new turns, and wait until those that are running have ended."""
        self.is_draining = True
        while under_way := [*self._beginning, *self._running]:
            await asyncio.wait(under_way)

    async def aclose(self) -> None:
        """Interrupt every turn that is still running, and those that are being accepted."""
        self.is_draining = self._is_closed = True
        for run in self._running.values():
            run.interrupt()
        try:
            async with asyncio.timeout(_LAST_WRITES_S):
                await self.drain()
        except TimeoutError:
            late = [*self._beginning, *self._running]
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    def _forget(self, carried: asyncio.Task[TurnResult]) -> None:
        """Whoever waits for it hears how it ended; if it could not be stored, the journal has it."""
        del self._running[carried]
        if not carried.cancelled():
            carried.exception()

    def _assignment(self, kind: TurnProfile, accepted: StartedTurn, said: NewMessage) -> AgentRun:
        return AgentRun(
            turn_id=accepted.turn.id,
            instructions=instructions(kind.system_prompt, accepted.turn.started_at),
            history=accepted.history,
            message=said.message,
            secret=accepted.secret,
            scope=accepted.scope,
            max_steps=self._limits.max_steps,
        )
