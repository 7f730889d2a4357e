"""The harness of the contract tests: an agent, a scripted model and a recording tool server."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from uuid import uuid4

from latchkey.domain.agent import RUN_METRICS, AgentEvent, AgentRun, ModelCall, RunMetrics, TextDelta
from latchkey.domain.credentials import Scope, TokenSecret, UserId
from latchkey.domain.errors import TurnFailed
from latchkey.domain.message import PastTurn
from latchkey.domain.ports import Agent
from latchkey.domain.tool_call import ToolRequest
from latchkey.domain.turn import TurnId, Usage
from latchkey.infrastructure.agents.claude.agent import ClaudeAgent
from latchkey.infrastructure.agents.claude.cli import ClaudeCli, find_cli
from latchkey.infrastructure.agents.openai.agent import Api, OpenAIAgent
from latchkey.infrastructure.agents.pydantic_ai.agent import PydanticAIAgent
from tests.fakes.anthropic_events import anthropic_events
from tests.fakes.chat_completions_events import chat_events
from tests.fakes.model_script import Answer, Step
from tests.fakes.model_server import ModelServer
from tests.fakes.responses_events import responses_events
from tests.fakes.tool_endpoint import tool_endpoint
from tests.fakes.tool_server import ToolServer

API_KEY = "sk-only-for-the-model"

Build = Callable[[ToolServer, str], AbstractAsyncContextManager[Agent]]
"""Builds the agent under test from its tools and the base URL of its model."""
EncodeAnswer = Callable[[Answer], tuple[list[bytes], list[bytes]]]
"""Encodes an answer for the API of the adapter's model: the events with its content, and the events that end it."""


@dataclass(frozen=True)
class Adapter:
    """An implementation of the port, and what the tests must know about it.

    `is_direct` means that the agent sends the requests to the model itself, and not through a program with retries of
    its own. `answering_model` is the name of the model in its answers. `call_id` is the key of the tool call's id in
    `_meta`. `settings` are the settings that its errors name.
    """

    build: Build
    encode_answer: EncodeAnswer
    is_direct: bool
    key_header: tuple[str, str]
    call_id: str
    settings: Mapping[str, str]
    answering_model: str

    def __call__(self, tools: ToolServer, base_url: str) -> AbstractAsyncContextManager[Agent]:
        return self.build(tools, base_url)


@dataclass
class RecordedTurn:
    """The events of one turn, its failure if it failed, and what its run has measured."""

    events: list[AgentEvent] = field(default_factory=list)
    metrics: RunMetrics = field(default_factory=RunMetrics)
    failure: TurnFailed | None = None

    @property
    def deltas(self) -> list[str]:
        return [event.text for event in self.events if isinstance(event, TextDelta)]

    @property
    def text(self) -> str:
        return "".join(self.deltas)

    @property
    def requests(self) -> list[ToolRequest]:
        return [event for event in self.events if isinstance(event, ToolRequest)]

    @property
    def model_calls(self) -> list[ModelCall]:
        return [event for event in self.events if isinstance(event, ModelCall)]

    @property
    def usage(self) -> Usage:
        return sum((call.usage for call in self.model_calls), Usage())


@dataclass
class AgentHarness:
    """One agent with a scripted model and a tool server that records its calls."""

    agent: Agent
    model: ModelServer
    tools: ToolServer
    secret: TokenSecret = field(default_factory=lambda: TokenSecret.mint(UserId("ada")))

    def agent_run(
        self, message: str = "Hello", *, history: list[PastTurn] | None = None, max_steps: int = 8
    ) -> AgentRun:
        return AgentRun(
            turn_id=TurnId(uuid4()),
            instructions="You keep notes.",
            history=history or [],
            message=message,
            secret=self.secret,
            scope=Scope(self.secret.user_id),
            max_steps=max_steps,
        )

    async def run_turn(self, *script: Step, agent_run: AgentRun | None = None) -> RecordedTurn:
        """Run one turn to its end, with a model that follows the script."""
        self.model.script.extend(script)
        outcome = RecordedTurn()
        RUN_METRICS.set(outcome.metrics)
        try:
            async for event in self.agent.run(agent_run or self.agent_run()):
                outcome.events.append(event)
        except TurnFailed as failure:
            outcome.failure = failure
        return outcome


def openai_adapter(api: Api, agent_class: type[OpenAIAgent] = OpenAIAgent) -> Adapter:
    @asynccontextmanager
    async def build(tools: ToolServer, base_url: str) -> AsyncIterator[Agent]:
        agent = agent_class(tools.connect, model="fake", api_key=API_KEY, base_url=base_url, api=api)
        try:
            yield agent
        finally:
            await agent.aclose()

    return Adapter(
        build,
        responses_events if api == "responses" else chat_events,
        is_direct=True,
        key_header=("authorization", f"Bearer {API_KEY}"),
        call_id="latchkey/callId",
        settings={
            "model": "LATCHKEY_MODEL",
            "api": "LATCHKEY_OPENAI_API",
            "key": "OPENAI_API_KEY",
            "url": "OPENAI_BASE_URL",
        },
        answering_model="fake",
    )


def claude_adapter() -> Adapter:
    @asynccontextmanager
    async def build(tools: ToolServer, base_url: str) -> AsyncIterator[Agent]:
        path = find_cli()
        assert path, "The development dependencies contain the Claude CLI."
        cli = ClaudeCli(path=path, model="fake", api_key=API_KEY, base_url=base_url.removesuffix("/v1"))
        async with tool_endpoint(tools) as endpoint:
            agent = ClaudeAgent(tools.connect, cli, mcp_url=endpoint.url)
            try:
                yield agent
            finally:
                await agent.aclose()

    return Adapter(
        build,
        anthropic_events,
        is_direct=False,
        key_header=("x-api-key", API_KEY),
        call_id="claudecode/toolUseId",
        settings={
            "model": "LATCHKEY_CLAUDE_MODEL",
            "api": "ANTHROPIC_BASE_URL",
            "key": "ANTHROPIC_API_KEY",
            "url": "ANTHROPIC_BASE_URL",
        },
        answering_model="claude-fake",
    )


ADAPTERS: dict[str, Adapter] = {
    "openai/responses": openai_adapter("responses"),
    "openai/chat_completions": openai_adapter("chat_completions"),
    "pydantic_ai/responses": openai_adapter("responses", PydanticAIAgent),
    "pydantic_ai/chat_completions": openai_adapter("chat_completions", PydanticAIAgent),
    "claude": claude_adapter(),
}
"""The contract tests run for each of these. Add a line for a new agent."""
