"""All combinations of client, transport and protocol era."""

from dataclasses import dataclass

from tests.interop.client import Connect, Era
from tests.interop.clients.agents_sdk import agents_sdk
from tests.interop.clients.claude import claude
from tests.interop.clients.inspector import inspector
from tests.interop.clients.python_sdk import python_sdk
from tests.interop.clients.subprocess_client import fastmcp, typescript

OLDER, CURRENT = "2025-11-25", "2026-07-28"
VERSIONS: dict[Era, str] = {"legacy": OLDER, "auto": CURRENT, "modern": CURRENT}


@dataclass(frozen=True)
class ClientConfiguration:
    """`era` is how the client chooses the protocol version: handshake (legacy), look-up (auto) or fixed (modern)."""

    client: str
    connect: Connect
    transport: str
    era: Era

    @property
    def version(self) -> str:
        return VERSIONS[self.era]

    def __str__(self) -> str:
        return f"{self.client}, {self.transport}, {self.era}"


_ALL: tuple[Era, ...] = ("legacy", "auto", "modern")
_CLIENTS: dict[str, tuple[Connect, tuple[Era, ...], tuple[Era, ...]]] = {
    # Over stdio each request starts the service again, so one era is enough.
    "Inspector CLI": (inspector, _ALL, ("legacy",)),
    "TypeScript SDK 1": (typescript("sdk_1.mjs"), ("legacy",), ("legacy",)),
    "TypeScript SDK 2": (typescript("client_2.mjs"), _ALL, _ALL),
    "Python SDK": (python_sdk, _ALL, _ALL),
    "fastmcp": (fastmcp, _ALL, _ALL),
    "Mastra": (typescript("mastra_2.mjs"), _ALL, ("auto",)),
    "OpenAI Agents SDK": (agents_sdk, ("auto",), ("auto",)),
    "Claude CLI": (claude, ("auto",), ("auto",)),
}

CLIENT_MATRIX = [
    ClientConfiguration(client, enter, transport, era)
    for client, (enter, over_http, over_stdio) in _CLIENTS.items()
    for transport, eras in (("http", over_http), ("stdio", over_stdio))
    for era in eras
]
