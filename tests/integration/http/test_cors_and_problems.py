"""Rules for every response: host and origin checks, CORS, request ids, problem details, and the published document."""

import re
from uuid import UUID

import httpx2
import pytest

from tests.support.service import BASE_URL, ApiUser, Service

pytestmark = pytest.mark.asyncio(loop_scope="session")

EVERYWHERE = ["/health/live", "/health/ready", "/schema/openapi.json", "/api/me/tasks", "/mcp", "/nothing/here"]
OTHER_HOSTS = ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "localhost.", "", "127.0.0.1:8000:8000"]
OTHER_ORIGINS = ["https://evil.example", "null", "http://localhost.evil.example", "https://localhost", "file://"]


@pytest.mark.parametrize("path", EVERYWHERE)
@pytest.mark.parametrize("host", OTHER_HOSTS)
async def test_host_header_of_another_host_is_misdirected(service: Service, path: str, host: str) -> None:
    """Protects against DNS rebinding."""
    refused = await service.client.post(path, headers={"host": host})

    assert (refused.status_code, refused.json()["code"]) == (421, "forbidden")


@pytest.mark.parametrize("path", ["/health/live", "/health/ready"])
@pytest.mark.parametrize("host", [*OTHER_HOSTS, "10.1.2.3:8155", "[fd00::1]:8000"])
async def test_health_answers_probes_with_any_host_header(service: Service, path: str, host: str) -> None:
    """Kubelets and load balancers send the address of the process. A foreign page is refused nevertheless."""
    headers = {"host": host}
    probes = [await service.client.request(method, path, headers=headers) for method in ("GET", "HEAD")]
    refused = await service.client.get(path, headers={**headers, "origin": "https://evil.example"})
    below = await service.client.get(f"{path}/more", headers=headers)

    assert [response.status_code for response in [*probes, refused, below]] == [200, 200, 403, 421]
    assert (probes[0].json(), probes[1].content) == ({"status": path.removeprefix("/health/")}, b"")


@pytest.mark.parametrize("path", EVERYWHERE)
@pytest.mark.parametrize("origin", OTHER_ORIGINS)
async def test_cors_origin_that_is_not_allowed_is_forbidden(service: Service, path: str, origin: str) -> None:
    refused = await service.client.get(path, headers={"origin": origin})

    assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "127.0.0.1", "localhost:8000", "LOCALHOST", "[::1]:8000"])
async def test_host_header_with_any_loopback_name_is_accepted(service: Service, host: str) -> None:
    headers = {"host": host, "origin": f"http://{host}"}

    assert (await service.client.get("/health/live", headers=headers)).status_code == 200


@pytest.mark.parametrize("path", EVERYWHERE)
async def test_request_id_of_the_client_is_returned(service: Service, path: str) -> None:
    answer = await service.client.get(path, headers={"x-request-id": "trace-42.a_b"})

    assert answer.headers.get_list("x-request-id") == ["trace-42.a_b"]
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("given", [None, "", "has spaces", "a" * 65, "line\tbreak", "<script>"])
async def test_request_id_that_is_invalid_is_replaced(service: Service, given: str | None) -> None:
    headers = {} if given is None else {"x-request-id": given}
    first = (await service.client.get("/health/live", headers=headers)).headers["x-request-id"]
    second = (await service.client.get("/health/live", headers=headers)).headers["x-request-id"]

    assert UUID(first).version == 7
    assert first != second


@pytest.mark.parametrize("path", ["/api/me/tasks", "/mcp"])
async def test_cors_preflight_and_request_of_an_allowed_origin_succeed(service: Service, path: str) -> None:
    """As a browser does it (CORS protocol of the Fetch standard)."""
    origin = {"origin": "http://localhost:5173"}
    preflight = {"access-control-request-method": "POST", "access-control-request-headers": "authorization,if-match"}
    allowed = await service.client.options(path, headers=origin | preflight)
    answer = await service.client.post(path, headers=origin)

    assert allowed.status_code == 204
    assert (
        allowed.headers["access-control-allow-origin"]
        == answer.headers["access-control-allow-origin"]
        == origin["origin"]
    )
    assert {"authorization", "if-match"} <= set(allowed.headers["access-control-allow-headers"].split(", "))
    assert "etag" in answer.headers["access-control-expose-headers"]


async def test_cors_preflight_of_an_allowed_origin_allows_any_header(service: Service) -> None:
    """Front-end libraries add headers of their own. A page of another origin gets no permission."""
    preflight = {"access-control-request-method": "POST", "access-control-request-headers": "x-stainless-os,x-my-app"}
    allowed = await service.client.options("/api/me/chat", headers={"origin": "http://localhost:5173", **preflight})
    refused = await service.client.options("/api/me/chat", headers={"origin": "https://evil.example", **preflight})

    assert allowed.status_code == 204
    assert {"x-stainless-os", "x-my-app"} <= set(allowed.headers["access-control-allow-headers"].split(", "))
    assert (refused.status_code, "access-control-allow-headers" in refused.headers) == (403, False)


async def test_cache_control_of_user_data_is_no_store(ada: ApiUser) -> None:
    answers = [
        await ada.get("tasks"),
        await ada.post("context-tokens", json={"grants": ["tasks:read"]}),
        await ada.get("nothing"),
        await ApiUser("bob", ada.token, ada.client).get("tasks"),
    ]

    assert [response.status_code for response in answers] == [200, 201, 404, 403]
    assert [response.headers.get_list("cache-control") for response in answers] == [["no-store"]] * 4


async def test_problem_details_contain_all_members(ada: ApiUser) -> None:
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
        ("POST", "/health/live", {"GET", "HEAD"}),
        ("DELETE", "/api/me/chat", {"POST"}),
        ("TRACE", "/health/live", {"GET", "HEAD"}),
        ("GET", "/mcp", {"POST"}),
        ("DELETE", "/mcp", {"POST"}),
    ],
)
async def test_method_not_allowed_names_the_allowed_methods(
    service: Service, method: str, path: str, allowed: set[str]
) -> None:
    refused = await service.client.request(method, path)

    assert refused.status_code == 405
    assert set(refused.headers["allow"].split(", ")) - {"OPTIONS"} == allowed


async def test_options_request_requires_authentication(ada: ApiUser) -> None:
    answers = [
        await ada.client.options("/health/live"),
        await ada.client.options(ada.path("tasks"), headers={"authorization": f"Bearer {ada.token}"}),
        await ada.client.options(ada.path("tasks")),
    ]

    assert [response.status_code for response in answers] == [204, 204, 401]
    assert ["OPTIONS" in response.headers.get("allow", "") for response in answers] == [True, True, False]


@pytest.mark.parametrize("path", ["/api", "/api/me", "/api/me/nothing", "/schema", "/schema/x", "/docs/x", "/%00"])
async def test_unknown_path_is_not_found_as_a_problem(service: Service, path: str) -> None:
    answer = await service.client.get(path)

    assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")
    assert answer.json()["code"] == "not-found"


@pytest.mark.parametrize("accept", ["image/png", "*/*", "application/xml", "text/html, */*;q=0.1", "nonsense"])
async def test_accept_header_does_not_change_the_media_type(ada: ApiUser, accept: str) -> None:
    """There is no other representation; RFC 9110, 12.4.1 allows ignoring `Accept`."""
    answer = await ada.get("tasks", headers={"accept": accept})

    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")


@pytest.mark.parametrize(
    "authorization",
    ["", "Bearer", "Bearer ", "Basic YWRhOmFkYQ==", "{token}", "Bearer {token} x", "Bearer {token}x", "Bearer lk_x"],
)
async def test_authorization_header_in_another_form_is_unauthenticated(ada: ApiUser, authorization: str) -> None:
    headers = {"authorization": authorization.format(token=ada.token)}
    refused = await ada.client.get(ada.path("tasks"), headers=headers)

    assert (refused.status_code, refused.json()["code"]) == (401, "unauthenticated")
    assert refused.headers["www-authenticate"] == "Bearer"
    assert ada.token not in refused.text


async def test_credential_in_the_url_is_ignored(ada: ApiUser) -> None:
    params = {"token": ada.token, "access_token": ada.token, "authorization": f"Bearer {ada.token}"}

    assert (await ada.client.get(ada.path("tasks"), params=params)).status_code == 401


async def test_authorization_scheme_is_case_insensitive(ada: ApiUser) -> None:
    answer = await ada.client.get(ada.path("tasks"), headers={"authorization": f"bEARER {ada.token}"})

    assert answer.status_code == 200


async def test_health_endpoints_report_live_and_ready(service: Service) -> None:
    answers = [await service.client.get(f"/health/{name}") for name in ("live", "ready")]

    assert [(response.status_code, response.json()) for response in answers] == [
        (200, {"status": "live"}),
        (200, {"status": "ready"}),
    ]


async def test_disconnect_during_the_body_is_not_logged_as_an_error(
    service: Service, ada: ApiUser, capsys: pytest.CaptureFixture[str]
) -> None:
    """The client has gone, so no response is sent and no error is logged."""
    scope = _scope(ada)
    sent: list[dict[str, object]] = []

    async def receive() -> dict[str, object]:
        return {"type": "http.disconnect"}

    async def send(message: dict[str, object]) -> None:
        sent.append(message)

    await service.asgi(scope, receive, send)

    assert sent[0]["status"] == 400
    assert "Traceback" not in capsys.readouterr().out


def _scope(user: ApiUser) -> dict[str, object]:
    request = httpx2.Request("POST", BASE_URL + user.path("tasks"))
    headers = {"host": "127.0.0.1", "authorization": f"Bearer {user.token}", "content-type": "application/json"}
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


async def test_server_header_does_not_name_the_software(service: Service) -> None:
    answer = await service.client.get("/health/live")

    assert not re.search("litestar|uvicorn|python", str(answer.headers), re.IGNORECASE)


@pytest.mark.parametrize("name", ["host", "origin"])
async def test_duplicate_host_or_origin_header_is_refused(service: Service, name: str) -> None:
    """A proxy and the service could each use another one."""
    headers = [("host", "localhost"), (name, "http://localhost"), (name, "http://elsewhere.example")]
    refused = await service.client.get("/health/live", headers=headers)

    assert (refused.status_code, refused.json()["code"]) == (400, "invalid")


async def test_schema_with_a_current_etag_is_not_modified(service: Service) -> None:
    """It is sent from memory, and not at all to a client that has it."""
    whole = await service.client.get("/schema/openapi.json")
    etag = whole.headers["etag"]
    current = [
        await service.client.get("/schema/openapi.json", headers={"if-none-match": tags})
        for tags in (etag, f"W/{etag}", f'"other", {etag}', "*")
    ]
    other = await service.client.get("/schema/openapi.json", headers={"if-none-match": '"other"'})

    assert [(answer.status_code, answer.content, answer.headers["etag"]) for answer in current] == [
        (304, b"", etag)
    ] * 4
    assert (other.status_code, other.content) == (200, whole.content)
    assert whole.headers.get_list("cache-control") == ["no-cache"]
