"""Who is not let in, and what they are told: nothing about anybody."""

from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import pytest

from latchkey.application.context_tokens import revoke_context_token
from latchkey.application.tasks import list_tasks
from latchkey.application.turns.finish import TurnOutcome, finish_turn
from latchkey.bootstrap.composition import create_asgi
from latchkey.config import Settings
from latchkey.domain.credentials import Grant, TokenSecret, UserId
from latchkey.domain.turn import Usage
from latchkey.infrastructure.database.sql.engine import create_engine
from latchkey.infrastructure.database.unit_of_work import SqlUnitsOfWork
from latchkey.infrastructure.identity.shared_secret import SharedSecret
from tests.integration.mcp.jsonrpc import call, headers, message, notification, post
from tests.integration.mcp.mcp_service import MCP_URL, ME, METADATA_URL, SIGNING_SECRET, McpService

DEAD = ["revoked", "expired", "of a turn that ended", "never minted", "of somebody else's", "garbage"]


async def dead_token(service: McpService, kind: str, database_url: str) -> str:
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
        case "of a turn that ended":
            turn = await service.turn()
            await service.dispatcher.call(ME, finish_turn, turn.turn.id, TurnOutcome("completed", Usage(), "Done."))
            return turn.secret.text
        case "never minted":
            return TokenSecret.mint(ME.user_id).text
        case "of somebody else's":
            minted_for_me, forged = await service.secret(), TokenSecret.mint(UserId("you"))
            return minted_for_me.text[:46] + forged.text[46:]
    return "lk_%00/../me"


def everything_that_can_be_asked(protocol: str) -> list[dict[str, Any]]:
    """Also what never touches the data by itself."""
    methods = ["tools/list", "resources/templates/list", "ping", "initialize", "server/discover", "no/such/method"]
    calls = [call(protocol, "add_task", {"title": "x"}), call(protocol, "add_task"), call(protocol, "no_such_tool")]
    addresses = ["latchkey://artifacts/0190a7c0-0000-7000-8000-000000000000", "file:///etc/passwd"]
    reads = [message(protocol, "resources/read", {"uri": address}) for address in addresses]
    return [
        *calls,
        *reads,
        *(message(protocol, method) for method in methods),
        notification("notifications/initialized"),
    ]


@pytest.mark.parametrize("kind", DEAD)
async def test_a_token_that_opens_nothing_is_refused_at_the_door(
    service: McpService, protocol: str, kind: str, database_url: str
) -> None:
    """Whatever is asked with it."""
    token = await dead_token(service, kind, database_url)
    async with service.http() as http:
        answers = [await post(http, protocol, sent, token) for sent in everything_that_can_be_asked(protocol)]
        answers.append(await post(http, protocol, call(protocol, "add_task"), token, body=b"not JSON"))

    assert [answer.status_code for answer in answers] == [401] * len(answers)
    assert {answer.json()["error"]["code"] for answer in answers} == {-32600}
    assert all('error="invalid_token"' in answer.headers["www-authenticate"] for answer in answers)
    assert all(f'resource_metadata="{METADATA_URL}"' in answer.headers["www-authenticate"] for answer in answers)


async def test_without_a_credential_nobody_comes_in(service: McpService, protocol: str) -> None:
    """Nor with a token in the query string, which is not read."""
    secret = await service.secret()
    sent = message(protocol, "tools/list")
    async with service.http() as http:
        answers = [
            await http.post(f"{MCP_URL}{query}", json=sent, headers=headers(protocol, sent, None))
            for query in ("", f"?access_token={secret.text}", f"?token={secret.text}")
        ]

    assert [answer.status_code for answer in answers] == [401] * 3
    assert {answer.headers["www-authenticate"] for answer in answers} == {f'Bearer resource_metadata="{METADATA_URL}"'}


@pytest.mark.parametrize("bearer", ["", "x.y.z", "Bearer", "null"])
async def test_what_is_no_token_is_refused(service: McpService, protocol: str, bearer: str) -> None:
    async with service.http() as http:
        answer = await post(http, protocol, message(protocol, "tools/list"), bearer)

    assert answer.status_code == 401


async def test_two_credentials_are_none(service: McpService, protocol: str) -> None:
    """Whichever of them a proxy in front has looked at."""
    sent = message(protocol, "tools/list")
    given = [*headers(protocol, sent, service.jwt()).items(), ("authorization", f"Bearer {service.jwt()}")]
    async with service.http() as http:
        answer = await http.post(MCP_URL, json=sent, headers=given)

    assert answer.status_code == 401


@pytest.mark.parametrize("method", ["GET", "DELETE", "PUT", "HEAD", "OPTIONS"])
async def test_only_post_is_taken(service: McpService, method: str) -> None:
    async with service.http() as http:
        answer = await http.request(method, MCP_URL, headers={"authorization": f"Bearer {service.jwt()}"})

    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")


@pytest.mark.parametrize("arguments", [{"title": "x"}, {}, {"title": 5, "nope": 1}], ids=["good", "none", "bad"])
async def test_a_tool_that_is_not_granted_is_answered_like_one_that_is_not_there(
    service: McpService, protocol: str, arguments: dict[str, Any]
) -> None:
    """Byte for byte, whatever its arguments."""
    reader = await service.secret(Grant.TASKS_READ)
    async with service.http() as http:
        hidden, absent = [
            await post(http, protocol, call(protocol, name, arguments), reader.text)
            for name in ("add_task", "bad_task")
        ]
    left = await service.dispatcher.call(ME, list_tasks)

    assert hidden.status_code == absent.status_code
    assert hidden.content == absent.content.replace(b"bad_task", b"add_task")
    assert hidden.json()["error"] == {"code": -32602, "message": "Unknown tool: add_task"}
    assert left.items == []


async def test_a_credential_is_looked_up_once_in_a_request(service: McpService, protocol: str) -> None:
    """In the transaction of its call, where there is one, and otherwise in one of its own."""
    secret = await service.secret()
    await service.dispatcher.acquire(ME)
    opened = []
    async with service.http() as http:
        for sent in everything_that_can_be_asked(protocol):
            service.units.opened.clear()
            answer = await post(http, protocol, sent, secret.text)
            opened.append((answer.status_code == 401, list(service.units.opened)))

    assert opened == [(False, [secret])] * len(everything_that_can_be_asked(protocol))


@pytest.mark.parametrize(("audience", "status"), [("latchkey", 200), (MCP_URL, 200), ("http://elsewhere/mcp", 401)])
async def test_a_persons_token_is_for_the_service_or_for_this_address(
    service: McpService, protocol: str, audience: str, status: int
) -> None:
    signer = SharedSecret(SIGNING_SECRET, "latchkey", audience)
    async with service.http() as http:
        answer = await post(
            http, protocol, message(protocol, "tools/list"), signer.sign(ME.user_id, timedelta(minutes=1))
        )

    assert answer.status_code == status


@pytest.mark.parametrize(
    ("named", "status"),
    [({}, 401), ({"host": "evil.example"}, 421), ({"origin": "http://evil.example"}, 403)],
    ids=["ours", "another host", "another origin"],
)
async def test_foreign_hosts_and_origins_do_not_come_as_far_as_this(
    sqlite_url: str, named: dict[str, str], status: int
) -> None:
    """In the service as it is composed: a page that a browser shows cannot reach it by another name."""
    environment = {"LATCHKEY_DATABASE_URL": sqlite_url, "LATCHKEY_AUTH_SECRET": SIGNING_SECRET.decode()}
    service = create_asgi(Settings.read(environment), "127.0.0.1", 8000)
    transport = httpx2.ASGITransport(service)  # type: ignore[arg-type]  # Litestar's word for an ASGI application
    async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as http:
        answer = await http.post("/mcp", json=message("older", "tools/list"), headers=named)

    assert answer.status_code == status
