"""Requests that are refused: invalid credentials, missing grants, and foreign hosts and origins."""

from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import pytest

from latchkey.application.context_tokens import revoke_context_token
from latchkey.application.tasks import list_tasks
from latchkey.application.turns.finish import TurnOutcome, finish_turn
from latchkey.bootstrap.composition import create_asgi
from latchkey.config import Settings
from latchkey.domain.credentials import TASKS_READ, TokenSecret, UserId
from latchkey.domain.turn import Usage
from latchkey.infrastructure.database.sql.engine import create_engine
from latchkey.infrastructure.database.unit_of_work import SqlUnitsOfWork
from latchkey.infrastructure.identity.shared_secret import SharedSecret
from tests.integration.mcp.jsonrpc import call, headers, message, notification, post
from tests.integration.mcp.mcp_service import MCP_URL, ME, METADATA_URL, SIGNING_SECRET, McpService

INVALID_TOKENS = ["revoked", "expired", "of finished turn", "never minted", "with another user id", "malformed"]


async def invalid_token(service: McpService, kind: str, database_url: str) -> str:
    match kind:
        case "revoked":
            minted = await service.mint()
            await service.dispatcher.call(ME, revoke_context_token, minted.token.id)
            return minted.secret.text
        case "expired":
            engine = create_engine(database_url)
            past = McpService(SqlUnitsOfWork(engine, now=lambda: datetime.now(UTC) - timedelta(hours=2)))
            secret = await past.secret()
            await engine.dispose()
            return secret.text
        case "of finished turn":
            turn = await service.turn()
            await service.dispatcher.call(ME, finish_turn, turn.turn.id, TurnOutcome("completed", Usage(), "Done."))
            return turn.secret.text
        case "never minted":
            return TokenSecret.mint(ME.user_id).text
        case "with another user id":
            minted_for_me, forged = await service.secret(), TokenSecret.mint(UserId("you"))
            return minted_for_me.text[:46] + forged.text[46:]
    return "lk_%00/../me"


def requests_of_all_methods(protocol: str) -> list[dict[str, Any]]:
    """Including methods that read no data."""
    methods = ["tools/list", "resources/templates/list", "ping", "initialize", "server/discover", "no/such/method"]
    calls = [call(protocol, "add_task", {"title": "x"}), call(protocol, "add_task"), call(protocol, "no_such_tool")]
    uris = ["latchkey://artifacts/0190a7c0-0000-7000-8000-000000000000", "file:///etc/passwd"]
    reads = [message(protocol, "resources/read", {"uri": address}) for address in uris]
    return [
        *calls,
        *reads,
        *(message(protocol, method) for method in methods),
        notification("notifications/initialized"),
    ]


@pytest.mark.parametrize("kind", INVALID_TOKENS)
async def test_revoked_expired_or_invalid_token_is_401_for_every_request(
    service: McpService, protocol: str, kind: str, database_url: str
) -> None:
    token = await invalid_token(service, kind, database_url)
    async with service.http() as http:
        responses = [await post(http, protocol, request, token) for request in requests_of_all_methods(protocol)]
        responses.append(await post(http, protocol, call(protocol, "add_task"), token, body=b"not JSON"))

    assert [response.status_code for response in responses] == [401] * len(responses)
    assert {response.json()["error"]["code"] for response in responses} == {-32600}
    assert all('error="invalid_token"' in response.headers["www-authenticate"] for response in responses)
    assert all(f'resource_metadata="{METADATA_URL}"' in response.headers["www-authenticate"] for response in responses)


async def test_request_without_credential_is_401(service: McpService, protocol: str) -> None:
    """A token in the query string is not read."""
    secret = await service.secret()
    request = message(protocol, "tools/list")
    async with service.http() as http:
        responses = [
            await http.post(f"{MCP_URL}{query}", json=request, headers=headers(protocol, request, None))
            for query in ("", f"?access_token={secret.text}", f"?token={secret.text}")
        ]

    assert [response.status_code for response in responses] == [401] * 3
    assert {response.headers["www-authenticate"] for response in responses} == {
        f'Bearer resource_metadata="{METADATA_URL}"'
    }


@pytest.mark.parametrize("bearer", ["", "x.y.z", "Bearer", "null"])
async def test_malformed_bearer_is_401(service: McpService, protocol: str, bearer: str) -> None:
    async with service.http() as http:
        response = await post(http, protocol, message(protocol, "tools/list"), bearer)

    assert response.status_code == 401


async def test_duplicate_authorization_header_is_401(service: McpService, protocol: str) -> None:
    """A proxy in front may have checked only one of them."""
    request = message(protocol, "tools/list")
    fields = [*headers(protocol, request, service.jwt()).items(), ("authorization", f"Bearer {service.jwt()}")]
    async with service.http() as http:
        response = await http.post(MCP_URL, json=request, headers=fields)

    assert response.status_code == 401


@pytest.mark.parametrize("method", ["GET", "DELETE", "PUT", "HEAD", "OPTIONS"])
async def test_method_other_than_post_is_405(service: McpService, method: str) -> None:
    async with service.http() as http:
        response = await http.request(method, MCP_URL, headers={"authorization": f"Bearer {service.jwt()}"})

    assert (response.status_code, response.headers["allow"]) == (405, "POST")


@pytest.mark.parametrize("arguments", [{"title": "x"}, {}, {"title": 5, "nope": 1}], ids=["good", "none", "bad"])
async def test_tool_without_grant_responds_like_unknown_tool(
    service: McpService, protocol: str, arguments: dict[str, Any]
) -> None:
    """Byte for byte, with any arguments."""
    reader = await service.secret(TASKS_READ)
    async with service.http() as http:
        hidden, absent = [
            await post(http, protocol, call(protocol, name, arguments), reader.text)
            for name in ("add_task", "bad_task")
        ]
    tasks = await service.dispatcher.call(ME, list_tasks)

    assert hidden.status_code == absent.status_code
    assert hidden.content == absent.content.replace(b"bad_task", b"add_task")
    assert hidden.json()["error"] == {"code": -32602, "message": "Unknown tool: add_task"}
    assert tasks.items == []


async def test_credential_is_verified_once_per_request(service: McpService, protocol: str) -> None:
    """In the transaction of the call, if there is one, and otherwise in a transaction of its own."""
    secret = await service.secret()
    await service.dispatcher.acquire(secret)  # reserves a block of requests
    opened = []
    async with service.http() as http:
        for request in requests_of_all_methods(protocol):
            service.units.opened.clear()
            response = await post(http, protocol, request, secret.text)
            opened.append((response.status_code == 401, list(service.units.opened)))

    assert opened == [(False, [secret])] * len(requests_of_all_methods(protocol))


@pytest.mark.parametrize(("audience", "status"), [("latchkey", 200), (MCP_URL, 200), ("http://elsewhere/mcp", 401)])
async def test_user_token_audience_is_the_service_or_this_url(
    service: McpService, protocol: str, audience: str, status: int
) -> None:
    signer = SharedSecret(SIGNING_SECRET, "latchkey", audience)
    async with service.http() as http:
        response = await post(
            http, protocol, message(protocol, "tools/list"), signer.sign(ME.user_id, timedelta(minutes=1))
        )

    assert response.status_code == status


@pytest.mark.parametrize(
    ("named", "status"),
    [({}, 401), ({"host": "evil.example"}, 421), ({"origin": "http://evil.example"}, 403)],
    ids=["own host", "foreign host", "foreign origin"],
)
async def test_foreign_host_or_origin_is_refused_before_mcp(
    sqlite_url: str, named: dict[str, str], status: int
) -> None:
    """In the composed service: a web page cannot reach it by another host name (DNS rebinding)."""
    environment = {"LATCHKEY_DATABASE_URL": sqlite_url, "LATCHKEY_AUTH_SECRET": SIGNING_SECRET.decode()}
    service = create_asgi(Settings.read(environment), "127.0.0.1", 8000)
    transport = httpx2.ASGITransport(service)  # type: ignore[arg-type]  # Litestar's word for an ASGI application
    async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as http:
        response = await http.post("/mcp", json=message("older", "tools/list"), headers=named)

    assert response.status_code == status
