"""The repositories of a unit of work: one for each noun.

A repository is bound to the scope of its unit of work: no method takes a user, and a row outside the scope raises
`NotFound`, like a row that does not exist. A write that the database refuses raises at the latest when the unit of
work is committed.
"""

from collections.abc import Collection
from datetime import datetime
from typing import Protocol

from latchkey.domain.artifact import Artifact, ArtifactId, ArtifactType, ArtifactWithContent
from latchkey.domain.assistant import DEFAULT_ASSISTANT
from latchkey.domain.conversation import Conversation, ConversationId, NextMessage
from latchkey.domain.credentials import ContextToken, ContextTokenId, TokenSecret
from latchkey.domain.message import Message, PastTurn
from latchkey.domain.page import Page, Window
from latchkey.domain.quota import QuotaUsage
from latchkey.domain.task import Task, TaskId, TaskStatus
from latchkey.domain.tool_call import ToolCall
from latchkey.domain.turn import TurnId
from latchkey.domain.turn_repositories import Order


class Conversations(Protocol):
    """The user's conversations. Pages are sorted by last activity, newest first."""

    async def add(self, conversation: Conversation, messages: int = 0, timezone: str | None = None) -> None:
        """Add a conversation in which this many message numbers are already taken, and remember the time zone."""
        ...

    async def get(self, id: ConversationId, *, for_update: bool = False) -> Conversation:
        """Return the conversation, locked until the end of the unit of work with `for_update`."""
        ...

    async def find_id(self, name: str) -> ConversationId | None:
        """Return the id of the conversation whose id or, if there is none, whose name by a client this is."""
        ...

    async def page(self, window: Window) -> Page[Conversation]:
        """Return one page of the conversations."""
        ...

    async def update(self, conversation: Conversation) -> None:
        """Store the conversation in place of the one with the same id."""
        ...

    async def next_message(
        self, id: ConversationId, now: datetime, timezone: str | None = None, assistant: str = DEFAULT_ASSISTANT
    ) -> NextMessage:
        """Take the next message number of the conversation, and set the time of its last activity and its time zone.

        Without a time zone, the one that it remembers stays. A conversation without messages gets the assistant.
        """
        ...

    async def set_last_seq(self, id: ConversationId, seq: int, now: datetime, title: str | None = None) -> None:
        """Take a message number that is already known, because `Turns.lock_for_finish` has locked the conversation.

        A conversation without a title gets this one.
        """
        ...

    async def set_missing_title(self, id: ConversationId, title: str) -> None:
        """Set the title of the conversation if it has none. The time of its last activity stays."""
        ...

    async def delete(self, id: ConversationId, now: datetime) -> None:
        """Hide the conversation and all that belongs to it until it is removed by `Deletions`. Its tasks stay."""
        ...


class Messages(Protocol):
    """The messages of each conversation, sorted by `seq`."""

    async def add(self, message: Message, client_id: str | None = None) -> None:
        """Add a message, with the client's own id of it."""
        ...

    async def replace(self, conversation_id: ConversationId, turn_id: TurnId, by: TurnId) -> None:
        """Mark the messages of this turn and of all turns after it, and these turns, as replaced by another turn.

        Those that are replaced already stay as they are. Raises `NotFound` if there are no others.
        """
        ...

    async def page(
        self, conversation_id: ConversationId, window: Window, order: Order, *, replaced: bool = False
    ) -> Page[Message]:
        """Return one page of the conversation's messages, with `replaced` also of the replaced ones.

        The page is empty for a conversation that does not exist.
        """
        ...

    async def assistant_message(self, turn_id: TurnId, calls: list[ToolCall]) -> Message | None:
        """Return the assistant's message of the turn, with these tool calls in it."""
        ...

    async def history(
        self, conversation_id: ConversationId, turns: int, characters: int, before: int | None = None
    ) -> list[PastTurn]:
        """Return the newest turns with their tool calls, oldest first: at most this many with this many characters.

        With `before`, only those before the message with this `seq`.

        A turn is returned whole or not at all, and none before one that is not returned. Replaced turns are left out.
        """
        ...


class Tasks(Protocol):
    """The user's to-do tasks. Pages are sorted newest first."""

    async def add(self, task: Task) -> None:
        """Add a task."""
        ...

    async def get(self, id: TaskId, *, for_update: bool = False) -> Task:
        """Return the task, locked until the end of the unit of work with `for_update`."""
        ...

    async def page(self, status: TaskStatus | None, window: Window) -> Page[Task]:
        """Return one page of the tasks, of one status or of all."""
        ...

    async def update(self, task: Task) -> None:
        """Store the task in place of the one with the same id."""
        ...

    async def delete(self, id: TaskId) -> None:
        """Delete the task."""
        ...


class Artifacts(Protocol):
    """The user's artifacts. Pages are sorted by last activity, newest first. Only `get_content` loads the content."""

    async def add(self, artifact: Artifact, content: str) -> None:
        """Add an artifact with its first version."""
        ...

    async def get(self, id: ArtifactId, *, for_update: bool = False) -> Artifact:
        """Return the artifact, locked until the end of the unit of work with `for_update`."""
        ...

    async def get_content(self, id: ArtifactId, version: int | None) -> ArtifactWithContent:
        """Return one version of the artifact with its content: the newest if `version` is None."""
        ...

    async def page(
        self, conversation_id: ConversationId | None, artifact_type: ArtifactType | None, window: Window
    ) -> Page[Artifact]:
        """Return one page of the artifacts, filtered by conversation and by type."""
        ...

    async def list_versions(self, id: ArtifactId, window: Window) -> Page[Artifact]:
        """Return one page of the artifact's versions, newest first."""
        ...

    async def add_version(self, artifact: Artifact, content: str) -> None:
        """Add a version. The earlier versions stay."""
        ...

    async def delete(self, id: ArtifactId, now: datetime) -> None:
        """Hide the artifact with all its versions until they are removed. See `Deletions`."""
        ...


class Deletions(Protocol):
    """The user's deleted conversations and artifacts, which no other repository finds."""

    async def remove_part(self, limit: int) -> bool:
        """Remove about this many rows of each kind of one of them; return whether more is left."""
        ...


class ContextTokens(Protocol):
    """The user's context tokens. Pages are sorted newest first. Only a digest of each secret is stored."""

    async def add(
        self,
        token: ContextToken,
        secret: TokenSecret,
        tools: Collection[str] | None = None,
        approve: Collection[str] = (),
    ) -> None:
        """Add a token. `tools` are the only use cases that it may run; None sets no such limit.

        The user is asked about the tools of `approve` before they run.
        """
        ...

    async def get(self, id: ContextTokenId) -> ContextToken:
        """Return the token."""
        ...

    async def page(self, window: Window) -> Page[ContextToken]:
        """Return one page of the tokens, including those that are expired or revoked."""
        ...

    async def revoke(self, id: ContextTokenId, now: datetime) -> None:
        """Revoke the token. Waits for the units of work that this token has open; none commits after that."""
        ...

    async def revoke_for_turn(self, id: TurnId, now: datetime) -> None:
        """Revoke the token of the turn in the same way."""
        ...

    async def extend_for_turn(self, id: TurnId, until: datetime, now: datetime) -> None:
        """Set the expiry of the turn's token, unless it is expired or revoked."""
        ...


class QuotaUsages(Protocol):
    """The user's quota usage: one row, which tokens of any grant may read and update."""

    async def get(self) -> QuotaUsage | None:
        """Return the usage, locked until the end of the unit of work."""
        ...

    async def add(self, usage: QuotaUsage) -> QuotaUsage:
        """Add the first usage; return the stored one if a concurrent unit of work has added it before."""
        ...

    async def update(self, usage: QuotaUsage) -> None:
        """Store the usage in place of the previous one."""
        ...

    async def measure_storage(self) -> int:
        """Return how many bytes are stored of the user, including `ROW_BYTES` for each row."""
        ...
