"""The assistants: built from their definitions for the turns of this process, and read again at SIGHUP."""

import asyncio
import signal
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256

import structlog
from msgspec import json
from msgspec.structs import asdict, replace

from latchkey.application.access import permission_of
from latchkey.application.turns.prompts import CHAT_PROMPT, FILE_PROMPT, PromptTemplate
from latchkey.application.turns.runner import TurnRunner
from latchkey.application.turns.start import TurnProfile, TurnProfiles
from latchkey.bootstrap.agents import Agents
from latchkey.bootstrap.assistant_definitions import read_assistants
from latchkey.bootstrap.registry import Registry
from latchkey.config import ConfigurationError, Settings
from latchkey.domain.assistant import DEFAULT_ASSISTANT, Assistant, ModelOptions
from latchkey.domain.credentials import Grant
from latchkey.domain.ports import Identity
from latchkey.interfaces.mcp.tools import Tool

FILE_TOOLS = ("save_artifact",)
_DIGEST_CHARS = 32

_log = structlog.get_logger(__name__)


def create_profiles(
    settings: Settings, agents: Agents, tools: Mapping[str, Tool], assistants: Iterable[Assistant] = ()
) -> TurnProfiles:
    """Return the profile of each assistant, and that of turns that create a file.

    The assistants are valid. Without one that is called `default` there is the built-in one.
    """
    grants = {name: permission_of(tool.binding.use_case).grant for name, tool in tools.items()}
    declared = {assistant.name: assistant for assistant in (Assistant(name=DEFAULT_ASSISTANT), *assistants)}
    files = TurnProfile(
        agents.files, FILE_PROMPT, _grants_of(FILE_TOOLS, grants), agents.slots(agents.files), FILE_TOOLS
    )
    return TurnProfiles({name: _profile(each, settings, agents, grants) for name, each in declared.items()}, files)


class ReloadableAssistants:
    """Supplies a runner with the assistants of the settings and of the app, and the identity with their claims."""

    def __init__(self, settings: Settings, registry: Registry, agents: Agents, identity: Identity) -> None:
        self._settings = settings
        self._registry = registry
        self._agents = agents
        self._identity = identity
        self._is_outdated = False

    def load_first(self) -> TurnProfiles:
        """Like `load`, and remember a signal that arrives before `reload_at_signal`."""
        if self._settings.assistants is not None:
            signal.signal(signal.SIGHUP, self._note_signal)
        return self.load()

    def load(self) -> TurnProfiles:
        """Return the profiles. Raises `AssistantsError`."""
        definitions = read_assistants(self._settings, self._registry)
        profiles = create_profiles(self._settings, self._agents, self._registry.tools, definitions)
        self._identity.keep_claims(profiles.claim_names)
        return profiles

    @contextmanager
    def reload_at_signal(self, runner: TurnRunner) -> Iterator[None]:
        """Read the file again at SIGHUP, if there is one. A faulty file is logged, and the assistants stay."""
        if self._settings.assistants is None:
            yield
            return
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGHUP, self._reload, runner)
        _log.info("assistants_loaded", assistants=sorted(runner.profiles.chat))
        if self._is_outdated:
            self._reload(runner)
        try:
            yield
        finally:
            loop.remove_signal_handler(signal.SIGHUP)

    def _note_signal(self, *_: object) -> None:
        self._is_outdated = True

    def _reload(self, runner: TurnRunner) -> None:
        try:
            runner.profiles = self.load()
        except (ConfigurationError, OSError, ValueError) as error:
            faults = error.faults if isinstance(error, ConfigurationError) else [type(error).__name__]
            _log.error("assistants_reload_failed", faults=[*faults])  # the faults say it all
        else:
            _log.info("assistants_reloaded", assistants=sorted(runner.profiles.chat))


def _profile(
    assistant: Assistant, settings: Settings, agents: Agents, grants: Mapping[str, Grant | None]
) -> TurnProfile:
    agent = agents.get(assistant.agent) if assistant.agent else agents.chat
    prompt = assistant.instructions or settings.system_prompt() or CHAT_PROMPT
    resolved = replace(assistant, instructions=prompt, agent=agent.name if agent else None)
    return TurnProfile(
        agent,
        prompt,
        _grants_of(assistant.tools, grants),
        agents.slots(agent),
        assistant.tools,
        approve=assistant.approve,
        title=assistant.title or assistant.name,
        template=PromptTemplate.parse(prompt) if assistant.instructions else None,
        digest=_digest(resolved),
        options=ModelOptions(
            assistant.model or next(iter(assistant.models), None),
            assistant.temperature,
            assistant.reasoning_effort,
            assistant.max_output_tokens,
        ),
        models=assistant.allowed_models,
        max_steps=assistant.max_steps,
        history_turns=assistant.history_turns,
        titles=assistant.titles,
    )


def _digest(assistant: Assistant) -> str:
    """Return the digest of what decides how the assistant answers."""
    values = {name: value for name, value in asdict(assistant).items() if name != "titles"}
    return sha256(json.encode(values)).hexdigest()[:_DIGEST_CHARS]


def _grants_of(tools: Iterable[str], grants: Mapping[str, Grant | None]) -> list[Grant]:
    """Return the grants that these tools need, each once."""
    return sorted({grant for name in tools if (grant := grants[name])})
