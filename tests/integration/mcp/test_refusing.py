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
from tests.integration.mcp.house import ADDRESS, ME, METADATA, SIGNING_SECRET, House
from tests.integration.mcp.wire import call, headers, message, notification, post

DEAD = ["revoked", "expired", "of a turn that ended", "never minted", "of somebody else's", "garbage"]


async def dead_token(house: House, kind: str, database_url: str) -> str:
    match kind:
        case "revoked":
            minted = await house.mint()
            await house.dispatcher.call(ME, revoke_context_token, minted.token.id)
            return minted.secret.text
        case "expired":
            engine = create_engine(database_url)
            past = House(SqlUnitsOfWork(engine, now=lambda: datetime.now(UTC) - timedelta(hours=2)))
            secret = await past.secret()
            await engine.dispose()
            return secret.text
        case "of a turn that ended":
            turn = await house.turn()
            await house.dispatcher.call(ME, finish_turn, turn.turn.id, TurnOutcome("completed", Usage(), "Done."))
            return turn.secret.text
        case "never minted":
            return TokenSecret.mint(ME.user_id).text
        case "of somebody else's":
            minted_for_me, forged = await house.secret(), TokenSecret.mint(UserId("you"))
            return minted_for_me.text[:46] + forged.text[46:]
    return "lk_%00/../me"


def everything_that_can_be_asked(era: str) -> list[dict[str, Any]]:
    """Also what never touches the data by itself."""
    methods = ["tools/list", "resources/templates/list", "ping", "initialize", "server/discover", "no/such/method"]
    calls = [call(era, "add_task", {"title": "x"}), call(era, "add_task"), call(era, "no_such_tool")]
    addresses = ["latchkey://artifacts/0190a7c0-0000-7000-8000-000000000000", "file:///etc/passwd"]
    reads = [message(era, "resources/read", {"uri": address}) for address in addresses]
    return [*calls, *reads, *(message(era, method) for method in methods), notification("notifications/initialized")]


@pytest.mark.parametrize("kind", DEAD)
async def test_a_token_that_opens_nothing_is_refused_at_the_door(
    house: House, era: str, kind: str, database_url: str
) -> None:
    """Whatever is asked with it."""
    token = await dead_token(house, kind, database_url)
    async with house.http() as http:
        answers = [await post(http, era, sent, token) for sent in everything_that_can_be_asked(era)]
        answers.append(await post(http, era, call(era, "add_task"), token, body=b"not JSON"))

    assert [answer.status_code for answer in answers] == [401] * len(answers)
    assert {answer.json()["error"]["code"] for answer in answers} == {-32600}
    assert all('error="invalid_token"' in answer.headers["www-authenticate"] for answer in answers)
    assert all(f'resource_metadata="{METADATA}"' in answer.headers["www-authenticate"] for answer in answers)


async def test_without_a_credential_nobody_comes_in(house: House, era: str) -> None:
    """Nor with a token in the query string, which is not read."""
    secret = await house.secret()
    sent = message(era, "tools/list")
    async with house.http() as http:
        answers = [
            await http.post(f"{ADDRESS}{query}", json=sent, headers=headers(era, sent, None))
            for query in ("", f"?access_token={secret.text}", f"?token={secret.text}")
        ]

    assert [answer.status_code for answer in answers] == [401] * 3
    assert {answer.headers["www-authenticate"] for answer in answers} == {f'Bearer resource_metadata="{METADATA}"'}


@pytest.mark.parametrize("bearer", ["", "x.y.z", "Bearer", "null"])
async def test_what_is_no_token_is_refused(house: House, era: str, bearer: str) -> None:
    async with house.http() as http:
        answer = await post(http, era, message(era, "tools/list"), bearer)

    assert answer.status_code == 401


async def test_two_credentials_are_none(house: House, era: str) -> None:
    """Whichever of them a proxy in front has looked at."""
    sent = message(era, "tools/list")
    given = [*headers(era, sent, house.jwt()).items(), ("authorization", f"Bearer {house.jwt()}")]
    async with house.http() as http:
        answer = await http.post(ADDRESS, json=sent, headers=given)

    assert answer.status_code == 401


@pytest.mark.parametrize("method", ["GET", "DELETE", "PUT", "HEAD", "OPTIONS"])
async def test_only_post_is_taken(house: House, method: str) -> None:
    async with house.http() as http:
        answer = await http.request(method, ADDRESS, headers={"authorization": f"Bearer {house.jwt()}"})

    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")


@pytest.mark.parametrize("arguments", [{"title": "x"}, {}, {"title": 5, "nope": 1}], ids=["good", "none", "bad"])
async def test_a_tool_that_is_not_granted_is_answered_like_one_that_is_not_there(
    house: House, era: str, arguments: dict[str, Any]
) -> None:
    """Byte for byte, whatever its arguments."""
    reader = await house.secret(Grant.TASKS_READ)
    async with house.http() as http:
        hidden, absent = [
            await post(http, era, call(era, name, arguments), reader.text) for name in ("add_task", "bad_task")
        ]
    left = await house.dispatcher.call(ME, list_tasks)

    assert hidden.status_code == absent.status_code
    assert hidden.content == absent.content.replace(b"bad_task", b"add_task")
    assert hidden.json()["error"] == {"code": -32602, "message": "Unknown tool: add_task"}
    assert left.items == []


async def test_a_credential_is_looked_up_once_in_a_request(house: House, era: str) -> None:
    """In the transaction of its call, where there is one, and otherwise in one of its own."""
    secret = await house.secret()
    await house.dispatcher.acquire(ME)
    opened = []
    async with house.http() as http:
        for sent in everything_that_can_be_asked(era):
            house.units.opened.clear()
            answer = await post(http, era, sent, secret.text)
            opened.append((answer.status_code == 401, list(house.units.opened)))

    assert opened == [(False, [secret])] * len(everything_that_can_be_asked(era))


@pytest.mark.parametrize(("audience", "status"), [("latchkey", 200), (ADDRESS, 200), ("http://elsewhere/mcp", 401)])
async def test_a_persons_token_is_for_the_service_or_for_this_address(
    house: House, era: str, audience: str, status: int
) -> None:
    signer = SharedSecret(SIGNING_SECRET, "latchkey", audience)
    async with house.http() as http:
        answer = await post(http, era, message(era, "tools/list"), signer.sign(ME.user_id, timedelta(minutes=1)))

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
