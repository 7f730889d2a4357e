"""`/mcp` as an OAuth protected resource (MCP 2026-07-28, Authorization; RFC 6750, 8707, 9728)."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest

from latchkey.domain.errors import Unauthenticated
from latchkey.interfaces.mcp.http.body import MAX_BYTES
from latchkey.interfaces.mcp.http.responses import challenge
from tests.fakes.jwks_provider import AUDIENCE, ISSUER, JwksProvider, SigningKey
from tests.fakes.model_script import calls, says
from tests.fakes.model_server import model_server
from tests.integration.mcp.jsonrpc import call, headers, message
from tests.support.service import BASE_URL, ApiUser, Service, model_variables, run_service, settings_for
from tests.support.socket_server import serve_on_socket

MCP = f"{BASE_URL}/mcp"
METADATA_URL = f"{BASE_URL}/.well-known/oauth-protected-resource/mcp"
KEY = SigningKey("key-1")
PAGE = "http://localhost:5173"
CHUNK = b" " * 65_536


def token(audience: Any = AUDIENCE, **changed: Any) -> str:
    return KEY.sign({"iss": ISSUER, "aud": audience, "sub": "ada", "exp": time.time() + 900, **changed})


@pytest.fixture
async def provider() -> AsyncIterator[JwksProvider]:
    async with JwksProvider(KEY) as provider:
        yield provider


@pytest.fixture
async def service(sqlite_url: str, provider: JwksProvider) -> AsyncIterator[Service]:
    async with run_service(settings_for(sqlite_url, **provider.variables)) as service:
        yield service


async def list_tools(
    service: Service, authorization: str | None, protocol: str = "current", **options: Any
) -> httpx2.Response:
    """Send `tools/list` with this header."""
    request = message(protocol, "tools/list")
    fields = headers(protocol, request, None) | ({} if authorization is None else {"authorization": authorization})
    return await service.client.post(
        options.pop("path", "/mcp"), json=request, headers=fields | options.pop("headers", {}), **options
    )


@pytest.mark.parametrize("authorization", [None, "", "Basic YWRhOmFkYQ==", "DPoP x.y.z", "Bearer"])
async def test_challenge_without_bearer_names_metadata_and_no_error(
    service: Service, protocol: str, authorization: str | None
) -> None:
    """RFC 6750, 3.1: the request has no bearer token that could be wrong."""
    refused = await list_tools(service, authorization, protocol)

    assert refused.status_code == 401
    assert refused.headers["www-authenticate"] == f'Bearer resource_metadata="{METADATA_URL}"'


@pytest.mark.parametrize(
    "bearer", ["x.y.z", "lk_x", "lk_" + "A" * 43 + "YWRh", token(exp=1), token("https://x.example")]
)
async def test_challenge_for_invalid_or_expired_token_is_invalid_token(
    service: Service, protocol: str, bearer: str
) -> None:
    refused = await list_tools(service, f"Bearer {bearer}", protocol)
    challenge = refused.headers["www-authenticate"]

    assert refused.status_code == 401
    assert challenge.startswith(
        f'Bearer resource_metadata="{METADATA_URL}", error="invalid_token", error_description="'
    )
    assert refused.json()["error"]["code"] == -32600


def test_challenge_with_any_detail_is_one_header() -> None:
    """No character of the detail ends the description or the header (RFC 6750, 3)."""
    name, value = challenge(Unauthenticated('a "b" \\ c\r\nSet-Cookie: d=é'), METADATA_URL, has_token=True)

    assert name == b"www-authenticate"
    assert value.endswith(b"""error_description="a 'b' ' c''Set-Cookie: d='\"""")


async def test_challenge_and_metadata_require_no_scope(service: Service) -> None:
    """A user token grants everything of the user, and an authorization server may refuse unknown scopes."""
    refused = await list_tools(service, None)
    metadata = (await service.client.get(METADATA_URL)).json()

    assert "scope" not in refused.headers["www-authenticate"]
    assert metadata == {"resource": MCP, "authorization_servers": [ISSUER], "bearer_methods_supported": ["header"]}


async def test_tool_without_grant_is_no_challenge(service: Service, protocol: str) -> None:
    """Not 403 `insufficient_scope`: a client would then ask for a user token, which grants everything."""
    ada = ApiUser("ada", token(), service.client)
    smaller = (await ada.create("context-tokens", grants=["tasks:read"]))["token"]
    request = call(protocol, "add_task", {"title": "Buy milk"})
    response = await service.client.post("/mcp", json=request, headers=headers(protocol, request, smaller))

    assert "www-authenticate" not in response.headers
    assert response.json()["error"] == {"code": -32602, "message": "Unknown tool: add_task"}
    assert await ada.list_items("tasks") == []


async def test_token_is_accepted_only_for_its_audience(service: Service, protocol: str) -> None:
    """RFC 8707: a token for `/mcp` is valid there, and not for the HTTP API."""
    expected: dict[Any, tuple[int, int]] = {
        AUDIENCE: (200, 200),
        MCP: (200, 401),
        ("https://other.example", MCP): (200, 401),
        "HTTP://127.0.0.1:8000/mcp": (200, 401),
        BASE_URL: (401, 401),
        f"{MCP}/": (401, 401),
        f"{MCP}?x": (401, 401),
        f"{MCP}.evil.example": (401, 401),
        "https://127.0.0.1:8000/mcp": (401, 401),
        "latchkey": (401, 401),
        (): (401, 401),
    }
    taken = {}
    for audience in expected:
        by_mcp = await list_tools(service, f"Bearer {token(audience)}", protocol)
        by_rest = await ApiUser("ada", token(audience), service.client).get("tasks")
        taken[audience] = (by_mcp.status_code, by_rest.status_code)

    assert taken == expected


@pytest.mark.parametrize("where", ["query", "form", "cookie"])
async def test_token_outside_the_authorization_header_is_not_read(service: Service, where: str) -> None:
    right = {"access_token": token()}
    match where:
        case "query":
            refused = await list_tools(
                service, None, path=f"/mcp?access_token={token()}&authorization=Bearer%20{token()}"
            )
        case "form":
            refused = await service.client.post("/mcp", data=right)
        case _:
            cookies = f"access_token={token()}; authorization=Bearer {token()}"
            refused = await list_tools(service, None, headers={"cookie": cookies})

    assert refused.status_code == 401
    assert "invalid_token" not in refused.headers["www-authenticate"]


@pytest.mark.parametrize("authorization", [None, "right"])
async def test_method_other_than_post_is_405_with_or_without_token(service: Service, authorization: str | None) -> None:
    fields = {"authorization": f"Bearer {token()}"} if authorization else {}
    methods = ["GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"]
    responses = {method: await service.client.request(method, "/mcp", headers=fields) for method in methods}
    results = {
        method: (response.status_code, response.headers.get("allow"), response.content)
        for method, response in responses.items()
    }

    assert results == dict.fromkeys(methods, (405, "POST", b""))


async def test_foreign_origin_or_host_is_refused_before_the_token_is_verified(
    service: Service, provider: JwksProvider
) -> None:
    """DNS rebinding: a valid token does not help, and the keys of the provider are not fetched."""
    pages = ["https://evil.example", "null", "http://127.0.0.1.evil.example", f"{BASE_URL}.evil.example"]
    names = ["evil.example", "127.0.0.1.evil.example:8000", ""]
    for path in ("/mcp", "/mcp/"):
        headers_of_requests = [{"origin": page} for page in pages] + [{"host": name} for name in names]
        responses = [
            await list_tools(service, f"Bearer {token()}", path=path, headers=fields) for fields in headers_of_requests
        ]
        assert [response.status_code for response in responses] == [403] * len(pages) + [421] * len(names)

    assert provider.fetches == 0


async def test_cors_allowed_origin_may_read_challenge_and_metadata(service: Service) -> None:
    """A browser first asks for permission for each header of the protocol (preflight request)."""
    header_names = "authorization,content-type,mcp-protocol-version,mcp-method,mcp-name"
    fields = {"access-control-request-method": "POST", "access-control-request-headers": header_names}
    preflight = await service.client.options("/mcp", headers={"origin": PAGE, **fields})
    refused = await list_tools(service, None, headers={"origin": PAGE})
    metadata = await service.client.get(METADATA_URL, headers={"origin": PAGE})

    assert preflight.status_code == 204
    assert set(header_names.split(",")) <= set(preflight.headers["access-control-allow-headers"].split(", "))
    assert refused.status_code == 401
    assert "www-authenticate" in refused.headers["access-control-expose-headers"]
    assert {response.headers["access-control-allow-origin"] for response in (preflight, refused, metadata)} == {PAGE}


class Upload:
    """A body of one gigabyte without a declared length."""

    taken = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while self.taken < 1 << 30:
            self.taken += len(CHUNK)
            yield CHUNK


@pytest.mark.parametrize(("bearer", "status", "most"), [("x", 401, 0), (token(), 413, MAX_BYTES + 2 * len(CHUNK))])
async def test_body_is_read_up_to_the_limit_only(
    service: Service, protocol: str, bearer: str, status: int, most: int
) -> None:
    """And not at all before the token is verified."""
    upload = Upload()
    fields = headers(protocol, message(protocol, "tools/list"), bearer)
    refused = await service.client.post("/mcp", content=upload, headers=fields)

    assert refused.status_code == status
    assert upload.taken <= most


@pytest.mark.parametrize("length", [b"Transfer-Encoding: chunked", b"Content-Length: 1073741824"])
async def test_body_without_end_is_answered_over_a_socket(service: Service, length: bytes) -> None:
    host = urlsplit(BASE_URL).netloc.encode()
    head = b"POST /mcp HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\n%s\r\n\r\n" % (
        host,
        token().encode(),
        length,
    )
    piece = CHUNK if b"Length" in length else b"%x\r\n%s\r\n" % (len(CHUNK), CHUNK)
    async with serve_on_socket(service.asgi) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        answer = asyncio.create_task(reader.readline())
        writer.write(head)
        sent = 0
        while not answer.done() and sent < 8 * MAX_BYTES:
            writer.write(piece)
            sent += len(piece)
            await writer.drain()
            await asyncio.sleep(0)
        line = await answer
        writer.close()

    assert line.split()[1] == b"413"
    assert sent < 4 * MAX_BYTES


async def test_user_token_is_never_passed_on(sqlite_url: str) -> None:
    """Neither to the model nor to the identity provider; the agent has its own token."""
    async with JwksProvider(KEY) as provider, model_server() as model:
        model.script += [calls(("add_task", '{"title": "Buy milk"}')), says("Done.")]
        variables = {**provider.variables, **model_variables(model)}
        async with run_service(settings_for(sqlite_url, **variables)) as service:
            ada = ApiUser("ada", token(), service.client)
            turn = await ada.chat("Buy milk, please")
            async with service.mcp_client(ada.token) as client:
                await client.list_tools()

    assert [call["name"] for call in turn["tool_calls"]] == ["add_task"]
    sent = [f"{request.headers} {request.raw!r}" for request in model.requests]
    sent += [str(request) for request in provider.requests]
    assert (len(model.requests), len(provider.requests)) == (2, 1)
    assert [text for text in sent if any(part in text for part in (*ada.token.split("."), "lk_"))] == []
    assert [request for request in provider.requests if b"authorization" in request.lower()] == []
