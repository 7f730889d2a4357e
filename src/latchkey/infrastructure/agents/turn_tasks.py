"""Turns in tasks of their own, and what they tell meanwhile."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine

from anyio import create_memory_object_stream
from anyio.streams.memory import MemoryObjectSendStream

from latchkey.domain.agent import AgentEvent

Events = MemoryObjectSendStream[AgentEvent]

_EVENTS_AHEAD = 16


class TurnTasks:
    """The tasks of one agent: whatever a turn opens is closed in the task that opened it, however the turn ends."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[None]] = set()

    async def told_by(self, carry: Callable[[Events], Coroutine[None, None, None]]) -> AsyncGenerator[AgentEvent, None]:
        """What a turn tells while it is carried. Closing the iterator ends the task, and waits for that."""
        send, receive = create_memory_object_stream[AgentEvent](_EVENTS_AHEAD)
        turn = asyncio.create_task(carry(send))
        self._running.add(turn)
        turn.add_done_callback(self._running.discard)
        try:
            async for event in receive:
                yield event
            await turn
        finally:
            turn.cancel()
            await asyncio.gather(turn, return_exceptions=True)
            send.close()
            receive.close()

    async def aclose(self) -> None:
        """End whatever runs."""
        running = list(self._running)
        for turn in running:
            turn.cancel()
        await asyncio.gather(*running, return_exceptions=True)
