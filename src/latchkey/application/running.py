"""Carry one turn through its agent, in short units of work; none is open while a model thinks."""

import asyncio
from contextlib import aclosing
from datetime import timedelta

from msgspec import Struct

from latchkey.application.application import Application
from latchkey.application.instructions import instructions
from latchkey.application.turns import Accepted, Ended, Ending, Terms, accept_turn, finish_turn, renew_turn
from latchkey.domain.agent import Assignment, TextDelta
from latchkey.domain.errors import (
    AgentNotConfigured,
    Conflict,
    DeadlinePassed,
    Failure,
    NotFound,
    TurnFailed,
    TurnInterrupted,
)
from latchkey.domain.message import NewMessage
from latchkey.domain.ports import Agent
from latchkey.domain.scope import Grant, Owner
from latchkey.domain.turn import TurnError, Usage

CHAT_GRANTS = [Grant.TASKS_READ, Grant.TASKS_WRITE]
FILE_GRANTS = [Grant.ARTIFACTS_WRITE]
_RENEWALS_PER_LEASE = 3


class Limits(Struct, frozen=True):
    """What bounds a turn once it is accepted, and under what terms it is."""

    terms: Terms
    deadline: timedelta
    max_steps: int


class Kind(Struct, frozen=True):
    """A kind of turn: who carries it, what they are told, and what its token grants."""

    agent: Agent | None
    system_prompt: str
    grants: list[Grant]


class Told(Struct):
    """What an agent has said and used so far."""

    text: str = ""
    usage: Usage = Usage()


class TurnRunner:
    """Runs turns apart from whoever waits for them: a client that leaves neither stops nor loses one."""

    def __init__(self, application: Application, chat: Kind, files: Kind, limits: Limits) -> None:
        self._application = application
        self._chat = chat
        self._files = files
        self._limits = limits
        self._running: set[asyncio.Task[Ended]] = set()

    async def chat(self, owner: Owner, said: NewMessage) -> Ended:
        """Take one turn and wait for its end.

        Raises what `accept_turn` does, `AgentNotConfigured` before anything is stored, and for a turn that
        has no answer the `TurnFailed` or `TurnInterrupted`, with `turn_id` and `conversation_id`.
        """
        kind = self._files if said.artifact_generation else self._chat
        if kind.agent is None:
            raise AgentNotConfigured("No agent is configured for this: set LATCHKEY_AGENT, or OPENAI_API_KEY.")
        accepted = await self._application.call(
            owner, accept_turn, said, kind.agent.name, kind.grants, self._limits.terms
        )
        assignment = self._assignment(kind, accepted, said)
        carried = asyncio.create_task(self._carry(owner, kind.agent, accepted, assignment))
        self._running.add(carried)
        carried.add_done_callback(self._running.discard)
        return await asyncio.shield(carried)

    async def aclose(self) -> None:
        """Interrupt every turn that is still running."""
        for carried in self._running:
            carried.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    def _assignment(self, kind: Kind, accepted: Accepted, said: NewMessage) -> Assignment:
        return Assignment(
            turn_id=accepted.turn.id,
            instructions=instructions(kind.system_prompt, accepted.turn.started_at),
            history=accepted.history,
            message=said.message,
            secret=accepted.secret,
            max_steps=self._limits.max_steps,
        )

    async def _carry(self, owner: Owner, agent: Agent, accepted: Accepted, assignment: Assignment) -> Ended:
        turn, told = accepted.turn, Told()
        failure: Exception | None = None
        try:
            await self._work(owner, agent, assignment, told)
        except asyncio.CancelledError:
            failure = TurnInterrupted("The service stopped while the turn was running: send the message again.")
        except Exception as error:  # noqa: BLE001  # whatever it is, the turn is ended before it is raised
            failure = error
        ended = await self._finish(owner, accepted, _ending(told, failure))
        if failure is None:
            return ended
        if isinstance(failure, Failure):
            failure.members.update(turn_id=turn.id, conversation_id=turn.conversation_id)
        raise failure

    async def _work(self, owner: Owner, agent: Agent, assignment: Assignment, told: Told) -> None:
        """Let the agent work until it has answered, keeping the turn's lease. Raises a `TurnFailed`."""
        seconds = self._limits.deadline.total_seconds()
        try:
            async with asyncio.timeout(seconds) as deadline:
                renewal = asyncio.create_task(self._renew(owner, assignment, deadline))
                try:
                    async with aclosing(agent.run(assignment)) as events:
                        async for event in events:
                            if isinstance(event, TextDelta):
                                told.text += event.text
                            else:
                                told.usage += event
                finally:
                    renewal.cancel()
        except TimeoutError as error:
            # An agent turns its own time-outs into a TurnFailed, so this one is ours.
            raise DeadlinePassed(f"The turn took longer than its {seconds:g} seconds.") from error

    async def _renew(self, owner: Owner, assignment: Assignment, deadline: asyncio.Timeout) -> None:
        """Renew the lease until cancelled. A turn that is no longer ours is stopped at once."""
        lease = self._limits.terms.lease
        while True:
            await asyncio.sleep(lease.total_seconds() / _RENEWALS_PER_LEASE)
            try:
                await self._application.call(owner, renew_turn, assignment.turn_id, lease)
            except (Conflict, NotFound):
                deadline.reschedule(0)
                return
            except Failure:
                # The database does not answer now; there is time for another try before the lease passes.
                continue

    async def _finish(self, owner: Owner, accepted: Accepted, ending: Ending) -> Ended:
        turn = accepted.turn
        try:
            return await self._application.call(owner, finish_turn, turn.id, ending)
        except (Conflict, NotFound) as error:
            raise TurnInterrupted(
                f"The turn had ended before it was answered: {error.detail}",
                turn_id=turn.id,
                conversation_id=turn.conversation_id,
            ) from error


def _ending(told: Told, failure: Exception | None) -> Ending:
    match failure:
        case None:
            return Ending("completed", told.usage, told.text)
        case TurnInterrupted():
            return Ending("interrupted", told.usage)
        case TurnFailed():
            error = TurnError(failure.code, failure.detail)
        case _:
            error = TurnError("internal", "The service made a mistake; it is in its log.")
    return Ending("failed", told.usage, error=error)
