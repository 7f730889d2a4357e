"""The events of a turn as all translators read them: arguments and results of tool calls are bounded."""

from msgspec import Raw
from msgspec.structs import replace

from latchkey.domain.turn_event import (
    MAX_SHOWN_BYTES,
    OMISSION,
    EventData,
    ToolCallCompletedEvent,
    ToolCallStartedEvent,
    TurnEvent,
    omission_of,
)

INTERRUPTED = "The service was interrupted before the answer was complete. Send the message again."
NO_RESULT = "No result recorded."
CANCELLED = "Cancelled."

MAX_TURN_BYTES = 1024 * 1024
"""Of the arguments and results of all tool calls of a turn: pages and open streams hold them all."""


class EventReader:
    """Decodes the events of one turn, in their order from the first on.

    Arguments and results that are too large are replaced by `omission_of` their size, in streams and in histories.
    """

    def __init__(self) -> None:
        self._remaining_bytes = MAX_TURN_BYTES

    def read(self, event: TurnEvent) -> EventData | None:
        """Return the data of the event; None for an event of a later release."""
        data = event.decode()
        if isinstance(data, ToolCallStartedEvent):
            arguments = self._bounded(data.arguments)
            return data if arguments is data.arguments else replace(data, arguments=arguments)
        if isinstance(data, ToolCallCompletedEvent):
            result = self._bounded(data.result)
            return data if result is data.result else replace(data, result=result)
        return data

    def _bounded(self, value: Raw) -> Raw:
        text = bytes(value)
        if len(text) <= MAX_SHOWN_BYTES and text.startswith(OMISSION):
            return value  # omitted when the log was read
        if len(text) > min(MAX_SHOWN_BYTES, self._remaining_bytes):
            return Raw(omission_of(len(text)))
        self._remaining_bytes -= len(text)
        return value
