"""Security headers: every response has the same headers that protect a browser."""

import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx2
import pytest

from latchkey.interfaces.http.middleware import security
from latchkey.interfaces.http.reference import CONTENT_SECURITY_POLICY
from latchkey.interfaces.http.server import response_budget
from latchkey.interfaces.http.server.response_budget import ResponseBudget
from tests.fakes.model_script import fails
from tests.fakes.model_server import ModelServer
from tests.integration.http.test_server_errors import execute
from tests.support.operations import OPERATIONS, create_one_of_each
from tests.support.published_schema import DOCUMENT
from tests.support.service import ApiUser, Service, over_socket, run_service, settings_for

pytestmark = pytest.mark.asyncio(loop_scope="session")

SECURITY_HEADERS = {
    "cache-control": ["no-store"],
    "x-content-type-options": ["nosniff"],
    "content-security-policy": ["default-src 'none'; frame-ancestors 'none'"],
    "x-frame-options": ["DENY"],
    "referrer-policy": ["no-referrer"],
    "cross-origin-resource-policy": ["same-origin"],
}
"""Each header exactly once: browsers ignore or combine duplicates."""
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


def security_headers(answer: httpx2.Response) -> dict[str, list[str]]:
    return {name: answer.headers.get_list(name) for name in SECURITY_HEADERS}


def without_security_headers(answers: list[httpx2.Response]) -> list[str]:
    """The responses whose security headers differ from the expected ones."""
    return [
        f"{answer.request.method} {answer.request.url.path} {answer.status_code}"
        for answer in answers
        if security_headers(answer) != expected_headers(answer) or ABSENT & set(answer.headers)
    ]


def expected_headers(answer: httpx2.Response) -> dict[str, list[str]]:
    """The published documents may be kept, as long as their entity tags are checked; the page has a style."""
    path = answer.request.url.path
    if not answer.is_success or path not in {"/schema/openapi.json", "/docs"}:
        return SECURITY_HEADERS
    cached = SECURITY_HEADERS | {"cache-control": ["no-cache"]}
    return cached | {"content-security-policy": [CONTENT_SECURITY_POLICY]} if path == "/docs" else cached


@asynccontextmanager
async def recorded(client: httpx2.AsyncClient) -> AsyncIterator[list[httpx2.Response]]:
    """Record every response that the client receives."""
    responses: list[httpx2.Response] = []

    async def record(answer: httpx2.Response) -> None:
        responses.append(answer)

    client.event_hooks["response"].append(record)
    yield responses
    client.event_hooks["response"].remove(record)


async def call_every_operation(user: ApiUser) -> None:
    """Call each published operation with valid input, each on new entities."""
    for operation in OPERATIONS.values():
        path = operation.path_with(await create_one_of_each(user))
        await user.request(operation.method, path, content=operation.content, headers=operation.headers)
    for path, methods in DOCUMENT["paths"].items():
        if "get" in methods and not path.startswith(("/api/", "/.well-known/")):
            await user.client.get(path)


async def get_metadata(database_url: str) -> list[httpx2.Response]:
    async with run_service(settings_for(database_url, **PROVIDER)) as service, recorded(service.client) as responses:
        await service.client.get("/.well-known/oauth-protected-resource/mcp")
        await service.client.post("/mcp")
    return responses


async def test_security_headers_on_every_successful_operation(
    service: Service, ada: ApiUser, shared_database_url: str
) -> None:
    async with recorded(service.client) as responses:
        await call_every_operation(ada)
    metadata = await get_metadata(shared_database_url)
    answers = [answer for answer in [*responses, *metadata] if answer.is_success]
    called = [f"{answer.request.method.lower()} {answer.request.url.path}" for answer in answers]
    published = [f"{method} {path}" for path, methods in DOCUMENT["paths"].items() for method in methods]

    assert [
        operation
        for operation in published
        if not any(re.fullmatch(_ID.sub("[^/]+", operation), path) for path in called)
    ] == []
    assert without_security_headers([*responses, *metadata]) == []


async def test_security_headers_on_every_refused_operation(service: Service, ada: ApiUser) -> None:
    """Without a token, with an invalid token, another user's path, an unknown id and invalid input."""
    stranger = ApiUser("somebody-else", ada.token, ada.client)
    async with recorded(service.client) as responses:
        for operation in OPERATIONS.values():
            method, path = operation.method, operation.path_with({})
            await ada.request(method, path, headers={"authorization": ""})
            await ada.request(method, path, headers={"authorization": "Bearer no.such.token"})
            await ada.request(method, path)
            await ada.request(method, path, params={"limit": "none"})
            await stranger.request(method, path)

    assert {401, 403, 404, 422} <= {answer.status_code for answer in responses}
    assert without_security_headers(responses) == []


async def test_security_headers_on_responses_outside_of_operations(service: Service, ada: ApiUser) -> None:
    """Unknown paths, other methods, foreign hosts and origins, and a CORS preflight."""
    leave = {"origin": "http://localhost:5173", "access-control-request-method": "POST"}
    answers = [
        await service.client.get("/nothing"),
        await service.client.get("/favicon.ico"),
        await service.client.put("/health/live"),
        await service.client.get("/schema/openapi.json", headers={"host": "evil.example"}),
        await service.client.get("/health/live", headers={"origin": "https://evil.example"}),
        await service.client.options("/api/me/tasks", headers=leave),
        await ada.post("tasks", content=b"\xff", headers={"content-type": "application/json"}),
        await ada.post("tasks", content=b" " * 9_000_000, headers={"content-type": "application/json"}),
    ]

    assert [response.status_code for response in answers] == [404, 404, 405, 421, 403, 204, 400, 413]
    assert without_security_headers(answers) == []


async def test_security_headers_on_every_mcp_response(service: Service, ada: ApiUser) -> None:
    """A result, a challenge, a method that is not allowed, and an invalid message."""
    bearer = {"authorization": f"Bearer {ada.token}", **MCP_HEADERS}
    async with recorded(service.client) as responses:
        for content, headers in (
            (json.dumps(INITIALIZE).encode(), bearer),
            (json.dumps(INITIALIZE).encode(), MCP_HEADERS),
            (json.dumps(INITIALIZE).encode(), {**MCP_HEADERS, "authorization": "Bearer lk_unknown"}),
            (b"{", bearer),
        ):
            await service.client.post("/mcp", content=content, headers=headers)
        await service.client.get("/mcp", headers=bearer)

    assert [answer.status_code for answer in responses] == [200, 401, 401, 400, 405]
    assert without_security_headers(responses) == []


async def test_security_headers_on_streams_and_failed_turns(
    model_service: Service, model: ModelServer, service: Service, ada: ApiUser
) -> None:
    """Over a socket, where the server adds headers too; no proxy may buffer or cache a stream."""
    model.script.append(fails(400))
    bob = model_service.user()
    async with recorded(model_service.client) as responses:
        await bob.post("chat", json={"message": "Hello"})
    async with over_socket(service) as reached, recorded(reached.client) as streamed:
        follower = ApiUser(ada.user_id, ada.token, reached.client)
        events = {"accept": "text/event-stream"}
        async with follower.stream("POST", "chat", json={"message": "Hello"}, headers=events) as stream:
            await stream.aread()

    assert [answer.status_code for answer in [*responses, *streamed]] == [502, 200]
    assert streamed[0].headers["content-type"].startswith("text/event-stream")
    assert without_security_headers([*responses, *streamed]) == []


async def test_security_headers_on_an_internal_error(sqlite_url: str) -> None:
    async with run_service(settings_for(sqlite_url)) as service:
        ada = service.user()
        await execute(sqlite_url, "ALTER TABLE tasks RENAME COLUMN title TO name")
        answer = await ada.get("tasks")

    assert answer.status_code == 500
    assert without_security_headers([answer]) == []


async def test_stored_html_is_served_as_a_download(ada: ApiUser) -> None:
    paper = await ada.create(
        "artifacts", title="page", content_markdown="<script>fetch('https://evil.example')</script>"
    )
    answer = await ada.get(f"artifacts/{paper['id']}/content")

    assert answer.headers["content-type"].startswith("text/markdown")
    assert answer.headers["content-disposition"].startswith("attachment;")
    assert security_headers(answer) == SECURITY_HEADERS


@pytest.mark.parametrize(
    ("public_url", "is_https"), [("https://latchkey.example", True), ("http://latchkey.example", False)]
)
async def test_strict_transport_security_only_with_https(
    shared_database_url: str, public_url: str, *, is_https: bool
) -> None:
    """Over http it has no meaning (RFC 6797, 7.2), and on loopback it would lock a developer out."""
    async with run_service(settings_for(shared_database_url, LATCHKEY_PUBLIC_URL=public_url)) as service:
        answers = [await service.client.get("/health/live"), await service.client.post("/mcp", headers={"host": "no"})]
    sts_headers = [answer.headers.get_list("strict-transport-security") for answer in answers]

    assert [answer.status_code for answer in answers] == [200, 421]
    assert sts_headers == [["max-age=31536000"] if is_https else []] * 2


async def test_problem_in_place_of_a_page_has_the_headers_of_a_problem(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page may be kept and has styles. The problem for which there is room instead may not be kept."""
    monkeypatch.setattr(security, "RESPONSES", ResponseBudget(1))
    monkeypatch.setattr(response_budget, "WAIT_S", 0)
    response = await service.client.get("/docs", headers={"accept-encoding": "identity"})

    assert response.status_code == 503
    assert {name: response.headers.get_list(name) for name in SECURITY_HEADERS} == SECURITY_HEADERS
