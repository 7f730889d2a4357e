"""OAuth: an MCP client that knows only the URL of `/mcp` finds the authorization server and gets a token there."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from urllib.parse import parse_qs, urlsplit

import httpx2
import jwt
import mcp
import pytest
from mcp.client.auth import AuthorizationCodeResult, OAuthClientProvider, TokenStorage
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import OAuthClientInformationFull, OAuthClientMetadata, OAuthToken
from pydantic import AnyUrl

from tests.integration.identity.better_auth import BetterAuth, SignedUpUser
from tests.support.service import BASE_URL, ApiUser, Service, run_service, settings_for

CALLBACK = AnyUrl("http://127.0.0.1:3000/callback")
MCP = f"{BASE_URL}/mcp"


class MemoryTokenStorage(TokenStorage):
    """The client's token storage, in memory."""

    tokens: OAuthToken | None = None
    client: OAuthClientInformationFull | None = None

    async def get_tokens(self) -> OAuthToken | None:
        return self.tokens

    async def set_tokens(self, tokens: OAuthToken) -> None:
        self.tokens = tokens

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        return self.client

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        self.client = client_info


@dataclass
class Consent:
    """The user's browser: opens the authorization page, gives consent and returns the redirect."""

    member: SignedUpUser
    authorization_url: str = ""
    redirect: str = ""

    async def ask(self, address: str) -> None:
        self.authorization_url = address
        page = await self.member.browser.get(address)
        query = urlsplit(page.headers["location"]).query
        consented = await self.member.browser.post(
            "/api/auth/oauth2/consent", json={"accept": True, "oauth_query": query}
        )
        assert consented.status_code == 200, consented.text
        self.redirect = consented.json()["url"]

    async def answer(self) -> AuthorizationCodeResult:
        query = {name: values[0] for name, values in parse_qs(urlsplit(self.redirect).query).items()}
        return AuthorizationCodeResult(code=query["code"], state=query["state"], iss=query["iss"])


@pytest.fixture
async def service(sqlite_url: str, provider: BetterAuth) -> AsyncIterator[Service]:
    async with run_service(settings_for(sqlite_url, **provider.variables)) as service:
        yield service


async def test_oauth_client_gets_a_token_by_the_resource_metadata(
    service: Service, provider: BetterAuth, ada: SignedUpUser
) -> None:
    """The token is valid for `/mcp` (RFC 8707), and not for the REST API."""
    storage, consent = MemoryTokenStorage(), Consent(ada)
    metadata = OAuthClientMetadata(redirect_uris=[CALLBACK], client_name="A client", token_endpoint_auth_method="none")
    authorization = OAuthClientProvider(MCP, metadata, storage, consent.ask, consent.answer)
    here = {BASE_URL: httpx2.ASGITransport(app=service.asgi)}
    async with (
        httpx2.AsyncClient(mounts=here, auth=authorization) as http,
        mcp.Client(streamable_http_client(MCP, http_client=http)) as client,
    ):
        made = (await client.call_tool("add_task", {"title": "Buy milk"})).structured_content

    assert storage.tokens is not None
    token = storage.tokens.access_token
    claims = jwt.decode(token, options={"verify_signature": False})
    assert (claims["sub"], claims["iss"]) == (ada.user_id, provider.url)
    assert MCP in claims["aud"]
    assert provider.url not in claims["aud"]
    assert parse_qs(urlsplit(consent.authorization_url).query)["resource"] == [MCP]
    assert await ApiUser(ada.user_id, await ada.token(), service.client).list_items("tasks") == [made]
    assert (await ApiUser(ada.user_id, token, service.client).get("tasks")).status_code == 401
