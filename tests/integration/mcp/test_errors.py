"""Responses while the database or the identity provider is unavailable, broken or slow (timeout)."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager

import pytest
from mcp import MCPError

from latchkey.application.context_tokens import revoke_context_token
from latchkey.domain.credentials import Credential, TokenSecret
from latchkey.domain.ports import Transaction, TransactionMode
from latchkey.infrastructure.database.sql.engine import create_engine
from latchkey.infrastructure.database.unit_of_work import SqlUnitsOfWork
from latchkey.infrastructure.identity.jwks import JwksIdentity
from latchkey.interfaces.mcp import principal
from latchkey.testing.processes import free_port
from tests.fakes.jwks_provider import AUDIENCE, ISSUER, SigningKey
from tests.integration.mcp.jsonrpc import PROTOCOLS, call, message, post
from tests.integration.mcp.mcp_service import ME, McpService, in_process

INTERNAL_DETAIL = "SELECT * FROM vault"


class BrokenUnits:
    """Units of work with a bug."""

    def open(self, credential: Credential, mode: TransactionMode) -> AbstractAsyncContextManager[Transaction]:
        raise ZeroDivisionError(INTERNAL_DETAIL)


class BlockedUnit(AbstractAsyncContextManager[Transaction]):
    """A unit of work that never opens."""

    async def __aenter__(self) -> Transaction:
        never: asyncio.Future[Transaction] = asyncio.get_running_loop().create_future()
        return await never

    async def __aexit__(self, *_: object) -> None:
        """It was never entered."""


class BlockedUnits:
    """Units of work of a database that never responds."""

    def open(self, credential: Credential, mode: TransactionMode) -> AbstractAsyncContextManager[Transaction]:
        return BlockedUnit()


@pytest.fixture
async def service_without_database() -> AsyncIterator[McpService]:
    engine = create_engine(f"postgresql://nobody@127.0.0.1:{free_port()}/nothing")
    yield McpService(SqlUnitsOfWork(engine))
    await engine.dispose()


async def test_unavailable_database_is_503_with_retry_after(
    service_without_database: McpService, protocol: str
) -> None:
    """Never 401: the credential may be valid."""
    service = service_without_database
    bearers = [TokenSecret.mint(ME.user_id).text, service.jwt()]
    async with service.http() as http:
        responses = [await post(http, protocol, call(protocol, "list_tasks"), bearer) for bearer in bearers]
        responses.append(await post(http, protocol, message(protocol, "tools/list"), bearers[0]))

    assert [response.status_code for response in responses] == [503] * 3
    assert all(int(response.headers["retry-after"]) > 0 for response in responses)
    assert all(response.json()["error"]["message"].startswith("unavailable:") for response in responses)


async def test_unavailable_identity_provider_is_503_with_retry_after() -> None:
    identity = JwksIdentity(f"http://127.0.0.1:{free_port()}/jwks", ISSUER, AUDIENCE)
    service = McpService(BrokenUnits(), identity)
    token = SigningKey("one").sign({"sub": "me", "iss": ISSUER, "aud": AUDIENCE})
    async with service.http() as http:
        response = await post(http, "current", message("current", "tools/list"), token)
    await identity.aclose()

    assert response.status_code == 503
    assert int(response.headers["retry-after"]) > 0


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_bug_is_logged_and_not_shown_to_the_client(protocol: str, caplog: pytest.LogCaptureFixture) -> None:
    service = McpService(BrokenUnits())
    async with service.http() as http:
        response = await post(http, protocol, call(protocol, "list_tasks"), service.jwt())

    assert response.json()["error"] == {"code": -32603, "message": "Internal error"}
    assert INTERNAL_DETAIL not in response.text
    assert INTERNAL_DETAIL in caplog.text


async def test_bug_is_not_shown_to_in_process_client(caplog: pytest.LogCaptureFixture) -> None:
    async with in_process(McpService(BrokenUnits()), TokenSecret.mint(ME.user_id)) as client:
        with pytest.raises(MCPError) as caught:
            await client.call_tool("list_tasks")

    assert (caught.value.error.code, caught.value.error.message) == (-32603, "Internal error")
    assert INTERNAL_DETAIL in caplog.text


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_call_timeout_is_503(protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also the verification of a token has a timeout."""
    monkeypatch.setattr(principal, "CALL_LIMIT_S", 0.01)
    service, token = McpService(BlockedUnits()), TokenSecret.mint(ME.user_id).text
    async with service.http() as http, asyncio.timeout(20):
        responses = [
            await post(http, protocol, call(protocol, "list_tasks"), service.jwt()),
            await post(http, protocol, message(protocol, "ping"), token),
        ]

    assert [response.status_code for response in responses] == [503, 503]


async def test_revoked_token_has_its_own_error_for_in_process_client(service: McpService) -> None:
    """For every request, so that an agent can report why it has no tools."""
    minted = await service.mint()
    errors = []
    async with in_process(service, minted.secret) as client:
        await service.dispatcher.call(ME, revoke_context_token, minted.token.id)
        for request in (client.list_tools(), client.call_tool("add_task", {"title": "x"}), client.call_tool("nope")):
            with pytest.raises(MCPError) as caught:
                await request
            errors.append((caught.value.error.code, caught.value.error.message.partition(":")[0]))

    assert errors == [(-32600, "unauthenticated")] * 3


async def test_unavailable_database_is_an_internal_error_for_in_process_client(
    service_without_database: McpService,
) -> None:
    async with in_process(service_without_database, TokenSecret.mint(ME.user_id)) as client:
        with pytest.raises(MCPError) as caught:
            await client.call_tool("list_tasks")

    assert (caught.value.error.code, caught.value.error.message.partition(":")[0]) == (-32603, "unavailable")
