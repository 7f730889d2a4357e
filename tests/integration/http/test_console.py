"""`GET /` and the files of the console: media types, caching, compression, and the Content-Security-Policy."""

import gzip
import re
from collections.abc import AsyncIterator
from importlib.metadata import version
from pathlib import Path

import httpx2
import pytest
import pytest_asyncio

from latchkey.interfaces.http import console
from tests.support.service import Service, run_service, settings_for

pytestmark = pytest.mark.asyncio(loop_scope="session")

BROWSER = {"accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}
STATIC = Path(console.__file__).parent / "static"
MEDIA_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}
SOURCES = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    "img-src": "'self' data:",
    "connect-src": "'self'",
    "font-src": "'self'",
    "base-uri": "'none'",
    "form-action": "'none'",
    "frame-ancestors": "'none'",
}
BUDGET_BYTES = 300_000


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def client(shared_sqlite_url: str) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of a service whose console is on."""
    async with run_service(settings_for(shared_sqlite_url, LATCHKEY_CONSOLE="true"), on_socket=True) as service:
        yield service.client


def assets() -> list[str]:
    return sorted(path.name for path in STATIC.iterdir() if path.name != "index.html")


async def test_index_without_console_describes_the_service_to_browsers_too(service: Service) -> None:
    answers = [await service.client.get("/"), await service.client.get("/", headers=BROWSER)]
    documents = answers[0].json()["documents"]
    paths = [path for path in documents.values() if "{" not in path and path != "/mcp"]

    assert [answer.headers["content-type"] for answer in answers] == ["application/json"] * 2
    assert answers[0].json() == {"name": "latchkey", "version": version("latchkey-server"), "documents": documents}
    assert [(await service.client.get(path)).status_code for path in paths] == [200] * len(paths)
    assert (await service.client.get(f"/console/{assets()[0]}")).status_code == 404


async def test_index_is_the_page_for_browsers_only(client: httpx2.AsyncClient) -> None:
    page = await client.get("/", headers=BROWSER)
    description = await client.get("/", headers={"accept": "*/*"})

    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.content == (STATIC / "index.html").read_bytes()
    assert description.json()["name"] == "latchkey"
    assert ["accept" in answer.headers["vary"].lower() for answer in (page, description)] == [True, True]


async def test_page_refers_only_to_files_of_this_service(client: httpx2.AsyncClient) -> None:
    page = (await client.get("/", headers=BROWSER)).text
    references = re.findall(r'(?:src|href)="([^"]+)"', page)
    answers = [await client.get(reference) for reference in references]

    assert [answer.status_code for answer in answers] == [200] * len(references)
    assert [reference for reference in references if not reference.startswith("/console/")] == []
    assert re.findall(r"<script(?![^>]*src=)|<style|style=| on\w+=", page) == []


@pytest.mark.parametrize("name", assets())
async def test_console_file_has_media_type_digest_and_policy(client: httpx2.AsyncClient, name: str) -> None:
    answer = await client.get(f"/console/{name}")
    headers = answer.headers
    is_hashed = name != "licenses.txt"

    assert answer.content == (STATIC / name).read_bytes()
    assert headers["content-type"] == MEDIA_TYPES[Path(name).suffix]
    assert headers["cache-control"] == ("public, max-age=31536000, immutable" if is_hashed else "no-cache")
    assert dict(source.strip().split(" ", 1) for source in headers["content-security-policy"].split(";")) == SOURCES
    assert (headers["x-content-type-options"], headers["referrer-policy"]) == ("nosniff", "no-referrer")
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert len(headers.get_list("cache-control") + headers.get_list("content-security-policy")) == 2


async def test_console_files_are_compressed_and_within_the_budget(client: httpx2.AsyncClient) -> None:
    sizes = []
    for path in ["/", *(f"/console/{name}" for name in assets() if name != "licenses.txt")]:
        async with client.stream("GET", path, headers={**BROWSER, "accept-encoding": "br, gzip"}) as answer:
            body = b"".join([part async for part in answer.aiter_raw()])
        assert answer.headers["content-encoding"] == "gzip"
        assert gzip.decompress(body) == (await client.get(path, headers=BROWSER)).content
        sizes.append(len(body))

    assert sum(sizes) < BUDGET_BYTES


@pytest.mark.parametrize("accepted", ["identity", "gzip;q=0", "br", "gzip;q=0.0, br"])
async def test_console_file_is_not_compressed_for_a_client_that_cannot_read_it(
    client: httpx2.AsyncClient, accepted: str
) -> None:
    answer = await client.get(f"/console/{assets()[0]}", headers={"accept-encoding": accepted})

    assert "content-encoding" not in answer.headers
    assert answer.content == (STATIC / assets()[0]).read_bytes()


@pytest.mark.parametrize("encoding", ["gzip", "identity"])
async def test_console_file_with_current_etag_is_not_sent_again(client: httpx2.AsyncClient, encoding: str) -> None:
    for path in ("/", f"/console/{assets()[0]}"):
        headers = {**BROWSER, "accept-encoding": encoding}
        first = await client.get(path, headers=headers)
        second = await client.get(path, headers={**headers, "if-none-match": first.headers["etag"]})
        other = await client.get(path, headers={**headers, "if-none-match": '"another"'})

        assert (second.status_code, second.content, second.headers["etag"]) == (304, b"", first.headers["etag"])
        assert second.headers["cache-control"] == first.headers["cache-control"]
        assert other.status_code == 200


async def test_etag_of_a_compressed_file_differs(client: httpx2.AsyncClient) -> None:
    etags = {
        (await client.get(f"/console/{assets()[0]}", headers={"accept-encoding": encoding})).headers["etag"]
        for encoding in ("gzip", "identity")
    }

    assert len(etags) == 2


@pytest.mark.parametrize(
    "path",
    [
        "index.html",
        "",
        "nothing.js",
        "../console.py",
        "..%2fconsole.py",
        "%2e%2e/console.py",
        "..%5cconsole.py",
        "%2fetc%2fpasswd",
        "static%00.js",
        "a/b.js",
    ],
)
async def test_console_file_outside_its_folder_is_not_served(client: httpx2.AsyncClient, path: str) -> None:
    answer = await client.get(f"/console/{path}")

    assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")


async def test_head_has_the_headers_of_get_and_no_body(client: httpx2.AsyncClient) -> None:
    for path, accept in (("/", BROWSER["accept"]), ("/", "*/*"), (f"/console/{assets()[0]}", "*/*")):
        get, head = [await client.request(method, path, headers={"accept": accept}) for method in ("GET", "HEAD")]

        assert (head.status_code, head.content) == (200, b"")
        assert without_request_id(head) == without_request_id(get)


def without_request_id(answer: httpx2.Response) -> dict[str, str]:
    return {name: value for name, value in answer.headers.items() if name not in {"x-request-id", "date"}}


async def test_console_method_other_than_get_is_not_allowed(client: httpx2.AsyncClient) -> None:
    answers = [await client.request(method, path) for method in ("POST", "PUT") for path in ("/", "/console/x.js")]

    assert [answer.status_code for answer in answers] == [405] * 4
    assert all("GET" in answer.headers["allow"] for answer in answers)


async def test_cors_of_own_page_with_other_origins_allowed_permits_posts(shared_sqlite_url: str) -> None:
    """A browser sends `Origin` with every POST, also to the page's own origin."""
    settings = settings_for(
        shared_sqlite_url,
        LATCHKEY_CONSOLE="true",
        LATCHKEY_PUBLIC_URL="https://latchkey.example",
        LATCHKEY_ALLOWED_ORIGINS="https://app.example",
    )
    async with run_service(settings) as service:
        user = service.user()
        origins = ("https://latchkey.example", "https://app.example", "https://evil.example")
        answers = [await user.post("tasks", json={"title": "x"}, headers={"origin": origin}) for origin in origins]

    assert [answer.status_code for answer in answers] == [201, 201, 403]
