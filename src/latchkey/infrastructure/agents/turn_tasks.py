"""The task of each turn, the stream of events that it publishes, and the text of its answer."""

import asyncio
import re
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator, Sequence

from anyio import BrokenResourceError, create_memory_object_stream
from anyio.streams.memory import MemoryObjectSendStream

from latchkey.domain.agent import AgentEvent, PastStep, TextDelta
from latchkey.domain.errors import ModelBadResponse

MAX_ANSWER_CHARS = 1024 * 1024
MAX_MODEL_CHARS = 200

_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


def storable(text: str) -> str:
    """Replace the characters that PostgreSQL cannot store (NUL and lone surrogates) with U+FFFD."""
    return _UNSTORABLE.sub("\ufffd", text)


def model_name(value: object) -> str | None:
    """The name of a model as its server reports it: one line of at most `MAX_MODEL_CHARS`; None if it is no name."""
    if not isinstance(value, str):
        return None
    return " ".join("".join(char if char.isprintable() else " " for char in value).split())[:MAX_MODEL_CHARS] or None


class AnswerText:
    """Turns the text of a model into deltas, and separates the paragraphs of one turn with a blank line."""

    def __init__(self, steps: Sequence[PastStep] = ()) -> None:
        """With `steps`, their texts are the beginning of the answer."""
        self._length = sum(len(step.text) for step in steps)
        self._has_text = self._length > 0
        self._needs_paragraph_break = False

    def begin_paragraph(self) -> None:
        """Put the next text into a paragraph of its own."""
        self._needs_paragraph_break = True

    def append(self, text: str) -> Iterator[TextDelta]:
        """Raises `ModelBadResponse` if the answer becomes longer than `MAX_ANSWER_CHARS`."""
        if not text:
            return
        self._length += len(text)
        if self._length > MAX_ANSWER_CHARS:
            raise ModelBadResponse(f"The model's answer is longer than {MAX_ANSWER_CHARS} characters.")
        if self._needs_paragraph_break and self._has_text:
            yield TextDelta("\n\n")
        self._has_text, self._needs_paragraph_break = True, False
        yield TextDelta(storable(text))


_MAX_BUFFERED_EVENTS = 16


class AgentEventStream:
    """The producer's side of a turn's events. Leaving the `with` block ends the stream."""

    def __init__(self, stream: MemoryObjectSendStream[AgentEvent]) -> None:
        self._stream = stream
        self._unconsumed = 0
        self._consumed = asyncio.Event()
        self._is_closed = False

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        self._stream.close()

    async def send(self, event: AgentEvent) -> None:
        """Wait while the buffer is full."""
        self._unconsumed += 1
        await self._stream.send(event)

    async def wait_consumed(self) -> None:
        """Wait until the consumer has processed all events. Raises `BrokenResourceError` if it has left."""
        while self._unconsumed and not self._is_closed:
            self._consumed.clear()
            await self._consumed.wait()
        if self._is_closed:
            raise BrokenResourceError

    def mark_consumed(self) -> None:
        """Record that the consumer has processed one more event."""
        self._unconsumed -= 1
        self._consumed.set()

    def close(self) -> None:
        """Record that the consumer has left."""
        self._is_closed = True
        self._consumed.set()


class TurnTasks:
    """The running turns of one agent.

    A turn opens and closes its resources in one task, as the MCP client demands, however its consumer ends.
    """

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    async def stream(
        self, run_turn: Callable[[AgentEventStream], Coroutine[None, None, None]]
    ) -> AsyncGenerator[AgentEvent, None]:
        """The events of a turn while it runs. Closing the iterator cancels the task and waits for its end."""
        send, receive = create_memory_object_stream[AgentEvent](_MAX_BUFFERED_EVENTS)
        events = AgentEventStream(send)
        task = asyncio.create_task(run_turn(events))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            async for event in receive:
                yield event
                events.mark_consumed()
            await task
        finally:
            # Cancelling is not enough: the Agents SDK may take it for the end of one tool, and call the next.
            events.close()
            receive.close()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            send.close()

    async def aclose(self) -> None:
        """Cancel all running turns and wait for their end."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
