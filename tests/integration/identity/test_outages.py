"""The provider's keys as time passes: new ones appear, the provider goes away, and tokens come that nobody signed."""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from uuid import uuid4

import jwt
import pytest

from latchkey.domain.errors import Unauthenticated
from latchkey.infrastructure.identity.jwks import JwksIdentity
from tests.integration.identity.better_auth import BetterAuth, Member, better_auth
from tests.integration.mcp.wire import message, post
from tests.support.service import ApiUser, Service, run_service, settings_for
from tests.unit.identity.clock import Clock
from tests.unit.identity.provider import SigningKey


def key_id_of(token: str) -> str:
    return str(jwt.get_unverified_header(token)["kid"])


async def status_by_mcp(service: Service, token: str) -> int:
    return (await post(service.client, "current", message("current", "tools/list"), token)).status_code


async def test_a_new_key_opens_doors_while_the_old_one_goes_on(
    sqlite_url: str, provider: BetterAuth, ada: Member
) -> None:
    """Better Auth keeps an old key for thirty days: who was signed in stays so."""
    async with run_service(settings_for(sqlite_url, **provider.variables)) as service:
        old = await ada.token()
        assert (await ApiUser(ada.user_id, old, service.client).get("tasks")).status_code == 200
        await provider.rotate()
        new = await ada.token()
        answers = [await ApiUser(ada.user_id, token, service.client).get("tasks") for token in (new, old)]

    assert key_id_of(old) != key_id_of(new)
    assert [answer.status_code for answer in answers] == [200, 200]


async def test_an_outage_is_felt_only_by_a_service_that_has_no_keys_yet(sqlite_url: str, tmp_path: Path) -> None:
    """One that has them goes on, also for tokens that are new to it; one that has none says so, and opens nothing."""
    async with AsyncExitStack() as stack:
        with better_auth(tmp_path / "log") as provider:
            settings = settings_for(sqlite_url, **provider.variables)
            warm = await stack.enter_async_context(run_service(settings))
            browser = await stack.enter_async_context(provider.browser())
            ada = await provider.signed_up(browser)
            used, unused = await ada.token(), await ada.token()
            assert (await ApiUser(ada.user_id, used, warm.client).get("tasks")).status_code == 200
        cold = await stack.enter_async_context(run_service(settings))
        going_on = [await ApiUser(ada.user_id, token, warm.client).get("tasks") for token in (used, unused)]
        refused = await ApiUser(ada.user_id, used, cold.client).get("tasks")
        by_mcp = [await status_by_mcp(one, used) for one in (warm, cold)]

    assert [answer.status_code for answer in going_on] == [200, 200]
    assert (refused.status_code, refused.json()["code"]) == (503, "unavailable")
    assert int(refused.headers["retry-after"]) > 0
    assert by_mcp == [200, 503]


async def test_a_flood_of_unknown_keys_at_every_door_makes_one_fetch(
    sqlite_url: str, provider: BetterAuth, ada: Member
) -> None:
    """And whoever has a right token is let in meanwhile."""
    async with run_service(settings_for(sqlite_url, **provider.variables)) as service:
        person = ApiUser(ada.user_id, await ada.token(), service.client)
        assert (await person.get("tasks")).status_code == 200
        before = await provider.fetches()
        strangers = [await forged(await ada.token()) for _ in range(20)]
        by_rest = [ApiUser(ada.user_id, token, service.client).get("tasks") for token in strangers]
        by_mcp = [status_by_mcp(service, token) for token in strangers]
        answers, statuses, mine = await asyncio.gather(
            asyncio.gather(*by_rest), asyncio.gather(*by_mcp), person.get("tasks")
        )

    assert {answer.status_code for answer in answers} == set(statuses) == {401}
    assert mine.status_code == 200
    assert await provider.fetches() - before == 1


async def test_a_flood_that_goes_on_makes_one_fetch_in_thirty_seconds(provider: BetterAuth, ada: Member) -> None:
    """Counted at the provider, for an hour, by a clock of the test's."""
    clock, right = Clock(), await ada.token()
    identity = JwksIdentity(provider.jwks_url, provider.url, provider.url, clock=clock)
    assert await identity.authenticate(right) == ada.user_id
    before = await provider.fetches()
    for _ in range(360):
        clock.advance(10)
        with pytest.raises(Unauthenticated):
            await identity.authenticate(await forged(right))
    await identity.aclose()

    assert await provider.fetches() - before == 3600 / 30


async def forged(right: str) -> str:
    """The same claims, signed with a key of which nobody has heard."""
    return SigningKey(str(uuid4())).sign(jwt.decode(right, options={"verify_signature": False}))
