"""The script of a fake model: each step answers one request."""

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
        """The stream ends normally before the answer is complete."""
        return replace(self, ending="cut")

    def broken(self) -> "Answer":
        """The connection is lost before the answer is complete."""
        return replace(self, ending="broken")

    def held(self, until: Event) -> "Answer":
        """The content is sent, and the end of the answer waits for the event."""
        return replace(self, held_until=until)

    def paced(self, by: Semaphore) -> "Answer":
        """Each event of the content acquires the semaphore before it is sent."""
        return replace(self, pace=by)


@dataclass(frozen=True)
class Reply:
    """An HTTP response with any body.

    With `stays_open` the server does not end it and waits for the client; with `breaks` it ends before its end.
    """

    status: int = 200
    body: bytes = b""
    media_type: str | None = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)
    stays_open: bool = False
    breaks: bool = False


Step = Answer | Reply


def says(*pieces: str) -> Answer:
    """An answer whose text is streamed in these pieces."""
    return Answer(pieces=pieces)


def calls(*tool_calls: tuple[str, str], saying: tuple[str, ...] = ()) -> Answer:
    """Tool calls as `(name, arguments)`, after the text of `saying`."""
    return Answer(pieces=saying, calls=tool_calls)


def fails(status: int, message: str = "no", **headers: str) -> Reply:
    """An error response with the body of OpenAI and Anthropic. Underscores in names of headers become hyphens."""
    body = b'{"type":"error","error":{"message":"%s","type":"fake","code":null}}' % message.encode()
    return Reply(status, body, headers={name.replace("_", "-"): value for name, value in headers.items()})
