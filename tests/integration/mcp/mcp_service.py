"""The MCP server with its HTTP endpoint on a real database, and the kinds of clients that open_client it."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import httpx2
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.server.lowlevel import Server
from mcp_types.version import LATEST_MODERN_VERSION

from latchkey.app import App
from latchkey.application.artifacts import add_artifact
from latchkey.application.context_tokens import MintedToken, mint_context_token
from latchkey.application.conversations import add_conversation
from latchkey.application.dispatcher import Dispatcher
from latchkey.application.external_calls import ExternalCallExecutor
from latchkey.application.tool_calls import ToolCallExecutor
from latchkey.application.turns.start import StartedTurn
from latchkey.bootstrap.registry import BUILT_IN, Registry
from latchkey.domain.artifact import ArtifactWithContent, NewArtifact
from latchkey.domain.conversation import Conversation, ConversationId, NewConversation
from latchkey.domain.credentials import Credential, Grant, NewContextToken, Owner, TokenSecret, UserId
from latchkey.domain.ports import Identity, LogEntry, Transaction, TransactionMode, UnitsOfWork
from latchkey.domain.tool_call import ToolCall
from latchkey.infrastructure.database.event_bus import LocalEventBus
from latchkey.infrastructure.identity.shared_secret import SharedSecret
from latchkey.infrastructure.tool_context import HttpToolContexts
from latchkey.interfaces.mcp.http.endpoint import McpEndpoint, Transport
from latchkey.interfaces.mcp.http.transport import StatelessTransport
from latchkey.interfaces.mcp.principal import connect
from latchkey.interfaces.mcp.server import create_server
from tests.builders import TASK_GRANTS
from tests.turns import started_turn

MCP_URL = "http://localhost/mcp"
METADATA_URL = "http://localhost/.well-known/oauth-protected-resource/mcp"
SIGNING_SECRET = b"thirty-two bytes that are secret"
ME, YOU = Owner(UserId("me")), Owner(UserId("you"))

OpenClient = Callable[["McpService", TokenSecret], AbstractAsyncContextManager[Client]]


@dataclass
class CountingUnits:
    """Records the credential of every unit of work: each is one transaction, which verifies the credential."""

    units: UnitsOfWork
    opened: list[Credential] = field(default_factory=list)

    def open(self, credential: Credential, mode: TransactionMode) -> AbstractAsyncContextManager[Transaction]:
        self.opened.append(credential)
        return self.units.open(credential, mode)


class McpService:
    """The parts of the service behind `/mcp`, composed as the service composes them."""

    def __init__(
        self,
        units: UnitsOfWork,
        identity: Identity | None = None,
        create_transport: Callable[[Server[Any]], Transport] = StatelessTransport,
        apps: Sequence[App] = (),
        approval_ttl_s: float = 86_400,
    ) -> None:
        self.units = CountingUnits(units)
        self.signer = SharedSecret(SIGNING_SECRET, "latchkey", "latchkey")
        self.logged: list[LogEntry] = []
        self.dispatcher = Dispatcher(self.units, self.logged.append)
        executor = ToolCallExecutor(self.dispatcher)
        external = ExternalCallExecutor(self.dispatcher, executor, LocalEventBus(), HttpToolContexts())
        tools = Registry.of(*BUILT_IN, *apps).tools
        self.server: Server[Any] = create_server(self.dispatcher, executor, external, tools, approval_ttl_s)
        self.endpoint = McpEndpoint(
            create_transport(self.server), self.dispatcher, identity or self.signer, MCP_URL, METADATA_URL
        )

    async def mint(
        self, *grants: Grant, owner: Owner = ME, conversation_id: ConversationId | None = None
    ) -> MintedToken:
        new = NewContextToken(list(grants) or TASK_GRANTS, conversation_id)
        return await self.dispatcher.call(owner, mint_context_token, new)

    async def secret(
        self, *grants: Grant, owner: Owner = ME, conversation_id: ConversationId | None = None
    ) -> TokenSecret:
        return (await self.mint(*grants, owner=owner, conversation_id=conversation_id)).secret

    async def conversation(self, title: str | None = None, owner: Owner = ME) -> Conversation:
        return await self.dispatcher.call(owner, add_conversation, NewConversation(title))

    async def artifact(
        self,
        title: str = "Plan",
        text: str = "# Plan",
        owner: Owner = ME,
        conversation_id: ConversationId | None = None,
    ) -> ArtifactWithContent:
        new = NewArtifact(title, text, conversation_id=conversation_id)
        return await self.dispatcher.call(owner, add_artifact, new)

    async def turn(self, *grants: Grant, owner: Owner = ME) -> StartedTurn:
        """Start a turn whose token has these grants."""
        return await started_turn(self.dispatcher, owner, "Buy milk", grants=list(grants) or TASK_GRANTS)

    async def tool_calls_of(self, turn: StartedTurn, owner: Owner = ME) -> list[ToolCall]:
        async with self.units.units.open(owner, "read") as uow:
            return await uow.tool_calls.list_of_turn(turn.turn.id)

    def jwt(self, owner: Owner = ME) -> str:
        return self.signer.sign(owner.user_id, timedelta(minutes=1))

    @asynccontextmanager
    async def http(self) -> AsyncIterator[httpx2.AsyncClient]:
        """Run the endpoint, and open a plain HTTP client of it."""
        transport = httpx2.ASGITransport(self.endpoint)
        async with self.endpoint.run(), httpx2.AsyncClient(transport=transport, base_url=MCP_URL) as client:
            yield client


def http_client(mode: str) -> OpenClient:
    @asynccontextmanager
    async def open_client(service: McpService, secret: TokenSecret) -> AsyncIterator[Client]:
        async with service.http() as http:
            http.headers["authorization"] = f"Bearer {secret.text}"
            async with Client(streamable_http_client(MCP_URL, http_client=http), mode=mode, cache=None) as client:
                yield client

    return open_client


def in_process(service: McpService, secret: TokenSecret) -> AbstractAsyncContextManager[Client]:
    return connect(service.server, secret)


CLIENTS: dict[str, OpenClient] = {
    "http, current protocol": http_client(LATEST_MODERN_VERSION),
    "http, older protocol": http_client("legacy"),
    "in process": in_process,
}
