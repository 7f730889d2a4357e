"""What somebody sees who has just got it: one command, and one line to paste."""

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
    """Started in an empty folder, with nothing in the environment."""
    with running_service("--dev", home=home, environment={}, ready="curl -s") as replica:
        yield replica


@pytest.fixture(scope="module")
def token(dev: Replica) -> str:
    return match_line(dev.log_text, r"^TOKEN=(\S+)$")


@pytest.fixture(scope="module")
def answer(dev: Replica) -> dict[str, Any]:
    """What the printed line answers when it is pasted into a shell."""
    pasted = match_line(dev.log_text, r"^(curl .*)$")
    done = subprocess.run(["bash", "-c", pasted], check=True, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_it_says_where_it_is_and_who_you_are(dev: Replica, token: str) -> None:
    assert match_line(dev.log_text, r"^Latchkey is at (\S+)$") == dev.url
    assert dev.request("GET", "/api/me/tasks", token).status_code == 200
    assert token in match_line(dev.log_text, r"^(curl .*)$")


def test_the_pasted_line_is_answered_by_a_turn_that_made_a_task(
    dev: Replica, token: str, answer: dict[str, Any]
) -> None:
    (call,) = answer["tool_calls"]
    tasks = dev.request("GET", "/api/me/tasks", token).json()["items"]

    assert answer["response"].startswith("[rehearsal]")
    assert (call["name"], call["is_error"]) == ("add_task", False)
    assert tasks == [call["result"]]


async def test_an_mcp_client_sees_the_same_task(dev: Replica, token: str, answer: dict[str, Any]) -> None:
    authorization = {"authorization": f"Bearer {token}"}
    async with (
        httpx2.AsyncClient(headers=authorization) as http,
        mcp.Client(streamable_http_client(f"{dev.url}/mcp", http_client=http)) as client,
    ):
        listed = await client.call_tool("list_tasks", {})

    assert listed.structured_content is not None
    assert listed.structured_content["items"] == [answer["tool_calls"][0]["result"]]


def test_somebody_else_sees_nothing_of_it(home: Path, dev: Replica, answer: dict[str, Any]) -> None:
    """And cannot find out that it exists: what is another's is answered like what is not there."""
    stranger = issue_token("stranger", home, {})
    things = [f"turns/{answer['turn_id']}", f"conversations/{answer['conversation_id']}"]

    assert dev.request("GET", "/api/stranger/tasks", stranger).json()["items"] == []
    assert [dev.request("GET", f"/api/stranger/{thing}", stranger).status_code for thing in things] == [404, 404]
    assert [dev.request("GET", f"/api/{user}/tasks", stranger).status_code for user in ("me", "nobody")] == [403, 403]


def test_what_it_keeps_is_below_var_and_the_key_is_for_its_owner_alone(home: Path, dev: Replica) -> None:
    key = home / "var" / "signing.key"

    assert [path.name for path in home.iterdir()] == ["var"]
    assert (home / "var" / "latchkey.db").exists()
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert key.read_text() not in dev.log_text


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
def test_it_is_for_this_machine_alone(tmp_path: Path, host: str) -> None:
    """Its key and its agent are not for others."""
    home = tmp_path / "home"
    home.mkdir()
    refused = run_command("serve", "--dev", "--host", host, home=home, environment={})

    assert refused.exit_code == 2
    assert "loopback" in refused.stderr
    assert list(home.iterdir()) == []
