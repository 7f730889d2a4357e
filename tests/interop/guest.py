"""A client that somebody else wrote, as the tests know all of them: what it is let in by, and what it can do inside."""

import json
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Literal, Protocol

Era = Literal["legacy", "auto", "modern"]


class TurnedAway(Exception):
    """What the client said when it was not let in, or was refused what it asked for."""


@dataclass(frozen=True)
class HttpDoor:
    """The address, and what is sent as the bearer."""

    url: str
    bearer: str


@dataclass(frozen=True)
class StdioDoor:
    """The program that the client starts. The token is in its environment."""

    command: str
    args: list[str]
    env: dict[str, str]


Door = HttpDoor | StdioDoor


@dataclass(frozen=True)
class Answer:
    """What a tool answered: its structured content if the client shows that, and its text."""

    text: str
    is_error: bool
    structured: Any = None

    @property
    def content(self) -> Any:
        """The JSON in the text, which is the structured content or the tool error's object."""
        return json.loads(self.text)


class Guest(Protocol):
    """Inside. Whatever it is refused is raised as `TurnedAway`."""

    @property
    def version(self) -> str | None:
        """The protocol version it has agreed upon; None if it does not tell."""

    async def tools(self) -> list[str]: ...

    async def call(self, name: str, arguments: dict[str, Any]) -> Answer: ...

    async def resources(self) -> list[str]:
        """The addresses of all that is listed."""

    async def read(self, uri: str) -> str: ...


Entry = Callable[[Door, Era], AbstractAsyncContextManager[Guest]]
