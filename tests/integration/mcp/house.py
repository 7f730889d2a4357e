"""The whole service behind MCP, with the doors by which clients come in."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import httpx2
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.server.lowlevel import Server
from mcp_types.version import LATEST_MODERN_VERSION

from latchkey.application.artifacts import add_artifact
from latchkey.application.context_tokens import MintedToken, mint_context_token
from latchkey.application.conversations import add_conversation
from latchkey.application.dispatcher import Dispatcher
from latchkey.application.tool_calls import ToolCallExecutor
from latchkey.application.turns.start import StartedTurn
from latchkey.domain.artifact import ArtifactWithContent, NewArtifact
from latchkey.domain.conversation import Conversation, ConversationId, NewConversation
from latchkey.domain.credentials import Credential, Grant, NewContextToken, Owner, TokenSecret, UserId
from latchkey.domain.ports import Identity, Transaction, TransactionMode, UnitsOfWork
from latchkey.domain.tool_call import ToolCall
from latchkey.infrastructure.identity.shared_secret import SharedSecret
from latchkey.interfaces.mcp.http.endpoint import McpEndpoint
from latchkey.interfaces.mcp.in_process import connect
from latchkey.interfaces.mcp.server import create_server
from tests.builders import TASK_GRANTS
from tests.turns import started_turn

ADDRESS = "http://localhost/mcp"
METADATA = "http://localhost/.well-known/oauth-protected-resource/mcp"
SIGNING_SECRET = b"thirty-two bytes that are secret"
ME, YOU = Owner(UserId("me")), Owner(UserId("you"))

Way = Callable[["House", TokenSecret], AbstractAsyncContextManager[Client]]


@dataclass
class CountedUnits:
    """Units of work of an adapter, counted: each is one transaction, in which a credential is resolved."""

    units: UnitsOfWork
    opened: list[Credential] = field(default_factory=list)

    def open(self, credential: Credential, mode: TransactionMode) -> AbstractAsyncContextManager[Transaction]:
        self.opened.append(credential)
        return self.units.open(credential, mode)


class House:
    """Everything joined as the service joins it, on units of work that are counted."""

    def __init__(self, units: UnitsOfWork, identity: Identity | None = None) -> None:
        self.units = CountedUnits(units)
        self.signer = SharedSecret(SIGNING_SECRET, "latchkey", "latchkey")
        self.dispatcher = Dispatcher(self.units, lambda _call: None)
        self.server: Server[Any] = create_server(self.dispatcher, ToolCallExecutor(self.dispatcher))
        self.endpoint = McpEndpoint(self.server, self.dispatcher, identity or self.signer, ADDRESS, METADATA)

    async def mint(self, *grants: Grant, owner: Owner = ME, about: ConversationId | None = None) -> MintedToken:
        new = NewContextToken(list(grants) or TASK_GRANTS, about)
        return await self.dispatcher.call(owner, mint_context_token, new)

    async def secret(self, *grants: Grant, owner: Owner = ME, about: ConversationId | None = None) -> TokenSecret:
        return (await self.mint(*grants, owner=owner, about=about)).secret

    async def conversation(self, title: str | None = None, owner: Owner = ME) -> Conversation:
        return await self.dispatcher.call(owner, add_conversation, NewConversation(title))

    async def artifact(
        self, title: str = "Plan", text: str = "# Plan", owner: Owner = ME, about: ConversationId | None = None
    ) -> ArtifactWithContent:
        new = NewArtifact(title, text, conversation_id=about)
        return await self.dispatcher.call(owner, add_artifact, new)

    async def turn(self, *grants: Grant, owner: Owner = ME) -> StartedTurn:
        """A running one, whose token grants that much."""
        return await started_turn(self.dispatcher, owner, "Buy milk", grants=list(grants) or TASK_GRANTS)

    async def ledger_of(self, turn: StartedTurn, owner: Owner = ME) -> list[ToolCall]:
        async with self.units.units.open(owner, "read") as uow:
            return (await uow.tool_calls.list_by_turn([turn.turn.id])).get(turn.turn.id, [])

    def jwt(self, owner: Owner = ME) -> str:
        return self.signer.sign(owner.user_id, timedelta(minutes=1))

    @asynccontextmanager
    async def http(self) -> AsyncIterator[httpx2.AsyncClient]:
        """The endpoint being served, and a plain HTTP client of it."""
        transport = httpx2.ASGITransport(self.endpoint)
        async with self.endpoint.run(), httpx2.AsyncClient(transport=transport, base_url=ADDRESS) as client:
            yield client


def over_http(mode: str) -> Way:
    @asynccontextmanager
    async def reach(house: House, secret: TokenSecret) -> AsyncIterator[Client]:
        async with house.http() as http:
            http.headers["authorization"] = f"Bearer {secret.text}"
            async with Client(streamable_http_client(ADDRESS, http_client=http), mode=mode, cache=None) as client:
                yield client

    return reach


def in_process(house: House, secret: TokenSecret) -> AbstractAsyncContextManager[Client]:
    return connect(house.server, secret)


WAYS: dict[str, Way] = {
    "http, current protocol": over_http(LATEST_MODERN_VERSION),
    "http, older protocol": over_http("legacy"),
    "in process": in_process,
}
