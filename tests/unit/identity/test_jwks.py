"""What an identity provider's tokens open, and the laws of the keys that we hold of it."""

import asyncio

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from latchkey.domain.errors import Unauthenticated, Unavailable
from latchkey.infrastructure.identity.jwks import JwksIdentity
from tests.unit.identity.clock import Clock
from tests.unit.identity.conftest import ClaimsOf
from tests.unit.identity.provider import AUDIENCE, Provider, SigningKey

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
async def test_each_algorithm_names_the_user(identity: JwksIdentity, key: SigningKey, claims: ClaimsOf) -> None:
    assert await identity.authenticate(key.sign(claims())) == "ada"


async def test_an_additional_audience_counts_where_it_is_named(
    identity: JwksIdentity, key: SigningKey, claims: ClaimsOf
) -> None:
    """A token for the MCP resource opens that and nothing else; being remembered does not widen it."""
    for_mcp, for_us = key.sign(claims(aud=MCP)), key.sign(claims(aud=[AUDIENCE, "https://x.example"]))
    for _ in range(2):
        assert await identity.authenticate(for_mcp, audience=MCP) == "ada"
        assert await identity.authenticate(for_us, audience=MCP) == "ada"
        with pytest.raises(Unauthenticated, match="audience"):
            await identity.authenticate(for_mcp)


@pytest.mark.parametrize(
    "aud", ["HTTPS://api.example/mcp", "https://API.Example/mcp", ["x", "HTTPS://API.EXAMPLE/mcp"]]
)
async def test_an_address_is_the_same_with_its_scheme_and_host_in_any_case(
    aud: str | list[str], identity: JwksIdentity, key: SigningKey, claims: ClaimsOf
) -> None:
    """As the MCP specification wants of resource identifiers, and of those alone."""
    assert await identity.authenticate(key.sign(claims(aud=aud)), audience=MCP) == "ada"
    with pytest.raises(Unauthenticated, match="audience"):
        await identity.authenticate(key.sign(claims(aud=AUDIENCE.upper())), audience=MCP)


@pytest.mark.parametrize(
    "aud", ["https://api.example/MCP", f"{MCP}/", f"{MCP}?", f"{MCP}#", "http://api.example/mcp", "//api.example/mcp"]
)
async def test_an_address_is_another_if_anything_else_about_it_is(
    aud: str, identity: JwksIdentity, key: SigningKey, claims: ClaimsOf
) -> None:
    with pytest.raises(Unauthenticated, match="audience"):
        await identity.authenticate(key.sign(claims(aud=aud)), audience=MCP)


async def test_the_leeway_is_thirty_seconds(
    identity: JwksIdentity, key: SigningKey, claims: ClaimsOf, clock: Clock
) -> None:
    assert await identity.authenticate(key.sign(claims(exp=clock() - 29))) == "ada"
    assert await identity.authenticate(key.sign(claims(nbf=clock() + 30))) == "ada"


async def test_a_token_that_was_right_expires(
    identity: JwksIdentity, key: SigningKey, claims: ClaimsOf, clock: Clock
) -> None:
    """A remembered signature is spared, the expiry never."""
    token = key.sign(claims(exp=clock() + 60))
    assert await identity.authenticate(token) == "ada"
    clock.advance(90)
    with pytest.raises(Unauthenticated, match="expired"):
        await identity.authenticate(token)


async def test_many_callers_at_once_cause_one_fetch(
    identity: JwksIdentity, provider: Provider, key: SigningKey, claims: ClaimsOf
) -> None:
    tokens = [key.sign(claims(sub=f"user-{n}")) for n in range(20)]
    assert len(set(await asyncio.gather(*map(identity.authenticate, tokens)))) == 20
    assert provider.fetches == 1


async def test_a_caller_who_leaves_does_not_stop_the_fetch_for_the_others(
    identity: JwksIdentity, provider: Provider, key: SigningKey, claims: ClaimsOf
) -> None:
    provider.gate.clear()
    first = asyncio.create_task(identity.authenticate(key.sign(claims())))
    await provider.asked.wait()
    second = asyncio.create_task(identity.authenticate(key.sign(claims(sub="bob"))))
    await asyncio.sleep(0)
    first.cancel()
    provider.gate.set()
    assert await second == "bob"
    assert provider.fetches == 1


async def test_a_new_key_is_found_and_a_flood_of_unknown_ones_causes_one_fetch(
    identity: JwksIdentity, provider: Provider, key: SigningKey, claims: ClaimsOf, clock: Clock
) -> None:
    """An unknown key makes us look, at most once in 30 seconds, whoever asks."""
    await identity.authenticate(key.sign(claims()))
    provider.keys.append(new := SigningKey("key-2"))
    assert await identity.authenticate(new.sign(claims())) == "ada"
    assert provider.fetches == 2

    flood = [SigningKey(f"nobody-{n}").sign(claims()) for n in range(20)]
    clock.advance(29)
    assert {type(e) for e in await _refusals(identity, flood)} == {Unauthenticated}
    assert provider.fetches == 2
    clock.advance(1)
    assert {type(e) for e in await _refusals(identity, flood)} == {Unauthenticated}
    assert {type(e) for e in await _refusals(identity, flood)} == {Unauthenticated}
    assert provider.fetches == 3


async def test_callers_with_a_new_key_share_the_look_for_it(
    identity: JwksIdentity, provider: Provider, key: SigningKey, claims: ClaimsOf
) -> None:
    """Whoever comes while we look waits for what is found, and is not refused meanwhile."""
    await identity.authenticate(key.sign(claims()))
    provider.keys.append(new := SigningKey("key-2"))
    provider.gate.clear()
    provider.asked.clear()
    first = asyncio.create_task(identity.authenticate(new.sign(claims())))
    await provider.asked.wait()
    second = asyncio.create_task(identity.authenticate(new.sign(claims(sub="bob"))))
    await asyncio.sleep(0)
    provider.gate.set()
    assert (await first, await second) == ("ada", "bob")
    assert provider.fetches == 2


async def test_a_flood_onto_an_empty_ring_causes_one_fetch(
    identity: JwksIdentity, provider: Provider, claims: ClaimsOf
) -> None:
    for n in range(5):
        with pytest.raises(Unauthenticated):
            await identity.authenticate(SigningKey(f"nobody-{n}").sign(claims()))
    assert provider.fetches == 1


async def test_a_withdrawn_key_opens_nothing_once_its_life_is_over(
    identity: JwksIdentity, provider: Provider, key: SigningKey, claims: ClaimsOf, clock: Clock
) -> None:
    """Not even for a token whose signature was remembered."""
    token = key.sign(claims())
    assert await identity.authenticate(token) == "ada"
    provider.keys = [SigningKey("key-2")]
    clock.advance(299)
    assert await identity.authenticate(token) == "ada"
    clock.advance(1)
    with pytest.raises(Unauthenticated, match="does not publish"):
        await identity.authenticate(token)


async def test_an_outage_is_not_noticed_while_keys_are_held(
    identity: JwksIdentity, provider: Provider, key: SigningKey, claims: ClaimsOf, clock: Clock
) -> None:
    """Stale keys serve on; the provider is asked again at most once in 30 seconds, and found when it is back."""
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


async def test_only_one_caller_waits_for_a_provider_that_hangs(
    identity: JwksIdentity, provider: Provider, key: SigningKey, claims: ClaimsOf, clock: Clock
) -> None:
    await identity.authenticate(key.sign(claims()))
    provider.gate.clear()
    provider.asked.clear()
    clock.advance(300)
    waiting = asyncio.create_task(identity.authenticate(key.sign(claims())))
    await provider.asked.wait()
    assert await identity.authenticate(key.sign(claims(sub="bob"))) == "bob"
    assert not waiting.done()
    provider.gate.set()
    assert await waiting == "ada"


async def test_without_any_keys_the_service_is_unavailable_and_recovers(
    identity: JwksIdentity, provider: Provider, key: SigningKey, claims: ClaimsOf, clock: Clock
) -> None:
    """Never let through, never told that the token is wrong: nobody can know that."""
    await provider.down()
    for token in (key.sign(claims()), SigningKey("nobody").sign(claims()), key.sign(claims(exp=1))):
        with pytest.raises(Unavailable):
            await identity.authenticate(token)
    await provider.up()
    clock.advance(1)
    assert await identity.authenticate(key.sign(claims())) == "ada"


async def test_callers_without_keys_do_not_hammer_the_provider(
    identity: JwksIdentity, provider: Provider, key: SigningKey, claims: ClaimsOf
) -> None:
    provider.status = "503 Busy"
    for _ in range(5):
        with pytest.raises(Unavailable):
            await identity.authenticate(key.sign(claims()))
    assert provider.fetches == 1


async def test_a_flood_of_unknown_ones_in_an_outage_makes_no_more_fetches_than_the_outage_alone(
    identity: JwksIdentity, provider: Provider, key: SigningKey, claims: ClaimsOf, clock: Clock
) -> None:
    """One in 30 seconds: the keys are too old, and the flood asks for others, and both look at once."""
    await identity.authenticate(key.sign(claims()))
    provider.status = "500 Oops"
    clock.advance(300)
    for _ in range(60):
        await _refusals(identity, [SigningKey(f"nobody-{n}").sign(claims()) for n in range(3)])
        clock.advance(5)
    assert provider.fetches == 1 + 300 / 30
    assert await identity.authenticate(key.sign(claims())) == "ada"


async def test_a_provider_that_forgets_its_keys_does_not_make_us_forget(
    identity: JwksIdentity, provider: Provider, key: SigningKey, claims: ClaimsOf, clock: Clock
) -> None:
    assert await identity.authenticate(key.sign(claims())) == "ada"
    provider.keys = []
    clock.advance(300)
    assert await identity.authenticate(key.sign(claims(sub="bob"))) == "bob"
    assert provider.fetches == 2


async def test_closing_stops_a_fetch_that_hangs(
    identity: JwksIdentity, provider: Provider, key: SigningKey, claims: ClaimsOf
) -> None:
    provider.gate.clear()
    waiting = asyncio.create_task(identity.authenticate(key.sign(claims())))
    await provider.asked.wait()
    await identity.aclose()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    provider.gate.set()


async def _refusals(identity: JwksIdentity, tokens: list[str]) -> list[object]:
    return await asyncio.gather(*map(identity.authenticate, tokens), return_exceptions=True)
