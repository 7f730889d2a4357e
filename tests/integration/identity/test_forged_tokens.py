"""Forged tokens on every endpoint of the service are unauthenticated, and the responses do not help an attacker."""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx2
import pytest

from tests.fakes.jwks_provider import AUDIENCE, ISSUER, JwksProvider, SigningKey
from tests.integration.mcp.jsonrpc import call, headers
from tests.support.service import BASE_URL, Service, run_service, settings_for
from tests.support.socket_server import serve_on_socket
from tests.unit.identity.forged_tokens import EC_KEY, FORGED_TOKENS, INVALID_SIGNATURE, LIFE_S

KEY = SigningKey("key-1")
CHALLENGE = re.compile(r'Bearer( [a-z_]+="[\x20-\x21\x23-\x5b\x5d-\x7e]*",?)*')
"""The syntax of RFC 6750, 3."""

Send = Callable[[httpx2.AsyncClient, bytes], Awaitable[httpx2.Response]]


async def send_rest(client: httpx2.AsyncClient, authorization: bytes) -> httpx2.Response:
    return await client.get("/api/ada/tasks", headers={b"authorization": authorization})


async def send_chat(client: httpx2.AsyncClient, authorization: bytes) -> httpx2.Response:
    return await client.post("/api/ada/chat", json={"message": "Hello"}, headers={b"authorization": authorization})


def send_mcp(era: str) -> Send:
    async def send(client: httpx2.AsyncClient, authorization: bytes) -> httpx2.Response:
        sent = call(era, "list_tasks")
        given = {name.encode(): value.encode() for name, value in headers(era, sent, None).items()}
        return await client.post("/mcp", json=sent, headers={**given, b"authorization": authorization})

    return send


ENDPOINTS = {"REST": send_rest, "chat": send_chat, "MCP": send_mcp("current"), "MCP, older": send_mcp("older")}


@pytest.fixture
async def service(sqlite_url: str) -> AsyncIterator[Service]:
    async with (
        JwksProvider(KEY, EC_KEY) as provider,
        run_service(settings_for(sqlite_url, **provider.variables)) as service,
    ):
        yield service


def claims(**changed: Any) -> dict[str, Any]:
    return {"iss": ISSUER, "aud": AUDIENCE, "sub": "ada", "exp": time.time() + LIFE_S, **changed}


def bearer(token: str) -> bytes:
    return f"Bearer {token}".encode("utf-8", "surrogatepass")


@pytest.mark.parametrize("send", ENDPOINTS.values(), ids=ENDPOINTS)
async def test_forged_token_is_unauthenticated_on_every_endpoint(service: Service, send: Send) -> None:
    """The service accepts the valid token before and after."""
    assert (await send(service.client, bearer(KEY.sign(claims())))).status_code == 200
    tokens = {name: forge(KEY, claims()) for name, forge in FORGED_TOKENS.items()}
    answers = {name: await send(service.client, bearer(token)) for name, token in tokens.items()}
    assert (await send(service.client, bearer(KEY.sign(claims())))).status_code == 200

    assert {name: response.status_code for name, response in answers.items() if response.status_code != 401} == {}
    assert [
        name for name, response in answers.items() if not CHALLENGE.fullmatch(response.headers["www-authenticate"])
    ] == []
    assert [name for name, response in answers.items() if _repeats(response, tokens[name])] == []


@pytest.mark.parametrize("send", ENDPOINTS.values(), ids=ENDPOINTS)
async def test_forged_signature_gets_the_same_response_whatever_the_claims(service: Service, send: Send) -> None:
    """An attacker learns nothing about users, issuer or audience."""
    guesses = [claims(), claims(sub="nobody"), claims(iss="x"), claims(aud="x"), claims(exp=1), claims(sub="/")]
    for name, forge in INVALID_SIGNATURE.items():
        answers = [await send(service.client, bearer(forge(KEY, guess))) for guess in guesses]
        responses = {
            (response.status_code, response.headers["www-authenticate"], _body(response)) for response in answers
        }
        assert len(responses) == 1, name


async def test_bearer_token_that_is_not_valid_http_is_refused_on_a_socket(service: Service) -> None:
    """Such as header values with NUL and tokens of a megabyte; the next request succeeds."""
    valid = KEY.sign(claims()).encode()
    invalid = [
        b"\0" + valid,
        valid + b"\0",
        valid.replace(b".", b".\0", 1),
        b"x" * 100_000,
        b"." * 100_000,
        b"x" * 1_000_000,
    ]
    async with serve_on_socket(service.asgi) as port:
        statuses = [await _status(port, value) for value in invalid]
        last = await _status(port, valid)

    assert set(statuses) <= {400, 401, 431}
    assert last == 200


def _repeats(answer: httpx2.Response, token: str) -> bool:
    """Whether a part of the token is in the response."""
    text = f"{answer.headers} {answer.text}"
    return any(part in text for part in token.split(".") if len(part) > 8)


def _body(answer: httpx2.Response) -> str:
    """The body without the request id."""
    return re.sub(r'"request_id":"[^"]*"', "", answer.text)


async def _status(port: int, token: bytes) -> int:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    host = BASE_URL.removeprefix("http://").encode()
    writer.write(b"GET /api/ada/tasks HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\n\r\n" % (host, token))
    line = await reader.readline()
    writer.close()
    return int(line.split()[1])
