"""All that Latchkey asks of the world. An adapter is right when it passes the contract suite of its port.

Collections are bound to the scope of their unit of work: none takes a user, and what lies outside
the scope is `NotFound`, whether or not it exists.
"""

from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Literal, Protocol
from uuid import UUID

from msgspec import Struct

from latchkey.domain.agent import AgentEvent, Assignment
from latchkey.domain.artifact import Artifact, ArtifactId, ArtifactType, ArtifactWithContent
from latchkey.domain.conversation import Conversation, ConversationId
from latchkey.domain.message import Message, PastTurn
from latchkey.domain.page import Page, Window
from latchkey.domain.scope import ContextToken, ContextTokenId, Credential, Scope, TokenSecret, UserId
from latchkey.domain.task import Task, TaskId, TaskStatus
from latchkey.domain.tool_call import ToolCall
from latchkey.domain.turn import Turn, TurnId

Order = Literal["asc", "desc"]


class Conversations(Protocol):
    """Newest activity first."""

    async def add(self, conversation: Conversation, messages: int = 0) -> None:
        """Add it, with so many of its message numbers taken already."""
        ...

    async def get(self, id: ConversationId, *, for_update: bool = False) -> Conversation: ...
    async def page(self, window: Window) -> Page[Conversation]: ...
    async def replace(self, conversation: Conversation) -> None: ...

    async def next_seq(self, id: ConversationId, now: datetime) -> int:
        """Take the conversation's next message number, and note that something happened in it now."""
        ...

    async def remove(self, id: ConversationId) -> None:
        """Remove it with its messages, turns, tool calls and context tokens; its tasks stay."""
        ...


class Messages(Protocol):
    """The messages of one conversation, in the order of `seq`."""

    async def add(self, message: Message) -> None: ...
    async def page(self, conversation_id: ConversationId, window: Window, order: Order) -> Page[Message]: ...

    async def history(self, conversation_id: ConversationId, turns: int) -> list[PastTurn]:
        """The newest turns, at most so many, oldest first, with their tool calls."""
        ...


class Turns(Protocol):
    """Newest first."""

    async def add(self, turn: Turn) -> None: ...
    async def get(self, id: TurnId, *, for_update: bool = False) -> Turn: ...
    async def page(self, conversation_id: ConversationId, window: Window) -> Page[Turn]: ...
    async def unfinished(self) -> list[Turn]:
        """Every turn of this user that is stored as running, its lease passed or not."""
        ...

    async def replace(self, turn: Turn) -> None: ...


class Tasks(Protocol):
    """Newest first."""

    async def add(self, task: Task) -> None: ...
    async def get(self, id: TaskId, *, for_update: bool = False) -> Task: ...
    async def page(self, status: TaskStatus | None, window: Window) -> Page[Task]: ...
    async def replace(self, task: Task) -> None: ...
    async def remove(self, id: TaskId) -> None: ...


class Artifacts(Protocol):
    """Newest activity first; only `read` loads a content."""

    async def add(self, artifact: Artifact, content: str) -> None: ...
    async def get(self, id: ArtifactId, *, for_update: bool = False) -> Artifact: ...

    async def read(self, id: ArtifactId, version: int | None) -> ArtifactWithContent:
        """One version with its content; the newest if none is named."""
        ...

    async def page(
        self, conversation_id: ConversationId | None, artifact_type: ArtifactType | None, window: Window
    ) -> Page[Artifact]: ...

    async def versions(self, id: ArtifactId, window: Window) -> Page[Artifact]:
        """The artifact as it was in each version, the newest first."""
        ...

    async def revise(self, artifact: Artifact, content: str) -> None:
        """Add a version; the earlier ones stay as they are."""
        ...

    async def remove(self, id: ArtifactId) -> None: ...


class ToolCalls(Protocol):
    """The ledger: what the tools of each turn were asked and what they answered, oldest first."""

    async def add(self, call: ToolCall, turn_id: TurnId, call_id: str | None = None) -> None:
        """Raises `RepeatedCall` if the turn has a call under that id."""
        ...

    async def find(self, turn_id: TurnId, call_id: str) -> ToolCall: ...
    async def of_turns(self, ids: list[TurnId]) -> dict[TurnId, list[ToolCall]]: ...


class ContextTokens(Protocol):
    """Newest first. Only a digest of the secret is stored."""

    async def add(self, token: ContextToken, secret: TokenSecret) -> None: ...
    async def get(self, id: ContextTokenId) -> ContextToken: ...
    async def page(self, window: Window) -> Page[ContextToken]: ...

    async def revoke(self, id: ContextTokenId, now: datetime) -> None:
        """Waits for the units of work that this token has open; none of its calls commits after that."""
        ...

    async def revoke_turn(self, id: TurnId, now: datetime) -> None:
        """The same for the token of a turn."""
        ...

    async def extend_turn(self, id: TurnId, until: datetime, now: datetime) -> None:
        """Let the token of a turn live until then, if it is alive now."""
        ...


class UnitOfWork(Protocol):
    """One transaction in one scope: what a use case works on. `now` is the one time of everything in it."""

    scope: Scope
    now: datetime
    conversations: Conversations
    messages: Messages
    turns: Turns
    tasks: Tasks
    artifacts: Artifacts
    tool_calls: ToolCalls
    context_tokens: ContextTokens

    def new_id(self) -> UUID:
        """A new UUIDv7; later ones of one process sort after earlier ones."""
        ...


class Transaction(UnitOfWork, Protocol):
    """A unit of work as its opener holds it. What is not committed when it closes never happened."""

    async def commit(self) -> None: ...


Isolation = Literal["read", "write", "serial"]
"""`read` units may not write. `serial` ones of one user run one after the other, and never beside one of a token."""


class UnitsOfWork(Protocol):
    """Opens units of work: the only way to the data."""

    def open(self, credential: Credential, isolation: Isolation) -> AbstractAsyncContextManager[Transaction]:
        """Resolve the credential and open its scope, in one transaction.

        Raises `Unauthenticated` for a context token that is unknown, expired or revoked, and
        `Unavailable` if the database does not answer.
        """
        ...


class Agent(Protocol):
    """Carries a turn: asks a model, lets it use its tools over MCP, and tells what it says."""

    name: str

    def run(self, assignment: Assignment) -> AsyncGenerator[AgentEvent, None]:
        """The events of the turn, as they happen; it is complete when they end.

        Raises a `TurnFailed` that says why there is no answer. Closing the iterator stops the agent,
        and leaves nothing running.
        """
        ...


class Identity(Protocol):
    """Tells who somebody is by the token that their identity provider gave them."""

    async def authenticate(self, bearer: str, *, audience: str | None = None) -> UserId:
        """The user whom the JWT names, if it is for us (or for `audience`, an additional one).

        Raises `Unauthenticated`, or `Unavailable` if the provider's keys cannot be had.
        """
        ...


class Call(Struct, frozen=True):
    """One call through the door, as it is logged. `outcome` is `ok` or the code of a failure."""

    use_case: str
    user_id: UserId | None
    outcome: str
    duration_ms: float


Journal = Callable[[Call], None]
"""Where each call through the door is written down."""
