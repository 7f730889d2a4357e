"""The scribe of a turn: what an agent tells is written down, in few transactions and before anybody hears of it."""

import asyncio
from collections.abc import Callable
from contextlib import suppress

from latchkey.application.dispatcher import Dispatcher
from latchkey.application.turns.record import EventBatch, append_events
from latchkey.domain.agent import TextDelta, ToolRequest
from latchkey.domain.credentials import Owner
from latchkey.domain.errors import ConcurrentWrite, Conflict, NotFound, OffsetConflict, ToolsUnavailable, Unavailable
from latchkey.domain.turn import TurnId, Usage

INTERVAL_S = 0.2
"""The first piece of text is written at once; what comes within that time of it is gathered."""

QUICK_S = 0.1
"""A tool that answers within that time writes its own beginning with its end: four round trips of a turn less."""


class TurnEventWriter:
    """Writes for one turn. `lost` is called when the turn turns out to be no longer ours to write."""

    def __init__(self, dispatcher: Dispatcher, owner: Owner, turn_id: TurnId, lost: Callable[[], None]) -> None:
        self._dispatcher = dispatcher
        self._owner = owner
        self._turn_id = turn_id
        self._lost = lost
        self._said: list[str] = []
        self._written = 0
        self._unwritten: list[str] = []
        self._writing: asyncio.Task[None] | None = None
        self._called: dict[str, tuple[asyncio.TimerHandle, ToolRequest]] = {}
        self._announcing: set[asyncio.Task[bool]] = set()
        self._one_at_a_time = asyncio.Lock()
        self._closed = asyncio.Event()
        self.usage = Usage()

    @property
    def text(self) -> str:
        """All that the agent has said."""
        return "".join(self._said)

    def say(self, said: TextDelta) -> None:
        """To be written soon. What the answer ends with is left to whoever ends the turn."""
        self._said.append(said.text)
        self._unwritten.append(said.text)
        if self._writing is None and not said.is_last:
            self._writing = asyncio.create_task(self._write_now_and_then())

    async def note(self, request: ToolRequest) -> None:
        """All that was said before is written now, and the call with it; alone, the call is if it is not quick.

        Raises `ToolsUnavailable` if it cannot be.
        """
        if not self._unwritten:
            self.note_return(request.call_id)
            timer = asyncio.get_running_loop().call_later(QUICK_S, self._announce, request.call_id)
            self._called[request.call_id] = timer, request
        elif not await self._write(request):
            raise ToolsUnavailable("The tool call cannot be written down: the database does not answer.")

    def note_return(self, call_id: str) -> None:
        """The call has written its own beginning, if it was quick."""
        if called := self._called.pop(call_id, None):
            called[0].cancel()

    async def close(self) -> None:
        """Text that is unwritten stays so, for whoever ends the turn; a call that has not returned is announced now.

        What is being written is waited for.
        """
        self._closed.set()
        for call_id in list(self._called):
            self._announce(call_id)
        writing = [*self._announcing, *([self._writing] if self._writing else [])]
        await asyncio.gather(*writing, return_exceptions=True)

    def _announce(self, call_id: str) -> None:
        timer, request = self._called.pop(call_id)
        timer.cancel()
        announcing = asyncio.create_task(self._write(request))
        self._announcing.add(announcing)
        announcing.add_done_callback(self._announcing.discard)

    async def _write_now_and_then(self) -> None:
        try:
            while self._unwritten and not self._closed.is_set():
                await self._write()
                with suppress(TimeoutError):
                    async with asyncio.timeout(INTERVAL_S):
                        await self._closed.wait()
        finally:
            self._writing = None

    async def _write(self, request: ToolRequest | None = None) -> bool:
        """Whether it is written. If that is not known, it stays to be written, and is not written twice."""
        async with self._one_at_a_time:
            while True:
                text, count = "".join(self._unwritten), len(self._unwritten)
                if not text and request is None:
                    return True
                batch = EventBatch(self._written, text, self.usage, request)
                try:
                    await self._dispatcher.call(self._owner, append_events, self._turn_id, batch)
                except OffsetConflict as earlier:
                    self._forget(earlier.answer_length - self._written)
                    continue
                except ConcurrentWrite:
                    continue
                except (Conflict, NotFound):
                    self._lost()
                    return False
                except Unavailable:
                    return False
                del self._unwritten[:count]
                self._written += len(text)
                return True

    def _forget(self, characters: int) -> None:
        """So many of the unwritten characters are written."""
        text = "".join(self._unwritten)
        self._unwritten[:] = [text[characters:]] if characters < len(text) else []
        self._written += characters
