"""Sign-in with `--dev`: which requests for the page get a token. Only the page itself may read it."""

import re
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import pytest_asyncio

from latchkey.config import Settings
from latchkey.interfaces.http import dev_sign_in
from latchkey.interfaces.http.dev_sign_in import DevSignIn
from tests.integration.http.test_console import BROWSER
from tests.support.service import run_service

pytestmark = pytest.mark.asyncio(loop_scope="session")

NAVIGATION = {**BROWSER, "sec-fetch-site": "none", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
OWN_FETCH = {**BROWSER, "sec-fetch-site": "same-origin", "sec-fetch-mode": "cors", "sec-fetch-dest": "empty"}
TOKEN = re.compile(r'<meta name="latchkey-token" content="([^"]*)"')
UID = 1000
CLIENT, SERVER = ("127.0.0.1", 40001), ("127.0.0.1", 8000)
LISTED = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F40 0100007F:9C41 01 00000000:00000000 00:00000000 00000000  1000        0 1 1 0 20 4 0 10 -1
   1: 0100007F:9C41 0100007F:1F40 01 00000000:00000000 00:00000000 00000000  {uid}        0 2 1 0 20 4 0 10 -1
"""


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def client(tmp_path_factory: pytest.TempPathFactory, shared_sqlite_url: str) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of a service with `--dev`, over a socket."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(tmp_path_factory.mktemp("dev"))
        settings = Settings.read({"LATCHKEY_DATABASE_URL": shared_sqlite_url}, dev=True)
        async with run_service(settings, on_socket=True) as service:
            yield service.client


async def token_in_page(client: httpx2.AsyncClient, headers: dict[str, str]) -> str:
    page = await client.get("/", headers=headers)
    match = TOKEN.search(page.text)
    assert page.status_code == 200
    assert match
    assert page.headers["cache-control"] == ("no-store" if match[1] else "no-cache")
    return match[1]


@pytest.mark.parametrize("headers", [BROWSER, NAVIGATION, OWN_FETCH], ids=["old browser", "navigation", "own page"])
@pytest.mark.parametrize("host", ["127.0.0.1:1", "localhost:8000", "[::1]:8000", "LOCALHOST"])
async def test_page_on_loopback_has_a_token_that_opens_the_api(
    client: httpx2.AsyncClient, headers: dict[str, str], host: str
) -> None:
    token = await token_in_page(client, {**headers, "host": host})
    answer = await client.get("/api/me/tasks", headers={"authorization": f"Bearer {token}"})

    assert answer.status_code == 200


async def test_each_page_has_the_security_headers_and_is_never_stored(client: httpx2.AsyncClient) -> None:
    page = await client.get("/", headers=NAVIGATION)

    assert page.headers["cross-origin-opener-policy"] == "same-origin"
    assert page.headers["cross-origin-resource-policy"] == "same-origin"
    assert page.headers["x-frame-options"] == "DENY"
    assert "etag" not in page.headers
    assert "access-control-allow-origin" not in page.headers


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://localhost:3000"},
        {"origin": "null"},
        {"sec-fetch-site": "same-site", "sec-fetch-mode": "cors", "sec-fetch-dest": "empty"},
        {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors", "sec-fetch-dest": "script"},
        {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "iframe"},
        {"origin": "http://localhost:3000", "sec-fetch-site": "same-site", "sec-fetch-mode": "navigate"},
        {"x-forwarded-for": "203.0.113.1"},
        {"forwarded": "for=203.0.113.1"},
        {"x-forwarded-host": "tunnel.example"},
        {"via": "1.1 proxy"},
    ],
)
async def test_page_for_another_origin_or_through_a_proxy_has_no_token(
    client: httpx2.AsyncClient, headers: dict[str, str]
) -> None:
    status = {403} if headers.get("origin") == "null" else {200}
    page = await client.get("/", headers={**BROWSER, **headers})

    assert page.status_code in status
    assert "eyJ" not in page.text


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:8000"])
async def test_page_for_another_host_is_refused_against_dns_rebinding(client: httpx2.AsyncClient, host: str) -> None:
    page = await client.get("/", headers={**NAVIGATION, "host": host})

    assert page.status_code == 421
    assert "eyJ" not in page.text


async def test_page_for_the_host_of_a_tunnel_has_no_token(shared_sqlite_url: str, tmp_path: Path) -> None:
    """The public URL is an allowed host, but everybody can reach it."""
    variables = {"LATCHKEY_DATABASE_URL": shared_sqlite_url, "LATCHKEY_PUBLIC_URL": "https://tunnel.example"}
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(tmp_path)
        async with run_service(Settings.read(variables, dev=True), on_socket=True) as service:
            tokens = [
                await token_in_page(service.client, {**NAVIGATION, "host": host})
                for host in ("tunnel.example", "localhost")
            ]

    assert [bool(token) for token in tokens] == [False, True]


async def test_description_for_other_clients_has_no_token(client: httpx2.AsyncClient) -> None:
    answer = await client.get("/", headers={"accept": "application/json"})

    assert "eyJ" not in answer.text


def scope(client: tuple[str, int] | None = CLIENT, server: tuple[str, int] | None = SERVER) -> Any:
    return {"type": "http", "headers": [(b"host", b"localhost:8000")], "client": client, "server": server}


@pytest.mark.parametrize(("uid", "is_issued"), [(1000, True), (0, True), (1001, False), (65534, False)])
async def test_another_user_of_the_machine_gets_no_token(
    uid: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *, is_issued: bool
) -> None:
    """Linux lists who owns a connection. Root can read the signing key anyway."""
    connections = tmp_path / "tcp"
    connections.write_text(LISTED.format(uid=uid))
    monkeypatch.setitem(dev_sign_in._CONNECTIONS, 4, connections)

    assert (DevSignIn(lambda: "token", UID).token_for(scope()) is not None) == is_issued


async def test_connection_that_is_not_listed_gets_no_token(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    connections = tmp_path / "tcp"
    connections.write_text(LISTED.format(uid=UID))
    monkeypatch.setitem(dev_sign_in._CONNECTIONS, 4, connections)
    sign_in = DevSignIn(lambda: "token", UID)

    assert sign_in.token_for(scope(("127.0.0.1", 40002))) is None


async def test_system_without_a_list_of_connections_trusts_loopback(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(dev_sign_in._CONNECTIONS, 4, tmp_path / "none")
    sign_in = DevSignIn(lambda: "token", UID)

    assert sign_in.token_for(scope()) == "token"
    assert sign_in.token_for(scope(("192.0.2.1", 40001))) is None
    assert sign_in.token_for(scope(CLIENT, ("192.0.2.2", 8000))) is None
    assert sign_in.token_for(scope(None)) is None


async def test_addresses_are_compared_as_linux_lists_them() -> None:
    """An IPv6 connection to this process, in the real list."""
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as server:
        address = server.getsockname()[:2]
        with socket.create_connection(address) as connection:
            owners = dev_sign_in._connection_owners(6)
            ends = dev_sign_in._as_listed(connection.getsockname()[:2]), dev_sign_in._as_listed(address)

    assert ends in owners
