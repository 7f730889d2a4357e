"""The interface of a third-party MCP client, as the tests use it."""

import json
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Literal, Protocol

Era = Literal["legacy", "auto", "modern"]


class Refused(Exception):
    """The service refused the connection or a request. The text is what the client reported."""


@dataclass(frozen=True)
class HttpEndpoint:
    """The URL of the service, and the bearer token.

    `answer` is the result of every elicitation; without it the client declares that it supports none.
    """

    url: str
    bearer: str
    answer: dict[str, Any] | None = None


@dataclass(frozen=True)
class StdioEndpoint:
    """The program that the client starts. The token is in its environment."""

    command: str
    args: list[str]
    env: dict[str, str]


Endpoint = HttpEndpoint | StdioEndpoint


@dataclass(frozen=True)
class ToolResult:
    """The result of a tool call: its text, and its structured content if the client exposes that."""

    text: str
    is_error: bool
    structured: Any = None

    @property
    def content(self) -> Any:
        """The JSON in the text: the structured content, or the object of a tool error."""
        return json.loads(self.text)


class McpClient(Protocol):
    """A connected client. Every method raises `Refused` if the service refuses the request."""

    @property
    def version(self) -> str | None:
        """The negotiated protocol version; None if the client does not expose it."""

    async def tools(self) -> list[str]: ...

    async def call(self, name: str, arguments: dict[str, Any]) -> ToolResult: ...

    async def resources(self) -> list[str]:
        """The URIs of all listed resources."""

    async def read(self, uri: str) -> str: ...


Connect = Callable[[Endpoint, Era], AbstractAsyncContextManager[McpClient]]
