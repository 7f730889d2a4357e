"""`latchkey doctor` tries the model server with the key."""

import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from latchkey.bootstrap.agents import OPENAI_API_AGENTS
from latchkey.testing.processes import free_port
from tests.e2e.service_process import BASE_SETTINGS, run_command

KEY = "sk-very-secret"


@contextmanager
def models_endpoint(status: int, body: bytes = b"") -> Iterator[tuple[str, list[tuple[str, str | None]]]]:
    """A server that answers each GET with the status. Yields its base URL and the paths and keys that it received."""
    received: list[tuple[str, str | None]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            received.append((self.path, self.headers["authorization"]))
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Write no log."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/v1/", received
        finally:
            server.shutdown()
            thread.join()


def examine(home: Path, sqlite_url: str, base_url: str, agent: str = "openai") -> str:
    """The line about the model server. It stops no service."""
    model = {"LATCHKEY_AGENT": agent, "LATCHKEY_MODEL": "x", "OPENAI_BASE_URL": base_url, "OPENAI_API_KEY": KEY}
    environment = {**BASE_SETTINGS, "LATCHKEY_DATABASE_URL": sqlite_url, **model}
    result = run_command("doctor", home=home, environment=environment)
    assert result.exit_code == 0, result.stdout + result.stderr
    assert KEY not in result.stdout + result.stderr
    [line] = [line for line in result.stdout.splitlines() if "model server" in line]
    return line


@pytest.mark.parametrize("agent", OPENAI_API_AGENTS)
def test_doctor_requests_the_models_of_every_agent_that_uses_the_server(
    home: Path, sqlite_url: str, agent: str
) -> None:
    with models_endpoint(200) as (base_url, received):
        assert examine(home, sqlite_url, base_url, agent) == "ok   model server: is reachable, and accepts the key"
    assert received == [("/v1/models", f"Bearer {KEY}")]


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (200, "ok   model server: is reachable, and accepts the key"),
        (401, "note model server: refuses the key (status 401): check OPENAI_API_KEY"),
        (404, "ok   model server: not tried: it is reachable and has no list of models"),
        (500, "note model server: answers the request for its models with status 500"),
    ],
)
def test_doctor_requests_the_models_with_the_key(home: Path, sqlite_url: str, status: int, expected: str) -> None:
    with models_endpoint(status) as (base_url, received):
        assert examine(home, sqlite_url, base_url) == expected
    assert received == [("/v1/models", f"Bearer {KEY}")]


def test_doctor_notes_unreachable_model_server(home: Path, sqlite_url: str) -> None:
    line = examine(home, sqlite_url, f"http://127.0.0.1:{free_port()}/v1")
    assert line == "note model server: cannot be reached: All connection attempts failed: check OPENAI_BASE_URL"


def test_doctor_notes_model_server_whose_host_is_unknown(home: Path, sqlite_url: str) -> None:
    line = examine(home, sqlite_url, "http://no-such-host.invalid/v1")
    assert re.fullmatch("note model server: cannot be reached: .*: check OPENAI_BASE_URL", line)
    assert "ConnectError" not in line


def test_doctor_notes_model_server_that_answers_with_a_web_page(home: Path, sqlite_url: str) -> None:
    """As a server does whose base URL lacks its path."""
    with models_endpoint(200, b"\n<!doctype html><title>Welcome</title>") as (base_url, _):
        line = examine(home, sqlite_url, base_url)
    assert line == "note model server: answers with a web page: check OPENAI_BASE_URL"


def test_doctor_notes_model_server_timeout(home: Path, sqlite_url: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        line = examine(home, sqlite_url, f"http://127.0.0.1:{silent.getsockname()[1]}/v1")
    assert line == "note model server: does not answer within 5 seconds"


def test_doctor_explains_that_a_base_url_alone_selects_no_agent(tmp_path: Path, sqlite_url: str) -> None:
    settings = {name: value for name, value in BASE_SETTINGS.items() if name != "LATCHKEY_AGENT"}
    environment = {**settings, "LATCHKEY_DATABASE_URL": sqlite_url, "OPENAI_BASE_URL": "http://127.0.0.1:9/v1"}
    result = run_command("doctor", home=tmp_path, environment=environment)

    assert "note model server: OPENAI_BASE_URL alone selects no agent, so no agent is used" in result.stdout
