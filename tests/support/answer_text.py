"""The text of an answer, from the events of its turn."""

from collections.abc import Iterable
from typing import Any, Protocol


class NamedEvent(Protocol):
    """An event as some client of the tests has it."""

    @property
    def name(self) -> str: ...
    @property
    def data(self) -> dict[str, Any]: ...


def answer_text(events: Iterable[NamedEvent]) -> str:
    """Return the text that a client shows after these events: all deltas, without what was withdrawn."""
    text = ""
    for event in events:
        if event.name == "message.delta":
            text += event.data["text"]
        elif event.name == "message.withdrawn":
            text = text[: event.data["length"]]
    return text
