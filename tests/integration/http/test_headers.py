"""What protects a browser that comes by an answer of ours: the same headers on each, whatever was asked."""

import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx2
import pytest

from tests.fakes.model_script import fails
from tests.fakes.model_server import ModelServer
from tests.integration.http.test_trouble import execute
from tests.support.operations import OPERATIONS, create_one_of_each
from tests.support.published_schema import DOCUMENT
from tests.support.service import ApiUser, Service, over_socket, run_service, settings_for

pytestmark = pytest.mark.asyncio(loop_scope="session")

PROTECTION = {
    "cache-control": ["no-store"],
    "x-content-type-options": ["nosniff"],
    "content-security-policy": ["default-src 'none'; frame-ancestors 'none'"],
    "x-frame-options": ["DENY"],
    "referrer-policy": ["no-referrer"],
    "cross-origin-resource-policy": ["same-origin"],
}
"""Each of them once: browsers take two that differ for none, or for both."""
ABSENT = {"x-powered-by", "strict-transport-security"}
_ID = re.compile(r"{\w+}")
PROVIDER = {
    "LATCHKEY_AUTH_SECRET": "",
    "LATCHKEY_AUTH_JWKS_URL": "https://auth.example/jwks",
    "LATCHKEY_AUTH_ISSUER": "https://auth.example",
    "LATCHKEY_AUTH_AUDIENCE": "https://auth.example",
}
INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}},
}
MCP_HEADERS = {"accept": "application/json, text/event-stream", "content-type": "application/json"}


def protection(answer: httpx2.Response) -> dict[str, list[str]]:
    return {name: answer.headers.get_list(name) for name in PROTECTION}


def unprotected(answers: list[httpx2.Response]) -> list[str]:
    """Those that are not as they should be."""
    return [
        f"{answer.request.method} {answer.request.url.path} {answer.status_code}"
        for answer in answers
        if protection(answer) != PROTECTION or ABSENT & set(answer.headers)
    ]


@asynccontextmanager
async def overheard(client: httpx2.AsyncClient) -> AsyncIterator[list[httpx2.Response]]:
    """Every answer that the client gets meanwhile."""
    heard: list[httpx2.Response] = []

    async def hear(answer: httpx2.Response) -> None:
        heard.append(answer)

    client.event_hooks["response"].append(hear)
    yield heard
    client.event_hooks["response"].remove(hear)


async def call_every_operation(user: ApiUser) -> None:
    """Call each published operation with valid input, each on new entities."""
    for operation in OPERATIONS.values():
        path = operation.path_with(await create_one_of_each(user))
        await user.request(operation.method, path, content=operation.content, headers=operation.headers)
    for path, methods in DOCUMENT["paths"].items():
        if "get" in methods and not path.startswith(("/api/", "/.well-known/")):
            await user.client.get(path)


async def ask_for_metadata(database_url: str) -> list[httpx2.Response]:
    async with run_service(settings_for(database_url, **PROVIDER)) as service, overheard(service.client) as heard:
        await service.client.get("/.well-known/oauth-protected-resource/mcp")
        await service.client.post("/mcp")
    return heard


async def test_every_operation_that_succeeds(service: Service, ada: ApiUser, shared_database_url: str) -> None:
    async with overheard(service.client) as heard:
        await call_every_operation(ada)
    metadata = await ask_for_metadata(shared_database_url)
    answers = [answer for answer in [*heard, *metadata] if answer.is_success]
    asked = [f"{answer.request.method.lower()} {answer.request.url.path}" for answer in answers]
    published = [f"{method} {path}" for path, methods in DOCUMENT["paths"].items() for method in methods]

    assert [one for one in published if not any(re.fullmatch(_ID.sub("[^/]+", one), path) for path in asked)] == []
    assert unprotected([*heard, *metadata]) == []


async def test_every_operation_that_is_refused(service: Service, ada: ApiUser) -> None:
    """For want of a token, for another's token, for an id that is nobody's, for a body that is none."""
    stranger = ApiUser("somebody-else", ada.token, ada.client)
    async with overheard(service.client) as heard:
        for operation in OPERATIONS.values():
            method, path = operation.method, operation.path_with({})
            await ada.request(method, path, headers={"authorization": ""})
            await ada.request(method, path, headers={"authorization": "Bearer no.such.token"})
            await ada.request(method, path)
            await ada.request(method, path, params={"limit": "none"})
            await stranger.request(method, path)

    assert {401, 403, 404, 422} <= {answer.status_code for answer in heard}
    assert unprotected(heard) == []


async def test_what_no_operation_answers(service: Service, ada: ApiUser) -> None:
    """Unknown paths, other methods, hosts and origins that are not ours, and a browser that asks for leave."""
    leave = {"origin": "http://localhost:5173", "access-control-request-method": "POST"}
    answers = [
        await service.client.get("/"),
        await service.client.get("/favicon.ico"),
        await service.client.put("/health/live"),
        await service.client.get("/health/live", headers={"host": "evil.example"}),
        await service.client.get("/health/live", headers={"origin": "https://evil.example"}),
        await service.client.options("/api/me/tasks", headers=leave),
        await ada.post("tasks", content=b"\xff", headers={"content-type": "application/json"}),
        await ada.post("tasks", content=b" " * 9_000_000, headers={"content-type": "application/json"}),
    ]

    assert [one.status_code for one in answers] == [404, 404, 405, 421, 403, 204, 400, 413]
    assert unprotected(answers) == []


async def test_the_tools_that_agents_call(service: Service, ada: ApiUser) -> None:
    """Each way in which `/mcp` answers: with a result, a challenge, a wrong method, and what is no message at all."""
    bearer = {"authorization": f"Bearer {ada.token}", **MCP_HEADERS}
    async with overheard(service.client) as heard:
        for content, headers in (
            (json.dumps(INITIALIZE).encode(), bearer),
            (json.dumps(INITIALIZE).encode(), MCP_HEADERS),
            (json.dumps(INITIALIZE).encode(), {**MCP_HEADERS, "authorization": "Bearer lk_unknown"}),
            (b"{", bearer),
        ):
            await service.client.post("/mcp", content=content, headers=headers)
        await service.client.get("/mcp", headers=bearer)

    assert [answer.status_code for answer in heard] == [200, 401, 401, 400, 405]
    assert unprotected(heard) == []


async def test_an_answer_in_pieces_and_one_that_failed(
    thinking: Service, model: ModelServer, service: Service, ada: ApiUser
) -> None:
    """Over a socket, where the server has a word to say too; no proxy is told that it may keep a stream."""
    model.script.append(fails(400))
    bob = thinking.user()
    async with overheard(thinking.client) as heard:
        await bob.post("chat", json={"message": "Hello"})
    async with over_socket(service) as reached, overheard(reached.client) as streamed:
        follower = ApiUser(ada.user_id, ada.token, reached.client)
        events = {"accept": "text/event-stream"}
        async with follower.stream("POST", "chat", json={"message": "Hello"}, headers=events) as stream:
            await stream.aread()

    assert [answer.status_code for answer in [*heard, *streamed]] == [502, 200]
    assert streamed[0].headers["content-type"].startswith("text/event-stream")
    assert unprotected([*heard, *streamed]) == []


async def test_what_is_our_own_mistake(sqlite_url: str) -> None:
    async with run_service(settings_for(sqlite_url)) as service:
        ada = service.user()
        await execute(sqlite_url, "ALTER TABLE tasks RENAME COLUMN title TO name")
        answer = await ada.get("tasks")

    assert answer.status_code == 500
    assert unprotected([answer]) == []


async def test_a_stored_page_is_a_file_to_keep_and_runs_nowhere(ada: ApiUser) -> None:
    paper = await ada.create(
        "artifacts", title="page", content_markdown="<script>fetch('https://evil.example')</script>"
    )
    answer = await ada.get(f"artifacts/{paper['id']}/content")

    assert answer.headers["content-type"].startswith("text/markdown")
    assert answer.headers["content-disposition"].startswith("attachment;")
    assert protection(answer) == PROTECTION


@pytest.mark.parametrize(
    ("public_url", "told"), [("https://latchkey.example", True), ("http://latchkey.example", False)]
)
async def test_whoever_comes_by_https_is_told_to_stay_with_it(
    shared_database_url: str, public_url: str, *, told: bool
) -> None:
    """By http it would mean nothing (RFC 6797, 7.2), and on loopback it would lock a developer out."""
    async with run_service(settings_for(shared_database_url, LATCHKEY_PUBLIC_URL=public_url)) as service:
        answers = [await service.client.get("/health/live"), await service.client.post("/mcp", headers={"host": "no"})]
    found = [answer.headers.get_list("strict-transport-security") for answer in answers]

    assert [answer.status_code for answer in answers] == [200, 421]
    assert found == [["max-age=31536000"] if told else []] * 2
