"""The log line of each HTTP request: refusals too, and a flood of errors does not fill the log."""

from collections.abc import AsyncIterator
from time import monotonic
from typing import Any

import pytest
import pytest_asyncio

from tests.polling import wait_until
from tests.support.captured_log import CapturedLog, captured_log
from tests.support.service import ApiUser, Service

pytestmark = pytest.mark.asyncio(loop_scope="session")

TASKS = "/api/{user_id}/tasks"
JSON = {"content-type": "application/json"}


@pytest_asyncio.fixture(loop_scope="session")
async def log(service: Service, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[CapturedLog]:
    """The log without the errors of earlier tests: those that had no line are logged as a number within a second."""
    windows = service.asgi._log_request._windows
    ended_at = max((window.ends_at for window in windows.values()), default=0.0)
    await wait_until(lambda: _is_past(ended_at + 0.1))
    monkeypatch.setattr(service.asgi._log_request, "_windows", {})
    with captured_log() as log:
        yield log


def request_line(log: CapturedLog) -> dict[str, Any]:
    (line,) = log.lines("http_request")
    return line


async def test_access_log_of_successful_request(ada: ApiUser, log: CapturedLog) -> None:
    await ada.get("tasks", params={"status": "pending"}, headers={"x-request-id": "r-1"})
    line = request_line(log)

    assert line.pop("timestamp").endswith("Z")
    assert line.pop("duration_ms") > 0
    assert line == {
        "event": "http_request",
        "level": "info",
        "method": "GET",
        "route": TASKS,
        "status": 200,
        "code": None,
        "user_id": ada.user_id,
        "request_id": "r-1",
    }


REFUSALS: dict[str, tuple[str, dict[str, Any], tuple[int, str, str | None, bool]]] = {
    "unauthenticated": ("tasks", {"headers": {"authorization": ""}}, (401, "unauthenticated", TASKS, False)),
    "forged token": ("tasks", {"headers": {"authorization": "Bearer x"}}, (401, "unauthenticated", TASKS, False)),
    "host": ("tasks", {"headers": {"host": "evil.example"}}, (421, "forbidden", None, False)),
    "origin": ("tasks", {"headers": {"origin": "https://evil.example"}}, (403, "forbidden", None, False)),
    "no such route": ("nothing", {}, (404, "not-found", None, False)),
    "no such task": (
        "tasks/0190a7c0-0000-7000-8000-000000000000",
        {},
        (404, "not-found", "/api/{user_id}/tasks/{task_id}", True),
    ),
    "method": ("tasks", {"method": "PUT"}, (405, "invalid", None, False)),
    "parameter": ("tasks", {"params": {"limit": "0"}}, (422, "invalid", TASKS, True)),
    "body": ("tasks", {"method": "POST", "content": b"{", "headers": JSON}, (400, "invalid", TASKS, True)),
    "media type": ("tasks", {"method": "POST", "content": b"{}"}, (415, "unsupported-media-type", TASKS, True)),
}


@pytest.mark.parametrize(("path", "options", "expected"), REFUSALS.values(), ids=REFUSALS)
async def test_access_log_of_refused_request_has_its_code(
    ada: ApiUser, log: CapturedLog, path: str, options: dict[str, Any], expected: tuple[int, str, str | None, bool]
) -> None:
    """With the user only if the credential has been verified."""
    response = await ada.request(**{"method": "GET", "path": path, **options})
    line = request_line(log)
    user_id = line["user_id"]

    assert response.status_code == expected[0]
    assert (line["status"], line["code"], line["route"], user_id is not None) == expected
    assert user_id in {None, ada.user_id}
    assert line["request_id"] == response.headers["x-request-id"]


async def test_access_log_of_wrong_user_names_the_verified_user(ada: ApiUser, bob: ApiUser, log: CapturedLog) -> None:
    await ada.client.get(bob.path("tasks"), headers={"authorization": f"Bearer {ada.token}"})
    line = request_line(log)

    assert (line["status"], line["code"], line["user_id"]) == (403, "wrong-user", ada.user_id)
    assert bob.user_id not in log.stream.getvalue()


async def test_access_log_of_mcp_requests(service: Service, ada: ApiUser, log: CapturedLog) -> None:
    """With the user of a JWT and of a valid context token, and not with the user that an invalid token claims."""
    minted = await ada.create("context-tokens", grants=["tasks:read"])
    for bearer in (ada.token, minted["token"]):
        async with service.mcp_client(bearer) as client:
            await client.list_tools()
    invalid = minted["token"][:-4] + "AAAA"
    refused = await service.client.post("/mcp", json={}, headers={"authorization": f"Bearer {invalid}"})
    await service.client.put("/mcp", headers={"authorization": f"Bearer {invalid}"})
    lines = [line for line in log.lines("http_request") if line["route"] == "/mcp"]
    *succeeded, unauthenticated, put = [
        (line["method"], line["status"], line["code"], line["user_id"]) for line in lines
    ]

    assert refused.status_code == 401
    assert {line[0] for line in succeeded} == {"POST"}
    assert {line[3] for line in succeeded} == {ada.user_id}
    assert unauthenticated == ("POST", 401, "unauthenticated", None)
    assert put[:2] == ("PUT", 405)
    assert minted["token"] not in log.stream.getvalue()


@pytest.mark.parametrize(
    ("method", "params", "code"),
    [
        ("tools/call", {"name": "no_such_tool", "arguments": {}}, "not-found"),
        ("tools/call", {"arguments": {}}, "invalid"),
        ("resources/read", {"uri": "latchkey://artifacts/none"}, "not-found"),
        ("no/such/method", {}, "not-found"),
    ],
)
async def test_access_log_of_json_rpc_error_has_its_code(
    service: Service, ada: ApiUser, log: CapturedLog, method: str, params: dict[str, Any], code: str
) -> None:
    """The status of these responses is 200, so that only the code shows that the request failed."""
    message = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
    headers = {
        "authorization": f"Bearer {ada.token}",
        "accept": "application/json, text/event-stream",
        "mcp-protocol-version": "2025-11-25",
    }
    response = await service.client.post("/mcp", json=message, headers=headers)
    line = request_line(log)

    assert "error" in response.json()
    assert (line["status"], line["code"], line["user_id"]) == (200, code, ada.user_id)


async def test_access_log_has_neither_path_nor_query(service: Service, log: CapturedLog) -> None:
    await service.client.get("/my-secret-path", params={"q": "my-secret-query"})

    assert len(log.lines("http_request")) == 1
    assert "my-secret" not in log.stream.getvalue()


async def test_access_log_of_flood_of_errors_is_their_number(
    service: Service, ada: ApiUser, log: CapturedLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Errors with another code, and successful requests of users, still have their lines."""
    monkeypatch.setattr(service.asgi._throttle, "_delay_s", (0, 0))
    for _ in range(50):
        await service.client.get("/nowhere")
    await ada.get("tasks", params={"limit": "0"})
    await ada.get("tasks")
    await wait_until(lambda: _are_counted(log, 404, 50))
    lines = [line["status"] for line in log.lines("http_request")]
    rests = log.lines("http_requests_not_logged")

    assert 10 <= lines.count(404) <= _most_lines(rests)
    assert (lines.count(422), lines.count(200)) == (1, 1)
    assert {(rest["status"], rest["code"], rest["level"]) for rest in rests} == {(404, "not-found", "warning")}
    assert not any("request_id" in rest for rest in rests)


async def test_access_log_of_flood_of_probes_is_their_number(service: Service, log: CapturedLog) -> None:
    """Requests without a user cannot fill the log, whatever their status."""
    for _ in range(30):
        await service.client.get("/health/live")
    await wait_until(lambda: _are_counted(log, 200, 30))
    rests = log.lines("http_requests_not_logged")

    assert 10 <= len(log.lines("http_request")) <= _most_lines(rests)
    assert {(rest["status"], rest["code"]) for rest in rests} == {(200, None)}


async def _are_counted(log: CapturedLog, status: int, requests: int) -> bool:
    """Whether requests with this status were left out, and all have a line or are counted."""
    rests = [line["count"] for line in log.lines("http_requests_not_logged") if line["status"] == status]
    lines = [line for line in log.lines("http_request") if line["status"] == status]
    return bool(rests) and len(lines) + sum(rests) == requests


async def _is_past(moment: float) -> bool:
    return monotonic() > moment


def _most_lines(rests: list[Any]) -> int:
    """Ten lines in each second: on a slow machine the requests take more than one."""
    return 10 * (len(rests) + 1)
