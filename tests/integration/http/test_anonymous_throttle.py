"""Requests without a verified credential are slowed down, whatever their status; others are not."""

import asyncio

import pytest

from latchkey.domain.errors import Exhausted
from latchkey.interfaces.http.middleware import throttle
from latchkey.interfaces.http.middleware.throttle import AnonymousThrottle
from tests.polling import TIMEOUT_S, wait_until
from tests.support.service import BASE_URL, ApiUser, Service

pytestmark = pytest.mark.asyncio(loop_scope="session")

FORGED = {"authorization": "Bearer forged"}
PREFLIGHT = {"origin": BASE_URL, "access-control-request-method": "GET"}
ANONYMOUS = {
    "401": ("GET", "/api/me/tasks", {}),
    "401 of a forged token": ("GET", "/api/me/tasks", FORGED),
    "401 of a forged context token": ("POST", "/mcp", {"authorization": "Bearer lk_me.forged"}),
    "404": ("GET", "/nothing/here", {}),
    "404 with a forged token": ("GET", "/nothing/here", FORGED),
    "405": ("GET", "/mcp", {}),
    "405 of the schema": ("POST", "/schema/openapi.json", {}),
    "421": ("GET", "/nothing/here", {"host": "evil.example"}),
    "403": ("GET", "/nothing/here", {"origin": "https://evil.example"}),
    "400": ("POST", "/mcp", {"content-type": "text/plain"}),
    "preflight": ("OPTIONS", "/api/me/tasks", PREFLIGHT),
    "schema": ("GET", "/schema/openapi.json", {}),
    "schema with a forged token": ("GET", "/schema/openapi.json", FORGED),
}


@pytest.fixture
def exhausted(service: Service, monkeypatch: pytest.MonkeyPatch) -> AnonymousThrottle:
    """The throttle of the service, without free requests for the rest of the test."""
    anonymous_throttle: AnonymousThrottle = service.asgi._throttle
    monkeypatch.setattr(anonymous_throttle, "_tokens", -1e6)
    monkeypatch.setattr(anonymous_throttle, "_delay_s", (TIMEOUT_S, TIMEOUT_S))
    return anonymous_throttle


@pytest.mark.parametrize("kind", ANONYMOUS)
async def test_anonymous_throttle_delays_requests_of_every_status(
    service: Service, exhausted: AnonymousThrottle, kind: str
) -> None:
    method, path, headers = ANONYMOUS[kind]
    request = asyncio.create_task(service.client.request(method, path, headers=headers))

    async def is_waiting() -> bool:
        return exhausted._waiting == 1

    await wait_until(is_waiting)
    assert not request.done()

    request.cancel()
    await asyncio.gather(request, return_exceptions=True)
    assert exhausted._waiting == 0


async def test_anonymous_throttle_delays_neither_users_nor_probes(
    service: Service, exhausted: AnonymousThrottle
) -> None:
    """Errors of a user are not delayed either."""
    ada = service.user()
    answers = [
        await ada.get("tasks"),
        await ada.get("nothing", headers={"accept": "text/html"}),
        await ada.post("tasks", content=b"no JSON"),
        await service.client.get("/health/live"),
        await service.client.head("/health/ready"),
    ]

    assert [answer.status_code for answer in answers] == [200, 404, 415, 200, 200]


async def test_anonymous_throttle_allows_a_burst_without_delay() -> None:
    anonymous_throttle = AnonymousThrottle((TIMEOUT_S, TIMEOUT_S))
    requests = [asyncio.create_task(anonymous_throttle.wait()) for _ in range(1_000)]

    done, waiting = await asyncio.wait(requests, timeout=0.01)

    assert len(done) >= throttle.FREE_PER_S
    assert waiting
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)


async def test_anonymous_throttle_refuses_requests_once_many_are_waiting(
    service: Service, exhausted: AnonymousThrottle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """429 with Retry-After, at once. Probes are never refused."""
    monkeypatch.setattr(exhausted, "_waiting", throttle.MAX_WAITING)
    monkeypatch.setattr(service.asgi._probe_throttle, "_waiting", throttle.MAX_WAITING)

    refused = [await service.client.get(path) for path in ("/api/me/tasks", "/schema/openapi.json", "/nothing")]
    probe = await service.client.get("/health/live")

    assert [(answer.status_code, answer.json()["code"]) for answer in refused] == [(429, Exhausted.code)] * 3
    assert [answer.headers["retry-after"] for answer in refused] == ["1"] * 3
    assert probe.status_code == 200


async def test_user_is_served_during_a_flood_of_anonymous_requests(
    service: Service, ada: ApiUser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service.asgi, "_log_request", lambda _fields: None)  # its timers would outlive the test
    flood = [asyncio.create_task(service.client.get("/nothing/here")) for _ in range(400)]
    answers = [await ada.get("tasks") for _ in range(10)]
    unfinished = sum(not request.done() for request in flood)

    assert [answer.status_code for answer in answers] == [200] * 10
    assert unfinished >= 250
    await asyncio.gather(*flood)


async def test_probe_throttle_is_shorter_than_the_timeout_of_a_probe() -> None:
    assert max(throttle.PROBE_DELAY_S) < 1.0
