"""How one of OpenAI's APIs is spoken: what a wire is asked for, and what is heard on it."""

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
"""The data of the event that may close a stream."""


class TextEvent(Struct, frozen=True):
    """A piece of what the model says."""

    text: str


class ParagraphBreak(Struct, frozen=True):
    """What is said from here on is a paragraph of its own."""


class CompletedResponse(Struct, frozen=True):
    """The whole answer: `output` is what the runner goes on with, `text` what it says, if that was not heard before."""

    output: list[TResponseOutputItem]
    text: str

    @property
    def calls_tools(self) -> bool:
        return any(item.type == "function_call" for item in self.output)


ModelEvent = TextEvent | ParagraphBreak | Usage | CompletedResponse | Failure
"""A failure is heard like the rest: what came with it, and before it, has been said and is told."""


class ModelApi(Protocol):
    """`path` is where the API is, below the base URL of the model's server."""

    path: str

    def encode_request(
        self, instructions: str | None, conversation: list[TResponseInputItem], tools: list[Tool]
    ) -> bytes:
        """The body of a request."""
        ...

    def decode_events(self, told: AsyncIterator[list[bytes]]) -> AsyncGenerator[list[ModelEvent], None]:
        """Decode the data of server-sent events, one list for each list of events that arrived together.

        Raises the `Failure` of an answer that is not one, and `ValueError`, `TypeError`, `AttributeError` or
        `LookupError` for data of an unknown shape.
        """
        ...


_encode = msgspec.json.Encoder().encode


def read(data: bytes, shape: type[Shape]) -> Shape:
    try:
        return msgspec.json.decode(data, type=shape)
    except msgspec.DecodeError:
        # Python's own reader takes half a surrogate pair too, which a stream that cuts a text anywhere may carry.
        return msgspec.convert(json.loads(data), shape)


def write(value: Any) -> bytes:
    try:
        return _encode(value)
    except UnicodeEncodeError:
        return json.dumps(value).encode()  # half a surrogate pair, as an escape
