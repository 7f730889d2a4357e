"""The service as it is composed, where the CLI that it starts does not find the way back to it."""

from datetime import timedelta

import httpx2
import pytest

from latchkey.bootstrap.composition import create_asgi
from latchkey.bootstrap.identity import create_signer
from latchkey.domain.credentials import UserId
from tests.e2e.claude_service import MESSAGE, claude_settings
from tests.fakes.model_script import says
from tests.fakes.model_server import model_server
from tests.integration.http.service import Person, alive, settings_for
from tests.process_supervision import free_port

HOUR = timedelta(hours=1)


@pytest.mark.parametrize("makes_file", [True, False])
async def test_a_turn_fails_whose_tools_nobody_serves(sqlite_url: str, *, makes_file: bool) -> None:
    """Before the model is asked: it would answer without them, and call that a success."""
    async with model_server() as model:
        model.script.append(says("Never said."))
        settings = settings_for(sqlite_url, **claude_settings(model), LATCHKEY_AGENT="claude")
        asgi = create_asgi(settings, "127.0.0.1", free_port())
        transport = httpx2.ASGITransport(app=asgi)  # type: ignore[arg-type]  # Litestar's word for the same thing
        async with alive(asgi), httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            ada = Person("ada", create_signer(settings).sign(UserId("ada"), HOUR), client)
            failed = await ada.post("chat", json={"message": MESSAGE, "artifact_generation": makes_file})
            problem = failed.json()
            turn = (await ada.get(f"turns/{problem['turn_id']}")).json()
            messages = await ada.items(f"conversations/{problem['conversation_id']}/messages")

    assert (failed.status_code, problem["code"]) == (503, "tools-unavailable")
    assert (turn["status"], turn["error"]["code"]) == ("failed", "tools-unavailable")
    assert [message["content"] for message in messages] == [MESSAGE]
    assert model.requests == []
