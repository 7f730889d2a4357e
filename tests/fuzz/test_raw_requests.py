"""What no HTTP client would send, from a socket to the program as it is started: refused, and nobody's next request."""

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

PATIENCE_S = 20.0
QUIET_S = 0.3
CLOSE = b"Connection: close"
REFUSED = {errno.ECONNRESET, errno.EPIPE, errno.ENOTCONN}
"""In the middle of a request: the connection is gone."""
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


def said(replica: Replica, request: bytes, quiet: float = QUIET_S) -> list[int]:
    """The status of each answer to those bytes; where there is none for so long, the client says that it is done."""
    address = urlsplit(replica.url)
    with socket.create_connection((address.hostname or "", address.port or 0), timeout=quiet) as connection:
        received = b""
        try:
            connection.sendall(request)
            while part := _heard(connection):
                received += part
        except OSError as broken:
            if broken.errno not in REFUSED:
                raise
    return [int(status) for status in re.findall(rb"HTTP/1\.[01] (\d{3}) ", received)]


def _heard(connection: socket.socket) -> bytes:
    try:
        return connection.recv(65536)
    except TimeoutError:
        connection.settimeout(PATIENCE_S)
        connection.shutdown(socket.SHUT_WR)
        return connection.recv(65536)


def tasks(replica: Replica, token: str) -> int:
    """How many are stored."""
    return len(replica.request("GET", f"/api/{USER}/tasks?limit=200", token).json()["items"])


def request(replica: Replica, token: str, *lines: bytes, body: bytes = b"", line: bytes = b"") -> bytes:
    """One that adds a task, but for the lines and the body, which are as they are given."""
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

MISLEADING = {
    "a length and chunks": ([LENGTH, CHUNKED], CHUNKS),
    "chunks and a length": ([CHUNKED, b"Content-Length: 4"], b"0\r\n\r\n" + NEXT),
    "two lengths": ([LENGTH, b"Content-Length: 3"], BODY),
    "two lengths in one": ([b"Content-Length: 21, 3"], BODY),
    "a length with a sign": ([b"Content-Length: +21"], BODY),
    "a negative length": ([b"Content-Length: -1"], BODY),
    "a length in hexadecimal": ([b"Content-Length: 0x15"], BODY),
    "a length that is none": ([b"Content-Length: x"], BODY),
    "an empty length": ([b"Content-Length:"], BODY),
    "a length beyond all bounds": ([b"Content-Length: 99999999999999999999999"], BODY),
    "a length that is not reached": ([b"Content-Length: 1000"], BODY),
    "no length at all": ([], BODY),
    "chunks of no size": ([CHUNKED], b"zz\r\n" + BODY),
    "chunks of a negative size": ([CHUNKED], b"-15\r\n" + BODY + b"\r\n0\r\n\r\n"),
    "chunks of a size beyond all bounds": ([CHUNKED], b"ffffffffffffffff15\r\n" + BODY),
    "chunks that break off": ([CHUNKED], b"15\r\n" + BODY[:5]),
    "chunks longer than they say": ([CHUNKED], b"5\r\n" + BODY + b"\r\n0\r\n\r\n"),
    "an encoding that nobody knows": ([b"Transfer-Encoding: xchunked"], CHUNKS),
    "chunks that are not the last": ([b"Transfer-Encoding: chunked, identity"], CHUNKS),
    "a space before the colon": ([b"Transfer-Encoding : chunked"], CHUNKS),
    "a line that goes on": ([b"X-A: 1", b" Content-Length: 21"], BODY),
    "a line without a colon": ([LENGTH, b"nonsense"], BODY),
    "a line without a name": ([LENGTH, b": x"], BODY),
    "NUL in a header": ([LENGTH, b"X-A: a\x00b"], BODY),
    "CR in a header": ([LENGTH, b"X-A: a\rX-B: b"], BODY),
    "NUL in a name": ([LENGTH, b"X\x00A: b"], BODY),
    "a name in another script": ([LENGTH, "X-é: b".encode()], BODY),
    "another host beside": ([LENGTH, b"Host: evil.example"], BODY),
}


@pytest.mark.parametrize(("lines", "body"), MISLEADING.values(), ids=MISLEADING)
def test_a_request_that_readers_would_read_differently(
    replica: Replica, token: str, lines: list[bytes], body: bytes
) -> None:
    """It is refused or left unanswered, what follows it is not taken for another request, and nothing is stored."""
    before = tasks(replica, token)
    answers = said(replica, request(replica, token, *lines, body=body))

    assert len(answers) <= 1
    assert all(400 <= status < 500 for status in answers)
    assert tasks(replica, token) == before


LINES = {
    "a version to come": b"POST /api/fuzzer/tasks HTTP/9.9",
    "a version of another protocol": b"POST /api/fuzzer/tasks HTTQ/1.1",
    "a method in small letters": b"post /api/fuzzer/tasks HTTP/1.1",
    "a method that nobody knows": b"BREW /api/fuzzer/tasks HTTP/1.1",
    "a space in the path": b"POST /api/fuzzer/tasks x HTTP/1.1",
    "a path that does not end": b"POST /" + b"a" * 100_000 + b" HTTP/1.1",
    "a path out of the root": b"POST /../../api/fuzzer/tasks HTTP/1.1",
    "a path with NUL": b"POST /api/fuzzer/tasks\x00 HTTP/1.1",
    "a path with raw bytes": b"POST /api/fuzzer/tasks\xff\xfe HTTP/1.1",
    "a path that is none": b"POST fuzzer HTTP/1.1",
    "no path": b"POST  HTTP/1.1",
    "an asterisk": b"POST * HTTP/1.1",
    "a tunnel": b"CONNECT evil.example:443 HTTP/1.1",
    "the preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM",
    "a greeting of TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(32)),
    "noise": bytes(range(128, 256)) * 10,
    "nothing": b"\r\n\r\n\r\n",
}
LENIENT = {
    "no version": b"POST /api/fuzzer/tasks",
    "two spaces": b"POST  /api/fuzzer/tasks HTTP/1.1",
    "a path with a fragment": b"POST /api/fuzzer/tasks#x/../ HTTP/1.1",
}


@pytest.mark.parametrize("line", LINES.values(), ids=LINES)
def test_a_request_line_that_is_none(replica: Replica, token: str, line: bytes) -> None:
    before = tasks(replica, token)
    answers = said(replica, request(replica, token, LENGTH, body=BODY, line=line))

    assert all(400 <= status < 500 for status in answers)
    assert tasks(replica, token) == before


@pytest.mark.parametrize("line", LENIENT.values(), ids=LENIENT)
def test_a_request_line_that_can_only_mean_one_thing(replica: Replica, token: str, line: bytes) -> None:
    """The parser takes it for what it must mean, and for one request."""
    assert said(replica, request(replica, token, LENGTH, CLOSE, body=BODY, line=line), PATIENCE_S) == [201]


def test_headers_without_end(replica: Replica, token: str) -> None:
    """Many of them, and one that is very long."""
    for lines in ([b"X-%d: %s" % (number, b"x" * 100) for number in range(20_000)], [b"X: " + b"x" * 2_000_000]):
        answers = said(replica, request(replica, token, *lines, b"Content-Length: 2", body=b"{}"))

        assert all(400 <= status < 500 for status in answers)


def test_what_is_expected_or_offered_beside_is_no_matter(replica: Replica, token: str) -> None:
    """A protocol to change to, an expectation that nobody knows: the answer is that of the request."""
    asked = b"GET /api/fuzzer/tasks HTTP/1.1"
    for lines in ([b"Connection: Upgrade, close", b"Upgrade: websocket"], [b"Upgrade: h2c", CLOSE]):
        assert said(replica, request(replica, token, *lines, line=asked), PATIENCE_S) == [200]
    for line in (b"Expect: 200-maybe", b"Expect: 100-continue"):
        added = request(replica, token, line, CLOSE, b"Content-Length: 2", body=b"{}")
        assert said(replica, added, PATIENCE_S)[-1] == 422


def test_the_service_goes_on(replica: Replica, token: str) -> None:
    """And has made no mistake in all this that it knows of."""
    added = replica.request("POST", f"/api/{USER}/tasks", token, json={"title": "Buy milk"})

    assert added.status_code == 201
    assert '"level":"error"' not in replica.log_text
