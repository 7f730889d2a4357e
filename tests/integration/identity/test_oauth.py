"""A real MCP client that knows nothing but the address of `/mcp` finds the provider, and gets a token for it there."""

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

from tests.integration.identity.better_auth import BetterAuth, Member
from tests.support.service import BASE_URL, ApiUser, Service, run_service, settings_for

CALLBACK = AnyUrl("http://127.0.0.1:3000/callback")
MCP = f"{BASE_URL}/mcp"


class Keychain(TokenStorage):
    """What the client has been given, as long as the test lasts."""

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
    """A person before their browser: where the client sends them, they agree, and are sent back."""

    member: Member
    asked: str = ""
    sent_back: str = ""

    async def ask(self, address: str) -> None:
        self.asked = address
        page = await self.member.browser.get(address)
        query = urlsplit(page.headers["location"]).query
        agreed = await self.member.browser.post("/api/auth/oauth2/consent", json={"accept": True, "oauth_query": query})
        assert agreed.status_code == 200, agreed.text
        self.sent_back = agreed.json()["url"]

    async def answer(self) -> AuthorizationCodeResult:
        brought = {name: values[0] for name, values in parse_qs(urlsplit(self.sent_back).query).items()}
        return AuthorizationCodeResult(code=brought["code"], state=brought["state"], iss=brought["iss"])


@pytest.fixture
async def service(sqlite_url: str, provider: BetterAuth) -> AsyncIterator[Service]:
    async with run_service(settings_for(sqlite_url, **provider.variables)) as service:
        yield service


async def test_a_client_gets_in_by_the_metadata_alone(service: Service, provider: BetterAuth, ada: Member) -> None:
    """And what it gets opens `/mcp` for that person, as RFC 8707 has it, and nothing else."""
    keychain, consent = Keychain(), Consent(ada)
    about = OAuthClientMetadata(redirect_uris=[CALLBACK], client_name="A client", token_endpoint_auth_method="none")
    authorization = OAuthClientProvider(MCP, about, keychain, consent.ask, consent.answer)
    here = {BASE_URL: httpx2.ASGITransport(app=service.asgi)}
    async with (
        httpx2.AsyncClient(mounts=here, auth=authorization) as http,
        mcp.Client(streamable_http_client(MCP, http_client=http)) as client,
    ):
        made = (await client.call_tool("add_task", {"title": "Buy milk"})).structured_content

    assert keychain.tokens is not None
    token = keychain.tokens.access_token
    claims = jwt.decode(token, options={"verify_signature": False})
    assert (claims["sub"], claims["iss"]) == (ada.user_id, provider.url)
    assert MCP in claims["aud"]
    assert provider.url not in claims["aud"]
    assert parse_qs(urlsplit(consent.asked).query)["resource"] == [MCP]
    assert await ApiUser(ada.user_id, await ada.token(), service.client).list_items("tasks") == [made]
    assert (await ApiUser(ada.user_id, token, service.client).get("tasks")).status_code == 401
