"""Tokens of an identity provider (JWKS), and the resource metadata that names it (RFC 9728)."""

import time
from collections.abc import AsyncIterator

import httpx2
import pytest

from tests.fakes.jwks_provider import AUDIENCE, ISSUER, JwksProvider, SigningKey
from tests.support.service import BASE_URL, ApiUser, Service, run_service, settings_for
from tests.support.tools import TOOLS

METADATA = "/.well-known/oauth-protected-resource/mcp"
KEY = SigningKey("key-1")


def token(audience: str = AUDIENCE, key: SigningKey = KEY, user_id: str = "ada") -> str:
    return key.sign({"iss": ISSUER, "aud": audience, "sub": user_id, "exp": time.time() + 900, "iat": time.time()})


@pytest.fixture
async def provider() -> AsyncIterator[JwksProvider]:
    async with JwksProvider(KEY) as provider:
        yield provider


@pytest.fixture
async def service(sqlite_url: str, provider: JwksProvider) -> AsyncIterator[Service]:
    async with run_service(settings_for(sqlite_url, **provider.variables)) as service:
        yield service


async def test_resource_metadata_names_the_identity_provider(service: Service) -> None:
    """The challenge of a 401 contains the URL of the metadata (RFC 9728)."""
    refused = await service.client.post("/mcp", json={})
    address = refused.headers["www-authenticate"].partition('resource_metadata="')[2].partition('"')[0]
    metadata = await service.client.get(address)

    assert refused.status_code == 401
    assert address == BASE_URL + METADATA
    assert metadata.json() == {
        "resource": f"{BASE_URL}/mcp",
        "authorization_servers": [ISSUER],
        "bearer_methods_supported": ["header"],
    }


async def test_resource_metadata_is_absent_with_a_shared_secret(sqlite_url: str) -> None:
    async with run_service(settings_for(sqlite_url)) as service:
        refused = await service.client.post("/mcp", json={})
        transport = httpx2.ASGITransport(app=service.asgi)
        async with httpx2.AsyncClient(transport=transport, base_url=BASE_URL) as client:
            absent = await client.get(METADATA)
            schema = (await client.get("/schema/openapi.json")).json()

    assert refused.headers["www-authenticate"] == "Bearer"
    assert absent.status_code == 404
    assert METADATA not in schema["paths"]


async def test_provider_token_authenticates_its_user(service: Service) -> None:
    ada = ApiUser("ada", token(), service.client)
    made = await ada.create("tasks", title="Buy milk")
    async with service.mcp_client(ada.token) as client:
        listed = await client.call_tool("list_tasks", {})

    assert listed.structured_content == {"items": [made], "next_cursor": None}
    assert (await ApiUser("bob", ada.token, service.client).get("tasks")).status_code == 403


async def test_provider_token_with_the_mcp_audience_is_valid_only_for_mcp(service: Service) -> None:
    for_mcp = token(audience=f"{BASE_URL}/mcp")
    async with service.mcp_client(for_mcp) as client:
        tools = [tool.name for tool in (await client.list_tools()).tools]

    assert tools == list(TOOLS)
    assert (await ApiUser("ada", for_mcp, service.client).get("tasks")).status_code == 401


@pytest.mark.parametrize("forged", [token(key=SigningKey("key-1")), token(audience="https://other.example")])
async def test_provider_token_with_wrong_signature_or_audience_is_unauthenticated(
    service: Service, forged: str
) -> None:
    assert (await ApiUser("ada", forged, service.client).get("tasks")).status_code == 401


async def test_provider_outage_without_cached_keys_is_unavailable(service: Service, provider: JwksProvider) -> None:
    await provider.down()
    refused = await ApiUser("ada", token(), service.client).get("tasks")

    assert (refused.status_code, refused.json()["code"]) == (503, "unavailable")
    assert int(refused.headers["retry-after"]) > 0
