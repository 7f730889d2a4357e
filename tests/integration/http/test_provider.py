"""With an identity provider in front: its tokens open the doors, and clients are told where to get one."""

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
async def provided(sqlite_url: str, provider: JwksProvider) -> AsyncIterator[Service]:
    async with run_service(settings_for(sqlite_url, **provider.variables)) as service:
        yield service


async def test_a_client_of_mcp_is_told_where_it_gets_a_token(provided: Service) -> None:
    """RFC 9728: the refusal names the metadata, and the metadata names the provider."""
    refused = await provided.client.post("/mcp", json={})
    address = refused.headers["www-authenticate"].partition('resource_metadata="')[2].partition('"')[0]
    metadata = await provided.client.get(address)

    assert refused.status_code == 401
    assert address == BASE_URL + METADATA
    assert metadata.json() == {
        "resource": f"{BASE_URL}/mcp",
        "authorization_servers": [ISSUER],
        "bearer_methods_supported": ["header"],
    }


async def test_where_the_service_signs_by_itself_there_is_no_such_metadata(sqlite_url: str) -> None:
    async with run_service(settings_for(sqlite_url)) as service:
        refused = await service.client.post("/mcp", json={})
        transport = httpx2.ASGITransport(app=service.asgi)
        async with httpx2.AsyncClient(transport=transport, base_url=BASE_URL) as client:
            absent = await client.get(METADATA)
            schema = (await client.get("/schema/openapi.json")).json()

    assert refused.headers["www-authenticate"] == "Bearer"
    assert absent.status_code == 404
    assert METADATA not in schema["paths"]


async def test_a_token_of_the_provider_opens_that_users_door(provided: Service) -> None:
    ada = ApiUser("ada", token(), provided.client)
    made = await ada.create("tasks", title="Buy milk")
    async with provided.mcp_client(ada.token) as client:
        listed = await client.call_tool("list_tasks", {})

    assert listed.structured_content == {"items": [made], "next_cursor": None}
    assert (await ApiUser("bob", ada.token, provided.client).get("tasks")).status_code == 403


async def test_a_token_for_mcp_opens_mcp_and_not_the_api(provided: Service) -> None:
    for_mcp = token(audience=f"{BASE_URL}/mcp")
    async with provided.mcp_client(for_mcp) as client:
        tools = [tool.name for tool in (await client.list_tools()).tools]

    assert tools == list(TOOLS)
    assert (await ApiUser("ada", for_mcp, provided.client).get("tasks")).status_code == 401


@pytest.mark.parametrize("forged", [token(key=SigningKey("key-1")), token(audience="https://other.example")])
async def test_a_token_of_anybody_else_opens_nothing(provided: Service, forged: str) -> None:
    assert (await ApiUser("ada", forged, provided.client).get("tasks")).status_code == 401


async def test_while_its_keys_cannot_be_had_nobody_is_let_in_and_nobody_is_called_a_stranger(
    provided: Service, provider: JwksProvider
) -> None:
    await provider.down()
    refused = await ApiUser("ada", token(), provided.client).get("tasks")

    assert (refused.status_code, refused.json()["code"]) == (503, "unavailable")
    assert int(refused.headers["retry-after"]) > 0
