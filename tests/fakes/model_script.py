"""What a fake model is to do, step by step: one step answers one request."""

from asyncio import Event, Semaphore
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

AnswerEnding = Literal["whole", "cut", "broken"]


@dataclass(frozen=True)
class Answer:
    """A streamed answer: text in pieces, then tool calls as `(name, arguments)`, with the arguments as text."""

    pieces: tuple[str, ...] = ()
    calls: tuple[tuple[str, str], ...] = ()
    tokens: tuple[int, int] = (10, 5)
    ending: AnswerEnding = "whole"
    held_until: Event | None = None
    pace: Semaphore | None = None

    def cut(self) -> "Answer":
        """The stream ends, politely, before the answer does."""
        return replace(self, ending="cut")

    def broken(self) -> "Answer":
        """The connection drops before the answer has ended."""
        return replace(self, ending="broken")

    def held(self, until: Event) -> "Answer":
        """The text is sent; what ends the answer waits."""
        return replace(self, held_until=until)

    def paced(self, by: Semaphore) -> "Answer":
        """Each event of what is said takes a permit before it is sent."""
        return replace(self, pace=by)


@dataclass(frozen=True)
class Reply:
    """Any HTTP response."""

    status: int = 200
    body: bytes = b""
    media_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)


Step = Answer | Reply


def says(*pieces: str) -> Answer:
    return Answer(pieces=pieces)


def calls(*asked: tuple[str, str], saying: tuple[str, ...] = ()) -> Answer:
    return Answer(pieces=saying, calls=asked)


def fails(status: int, message: str = "no", **headers: str) -> Reply:
    """An error as OpenAI words it, and Anthropic. Underscores in the names of headers are hyphens."""
    body = b'{"type":"error","error":{"message":"%s","type":"fake","code":null}}' % message.encode()
    return Reply(status, body, headers={name.replace("_", "-"): value for name, value in headers.items()})
