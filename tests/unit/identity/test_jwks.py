"""JWKS identity: which tokens are valid, key rotation, and how the key cache behaves in an outage of the provider."""

import asyncio

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from latchkey.domain.errors import Unauthenticated, Unavailable
from latchkey.infrastructure.identity.jwks import JwksIdentity
from tests.fakes.jwks_provider import AUDIENCE, JwksProvider, SigningKey
from tests.unit.identity.clock import Clock
from tests.unit.identity.conftest import ClaimsOf

MCP = "https://api.example/mcp"


@pytest.mark.parametrize(
    "key",
    [
        SigningKey("ed"),
        SigningKey("ec", ec.generate_private_key(ec.SECP256R1())),
        SigningKey("rsa", rsa.generate_private_key(65537, 2048)),
    ],
    ids=lambda key: key.algorithm,
)
async def test_jwks_signature_with_each_algorithm_authenticates_the_user(
    identity: JwksIdentity, key: SigningKey, claims: ClaimsOf
) -> None:
    assert await identity.authenticate(key.sign(claims())) == "ada"


async def test_jwks_keeps_only_the_named_claims(identity: JwksIdentity, key: SigningKey, claims: ClaimsOf) -> None:
    token = key.sign(claims(plan="gold", other="x"))
    identity.keep_claims(frozenset({"plan"}))
    await identity.authenticate(token)

    assert identity.claims_of(token) == (("plan", '"gold"'),)


async def test_jwks_audience_of_a_resource_is_valid_only_for_that_resource(
    identity: JwksIdentity, key: SigningKey, claims: ClaimsOf
) -> None:
    """Also when the signature of the token has been verified before."""
    for_mcp, for_api = key.sign(claims(aud=MCP)), key.sign(claims(aud=[AUDIENCE, "https://x.example"]))
    for _ in range(2):
        assert await identity.authenticate(for_mcp, audience=MCP) == "ada"
        assert await identity.authenticate(for_api, audience=MCP) == "ada"
        with pytest.raises(Unauthenticated, match="audience"):
            await identity.authenticate(for_mcp)


@pytest.mark.parametrize(
    "aud", ["HTTPS://api.example/mcp", "https://API.Example/mcp", ["x", "HTTPS://API.EXAMPLE/mcp"]]
)
async def test_jwks_resource_audience_ignores_case_of_scheme_and_host(
    aud: str | list[str], identity: JwksIdentity, key: SigningKey, claims: ClaimsOf
) -> None:
    """The MCP specification demands it for resource identifiers; other audiences are compared exactly."""
    assert await identity.authenticate(key.sign(claims(aud=aud)), audience=MCP) == "ada"
    with pytest.raises(Unauthenticated, match="audience"):
        await identity.authenticate(key.sign(claims(aud=AUDIENCE.upper())), audience=MCP)


@pytest.mark.parametrize(
    "aud", ["https://api.example/MCP", f"{MCP}/", f"{MCP}?", f"{MCP}#", "http://api.example/mcp", "//api.example/mcp"]
)
async def test_jwks_resource_audience_with_any_other_difference_is_unauthenticated(
    aud: str, identity: JwksIdentity, key: SigningKey, claims: ClaimsOf
) -> None:
    with pytest.raises(Unauthenticated, match="audience"):
        await identity.authenticate(key.sign(claims(aud=aud)), audience=MCP)


async def test_jwks_expired_and_not_yet_valid_tokens_have_a_leeway_of_30_seconds(
    identity: JwksIdentity, key: SigningKey, claims: ClaimsOf, clock: Clock
) -> None:
    assert await identity.authenticate(key.sign(claims(exp=clock() - 29))) == "ada"
    assert await identity.authenticate(key.sign(claims(nbf=clock() + 30))) == "ada"


async def test_jwks_expired_token_is_unauthenticated_although_its_signature_is_cached(
    identity: JwksIdentity, key: SigningKey, claims: ClaimsOf, clock: Clock
) -> None:
    """The cache saves the verification of the signature, never the check of the expiry."""
    token = key.sign(claims(exp=clock() + 60))
    assert await identity.authenticate(token) == "ada"
    clock.advance(90)
    with pytest.raises(Unauthenticated, match="expired"):
        await identity.authenticate(token)


async def test_jwks_concurrent_requests_cause_one_fetch(
    identity: JwksIdentity, provider: JwksProvider, key: SigningKey, claims: ClaimsOf
) -> None:
    tokens = [key.sign(claims(sub=f"user-{n}")) for n in range(20)]
    assert len(set(await asyncio.gather(*map(identity.authenticate, tokens)))) == 20
    assert provider.fetches == 1


async def test_jwks_cancelled_request_does_not_cancel_the_fetch_of_concurrent_requests(
    identity: JwksIdentity, provider: JwksProvider, key: SigningKey, claims: ClaimsOf
) -> None:
    provider.gate.clear()
    first = asyncio.create_task(identity.authenticate(key.sign(claims())))
    await provider.requested.wait()
    second = asyncio.create_task(identity.authenticate(key.sign(claims(sub="bob"))))
    await asyncio.sleep(0)
    first.cancel()
    provider.gate.set()
    assert await second == "bob"
    assert provider.fetches == 1


async def test_jwks_rotation_fetches_a_new_key_at_once_and_unknown_keys_at_most_every_30_seconds(
    identity: JwksIdentity, provider: JwksProvider, key: SigningKey, claims: ClaimsOf, clock: Clock
) -> None:
    """A token with an unknown key id causes a fetch, but at most one in 30 seconds for all users together."""
    await identity.authenticate(key.sign(claims()))
    provider.keys.append(new := SigningKey("key-2"))
    assert await identity.authenticate(new.sign(claims())) == "ada"
    assert provider.fetches == 2

    flood = [SigningKey(f"unknown-{n}").sign(claims()) for n in range(20)]
    clock.advance(29)
    assert {type(e) for e in await _errors(identity, flood)} == {Unauthenticated}
    assert provider.fetches == 2
    clock.advance(1)
    assert {type(e) for e in await _errors(identity, flood)} == {Unauthenticated}
    assert {type(e) for e in await _errors(identity, flood)} == {Unauthenticated}
    assert provider.fetches == 3


async def test_jwks_rotation_concurrent_requests_with_a_new_key_share_one_fetch(
    identity: JwksIdentity, provider: JwksProvider, key: SigningKey, claims: ClaimsOf
) -> None:
    """A request that arrives during the fetch waits for it and is not refused."""
    await identity.authenticate(key.sign(claims()))
    provider.keys.append(new := SigningKey("key-2"))
    provider.gate.clear()
    provider.requested.clear()
    first = asyncio.create_task(identity.authenticate(new.sign(claims())))
    await provider.requested.wait()
    second = asyncio.create_task(identity.authenticate(new.sign(claims(sub="bob"))))
    await asyncio.sleep(0)
    provider.gate.set()
    assert (await first, await second) == ("ada", "bob")
    assert provider.fetches == 2


async def test_jwks_unknown_keys_with_an_empty_cache_cause_one_fetch(
    identity: JwksIdentity, provider: JwksProvider, claims: ClaimsOf
) -> None:
    for n in range(5):
        with pytest.raises(Unauthenticated):
            await identity.authenticate(SigningKey(f"unknown-{n}").sign(claims()))
    assert provider.fetches == 1


async def test_jwks_rotation_withdrawn_key_is_unauthenticated_after_the_ttl_of_the_keys(
    identity: JwksIdentity, provider: JwksProvider, key: SigningKey, claims: ClaimsOf, clock: Clock
) -> None:
    """Also for a token whose signature has been verified before."""
    token = key.sign(claims())
    assert await identity.authenticate(token) == "ada"
    provider.keys = [SigningKey("key-2")]
    clock.advance(299)
    assert await identity.authenticate(token) == "ada"
    clock.advance(1)
    with pytest.raises(Unauthenticated, match="does not publish"):
        await identity.authenticate(token)


async def test_jwks_outage_uses_stale_keys_and_retries_every_30_seconds(
    identity: JwksIdentity, provider: JwksProvider, key: SigningKey, claims: ClaimsOf, clock: Clock
) -> None:
    """The rotation that happened during the outage is seen once the provider answers again."""
    assert await identity.authenticate(key.sign(claims())) == "ada"
    provider.status = "500 Oops"
    for _ in range(3):
        clock.advance(300)
        assert await identity.authenticate(key.sign(claims())) == "ada"
        assert await identity.authenticate(key.sign(claims(sub="bob"))) == "bob"
    assert provider.fetches == 4
    provider.status, provider.keys = "200 OK", [new := SigningKey("key-2")]
    clock.advance(30)
    assert await identity.authenticate(new.sign(claims())) == "ada"
    with pytest.raises(Unauthenticated):
        await identity.authenticate(key.sign(claims()))


async def test_jwks_refresh_of_stale_keys_delays_only_one_request(
    identity: JwksIdentity, provider: JwksProvider, key: SigningKey, claims: ClaimsOf, clock: Clock
) -> None:
    await identity.authenticate(key.sign(claims()))
    provider.gate.clear()
    provider.requested.clear()
    clock.advance(300)
    waiting = asyncio.create_task(identity.authenticate(key.sign(claims())))
    await provider.requested.wait()
    assert await identity.authenticate(key.sign(claims(sub="bob"))) == "bob"
    assert not waiting.done()
    provider.gate.set()
    assert await waiting == "ada"


async def test_jwks_outage_with_an_empty_cache_is_unavailable_until_the_provider_recovers(
    identity: JwksIdentity, provider: JwksProvider, key: SigningKey, claims: ClaimsOf, clock: Clock
) -> None:
    """No token is accepted, and none is called invalid: without keys that cannot be known."""
    await provider.down()
    for token in (key.sign(claims()), SigningKey("unknown").sign(claims()), key.sign(claims(exp=1))):
        with pytest.raises(Unavailable):
            await identity.authenticate(token)
    await provider.up()
    clock.advance(1)
    assert await identity.authenticate(key.sign(claims())) == "ada"


async def test_jwks_outage_with_an_empty_cache_limits_retries(
    identity: JwksIdentity, provider: JwksProvider, key: SigningKey, claims: ClaimsOf
) -> None:
    provider.status = "503 Busy"
    for _ in range(5):
        with pytest.raises(Unavailable):
            await identity.authenticate(key.sign(claims()))
    assert provider.fetches == 1


async def test_jwks_outage_with_unknown_keys_retries_at_most_every_30_seconds(
    identity: JwksIdentity, provider: JwksProvider, key: SigningKey, claims: ClaimsOf, clock: Clock
) -> None:
    """Stale keys and unknown key ids share one limit."""
    await identity.authenticate(key.sign(claims()))
    provider.status = "500 Oops"
    clock.advance(300)
    for _ in range(60):
        await _errors(identity, [SigningKey(f"unknown-{n}").sign(claims()) for n in range(3)])
        clock.advance(5)
    assert provider.fetches == 1 + 300 / 30
    assert await identity.authenticate(key.sign(claims())) == "ada"


async def test_jwks_refresh_without_keys_keeps_the_cached_keys(
    identity: JwksIdentity, provider: JwksProvider, key: SigningKey, claims: ClaimsOf, clock: Clock
) -> None:
    assert await identity.authenticate(key.sign(claims())) == "ada"
    provider.keys = []
    clock.advance(300)
    assert await identity.authenticate(key.sign(claims(sub="bob"))) == "bob"
    assert provider.fetches == 2


async def test_jwks_close_cancels_a_running_fetch(
    identity: JwksIdentity, provider: JwksProvider, key: SigningKey, claims: ClaimsOf
) -> None:
    provider.gate.clear()
    waiting = asyncio.create_task(identity.authenticate(key.sign(claims())))
    await provider.requested.wait()
    await identity.aclose()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    provider.gate.set()


async def _errors(identity: JwksIdentity, tokens: list[str]) -> list[object]:
    return await asyncio.gather(*map(identity.authenticate, tokens), return_exceptions=True)
