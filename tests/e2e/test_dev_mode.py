"""`latchkey serve --dev`: the first experience of a new user, with one command and one printed curl command."""

import json
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import mcp
import pytest
from mcp.client.streamable_http import streamable_http_client

from tests.e2e.service_process import Replica, issue_token, match_line, run_command, running_service


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("first-look") / "home"
    home.mkdir()
    return home


@pytest.fixture(scope="module")
def dev(home: Path) -> Iterator[Replica]:
    """Started in an empty folder with an empty environment."""
    with running_service("--dev", home=home, environment={}, ready="curl -s") as replica:
        yield replica


@pytest.fixture(scope="module")
def token(dev: Replica) -> str:
    return match_line(dev.log_text, r"^TOKEN=(\S+)$")


@pytest.fixture(scope="module")
def answer(dev: Replica) -> dict[str, Any]:
    """The response to the printed curl command."""
    command = match_line(dev.log_text, r"^(curl .*)$")
    result = subprocess.run(["bash", "-c", command], check=True, capture_output=True, text=True)
    body: dict[str, Any] = json.loads(result.stdout)
    return body


def test_dev_mode_prints_url_and_token(dev: Replica, token: str) -> None:
    assert match_line(dev.log_text, r"^Latchkey is at (\S+)$") == dev.url
    assert dev.request("GET", "/api/me/tasks", token).status_code == 200
    assert token in match_line(dev.log_text, r"^(curl .*)$")


def test_dev_mode_page_at_the_printed_url_is_signed_in(dev: Replica) -> None:
    """The request is that of a browser, and the system lists the owner of its connection."""
    page = dev.request("GET", "/", headers={"accept": "text/html,*/*;q=0.8", "sec-fetch-mode": "navigate"})
    token = match_line(page.text, r'<meta name="latchkey-token" content="(.+)"')

    assert "Open this address in a browser" in dev.log_text
    assert dev.request("GET", "/api/me/tasks", token).status_code == 200


def test_dev_mode_explains_that_a_base_url_alone_selects_no_agent(tmp_path: Path) -> None:
    environment = {"OPENAI_BASE_URL": "http://127.0.0.1:9/v1"}
    with running_service("--dev", home=tmp_path, environment=environment, ready="curl -s") as replica:
        line = match_line(replica.log_text, r"^(OPENAI_BASE_URL .*)$")

    assert "the rehearsal agent is used: set LATCHKEY_AGENT=openai" in line


def test_dev_mode_printed_curl_command_creates_a_task(dev: Replica, token: str, answer: dict[str, Any]) -> None:
    (call,) = answer["tool_calls"]
    tasks = dev.request("GET", "/api/me/tasks", token).json()["items"]

    assert answer["response"].startswith("[rehearsal]")
    assert (call["name"], call["is_error"]) == ("add_task", False)
    assert tasks == [call["result"]]


async def test_dev_mode_mcp_client_lists_the_task(dev: Replica, token: str, answer: dict[str, Any]) -> None:
    authorization = {"authorization": f"Bearer {token}"}
    async with (
        httpx2.AsyncClient(headers=authorization) as http,
        mcp.Client(streamable_http_client(f"{dev.url}/mcp", http_client=http)) as client,
    ):
        listed = await client.call_tool("list_tasks", {})

    assert listed.structured_content is not None
    assert listed.structured_content["items"] == [answer["tool_calls"][0]["result"]]


def test_dev_mode_other_user_sees_no_data(home: Path, dev: Replica, answer: dict[str, Any]) -> None:
    """The other user cannot find out that the data exist: a foreign id is answered like an absent one.

    The data belong to a user whose id is `me`. For another user, that path is their own.
    """
    stranger = issue_token("stranger", home, {})
    things = [f"turns/{answer['turn_id']}", f"conversations/{answer['conversation_id']}"]

    for path in ("stranger", "me"):
        assert dev.request("GET", f"/api/{path}/tasks", stranger).json()["items"] == []
        assert [dev.request("GET", f"/api/{path}/{thing}", stranger).status_code for thing in things] == [404, 404]
    assert dev.request("GET", "/api/nobody/tasks", stranger).status_code == 403


def test_dev_mode_files_are_below_var_and_key_is_private(home: Path, dev: Replica) -> None:
    key = home / "var" / "signing.key"

    assert [path.name for path in home.iterdir()] == ["var"]
    assert (home / "var" / "latchkey.db").exists()
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert key.read_text() not in dev.log_text


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
def test_dev_mode_refuses_non_loopback_host(tmp_path: Path, host: str) -> None:
    """Its signing key and its agent are not meant for other machines."""
    home = tmp_path / "home"
    home.mkdir()
    refused = run_command("serve", "--dev", "--host", host, home=home, environment={})

    assert refused.exit_code == 2
    assert "loopback" in refused.stderr
    assert list(home.iterdir()) == []
