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
from latchkey.interfaces.mcp import error_boundary as containment
from tests.fakes.jwks_provider import AUDIENCE, ISSUER, SigningKey
from tests.integration.mcp.house import ME, House, in_process
from tests.integration.mcp.wire import ERAS, call, message, post
from tests.process_supervision import free_port

SECRET_OF_THE_HOUSE = "SELECT * FROM vault"


class BrokenUnits:
    """Units of work with a bug."""

    def open(self, credential: Credential, mode: TransactionMode) -> AbstractAsyncContextManager[Transaction]:
        raise ZeroDivisionError(SECRET_OF_THE_HOUSE)


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
async def house_without_database() -> AsyncIterator[House]:
    engine = create_engine(f"postgresql://nobody@127.0.0.1:{free_port()}/nothing")
    yield House(SqlUnitsOfWork(engine))
    await engine.dispose()


async def test_a_database_that_is_away_is_told_at_the_door(house_without_database: House, era: str) -> None:
    """As something that passes, and never as a credential that is not good."""
    house = house_without_database
    bearers = [TokenSecret.mint(ME.user_id).text, house.jwt()]
    async with house.http() as http:
        answers = [await post(http, era, call(era, "list_tasks"), bearer) for bearer in bearers]
        answers.append(await post(http, era, message(era, "tools/list"), bearers[0]))

    assert [answer.status_code for answer in answers] == [503] * 3
    assert all(int(answer.headers["retry-after"]) > 0 for answer in answers)
    assert all(answer.json()["error"]["message"].startswith("unavailable:") for answer in answers)


async def test_a_provider_whose_keys_cannot_be_had_is_told_at_the_door() -> None:
    identity = JwksIdentity(f"http://127.0.0.1:{free_port()}/jwks", ISSUER, AUDIENCE)
    house = House(BrokenUnits(), identity)
    token = SigningKey("one").sign({"sub": "me", "iss": ISSUER, "aud": AUDIENCE})
    async with house.http() as http:
        answer = await post(http, "current", message("current", "tools/list"), token)
    await identity.aclose()

    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) > 0


@pytest.mark.parametrize("era", ERAS)
async def test_a_bug_is_logged_and_not_told(era: str, caplog: pytest.LogCaptureFixture) -> None:
    house = House(BrokenUnits())
    async with house.http() as http:
        answer = await post(http, era, call(era, "list_tasks"), house.jwt())

    assert answer.json()["error"] == {"code": -32603, "message": "Internal error"}
    assert SECRET_OF_THE_HOUSE not in answer.text
    assert SECRET_OF_THE_HOUSE in caplog.text


async def test_in_process_a_bug_is_not_told_either(caplog: pytest.LogCaptureFixture) -> None:
    async with in_process(House(BrokenUnits()), TokenSecret.mint(ME.user_id)) as client:
        with pytest.raises(MCPError) as caught:
            await client.call_tool("list_tasks")

    assert (caught.value.error.code, caught.value.error.message) == (-32603, "Internal error")
    assert SECRET_OF_THE_HOUSE in caplog.text


@pytest.mark.parametrize("era", ERAS)
async def test_no_call_lasts_for_ever(era: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does it take for ever to find out whether a token is good."""
    monkeypatch.setattr(containment, "CALL_LIMIT_S", 0.01)
    house, token = House(StuckUnits()), TokenSecret.mint(ME.user_id).text
    async with house.http() as http, asyncio.timeout(20):
        answers = [
            await post(http, era, call(era, "list_tasks"), house.jwt()),
            await post(http, era, message(era, "ping"), token),
        ]

    assert [answer.status_code for answer in answers] == [503, 503]


async def test_in_process_a_dead_token_is_told_from_everything_else(house: House) -> None:
    """Whatever is asked with it, so that an agent can say why it has no tools."""
    minted = await house.mint()
    told = []
    async with in_process(house, minted.secret) as client:
        await house.dispatcher.call(ME, revoke_context_token, minted.token.id)
        for ask in (client.list_tools(), client.call_tool("add_task", {"title": "x"}), client.call_tool("nope")):
            with pytest.raises(MCPError) as caught:
                await ask
            told.append((caught.value.error.code, caught.value.error.message.partition(":")[0]))

    assert told == [(-32600, "unauthenticated")] * 3


async def test_in_process_a_database_that_is_away_is_no_fault_of_the_token(house_without_database: House) -> None:
    async with in_process(house_without_database, TokenSecret.mint(ME.user_id)) as client:
        with pytest.raises(MCPError) as caught:
            await client.call_tool("list_tasks")

    assert (caught.value.error.code, caught.value.error.message.partition(":")[0]) == (-32603, "unavailable")
