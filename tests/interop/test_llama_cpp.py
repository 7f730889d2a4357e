"""The OpenAI agent works with a real llama.cpp, which runs a tiny model that `programs/make_model.py` makes."""

import subprocess
from collections.abc import Iterator

import httpx2
import pytest

from latchkey.testing.processes import Account, free_port, supervised
from tests.e2e.service_process import BASE_SETTINGS, running_service
from tests.interop.check_counter import Checks
from tests.interop.conftest import FOLDER
from tests.interop.service import InteropService, InteropUser
from tests.support.event_stream import ServerSentEvent

LLAMA = FOLDER.parents[1] / ".venv/llama"
SERVER = LLAMA / "build/bin/llama-server"
CONTEXT_TOKENS = 16384
"""The context window. About 10,000 of these are the tools and instructions: most characters are a token."""
MAX_ANSWER_TOKENS = 200
LONG_MESSAGE = "x" * 4_000
TOO_LONG_MESSAGE = "x" * 20_000

pytestmark = pytest.mark.skipif(not SERVER.exists(), reason="llama.cpp is not built: run `make llama`")


@pytest.fixture(scope="module")
def llama_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The base URL of llama.cpp."""
    folder = tmp_path_factory.mktemp("llama")
    model, log, port = folder / "model.gguf", folder.parent / "llama.log", free_port()
    subprocess.run([LLAMA / "bin/python", FOLDER / "programs/make_model.py", model], check=True)
    command = [str(SERVER), "--model", str(model), "--host", "127.0.0.1", "--port", str(port), "--threads", "1"]
    command += ["--ctx-size", str(CONTEXT_TOKENS), "--parallel", "1", "--predict", str(MAX_ANSWER_TOKENS)]
    with supervised(command, folder, log, ready=" listening on ", signal="KILL", account=Account()):
        yield f"http://127.0.0.1:{port}/v1"


@pytest.fixture(scope="module", params=["chat_completions", "responses"])
def user(
    request: pytest.FixtureRequest, llama_server: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[InteropUser]:
    """A user of a service whose model server is llama.cpp."""
    home = tmp_path_factory.mktemp("service") / "home"
    home.mkdir()
    environment = {
        **BASE_SETTINGS,
        "LATCHKEY_AGENT": "openai",
        "LATCHKEY_DATABASE_URL": f"sqlite+aiosqlite:///{home / 'latchkey.db'}",
        "LATCHKEY_MODEL": "tiny",
        "LATCHKEY_OPENAI_API": request.param,
        "OPENAI_API_KEY": "unused",
        "OPENAI_BASE_URL": llama_server,
    }
    with running_service("--migrate", home=home, environment=environment) as replica:
        yield InteropService(replica, home, environment).new_user()


def test_answer_of_llama_cpp_is_streamed(user: InteropUser, checks: Checks) -> None:
    events = stream(user, "Hello")

    texts = [event.data["text"] for event in events if event.name == "message.delta"]
    assert "".join(texts) == "Hello from llama.cpp 🥛"
    assert events[-1].name == "turn.completed"
    assert events[-1].data["usage"]["output_tokens"] > 0
    checks.passed("llama.cpp")


def test_tool_call_of_llama_cpp_has_one_effect(user: InteropUser, checks: Checks) -> None:
    """And the next request, with the call in its history, is one that llama.cpp accepts."""
    answer = chat(user, "Add a task").json()
    following = chat(user, "Hello", conversation_id=answer["conversation_id"]).json()

    assert answer["response"] == "It is on your list."
    assert [(call["name"], call["arguments"]) for call in answer["tool_calls"]] == [("add_task", {"title": "Buy milk"})]
    assert [title for title, _, _ in user.tasks] == ["Buy milk"]
    assert following["response"] == "Hello from llama.cpp 🥛"
    checks.passed("llama.cpp")


@pytest.mark.parametrize("user", ["chat_completions"], indirect=True)
def test_answer_of_llama_cpp_that_is_cut_off_is_not_completed(user: InteropUser, checks: Checks) -> None:
    """The model never ends its answer, so llama.cpp stops it at the limit.

    In the Responses API, llama.cpp reports such an answer as completed, and nothing in it says otherwise.
    """
    events = stream(user, "Be endless")

    texts = [event.data["text"] for event in events if event.name == "message.delta"]
    assert "".join(texts).startswith("lalala")
    assert (events[-1].name, events[-1].data["code"]) == ("turn.failed", "model-bad-response")
    checks.passed("llama.cpp")


def test_message_longer_than_the_context_window_is_context_too_long(user: InteropUser, checks: Checks) -> None:
    response = chat(user, TOO_LONG_MESSAGE)

    assert (response.status_code, response.json()["code"]) == (502, "context-too-long")
    checks.passed("llama.cpp")


def test_history_longer_than_the_context_window_is_cut(user: InteropUser, checks: Checks) -> None:
    answer = chat(user, LONG_MESSAGE).json()
    following = [chat(user, LONG_MESSAGE, conversation_id=answer["conversation_id"]) for _ in range(3)]

    assert [response.status_code for response in following] == [200] * 3
    checks.passed("llama.cpp")


def chat(user: InteropUser, message: str, headers: dict[str, str] | None = None, **body: str) -> httpx2.Response:
    path, replica = f"/api/{user.user_id}/chat", user.service.replica
    return replica.request("POST", path, user.token, headers=headers or {}, json={"message": message, **body})


def stream(user: InteropUser, message: str) -> list[ServerSentEvent]:
    """The events of a turn, once it has ended."""
    response = chat(user, message, {"accept": "text/event-stream"})
    frames = response.content.split(b"\n\n")
    return [ServerSentEvent.parse(frame) for frame in frames if frame.startswith(b"id: ")]
