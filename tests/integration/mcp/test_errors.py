"""What clients are told when something behind the tools is away, broken or slow."""

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
from latchkey.interfaces.mcp import handlers
from tests.fakes.jwks_provider import AUDIENCE, ISSUER, SigningKey
from tests.integration.mcp.jsonrpc import PROTOCOLS, call, message, post
from tests.integration.mcp.mcp_service import ME, McpService, in_process
from tests.process_supervision import free_port

INTERNAL_DETAIL = "SELECT * FROM vault"


class BrokenUnits:
    """Units of work with a bug."""

    def open(self, credential: Credential, mode: TransactionMode) -> AbstractAsyncContextManager[Transaction]:
        raise ZeroDivisionError(INTERNAL_DETAIL)


class Stuck(AbstractAsyncContextManager[Transaction]):
    """A unit of work that is waited for in vain."""

    async def __aenter__(self) -> Transaction:
        never: asyncio.Future[Transaction] = asyncio.get_running_loop().create_future()
        return await never

    async def __aexit__(self, *_: object) -> None:
        """Nothing was entered."""


class StuckUnits:
    """Units of work of a database that never answers."""

    def open(self, credential: Credential, mode: TransactionMode) -> AbstractAsyncContextManager[Transaction]:
        return Stuck()


@pytest.fixture
async def service_without_database() -> AsyncIterator[McpService]:
    engine = create_engine(f"postgresql://nobody@127.0.0.1:{free_port()}/nothing")
    yield McpService(SqlUnitsOfWork(engine))
    await engine.dispose()


async def test_a_database_that_is_away_is_told_at_the_door(service_without_database: McpService, protocol: str) -> None:
    """As something that passes, and never as a credential that is not good."""
    service = service_without_database
    bearers = [TokenSecret.mint(ME.user_id).text, service.jwt()]
    async with service.http() as http:
        answers = [await post(http, protocol, call(protocol, "list_tasks"), bearer) for bearer in bearers]
        answers.append(await post(http, protocol, message(protocol, "tools/list"), bearers[0]))

    assert [answer.status_code for answer in answers] == [503] * 3
    assert all(int(answer.headers["retry-after"]) > 0 for answer in answers)
    assert all(answer.json()["error"]["message"].startswith("unavailable:") for answer in answers)


async def test_a_provider_whose_keys_cannot_be_had_is_told_at_the_door() -> None:
    identity = JwksIdentity(f"http://127.0.0.1:{free_port()}/jwks", ISSUER, AUDIENCE)
    service = McpService(BrokenUnits(), identity)
    token = SigningKey("one").sign({"sub": "me", "iss": ISSUER, "aud": AUDIENCE})
    async with service.http() as http:
        answer = await post(http, "current", message("current", "tools/list"), token)
    await identity.aclose()

    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) > 0


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_a_bug_is_logged_and_not_told(protocol: str, caplog: pytest.LogCaptureFixture) -> None:
    service = McpService(BrokenUnits())
    async with service.http() as http:
        answer = await post(http, protocol, call(protocol, "list_tasks"), service.jwt())

    assert answer.json()["error"] == {"code": -32603, "message": "Internal error"}
    assert INTERNAL_DETAIL not in answer.text
    assert INTERNAL_DETAIL in caplog.text


async def test_in_process_a_bug_is_not_told_either(caplog: pytest.LogCaptureFixture) -> None:
    async with in_process(McpService(BrokenUnits()), TokenSecret.mint(ME.user_id)) as client:
        with pytest.raises(MCPError) as caught:
            await client.call_tool("list_tasks")

    assert (caught.value.error.code, caught.value.error.message) == (-32603, "Internal error")
    assert INTERNAL_DETAIL in caplog.text


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_no_call_lasts_for_ever(protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does it take for ever to find out whether a token is good."""
    monkeypatch.setattr(handlers, "CALL_LIMIT_S", 0.01)
    service, token = McpService(StuckUnits()), TokenSecret.mint(ME.user_id).text
    async with service.http() as http, asyncio.timeout(20):
        answers = [
            await post(http, protocol, call(protocol, "list_tasks"), service.jwt()),
            await post(http, protocol, message(protocol, "ping"), token),
        ]

    assert [answer.status_code for answer in answers] == [503, 503]


async def test_in_process_a_dead_token_is_told_from_everything_else(service: McpService) -> None:
    """Whatever is asked with it, so that an agent can say why it has no tools."""
    minted = await service.mint()
    told = []
    async with in_process(service, minted.secret) as client:
        await service.dispatcher.call(ME, revoke_context_token, minted.token.id)
        for ask in (client.list_tools(), client.call_tool("add_task", {"title": "x"}), client.call_tool("nope")):
            with pytest.raises(MCPError) as caught:
                await ask
            told.append((caught.value.error.code, caught.value.error.message.partition(":")[0]))

    assert told == [(-32600, "unauthenticated")] * 3


async def test_in_process_a_database_that_is_away_is_no_fault_of_the_token(
    service_without_database: McpService,
) -> None:
    async with in_process(service_without_database, TokenSecret.mint(ME.user_id)) as client:
        with pytest.raises(MCPError) as caught:
            await client.call_tool("list_tasks")

    assert (caught.value.error.code, caught.value.error.message.partition(":")[0]) == (-32603, "unavailable")
