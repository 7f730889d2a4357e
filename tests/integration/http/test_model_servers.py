"""Chat turns with servers that answer in other ways than OpenAI's: the cases in `fakes/model_servers`."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from latchkey.infrastructure.agents.openai import chat_completions
from tests.fakes.model_script import says
from tests.fakes.model_server import ModelServer
from tests.fakes.model_server_cases import ServerCase, check_strictly, read_cases
from tests.support.service import Service, model_variables, run_service, settings_for

pytestmark = pytest.mark.asyncio(loop_scope="session")

CASES = read_cases()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def services(shared_sqlite_url: str, shared_model: ModelServer) -> AsyncIterator[dict[str, Service]]:
    """A service for each API of the model. What a server sends does not depend on the database."""
    variables = model_variables(shared_model)
    settings = settings_for(shared_sqlite_url, **variables, LATCHKEY_OPENAI_API="responses")
    others = settings_for(shared_sqlite_url, **variables, LATCHKEY_OPENAI_API="chat_completions")
    async with run_service(settings) as first, run_service(others) as second:
        yield {"responses": first, "chat_completions": second}


@pytest.fixture(autouse=True)
def short_end_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat_completions, "END_WAIT_S", 0.1)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_turn_with_unusual_model_server_adds_each_task_once_or_fails(
    case: ServerCase, services: dict[str, Service], model: ModelServer
) -> None:
    """An answer that broke off is never taken for whole, and the next request is one that a strict server accepts."""
    ada = services[case.api].user()
    model.script += case.replies
    answer = (await ada.post("chat", json={"message": "Add the tasks."})).json()
    titles = sorted(task["title"] for task in await ada.list_items("tasks"))
    model.script.clear()
    model.script.append(says("Next."))
    (conversation,) = await ada.list_items("conversations")
    following = await ada.chat("Go on.", conversation_id=conversation["id"])

    assert answer.get("code", "completed") in case.endings, answer
    assert titles == [f"quirk {number + 1}" for number in range(case.tasks)]
    if case.text is not None and "response" in answer:
        assert answer["response"] == case.text
    assert following["response"] == "Next."
    for request in model.requests:
        check_strictly(request)
