"""Turns in tasks of their own, and what they tell meanwhile."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine

from anyio import BrokenResourceError, create_memory_object_stream
from anyio.streams.memory import MemoryObjectSendStream

from latchkey.domain.agent import AgentEvent

_EVENTS_AHEAD = 16


class AgentEventStream:
    """What a turn tells, and whether it has been heard. It ends with the `with`."""

    def __init__(self, stream: MemoryObjectSendStream[AgentEvent]) -> None:
        self._stream = stream
        self._unheard = 0
        self._all_heard = asyncio.Event()
        self._is_over = False

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        self._stream.close()

    async def send(self, event: AgentEvent) -> None:
        self._unheard += 1
        await self._stream.send(event)

    async def wait_consumed(self) -> None:
        """Wait until whoever listens has come back for more. Raises `BrokenResourceError` if nobody does."""
        while self._unheard and not self._is_over:
            self._all_heard.clear()
            await self._all_heard.wait()
        if self._is_over:
            raise BrokenResourceError

    def mark_consumed(self) -> None:
        self._unheard -= 1
        self._all_heard.set()

    def close(self) -> None:
        """Nobody listens any more."""
        self._is_over = True
        self._all_heard.set()


class TurnTasks:
    """The tasks of one agent: whatever a turn opens is closed in the task that opened it, however the turn ends."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[None]] = set()

    async def stream(
        self, carry: Callable[[AgentEventStream], Coroutine[None, None, None]]
    ) -> AsyncGenerator[AgentEvent, None]:
        """What a turn tells while it is carried. Closing the iterator ends the task, and waits for that."""
        send, receive = create_memory_object_stream[AgentEvent](_EVENTS_AHEAD)
        events = AgentEventStream(send)
        turn = asyncio.create_task(carry(events))
        self._running.add(turn)
        turn.add_done_callback(self._running.discard)
        try:
            async for event in receive:
                yield event
                events.mark_consumed()
            await turn
        finally:
            # Told too, not only cancelled: the Agents SDK may take that for the end of a tool, and go on to the next.
            events.close()
            receive.close()
            turn.cancel()
            await asyncio.gather(turn, return_exceptions=True)
            send.close()

    async def aclose(self) -> None:
        """End whatever runs."""
        running = list(self._running)
        for turn in running:
            turn.cancel()
        await asyncio.gather(*running, return_exceptions=True)
