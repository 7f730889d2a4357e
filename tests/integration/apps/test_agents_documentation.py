"""The example in docs/agents.md is an app whose agent runs turns."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.service import run_service, settings_for

pytestmark = pytest.mark.asyncio(loop_scope="session")

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs/agents.md"
EXAMPLE = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
ASSISTANT = """
[assistant.counting]
agent = "counter"
"""
ADAPTER = re.compile(r"^```python adapter\n(.*?)^```$", re.MULTILINE | re.DOTALL)
AGENT = """
from latchkey.infrastructure.agents.openai.agent import OpenAIAgent


class ShopAgent(OpenAIAgent):
    name = "shop"
"""


@pytest.fixture
def app_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (code,) = EXAMPLE.findall(PAGE.read_text())
    (tmp_path / "documented_agent.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("app_folder")
async def test_agent_of_an_app_answers_the_turns_of_the_service(shared_sqlite_url: str) -> None:
    settings = settings_for(shared_sqlite_url, LATCHKEY_APP="documented_agent:app", LATCHKEY_AGENT="counter")
    async with run_service(settings) as service:
        ada = service.user()
        await ada.create("tasks", title="Buy a bell")
        answer = await ada.chat("How many?")
        turn = (await ada.get(f"turns/{answer['turn_id']}")).json()

    assert answer["response"] == "Open tasks: 1."
    assert answer["agent"] == turn["agent"] == "counter"
    assert [(call["name"], call["arguments"]) for call in answer["tool_calls"]] == [
        ("list_tasks", {"status": "pending"})
    ]


async def test_agent_of_an_app_answers_the_turns_of_its_assistant(shared_sqlite_url: str, app_folder: Path) -> None:
    (app_folder / "assistants.toml").write_text(ASSISTANT)
    settings = settings_for(
        shared_sqlite_url,
        LATCHKEY_APP="documented_agent:app",
        LATCHKEY_ASSISTANTS=str(app_folder / "assistants.toml"),
    )
    async with run_service(settings) as service:
        ada = service.user()
        counted = await ada.chat("How many?", assistant="counting")
        rehearsed = await ada.chat("How many?")

    assert counted["response"] == "Open tasks: 0."
    assert rehearsed["response"].startswith("[rehearsal]")


async def test_agent_of_an_app_waits_for_approval_and_continues(shared_sqlite_url: str, app_folder: Path) -> None:
    (app_folder / "assistants.toml").write_text(f'{ASSISTANT}approve = ["list_tasks"]\n')
    settings = settings_for(
        shared_sqlite_url,
        LATCHKEY_APP="documented_agent:app",
        LATCHKEY_ASSISTANTS=str(app_folder / "assistants.toml"),
    )
    responses = []
    async with run_service(settings) as service:
        ada = service.user()
        await ada.create("tasks", title="Buy a bell")
        for decision in ("approve", "decline"):
            waiting = await ada.post("chat", json={"message": "How many?", "assistant": "counting"})
            (approval,) = waiting.json()["approvals"]
            path = f"turns/{waiting.json()['turn_id']}/approvals/{approval['id']}"
            events = await ada.post(path, json={"decision": decision}, headers={"accept": "text/event-stream"})
            responses.append((waiting.status_code, "Open tasks: 1." in events.text, "turn.completed" in events.text))

    assert responses == [(202, True, True), (202, False, True)]


async def test_contract_tests_run_an_agent_that_is_not_in_the_repository(tmp_path: Path) -> None:
    (code,) = ADAPTER.findall(PAGE.read_text())
    (tmp_path / "my_adapter.py").write_text(code)
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop/agent.py").write_text(AGENT)
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "my_adapter", "-p", "no:cacheprovider"]
    command += ["tests/contract/agents/test_answers.py", "-k", "shop and concatenation"]
    process = subprocess.run(  # noqa: ASYNC221 - nothing else runs in this loop
        command, cwd=ROOT, env={"PYTHONPATH": f"{tmp_path}:{ROOT}"}, capture_output=True, text=True, check=False
    )

    assert "1 passed" in process.stdout, process.stdout + process.stderr
