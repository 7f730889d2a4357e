"""Forged tokens at every door of the whole service: each is refused there, and nothing is said that would help."""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx2
import pytest

from tests.integration.mcp.wire import call, headers
from tests.support.service import BASE_URL, Service, run_service, settings_for
from tests.support.socket_server import serve_on_socket
from tests.unit.identity.forgeries import EC_KEY, FORGERIES, LIFE_S, UNSIGNED
from tests.unit.identity.provider import AUDIENCE, ISSUER, Provider, SigningKey

KEY = SigningKey("key-1")
CHALLENGE = re.compile(r'Bearer( [a-z_]+="[\x20-\x21\x23-\x5b\x5d-\x7e]*",?)*')
"""As RFC 6750, 3 allows it."""

Door = Callable[[httpx2.AsyncClient, bytes], Awaitable[httpx2.Response]]


async def reading(client: httpx2.AsyncClient, authorization: bytes) -> httpx2.Response:
    return await client.get("/api/ada/tasks", headers={b"authorization": authorization})


async def talking(client: httpx2.AsyncClient, authorization: bytes) -> httpx2.Response:
    return await client.post("/api/ada/chat", json={"message": "Hello"}, headers={b"authorization": authorization})


def by_mcp(era: str) -> Door:
    async def calling(client: httpx2.AsyncClient, authorization: bytes) -> httpx2.Response:
        sent = call(era, "list_tasks")
        given = {name.encode(): value.encode() for name, value in headers(era, sent, None).items()}
        return await client.post("/mcp", json=sent, headers={**given, b"authorization": authorization})

    return calling


DOORS = {"REST": reading, "chat": talking, "MCP": by_mcp("current"), "MCP, older": by_mcp("older")}


@pytest.fixture
async def service(sqlite_url: str) -> AsyncIterator[Service]:
    async with (
        Provider(KEY, EC_KEY) as provider,
        run_service(settings_for(sqlite_url, **provider.variables)) as service,
    ):
        yield service


def claims(**changed: Any) -> dict[str, Any]:
    return {"iss": ISSUER, "aud": AUDIENCE, "sub": "ada", "exp": time.time() + LIFE_S, **changed}


def bearer(token: str) -> bytes:
    return f"Bearer {token}".encode("utf-8", "surrogatepass")


@pytest.mark.parametrize("door", DOORS.values(), ids=DOORS)
async def test_every_forgery_is_refused_at_every_door(service: Service, door: Door) -> None:
    """By a service that lets the right token in, before and after."""
    assert (await door(service.client, bearer(KEY.sign(claims())))).status_code == 200
    tokens = {name: forge(KEY, claims()) for name, forge in FORGERIES.items()}
    answers = {name: await door(service.client, bearer(token)) for name, token in tokens.items()}
    assert (await door(service.client, bearer(KEY.sign(claims())))).status_code == 200

    assert {name: one.status_code for name, one in answers.items() if one.status_code != 401} == {}
    assert [name for name, one in answers.items() if not CHALLENGE.fullmatch(one.headers["www-authenticate"])] == []
    assert [name for name, one in answers.items() if _repeats(one, tokens[name])] == []


@pytest.mark.parametrize("door", DOORS.values(), ids=DOORS)
async def test_whoever_cannot_sign_is_told_the_same_whatever_they_claim(service: Service, door: Door) -> None:
    """Whether there is such a user, whether the issuer and the audience are right: a guess is as good as any other."""
    guesses = [claims(), claims(sub="nobody"), claims(iss="x"), claims(aud="x"), claims(exp=1), claims(sub="/")]
    for name, forge in UNSIGNED.items():
        answers = [await door(service.client, bearer(forge(KEY, guess))) for guess in guesses]
        told = {(one.status_code, one.headers["www-authenticate"], _said(one)) for one in answers}
        assert len(told) == 1, name


async def test_what_no_client_would_send_does_not_come_through_a_socket_either(service: Service) -> None:
    """Names and values that are none in HTTP, and tokens of a megabyte; the next request is served as ever."""
    right = KEY.sign(claims()).encode()
    odd = [
        b"\0" + right,
        right + b"\0",
        right.replace(b".", b".\0", 1),
        b"x" * 100_000,
        b"." * 100_000,
        b"x" * 1_000_000,
    ]
    async with serve_on_socket(service.asgi) as port:
        statuses = [await _status(port, value) for value in odd]
        last = await _status(port, right)

    assert set(statuses) <= {400, 401, 431}
    assert last == 200


def _repeats(answer: httpx2.Response, token: str) -> bool:
    """Whether anything of the token is in the answer."""
    said = f"{answer.headers} {answer.text}"
    return any(part in said for part in token.split(".") if len(part) > 8)


def _said(answer: httpx2.Response) -> str:
    """All but the request's id."""
    return re.sub(r'"request_id":"[^"]*"', "", answer.text)


async def _status(port: int, token: bytes) -> int:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    host = BASE_URL.removeprefix("http://").encode()
    writer.write(b"GET /api/ada/tasks HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\n\r\n" % (host, token))
    line = await reader.readline()
    writer.close()
    return int(line.split()[1])
