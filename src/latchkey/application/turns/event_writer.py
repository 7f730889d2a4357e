"""Appends the events of a running turn to its event log, in few transactions."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from time import perf_counter

from latchkey.application.dispatcher import Dispatcher
from latchkey.application.turns.record import EventBatch, append_events
from latchkey.domain.agent import AgentRun, ModelCall, TextDelta
from latchkey.domain.credentials import Owner
from latchkey.domain.errors import (
    ConcurrentWrite,
    Conflict,
    Exhausted,
    NotFound,
    OffsetConflict,
    ToolsUnavailable,
    Unavailable,
)
from latchkey.domain.tool_call import ANNOUNCE_AFTER_S, ToolRequest

FLUSH_INTERVAL_S = 0.2
"""The first text is written at once. Text that arrives within this time after a write is written in one batch."""


class TurnEventWriter:
    """Writes the events of one attempt of a turn. Calls `on_lost` if the turn no longer belongs to this process."""

    def __init__(self, dispatcher: Dispatcher, owner: Owner, agent_run: AgentRun, on_lost: Callable[[], None]) -> None:
        answer = "".join(step.text for step in agent_run.steps)
        self._dispatcher = dispatcher
        self._owner = owner
        self._turn_id = agent_run.turn_id
        self._attempt = agent_run.attempt
        self._on_lost = on_lost
        self._deltas: list[str] = [answer]
        self._written_length = len(answer)
        self._unwritten: list[str] = []
        self._text_task: asyncio.Task[None] | None = None
        self._pending_calls: dict[str, tuple[asyncio.TimerHandle, ToolRequest]] = {}
        self._announcements: set[asyncio.Task[bool]] = set()
        self._write_lock = asyncio.Lock()
        self._closed = asyncio.Event()
        self.usage = agent_run.usage
        self.model: str | None = None
        self.cached_tokens = 0
        self.first_text_at: float | None = None

    @property
    def text(self) -> str:
        """All text of the agent so far, written or not."""
        return "".join(self._deltas)

    def append_text(self, delta: TextDelta) -> None:
        """Schedule the text to be written. The last text of an answer is not scheduled: `finish_turn` stores it."""
        if self.first_text_at is None:
            self.first_text_at = perf_counter()
        self._deltas.append(delta.text)
        self._unwritten.append(delta.text)
        if self._text_task is None and not delta.is_last:
            self._text_task = asyncio.create_task(self._write_text_periodically())

    def record_model_call(self, call: ModelCall) -> None:
        """Add up the usage, and keep the name of the model. Both are written with the next events."""
        self.usage += call.usage
        self.model = call.model or self.model
        self.cached_tokens += call.cached_tokens

    async def record_tool_call(self, request: ToolRequest) -> None:
        """Announce a tool call: now if there is unwritten text, else only if it takes longer than `ANNOUNCE_AFTER_S`.

        A quick call then records its start together with its result, which saves a transaction. Raises
        `ToolsUnavailable` if the announcement cannot be written.
        """
        if not self._unwritten:
            self.acknowledge(request.call_id)
            timer = asyncio.get_running_loop().call_later(ANNOUNCE_AFTER_S, self._announce, request.call_id)
            self._pending_calls[request.call_id] = timer, request
        elif not await self._write(request):
            raise ToolsUnavailable("The tool call cannot be recorded: the database is unavailable.")

    def acknowledge(self, call_id: str) -> None:
        """Cancel the pending announcement of a call that has returned."""
        if pending := self._pending_calls.pop(call_id, None):
            timer, _ = pending
            timer.cancel()

    async def close(self) -> None:
        """Announce the calls that have not returned, and wait for running writes.

        Unwritten text stays unwritten: `finish_turn` stores it with the end of the turn.
        """
        self._closed.set()
        for call_id in list(self._pending_calls):
            self._announce(call_id)
        writes = [*self._announcements, *([self._text_task] if self._text_task else [])]
        await asyncio.gather(*writes, return_exceptions=True)

    def _announce(self, call_id: str) -> None:
        timer, request = self._pending_calls.pop(call_id)
        timer.cancel()
        announcement = asyncio.create_task(self._write(request))
        self._announcements.add(announcement)
        announcement.add_done_callback(self._announcements.discard)

    async def _write_text_periodically(self) -> None:
        try:
            while self._unwritten and not self._closed.is_set():
                await self._write()
                with suppress(TimeoutError):
                    async with asyncio.timeout(FLUSH_INTERVAL_S):
                        await self._closed.wait()
        finally:
            self._text_task = None

    async def _write(self, request: ToolRequest | None = None) -> bool:
        """Write the unwritten text and the announcement of the request; return False if the database refuses them.

        Text beyond the storage quota stays unwritten, and its tool call is not announced.

        After a failure the text stays unwritten. If the failed attempt was committed nevertheless, the next attempt
        raises `OffsetConflict`, and the text is not written twice.
        """
        async with self._write_lock:
            while True:
                text, count = "".join(self._unwritten), len(self._unwritten)
                if not text and request is None:
                    return True
                batch = EventBatch(self._written_length, text, self.usage, request, self.model, self._attempt)
                try:
                    await self._dispatcher.call(self._owner, append_events, self._turn_id, batch)
                except OffsetConflict as conflict:
                    self._drop_written(conflict.answer_length - self._written_length)
                    continue
                except ConcurrentWrite:
                    continue
                except (Conflict, NotFound):
                    self._on_lost()
                    return False
                except Exhausted:
                    # The text is stored with the end of the turn, and the call is recorded only if it is executed.
                    return True
                except Unavailable:
                    return False
                del self._unwritten[:count]
                self._written_length += len(text)
                return True

    def _drop_written(self, characters: int) -> None:
        """Remove this many characters from the unwritten text: an earlier attempt has written them."""
        text = "".join(self._unwritten)
        self._unwritten[:] = [text[characters:]] if characters < len(text) else []
        self._written_length += characters
