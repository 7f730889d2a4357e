"""Which agent the settings select, and loading it with its first turn."""

import asyncio
import sys
from collections.abc import AsyncGenerator
from contextlib import aclosing
from threading import Event
from typing import Any
from uuid import uuid4

import pytest
from msgspec.structs import replace

from latchkey.bootstrap.agents import Agents, LazyAgent, unused_model_server
from latchkey.config import ApiKey, ConfigurationError, Settings
from latchkey.domain.agent import AgentEvent, AgentRun, TextDelta
from latchkey.domain.credentials import Scope, TokenSecret, UserId
from latchkey.domain.turn import TurnId


class EchoAgent:
    """An agent that answers with the message of the user."""

    name = "echo"
    model = "parrot"
    is_closed = False

    async def run(self, agent_run: AgentRun) -> AsyncGenerator[AgentEvent, None]:
        yield TextDelta(agent_run.message)

    async def aclose(self) -> None:
        self.is_closed = True


class Loader:
    """Loads echo agents; the first `failures` attempts raise."""

    def __init__(self, failures: int = 0) -> None:
        self._failures = failures
        self.agents: list[EchoAgent] = []

    def load(self) -> EchoAgent:
        if self._failures:
            self._failures -= 1
            raise ImportError("no agent today")
        self.agents.append(EchoAgent())
        return self.agents[-1]


def agent_run(message: str) -> AgentRun:
    user_id = UserId("me")
    return AgentRun(
        turn_id=TurnId(uuid4()),
        instructions="Repeat.",
        history=[],
        message=message,
        secret=TokenSecret.mint(user_id),
        scope=Scope(user_id),
        max_steps=1,
    )


async def run(agent: LazyAgent, message: str) -> list[AgentEvent]:
    async with aclosing(agent.run(agent_run(message))) as events:
        return [event async for event in events]


def create_agents(settings: Settings) -> Agents:
    def connect(_secret: TokenSecret, _scope: Scope) -> Any:
        raise NotImplementedError

    return Agents(settings, connect, "http://127.0.0.1:8000/mcp")


def test_agents_selected_twice_by_name_are_one_agent() -> None:
    agents = create_agents(Settings(agent="rehearsal", file_agent="rehearsal"))

    assert agents.chat is not None
    assert agents.chat.name == "rehearsal"
    assert agents.files is agents.chat


def test_agents_none_configured_are_none() -> None:
    agents = create_agents(Settings())

    assert (agents.chat, agents.files) == (None, None)


def test_agents_unknown_name_raises_before_any_turn() -> None:
    """Settings that are read refuse the name already; code that builds settings itself must not get another agent."""
    settings = replace(Settings(), agent="gpt")

    with pytest.raises(ConfigurationError, match="there is no agent `gpt`"):
        create_agents(settings)


async def test_lazy_agent_before_first_turn_is_not_loaded() -> None:
    loader = Loader()
    agent = LazyAgent("echo", loader.load)

    await agent.aclose()

    assert (agent.name, loader.agents) == ("echo", [])


async def test_lazy_agent_with_concurrent_first_turns_is_loaded_once() -> None:
    loader = Loader()
    agent = LazyAgent("echo", loader.load)

    before, events = agent.model, await asyncio.gather(*(run(agent, str(number)) for number in range(20)))

    assert events == [[TextDelta(str(number))] for number in range(20)]
    assert await run(agent, "later") == [TextDelta("later")]
    assert (before, agent.model) == (None, "parrot")
    assert len(loader.agents) == 1


async def test_lazy_agent_whose_loading_fails_is_loaded_again_by_next_turn() -> None:
    agent = LazyAgent("echo", Loader(failures=1).load)

    with pytest.raises(ImportError, match="no agent"):
        await run(agent, "hello")
    assert agent.model is None

    assert await run(agent, "hello again") == [TextDelta("hello again")]


async def test_lazy_agent_close_closes_loaded_agent() -> None:
    loader = Loader()
    agent = LazyAgent("echo", loader.load)
    await run(agent, "hello")

    await agent.aclose()

    assert [loaded.is_closed for loaded in loader.agents] == [True]


async def test_lazy_agent_close_during_loading_closes_the_agent() -> None:
    """The turn for which the agent is loaded has been cancelled."""
    loader, began, gate = Loader(), Event(), Event()

    def load() -> EchoAgent:
        began.set()
        gate.wait()
        return loader.load()

    agent = LazyAgent("echo", load)
    turn = asyncio.create_task(run(agent, "hello"))
    await asyncio.to_thread(began.wait)
    turn.cancel()
    with pytest.raises(asyncio.CancelledError):
        await turn
    gate.set()
    await agent.aclose()

    assert [loaded.is_closed for loaded in loader.agents] == [True]


def test_agent_pydantic_ai_without_its_extra_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(agent="pydantic_ai", openai_api_key=ApiKey("sk-1"))
    create_agents(settings)
    monkeypatch.setitem(sys.modules, "pydantic_ai", None)  # as if it were not installed

    with pytest.raises(ConfigurationError, match=r"pip install 'latchkey-server\[pydantic-ai\]'"):
        create_agents(settings)


@pytest.mark.parametrize("name", ["openai", "pydantic_ai"])
def test_agent_without_a_model_server_says_what_to_set(name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"OPENAI_API_KEY: must be set for the agent `{name}`"):
        create_agents(Settings(file_agent=name))


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (Settings(openai_base_url="http://127.0.0.1:1/v1", dev=True), "the rehearsal agent is used"),
        (Settings(openai_base_url="http://127.0.0.1:1/v1"), "no agent is used"),
        (Settings(openai_base_url="http://127.0.0.1:1/v1", openai_api_key=ApiKey("sk-1")), None),
        (Settings(openai_base_url="http://127.0.0.1:1/v1", agent="openai"), None),
        (Settings(dev=True), None),
    ],
)
def test_unused_model_server_is_explained_in_one_sentence(settings: Settings, expected: str | None) -> None:
    hint = unused_model_server(settings)

    assert (hint is None) == (expected is None)
    assert hint is None or (str(expected) in hint and "set LATCHKEY_AGENT=openai" in hint)
