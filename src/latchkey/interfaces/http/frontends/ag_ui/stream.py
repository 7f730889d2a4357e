"""The event stream of a run. Text that is withdrawn while the client follows the turn is removed from its messages."""

from collections.abc import AsyncGenerator, Awaitable, Callable

from litestar.response import Stream
from msgspec import Struct
from msgspec.structs import replace

from latchkey.application.turns.log import ConversationLog
from latchkey.domain.turn import TurnId
from latchkey.domain.turn_event import TurnEvent, without_withdrawn
from latchkey.interfaces.http.event_stream import event_stream
from latchkey.interfaces.http.frontends.ag_ui.history import AgUiMessage, thread_messages
from latchkey.interfaces.http.frontends.ag_ui.run import BEGINNING, Run, messages_snapshot
from latchkey.interfaces.http.frontends.ag_ui.translator import AgUiTranslator

Batches = AsyncGenerator[list[TurnEvent], None]
ReadLog = Callable[[TurnId, int], Awaitable[ConversationLog]]
"""Returns the thread up to an event of a turn: that turn is its last one."""

_CORRECTION = 1
"""The index of a correction among the AG-UI events for a withdrawal. The text may end before it."""


class _Correction(Struct, frozen=True):
    """The thread after a withdrawal: all its messages, and the events of its last turn that still count."""

    messages: list[AgUiMessage]
    events: list[TurnEvent]


class RunStream:
    """Translates the events of a turn that a client follows.

    No event of AG-UI takes text back, but `MESSAGES_SNAPSHOT` replaces all messages of a client. A client that has
    received text which is withdrawn gets one. Text that was withdrawn before the client asked is not sent.
    """

    def __init__(self, batches: Batches, run: Run, read_log: ReadLog) -> None:
        self._batches = batches
        self._run = run
        self._read_log = read_log
        self._translator = AgUiTranslator(run)
        self._corrections: dict[int, _Correction] = {}

    def response(self, user_id: str) -> Stream:
        """Return the response that streams the run."""
        return event_stream(self.batches(), user_id, encode=self.encode, end=self.end)

    async def batches(self) -> Batches:
        """Yield the events, after preparing what must be sent in the place of a withdrawal."""
        async for batch in self._batches:
            events = self._beginning(batch) if batch and batch[0].seq == 1 else []
            rest = batch[len(events) :]
            for event in rest:
                if event.is_withdrawal:
                    self._corrections[event.seq] = await self._correction(event)
            yield without_withdrawn(events) + rest

    def encode(self, event: TurnEvent) -> bytes:
        """Return the server-sent events for an event of the turn."""
        frames = self._translator.translate(event)
        if correction := self._corrections.pop(event.seq, None):
            frames += self._run.encode(event.seq, [messages_snapshot(correction.messages)], first=_CORRECTION)
            self._translator = AgUiTranslator(replace(self._run, snapshot=None))
            for earlier in correction.events:
                self._translator.translate(earlier)
        return frames

    def end(self) -> bytes:
        """Return the server-sent events that follow the last event."""
        return self._translator.end()

    def _beginning(self, batch: list[TurnEvent]) -> list[TurnEvent]:
        """Return the events of the first batch whose withdrawals need no correction.

        Without `after` the client has received nothing; else it has the corrections up to that AG-UI event.
        """
        after = self._run.after
        return batch if after == BEGINNING else [event for event in batch if (event.seq, _CORRECTION) <= after]

    async def _correction(self, event: TurnEvent) -> _Correction:
        log = await self._read_log(event.turn_id, event.seq)
        return _Correction(thread_messages(log), without_withdrawn(log.turns[-1].events))
