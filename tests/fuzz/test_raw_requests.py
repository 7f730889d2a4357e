"""Raw bytes on a socket of the running program: ambiguous and malformed requests, and request smuggling."""

import errno
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.e2e.service_process import (
    BASE_SETTINGS,
    Environment,
    Replica,
    issue_token,
    migrate_database,
    running_service,
)

TIMEOUT_S = 20.0
QUIET_S = 0.3
CLOSE = b"Connection: close"
REFUSED = {errno.ECONNRESET, errno.EPIPE, errno.ENOTCONN}
"""Errors of a connection that the server closed during the request."""
USER = "fuzzer"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("raw")


@pytest.fixture(scope="module")
def configured(home: Path) -> Environment:
    environment = {**BASE_SETTINGS, "LATCHKEY_DATABASE_URL": f"sqlite+aiosqlite:///{home / 'latchkey.db'}"}
    migrate_database(home, environment)
    return environment


@pytest.fixture(scope="module")
def replica(home: Path, configured: Environment) -> Iterator[Replica]:
    with running_service(home=home, environment=configured) as replica:
        yield replica


@pytest.fixture(scope="module")
def token(home: Path, configured: Environment) -> str:
    return issue_token(USER, home, configured)


def statuses_of(replica: Replica, request: bytes, quiet: float = QUIET_S) -> list[int]:
    """Send the bytes and return all response statuses. After `quiet` seconds without data the client stops sending."""
    address = urlsplit(replica.url)
    with socket.create_connection((address.hostname or "", address.port or 0), timeout=quiet) as connection:
        received = b""
        try:
            connection.sendall(request)
            while part := _receive(connection):
                received += part
        except OSError as broken:
            if broken.errno not in REFUSED:
                raise
    return [int(status) for status in re.findall(rb"HTTP/1\.[01] (\d{3}) ", received)]


def _receive(connection: socket.socket) -> bytes:
    try:
        return connection.recv(65536)
    except TimeoutError:
        connection.settimeout(TIMEOUT_S)
        connection.shutdown(socket.SHUT_WR)
        return connection.recv(65536)


def count_tasks(replica: Replica, token: str) -> int:
    """The number of stored tasks."""
    return len(replica.request("GET", f"/api/{USER}/tasks?limit=200", token).json()["items"])


def request(replica: Replica, token: str, *lines: bytes, body: bytes = b"", line: bytes = b"") -> bytes:
    """A request that adds a task, with these header lines, body and request line."""
    head = [
        line or f"POST /api/{USER}/tasks HTTP/1.1".encode(),
        f"Host: {urlsplit(replica.url).netloc}".encode(),
        f"Authorization: Bearer {token}".encode(),
        b"Content-Type: application/json",
        *lines,
    ]
    return b"\r\n".join(head) + b"\r\n\r\n" + body


BODY = b'{"title": "smuggled"}'
LENGTH = b"Content-Length: %d" % len(BODY)
CHUNKED = b"Transfer-Encoding: chunked"
CHUNKS = b"%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY)
NEXT = b"GET /health/live HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"

AMBIGUOUS = {
    "a length and chunks": ([LENGTH, CHUNKED], CHUNKS),
    "chunks and a length": ([CHUNKED, b"Content-Length: 4"], b"0\r\n\r\n" + NEXT),
    "two lengths": ([LENGTH, b"Content-Length: 3"], BODY),
    "two lengths in one": ([b"Content-Length: 21, 3"], BODY),
    "a length with a sign": ([b"Content-Length: +21"], BODY),
    "a negative length": ([b"Content-Length: -1"], BODY),
    "a length in hexadecimal": ([b"Content-Length: 0x15"], BODY),
    "a length that is not a number": ([b"Content-Length: x"], BODY),
    "an empty length": ([b"Content-Length:"], BODY),
    "a length beyond all bounds": ([b"Content-Length: 99999999999999999999999"], BODY),
    "a length that is not reached": ([b"Content-Length: 1000"], BODY),
    "no length at all": ([], BODY),
    "chunks of no size": ([CHUNKED], b"zz\r\n" + BODY),
    "chunks of a negative size": ([CHUNKED], b"-15\r\n" + BODY + b"\r\n0\r\n\r\n"),
    "chunks of a size beyond all bounds": ([CHUNKED], b"ffffffffffffffff15\r\n" + BODY),
    "chunks that break off": ([CHUNKED], b"15\r\n" + BODY[:5]),
    "chunks longer than they say": ([CHUNKED], b"5\r\n" + BODY + b"\r\n0\r\n\r\n"),
    "an unknown transfer encoding": ([b"Transfer-Encoding: xchunked"], CHUNKS),
    "chunks that are not the last": ([b"Transfer-Encoding: chunked, identity"], CHUNKS),
    "a space before the colon": ([b"Transfer-Encoding : chunked"], CHUNKS),
    "a folded header line": ([b"X-A: 1", b" Content-Length: 21"], BODY),
    "a line without a colon": ([LENGTH, b"nonsense"], BODY),
    "a line without a name": ([LENGTH, b": x"], BODY),
    "NUL in a header": ([LENGTH, b"X-A: a\x00b"], BODY),
    "CR in a header": ([LENGTH, b"X-A: a\rX-B: b"], BODY),
    "NUL in a name": ([LENGTH, b"X\x00A: b"], BODY),
    "a name in another script": ([LENGTH, "X-é: b".encode()], BODY),
    "a duplicate host": ([LENGTH, b"Host: evil.example"], BODY),
}


@pytest.mark.parametrize(("lines", "body"), AMBIGUOUS.values(), ids=AMBIGUOUS)
def test_ambiguous_request_is_refused_and_starts_no_smuggled_request(
    replica: Replica, token: str, lines: list[bytes], body: bytes
) -> None:
    """Proxies could parse these differently. There is at most one response, a 4xx, and nothing is stored."""
    before = count_tasks(replica, token)
    answers = statuses_of(replica, request(replica, token, *lines, body=body))

    assert len(answers) <= 1
    assert all(400 <= status < 500 for status in answers)
    assert count_tasks(replica, token) == before


INVALID_LINES = {
    "a future version": b"POST /api/fuzzer/tasks HTTP/9.9",
    "a version of another protocol": b"POST /api/fuzzer/tasks HTTQ/1.1",
    "a method in lower case": b"post /api/fuzzer/tasks HTTP/1.1",
    "an unknown method": b"BREW /api/fuzzer/tasks HTTP/1.1",
    "a space in the path": b"POST /api/fuzzer/tasks x HTTP/1.1",
    "a very long path": b"POST /" + b"a" * 100_000 + b" HTTP/1.1",
    "a path out of the root": b"POST /../../api/fuzzer/tasks HTTP/1.1",
    "a path with NUL": b"POST /api/fuzzer/tasks\x00 HTTP/1.1",
    "a path with raw bytes": b"POST /api/fuzzer/tasks\xff\xfe HTTP/1.1",
    "a path without a slash": b"POST fuzzer HTTP/1.1",
    "no path": b"POST  HTTP/1.1",
    "an asterisk": b"POST * HTTP/1.1",
    "a tunnel": b"CONNECT evil.example:443 HTTP/1.1",
    "the preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM",
    "a greeting of TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(32)),
    "noise": bytes(range(128, 256)) * 10,
    "empty lines": b"\r\n\r\n\r\n",
}
TOLERATED_LINES = {
    "no version": b"POST /api/fuzzer/tasks",
    "two spaces": b"POST  /api/fuzzer/tasks HTTP/1.1",
    "a path with a fragment": b"POST /api/fuzzer/tasks#x/../ HTTP/1.1",
}


@pytest.mark.parametrize("line", INVALID_LINES.values(), ids=INVALID_LINES)
def test_request_line_that_is_invalid_is_refused(replica: Replica, token: str, line: bytes) -> None:
    before = count_tasks(replica, token)
    answers = statuses_of(replica, request(replica, token, LENGTH, body=BODY, line=line))

    assert all(400 <= status < 500 for status in answers)
    assert count_tasks(replica, token) == before


@pytest.mark.parametrize("line", TOLERATED_LINES.values(), ids=TOLERATED_LINES)
def test_request_line_with_a_tolerated_deviation_is_one_request(replica: Replica, token: str, line: bytes) -> None:
    """The meaning is unambiguous, so the parser accepts it."""
    assert statuses_of(replica, request(replica, token, LENGTH, CLOSE, body=BODY, line=line), TIMEOUT_S) == [201]


def test_headers_over_the_size_limit_are_refused(replica: Replica, token: str) -> None:
    """Very many headers, and a very long one."""
    for lines in ([b"X-%d: %s" % (number, b"x" * 100) for number in range(20_000)], [b"X: " + b"x" * 2_000_000]):
        answers = statuses_of(replica, request(replica, token, *lines, b"Content-Length: 2", body=b"{}"))

        assert all(400 <= status < 500 for status in answers)


def test_upgrade_and_expect_headers_are_ignored(replica: Replica, token: str) -> None:
    """The response is that of the request without them."""
    request_line = b"GET /api/fuzzer/tasks HTTP/1.1"
    for lines in ([b"Connection: Upgrade, close", b"Upgrade: websocket"], [b"Upgrade: h2c", CLOSE]):
        assert statuses_of(replica, request(replica, token, *lines, line=request_line), TIMEOUT_S) == [200]
    for line in (b"Expect: 200-maybe", b"Expect: 100-continue"):
        added = request(replica, token, line, CLOSE, b"Content-Length: 2", body=b"{}")
        assert statuses_of(replica, added, TIMEOUT_S)[-1] == 422


def test_service_works_after_all_malformed_requests(replica: Replica, token: str) -> None:
    """The log contains no error."""
    added = replica.request("POST", f"/api/{USER}/tasks", token, json={"title": "Buy milk"})

    assert added.status_code == 201
    assert '"level":"error"' not in replica.log_text
