"""Each client, and each way that it can come in by."""

from dataclasses import dataclass

from tests.interop.guest import Entry, Era
from tests.interop.guests.agents_sdk import agents_sdk
from tests.interop.guests.claude import claude
from tests.interop.guests.driven import fastmcp, typescript
from tests.interop.guests.inspector import inspector
from tests.interop.guests.python_sdk import python_sdk

OLDER, CURRENT = "2025-11-25", "2026-07-28"
VERSIONS: dict[Era, str] = {"legacy": OLDER, "auto": CURRENT, "modern": CURRENT}


@dataclass(frozen=True)
class Way:
    """The protocol's version is agreed upon by handshake, looked up, or taken for granted: legacy, auto, modern."""

    client: str
    enter: Entry
    transport: str
    era: Era

    @property
    def version(self) -> str:
        return VERSIONS[self.era]

    def __str__(self) -> str:
        return f"{self.client}, {self.transport}, {self.era}"


_ALL: tuple[Era, ...] = ("legacy", "auto", "modern")
_CLIENTS: dict[str, tuple[Entry, tuple[Era, ...], tuple[Era, ...]]] = {
    # Over stdio each thing that it does starts the service anew: once in the era that it chooses itself is enough.
    "Inspector CLI": (inspector, _ALL, ("legacy",)),
    "TypeScript SDK 1": (typescript("sdk_1.mjs"), ("legacy",), ("legacy",)),
    "TypeScript SDK 2": (typescript("client_2.mjs"), _ALL, _ALL),
    "Python SDK": (python_sdk, _ALL, _ALL),
    "fastmcp": (fastmcp, _ALL, _ALL),
    "OpenAI Agents SDK": (agents_sdk, ("auto",), ("auto",)),
    "Claude CLI": (claude, ("auto",), ("auto",)),
}

WAYS = [
    Way(client, enter, transport, era)
    for client, (enter, over_http, over_stdio) in _CLIENTS.items()
    for transport, eras in (("http", over_http), ("stdio", over_stdio))
    for era in eras
]
