"""Assistants: how a chat turn is answered, as the operator's file or the app declares it."""

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

DEFAULT_ASSISTANT = "default"
"""The assistant of conversations that name none."""

_NAME = "^[a-z0-9][a-z0-9_-]{0,63}$"
_MODEL = "^[!-~]{1,200}$"

AssistantName = Annotated[
    str,
    Meta(
        max_length=64,
        pattern=_NAME,
        description="The name of an assistant: see `GET assistants`.",
        examples=["default"],
    ),
]
ModelName = Annotated[str, Meta(max_length=200, pattern=_MODEL, examples=["gpt-5"])]


class ModelOptions(Struct, frozen=True):
    """What the requests to the model ask for. None leaves the choice to the agent or to the model's server.

    An agent ignores an option that its model API does not have.
    """

    model: str | None = None
    temperature: float | None = None
    reasoning_effort: str | None = None
    max_output_tokens: int | None = None


NO_OPTIONS = ModelOptions()

CLAUDE_EFFORTS = ("low", "medium", "high", "xhigh", "max")
"""The values of `reasoning_effort` that the Claude CLI knows."""

CHAT_TOOLS = ("add_task", "list_tasks", "complete_task", "delete_task", "update_task")
"""The tools of an assistant that names none."""


def _meta(rule: str, **limits: Any) -> Meta:
    """Return limits with a description, which is the error text for an invalid value."""
    return Meta(description=rule, **limits)


_Name = Annotated[str, _meta("1 to 64 of `a-z0-9_-`, with a letter or digit at the beginning", pattern=_NAME)]
_Title = Annotated[str, _meta("a text of 1 to 200 characters", min_length=1, max_length=200)]
_Instructions = Annotated[str, _meta("a text that is not blank", pattern=r"\S")]
_File = Annotated[str, _meta("the path of a text file", min_length=1)]
_Agent = Annotated[str, _meta("the name of an agent", min_length=1)]
_Model = Annotated[str, _meta("the name of a model", pattern=_MODEL)]
_Models = Annotated[tuple[Annotated[str, Meta(pattern=_MODEL)], ...], _meta("a list of names of models")]
_Tools = Annotated[tuple[str, ...], _meta("a list of names of tools")]
_Temperature = Annotated[float, _meta("a number from 0 to 2", ge=0, le=2)]
_Effort = Annotated[
    Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"],
    _meta("one of `none`, `minimal`, `low`, `medium`, `high`, `xhigh`, `max`"),
]
_Tokens = Annotated[int, _meta("a whole number from 1 to 1000000", ge=1, le=1_000_000)]
_Count = Annotated[int, _meta("a whole number from 1 to 1000", ge=1, le=1_000)]


TitleSource = Literal["message", "model"]
_Titles = Annotated[TitleSource, _meta("`message` or `model`")]


class Assistant(Struct, frozen=True, kw_only=True):
    """An assistant as it is declared. None leaves the choice to the settings of the service.

    - `instructions`: the system prompt, with placeholders; or `instructions_file`, the path of a text file with it.
    - `agent`: the name of the agent.
    - `model`: what is requested of the agent; `models` are those that a client may choose instead.
    - `tools`: the tools that its turns are offered. `approve` names those of them that ask the user first.
    - `max_steps`, `history_turns`: override the settings of the same names.
    - `titles`: a conversation without a title gets one from the first line of the user's `message`, or the `model` is
      asked for one, with a further request after the turn.
    """

    name: _Name
    title: _Title | None = None
    instructions: _Instructions | None = None
    instructions_file: _File | None = None
    agent: _Agent | None = None
    model: _Model | None = None
    models: _Models = ()
    tools: _Tools = CHAT_TOOLS
    approve: _Tools = ()
    temperature: _Temperature | None = None
    reasoning_effort: _Effort | None = None
    max_output_tokens: _Tokens | None = None
    max_steps: _Count | None = None
    history_turns: _Count | None = None
    titles: _Titles = "message"

    @property
    def allowed_models(self) -> tuple[str, ...]:
        """The models that a client may name: its own one and those of `models`."""
        return tuple(dict.fromkeys((self.model, *self.models) if self.model else self.models))


class AssistantSummary(Struct, frozen=True):
    """An assistant as it is published. `models` are those that a message may choose."""

    name: AssistantName
    title: str
    models: list[str]
    tools: list[str]


class AssistantList(Struct, frozen=True):
    """All assistants, sorted by name."""

    items: list[AssistantSummary]
