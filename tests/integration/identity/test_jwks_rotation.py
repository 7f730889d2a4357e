"""JWKS rotation and outage with a real identity provider (Better Auth), and floods of tokens with unknown keys."""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from uuid import uuid4

import jwt
import pytest

from latchkey.domain.errors import Unauthenticated
from latchkey.infrastructure.identity.jwks import JwksIdentity
from tests.fakes.jwks_provider import SigningKey
from tests.integration.identity.better_auth import BetterAuth, SignedUpUser, better_auth
from tests.integration.mcp.jsonrpc import message, post
from tests.support.service import ApiUser, Service, run_service, settings_for
from tests.unit.identity.clock import Clock


def key_id_of(token: str) -> str:
    return str(jwt.get_unverified_header(token)["kid"])


async def status_by_mcp(service: Service, token: str) -> int:
    return (await post(service.client, "current", message("current", "tools/list"), token)).status_code


async def test_jwks_rotation_accepts_the_new_key_and_the_old_key(
    sqlite_url: str, provider: BetterAuth, ada: SignedUpUser
) -> None:
    """Better Auth publishes an old key for 30 more days, so earlier tokens stay valid."""
    async with run_service(settings_for(sqlite_url, **provider.variables)) as service:
        old = await ada.token()
        assert (await ApiUser(ada.user_id, old, service.client).get("tasks")).status_code == 200
        await provider.rotate()
        new = await ada.token()
        answers = [await ApiUser(ada.user_id, token, service.client).get("tasks") for token in (new, old)]

    assert key_id_of(old) != key_id_of(new)
    assert [answer.status_code for answer in answers] == [200, 200]


async def test_jwks_outage_is_unavailable_only_for_a_service_without_cached_keys(
    sqlite_url: str, tmp_path: Path
) -> None:
    """A service with cached keys also verifies tokens that it has not seen before."""
    async with AsyncExitStack() as stack:
        with better_auth(tmp_path / "log") as provider:
            settings = settings_for(sqlite_url, **provider.variables)
            warm = await stack.enter_async_context(run_service(settings))
            browser = await stack.enter_async_context(provider.browser())
            ada = await provider.sign_up(browser)
            used, unused = await ada.token(), await ada.token()
            assert (await ApiUser(ada.user_id, used, warm.client).get("tasks")).status_code == 200
        cold = await stack.enter_async_context(run_service(settings))
        with_cached_keys = [await ApiUser(ada.user_id, token, warm.client).get("tasks") for token in (used, unused)]
        refused = await ApiUser(ada.user_id, used, cold.client).get("tasks")
        by_mcp = [await status_by_mcp(service, used) for service in (warm, cold)]

    assert [answer.status_code for answer in with_cached_keys] == [200, 200]
    assert (refused.status_code, refused.json()["code"]) == (503, "unavailable")
    assert int(refused.headers["retry-after"]) > 0
    assert by_mcp == [200, 503]


async def test_jwks_unknown_keys_on_every_endpoint_cause_one_fetch(
    sqlite_url: str, provider: BetterAuth, ada: SignedUpUser
) -> None:
    """A valid token is accepted meanwhile."""
    async with run_service(settings_for(sqlite_url, **provider.variables)) as service:
        user = ApiUser(ada.user_id, await ada.token(), service.client)
        assert (await user.get("tasks")).status_code == 200
        before = await provider.fetches()
        forged_tokens = [await forged(await ada.token()) for _ in range(20)]
        rest_requests = [ApiUser(ada.user_id, token, service.client).get("tasks") for token in forged_tokens]
        mcp_requests = [status_by_mcp(service, token) for token in forged_tokens]
        answers, statuses, mine = await asyncio.gather(
            asyncio.gather(*rest_requests), asyncio.gather(*mcp_requests), user.get("tasks")
        )

    assert {answer.status_code for answer in answers} == set(statuses) == {401}
    assert mine.status_code == 200
    assert await provider.fetches() - before == 1


async def test_jwks_unknown_keys_for_an_hour_cause_one_fetch_per_30_seconds(
    provider: BetterAuth, ada: SignedUpUser
) -> None:
    """Fetches are counted by the provider; the hour passes on a test clock."""
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
    """The same claims, signed with an unknown key."""
    return SigningKey(str(uuid4())).sign(jwt.decode(right, options={"verify_signature": False}))
