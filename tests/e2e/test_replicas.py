"""Two replicas with one database behave like one service."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.service_process import BASE_SETTINGS, Replica, issue_token, run_command, running_service

CALL = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "list_tasks", "arguments": {}}}
HEADERS = {"accept": "application/json, text/event-stream", "mcp-protocol-version": "2025-11-25"}


@pytest.fixture
def replicas(home: Path, postgresql_url: str) -> Iterator[tuple[Replica, Replica]]:
    environment = {**BASE_SETTINGS, "LATCHKEY_DATABASE_URL": postgresql_url}
    with (
        running_service(home=home, environment=environment) as one,
        running_service(home=home, environment=environment) as other,
    ):
        yield one, other


def call(replica: Replica, bearer: str) -> tuple[int, Any]:
    """Call `list_tasks` over MCP without a session, which the replicas could not share."""
    answer = replica.request("POST", "/mcp", bearer, json=CALL, headers=HEADERS)
    return answer.status_code, answer.json()


def test_token_works_on_all_replicas_until_revoked(home: Path, replicas: tuple[Replica, Replica]) -> None:
    one, other = replicas
    ada = issue_token("ada", home, BASE_SETTINGS)
    minted = one.request("POST", "/api/ada/context-tokens", ada, json={"grants": ["tasks:read"]}).json()
    before = [call(replica, minted["token"])[0] for replica in replicas]
    other.request("DELETE", f"/api/ada/context-tokens/{minted['id']}", ada)
    after = [call(replica, minted["token"])[0] for replica in replicas]

    assert before == [200, 200]
    assert after == [401, 401]


def test_conversation_continues_on_another_replica(home: Path, replicas: tuple[Replica, Replica]) -> None:
    one, other = replicas
    ada = issue_token("ada", home, BASE_SETTINGS)
    first = one.request("POST", "/api/ada/chat", ada, json={"message": '/add_task {"title": "Buy milk"}'}).json()
    body = {"message": "/list_tasks", "conversation_id": first["conversation_id"]}
    second = other.request("POST", "/api/ada/chat", ada, json=body).json()

    assert second["message"]["seq"] == 4
    assert second["tool_calls"][0]["result"]["items"] == [first["tool_calls"][0]["result"]]


def test_concurrent_turns_on_two_replicas_number_messages_without_gaps(
    home: Path, replicas: tuple[Replica, Replica]
) -> None:
    ada = issue_token("ada", home, BASE_SETTINGS)
    conversation = replicas[0].request("POST", "/api/ada/conversations", ada, json={}).json()["id"]

    def send(number: int) -> int:
        body = {"message": f"number {number}", "conversation_id": conversation}
        return replicas[number % 2].request("POST", "/api/ada/chat", ada, json=body).status_code

    with ThreadPoolExecutor(8) as executor:
        codes = list(executor.map(send, range(24)))
    listing = f"/api/ada/conversations/{conversation}/messages?limit=200"
    messages = replicas[1].request("GET", listing, ada).json()["items"]

    assert set(codes) <= {200, 409}
    assert [message["seq"] for message in messages] == list(range(1, 2 * codes.count(200) + 1))
    assert [message["role"] for message in messages] == ["user", "assistant"] * codes.count(200)


def test_concurrent_migrate_runs_once(home: Path, empty_postgresql_url: str) -> None:
    environment = {**BASE_SETTINGS, "LATCHKEY_DATABASE_URL": empty_postgresql_url}
    with ThreadPoolExecutor(4) as executor:
        results = list(executor.map(lambda _: run_command("migrate", home=home, environment=environment), range(4)))

    assert [(one.exit_code, one.stderr) for one in results if one.exit_code] == []
    assert run_command("doctor", home=home, environment=environment).exit_code == 0


def children_of(pid: int | None) -> list[str]:
    """The ids of the processes that the main thread of a process has started."""
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def command_lines(pids: list[str]) -> list[str]:
    """As `ps -ef` shows them."""
    return [Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").decode() for pid in pids]


def test_two_workers_share_one_port(home: Path, postgresql_url: str) -> None:
    environment = {**BASE_SETTINGS, "LATCHKEY_DATABASE_URL": postgresql_url}
    ada = issue_token("ada", home, BASE_SETTINGS)
    with running_service("--workers", "2", home=home, environment=environment) as replica:
        statuses = [
            replica.request("POST", "/api/ada/tasks", ada, json={"title": f"{n}"}).status_code for n in range(10)
        ]
        tasks = replica.request("GET", "/api/ada/tasks", ada).json()["items"]
        workers = [line for line in command_lines(children_of(replica.process.pid)) if line.startswith("latchkey: ")]
        replica.process.terminate()
        replica.process.join(30)
        code = replica.process.exitcode

    assert statuses == [201] * 10
    assert len(tasks) == 10
    assert sorted(line[-1] for line in workers) == ["1", "2"]
    assert code == 0
