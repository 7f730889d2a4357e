"""The collections of a unit of work: what there is of each noun.

Collections are bound to the scope of their unit of work: none takes a user, and what lies outside
the scope is `NotFound`, whether or not it exists. What cannot be stored is refused at the latest when
the unit of work is committed.
"""

from datetime import datetime
from typing import Literal, Protocol

from msgspec import Struct

from latchkey.domain.artifact import Artifact, ArtifactId, ArtifactType, ArtifactWithContent
from latchkey.domain.conversation import Conversation, ConversationId
from latchkey.domain.credentials import ContextToken, ContextTokenId, TokenSecret
from latchkey.domain.message import Message, PastTurn
from latchkey.domain.page import Page, Window
from latchkey.domain.quota import QuotaUsage
from latchkey.domain.task import Task, TaskId, TaskStatus
from latchkey.domain.tool_call import ToolCall, ToolCallId
from latchkey.domain.turn import Turn, TurnId, Usage
from latchkey.domain.turn_event import TurnEvent

Order = Literal["asc", "desc"]


class AnswerProgress(Struct, frozen=True):
    """How far the telling of a turn has come: characters of its answer before and now, and what it has used."""

    offset: int
    new_length: int
    usage: Usage


class LockedTurn(Struct, frozen=True):
    """All that it takes to end a turn: itself, its calls, and the number of its conversation's next message."""

    turn: Turn
    calls: list[ToolCall]
    next_seq: int


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

    async def number(self, id: ConversationId, seq: int, now: datetime) -> None:
        """The same, where the number is known: the caller holds a turn of the conversation, to end it."""
        ...

    async def remove(self, id: ConversationId) -> None:
        """Remove it with its messages, turns, tool calls and context tokens; its tasks stay."""
        ...


class Messages(Protocol):
    """The messages of one conversation, in the order of `seq`."""

    async def add(self, message: Message) -> None: ...
    async def page(self, conversation_id: ConversationId, window: Window, order: Order) -> Page[Message]: ...

    async def answer(self, turn_id: TurnId, calls: list[ToolCall]) -> Message | None:
        """What the turn answered, after those tool calls."""
        ...

    async def history(self, conversation_id: ConversationId, turns: int) -> list[PastTurn]:
        """The newest turns, at most so many, oldest first, with their tool calls."""
        ...


class Turns(Protocol):
    """Newest first."""

    async def add(self, turn: Turn) -> None: ...
    async def get(self, id: TurnId, *, for_update: bool = False) -> Turn: ...
    async def lock_for_finish(self, id: TurnId) -> LockedTurn:
        """The turn, to be ended: nobody else changes it or numbers messages until the unit of work ends.

        A call that is announced while this waits for the turn may be missing.
        """
        ...

    async def page(self, conversation_id: ConversationId, window: Window) -> Page[Turn]: ...
    async def unfinished(self) -> list[Turn]:
        """Every turn of this user that is stored as running, its lease passed or not."""
        ...

    async def replace(self, turn: Turn) -> None: ...

    async def of_key(self, key: str) -> Turn | None:
        """The turn that was accepted under that idempotency key."""
        ...

    async def next_call(self, id: TurnId, now: datetime, count: int, most: int) -> int:
        """Count a call, take the numbers of its events, and answer the first.

        Raises `Conflict` unless the turn is running, and `TooManyCalls` if it is one more than that.
        """
        ...

    async def record_progress(
        self, id: TurnId, now: datetime, record_progress: AnswerProgress, count: int
    ) -> int | None:
        """Take numbers of events, with what has been told and used since.

        None, and nothing is taken, unless the turn is running and has been told up to where the progress begins.
        """
        ...


class TurnEvents(Protocol):
    """What happened in each turn, in the order of `seq`."""

    async def add(self, *events: TurnEvent) -> None:
        """Once they are committed, those who follow the turn are told."""
        ...

    async def after(self, turn_id: TurnId, seq: int, limit: int, characters: int) -> list[TurnEvent]:
        """At most so many, and fewer if they are long: none begins after so many characters of others."""
        ...


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
        """Raises `DuplicateToolCall` if the turn has a call under that id."""
        ...

    async def announce(self, call: ToolCall, turn_id: TurnId, call_id: str) -> bool:
        """Add one that has no result yet; False, and nothing is added, if the turn has a call under that id."""
        ...

    async def set_result(self, turn_id: TurnId, call_id: str, call: ToolCall) -> ToolCallId:
        """Give the call that was announced under that id its result. Raises `DuplicateToolCall` if it has one."""
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


class QuotaUsages(Protocol):
    """What the person has used of their quota: one row, which tokens of any grant may draw on."""

    async def get(self) -> QuotaUsage | None:
        """Held until the unit of work ends."""
        ...

    async def add(self, usage: QuotaUsage) -> QuotaUsage:
        """The first; if somebody else was faster, it is theirs that is answered."""
        ...

    async def replace(self, usage: QuotaUsage) -> None: ...

    async def measure(self) -> int:
        """How many bytes are stored of the person, `ROW_BYTES` for each row included."""
        ...
