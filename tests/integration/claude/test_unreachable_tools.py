"""The composed service, if the CLI cannot reach the service's MCP endpoint."""

import pytest

from latchkey.testing.processes import free_port
from tests.e2e.claude_service import MESSAGE, claude_settings
from tests.fakes.model_script import says
from tests.fakes.model_server import model_server
from tests.support.service import run_service, settings_for


@pytest.mark.parametrize("makes_file", [True, False])
async def test_turn_fails_before_any_model_request_if_tools_are_unreachable(
    sqlite_url: str, *, makes_file: bool
) -> None:
    """Without tools, the CLI would answer and report success."""
    async with model_server() as model:
        model.script.append(says("Never sent."))
        settings = settings_for(sqlite_url, **claude_settings(model), LATCHKEY_AGENT="claude")
        async with run_service(settings, port=free_port()) as service:
            ada = service.user()
            failed = await ada.post("chat", json={"message": MESSAGE, "artifact_generation": makes_file})
            problem = failed.json()
            turn = (await ada.get(f"turns/{problem['turn_id']}")).json()
            messages = await ada.list_items(f"conversations/{problem['conversation_id']}/messages")

    assert (failed.status_code, problem["code"]) == (503, "tools-unavailable")
    assert (turn["status"], turn["error"]["code"]) == ("failed", "tools-unavailable")
    assert [message["content"] for message in messages] == [MESSAGE]
    assert model.requests == []
