"""What the two APIs of OpenAI have in common: a codec of requests, and the events of an answer."""

import json
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any, Protocol, TypeVar

import msgspec
from agents import Tool, TResponseInputItem
from agents.items import TResponseOutputItem
from msgspec import Struct

from latchkey.domain.errors import Failure
from latchkey.domain.turn import Usage

Shape = TypeVar("Shape")

DONE = b"[DONE]"
"""The data of the event that may end a stream."""


class TextEvent(Struct, frozen=True):
    """A piece of the model's text."""

    text: str


class ParagraphBreak(Struct, frozen=True):
    """The text that follows is a paragraph of its own."""


class CompletedResponse(Struct, frozen=True):
    """The whole answer.

    `output` is what the runner of the Agents SDK continues with. `text` is all text of the answer: a server may send
    it here only, without any `TextEvent`.
    """

    output: list[TResponseOutputItem]
    text: str

    @property
    def calls_tools(self) -> bool:
        return any(item.type == "function_call" for item in self.output)


ModelEvent = TextEvent | ParagraphBreak | Usage | CompletedResponse | Failure
"""A `Failure` is an event too: the text and the usage that arrived with it are published before it is raised."""


class ModelApi(Protocol):
    """Encodes the requests of one API and decodes its answers. `path` is relative to the server's base URL."""

    path: str

    def encode_request(
        self, instructions: str | None, conversation: list[TResponseInputItem], tools: list[Tool]
    ) -> bytes:
        """The body of a request."""
        ...

    def decode_events(self, chunks: AsyncIterator[list[bytes]]) -> AsyncGenerator[list[ModelEvent], None]:
        """Decode the data of server-sent events, one list for each list of events that arrived together.

        Raises the `Failure` of an answer that is not one, and `ValueError`, `TypeError`, `AttributeError` or
        `LookupError` for data of an unknown shape.
        """
        ...


_encode = msgspec.json.Encoder().encode


def decode_json(data: bytes, shape: type[Shape]) -> Shape:
    try:
        return msgspec.json.decode(data, type=shape)
    except msgspec.DecodeError:
        # The standard library also accepts a lone surrogate, which occurs in a stream that is split anywhere.
        return msgspec.convert(json.loads(data), shape)


def encode_json(value: Any) -> bytes:
    try:
        return _encode(value)
    except UnicodeEncodeError:
        return json.dumps(value).encode()  # writes a lone surrogate as an escape sequence
