"""What holds for every answer, whatever was asked: who is answered, request ids, headers, and problem details."""

import asyncio
import re
from uuid import UUID

import httpx2
import pytest

from latchkey.interfaces.http.middleware import throttle as brake
from tests.polling import TIMEOUT_S, wait_until
from tests.support.service import BASE_URL, ApiUser, Service

pytestmark = pytest.mark.asyncio(loop_scope="session")

EVERYWHERE = ["/health/live", "/health/ready", "/schema/openapi.json", "/api/me/tasks", "/mcp", "/nothing/here"]
OTHER_HOSTS = ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "localhost.", "", "127.0.0.1:8000:8000"]
OTHER_ORIGINS = ["https://evil.example", "null", "http://localhost.evil.example", "https://localhost", "file://"]


@pytest.mark.parametrize("path", EVERYWHERE)
@pytest.mark.parametrize("host", OTHER_HOSTS)
async def test_another_host_is_misdirected_on_every_route(service: Service, path: str, host: str) -> None:
    """So that a name which is pointed at this machine from outside does not open it (DNS rebinding)."""
    refused = await service.client.post(path, headers={"host": host})

    assert (refused.status_code, refused.json()["code"]) == (421, "forbidden")


@pytest.mark.parametrize("path", EVERYWHERE)
@pytest.mark.parametrize("origin", OTHER_ORIGINS)
async def test_pages_of_another_origin_are_refused_on_every_route(service: Service, path: str, origin: str) -> None:
    refused = await service.client.get(path, headers={"origin": origin})

    assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "127.0.0.1", "localhost:8000", "LOCALHOST", "[::1]:8000"])
async def test_loopback_is_answered_by_any_of_its_names(service: Service, host: str) -> None:
    headers = {"host": host, "origin": f"http://{host}"}

    assert (await service.client.get("/health/live", headers=headers)).status_code == 200


@pytest.mark.parametrize("path", EVERYWHERE)
async def test_every_answer_has_the_id_that_was_brought(service: Service, path: str) -> None:
    answer = await service.client.get(path, headers={"x-request-id": "trace-42.a_b"})

    assert answer.headers.get_list("x-request-id") == ["trace-42.a_b"]
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("given", [None, "", "has spaces", "a" * 65, "line\tbreak", "<script>"])
async def test_an_id_that_cannot_be_logged_as_it_is_is_replaced(service: Service, given: str | None) -> None:
    headers = {} if given is None else {"x-request-id": given}
    first = (await service.client.get("/health/live", headers=headers)).headers["x-request-id"]
    second = (await service.client.get("/health/live", headers=headers)).headers["x-request-id"]

    assert UUID(first).version == 7
    assert first != second


@pytest.mark.parametrize("path", ["/api/me/tasks", "/mcp"])
async def test_a_page_of_an_allowed_origin_may_ask_and_read_the_answer(service: Service, path: str) -> None:
    """In a browser, which asks for leave first (the Fetch standard's CORS protocol)."""
    origin = {"origin": "http://localhost:5173"}
    asked = {"access-control-request-method": "POST", "access-control-request-headers": "authorization,if-match"}
    leave = await service.client.options(path, headers=origin | asked)
    answer = await service.client.post(path, headers=origin)

    assert leave.status_code == 204
    assert (
        leave.headers["access-control-allow-origin"]
        == answer.headers["access-control-allow-origin"]
        == origin["origin"]
    )
    assert {"authorization", "if-match"} <= set(leave.headers["access-control-allow-headers"].split(", "))
    assert "etag" in answer.headers["access-control-expose-headers"]


async def test_what_is_personal_is_not_kept_by_any_cache(ada: ApiUser) -> None:
    answers = [
        await ada.get("tasks"),
        await ada.post("context-tokens", json={"grants": ["tasks:read"]}),
        await ada.get("nothing"),
        await ApiUser("bob", ada.token, ada.client).get("tasks"),
    ]

    assert [one.status_code for one in answers] == [200, 201, 404, 403]
    assert [one.headers.get_list("cache-control") for one in answers] == [["no-store"]] * 4


async def test_problem_details_are_complete(ada: ApiUser) -> None:
    answer = await ada.get("tasks/01a1f88f-b877-757a-8488-188f3c989d6d", headers={"x-request-id": "r-1"})

    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json() == {
        "type": "urn:latchkey:problem:not-found",
        "title": "Not found",
        "status": 404,
        "detail": "There is no such task.",
        "code": "not-found",
        "request_id": "r-1",
    }


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/api/me/tasks", {"GET", "POST"}),
        ("HEAD", "/api/me/tasks", {"GET", "POST"}),
        ("POST", "/health/live", {"GET"}),
        ("DELETE", "/api/me/chat", {"POST"}),
        ("TRACE", "/health/live", {"GET"}),
        ("GET", "/mcp", {"POST"}),
        ("DELETE", "/mcp", {"POST"}),
    ],
)
async def test_a_method_that_a_path_does_not_take_is_told_those_it_takes(
    service: Service, method: str, path: str, allowed: set[str]
) -> None:
    refused = await service.client.request(method, path)

    assert refused.status_code == 405
    assert set(refused.headers["allow"].split(", ")) - {"OPTIONS"} == allowed


async def test_options_are_told_behind_the_door_to_those_who_may_pass_it(ada: ApiUser) -> None:
    answers = [
        await ada.client.options("/health/live"),
        await ada.client.options(ada.path("tasks"), headers={"authorization": f"Bearer {ada.token}"}),
        await ada.client.options(ada.path("tasks")),
    ]

    assert [one.status_code for one in answers] == [204, 204, 401]
    assert ["OPTIONS" in one.headers.get("allow", "") for one in answers] == [True, True, False]


@pytest.mark.parametrize("path", ["/", "/api", "/api/me", "/api/me/nothing", "/schema", "/schema/x", "/docs", "/%00"])
async def test_where_nothing_is_a_problem_says_so(service: Service, path: str) -> None:
    answer = await service.client.get(path)

    assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")
    assert answer.json()["code"] == "not-found"


@pytest.mark.parametrize("accept", ["image/png", "*/*", "application/xml", "text/html, */*;q=0.1", "nonsense"])
async def test_json_is_answered_whatever_was_hoped_for(ada: ApiUser, accept: str) -> None:
    """There is nothing else (RFC 9110, 12.4.1 allows it)."""
    answer = await ada.get("tasks", headers={"accept": accept})

    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")


@pytest.mark.parametrize(
    "authorization",
    ["", "Bearer", "Bearer ", "Basic YWRhOmFkYQ==", "{token}", "Bearer {token} x", "Bearer {token}x", "Bearer lk_x"],
)
async def test_a_credential_in_any_other_form_opens_nothing(ada: ApiUser, authorization: str) -> None:
    headers = {"authorization": authorization.format(token=ada.token)}
    refused = await ada.client.get(ada.path("tasks"), headers=headers)

    assert (refused.status_code, refused.json()["code"]) == (401, "unauthenticated")
    assert refused.headers["www-authenticate"] == "Bearer"
    assert ada.token not in refused.text


async def test_a_credential_is_never_read_from_the_address(ada: ApiUser) -> None:
    params = {"token": ada.token, "access_token": ada.token, "authorization": f"Bearer {ada.token}"}

    assert (await ada.client.get(ada.path("tasks"), params=params)).status_code == 401


async def test_the_scheme_may_be_written_in_any_case(ada: ApiUser) -> None:
    answer = await ada.client.get(ada.path("tasks"), headers={"authorization": f"bEARER {ada.token}"})

    assert answer.status_code == 200


async def test_health_says_that_it_lives_and_can_serve(service: Service) -> None:
    answers = [await service.client.get(f"/health/{name}") for name in ("live", "ready")]

    assert [(one.status_code, one.json()) for one in answers] == [(200, {"status": "live"}), (200, {"status": "ready"})]


async def test_a_body_that_breaks_off_is_no_mistake_of_ours(
    service: Service, ada: ApiUser, capsys: pytest.CaptureFixture[str]
) -> None:
    """The client is gone: there is nobody to tell, and nothing to log."""
    scope = _scope(ada)
    sent: list[dict[str, object]] = []

    async def receive() -> dict[str, object]:
        return {"type": "http.disconnect"}

    async def send(message: dict[str, object]) -> None:
        sent.append(message)

    await service.asgi(scope, receive, send)

    assert sent[0]["status"] == 400
    assert "Traceback" not in capsys.readouterr().out


def _scope(person: ApiUser) -> dict[str, object]:
    request = httpx2.Request("POST", BASE_URL + person.path("tasks"))
    headers = {"host": "127.0.0.1", "authorization": f"Bearer {person.token}", "content-type": "application/json"}
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": request.method,
        "scheme": "http",
        "path": request.url.path,
        "raw_path": request.url.raw_path,
        "query_string": b"",
        "root_path": "",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 8000),
        "state": {},
    }


async def test_no_answer_names_the_server_software(service: Service) -> None:
    answer = await service.client.get("/health/live")

    assert not re.search("litestar|uvicorn|python", str(answer.headers), re.IGNORECASE)


@pytest.mark.parametrize("name", ["host", "origin"])
async def test_one_host_and_one_origin_are_enough(service: Service, name: str) -> None:
    """Of two, a proxy and a service may each believe another."""
    headers = [("host", "localhost"), (name, "http://localhost"), (name, "http://elsewhere.example")]
    refused = await service.client.get("/health/live", headers=headers)

    assert (refused.status_code, refused.json()["code"]) == (400, "invalid")


async def test_who_is_refused_very_often_waits_for_it_and_nobody_else_does(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many were refused just now as are refused at once."""
    monkeypatch.setattr(brake, "_DELAY_S", (TIMEOUT_S, TIMEOUT_S))
    held = service.asgi._throttle
    monkeypatch.setattr(held, "_tokens", -1e6)
    before = held._updated_at
    one_more = asyncio.create_task(service.client.get("/api/ada/tasks"))
    await wait_until(lambda: has_come(held, before))

    assert (await service.client.get("/health/live")).status_code == 200
    assert not one_more.done()
    one_more.cancel()
    await asyncio.gather(one_more, return_exceptions=True)


async def has_come(held: brake.RefusalThrottle, before: float) -> bool:
    """Whether somebody has been refused since."""
    return held._updated_at != before


async def test_so_many_refusals_are_answered_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(brake, "_DELAY_S", (TIMEOUT_S, TIMEOUT_S))
    held = brake.RefusalThrottle()
    refusals = [asyncio.create_task(held.wait()) for _ in range(1_000)]

    done, waiting = await asyncio.wait(refusals, timeout=0.01)

    assert len(done) >= brake.FREE_PER_S
    assert waiting
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
