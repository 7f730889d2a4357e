"""The repositories of turns, their events and their tool calls. What `repositories.py` says applies to them, too."""

from datetime import datetime
from typing import Literal, Protocol

from msgspec import Struct

from latchkey.domain.approval import Approval, Decision, Question
from latchkey.domain.conversation import ConversationId
from latchkey.domain.message import Message
from latchkey.domain.page import PAGE_BYTES, Page, Window
from latchkey.domain.tool_call import IdempotentCall, StartedCall, StoredCall, ToolCall, ToolCallId
from latchkey.domain.turn import Turn, TurnId, TurnSummary, Usage
from latchkey.domain.turn_event import TurnEvent
from latchkey.domain.undo import UndoneEffect

Order = Literal["asc", "desc"]


class AnswerProgress(Struct, frozen=True):
    """Progress of a running turn: the length of its answer in characters before and after, and its usage so far.

    `attempt` is the attempt that makes it. `model` is the model that answers, if it is known by now.
    """

    offset: int
    new_length: int
    usage: Usage
    model: str | None = None
    attempt: int = 1


class LockedTurn(Struct, frozen=True):
    """A turn locked to be finished, with its tool calls and the `seq` of its conversation's next message."""

    turn: Turn
    calls: list[ToolCall]
    next_seq: int


class CallBounds(Struct, frozen=True):
    """How many bytes of arguments and results of tool calls are read.

    - `page_bytes`: no further turn is read once the turns before it have this many.
    - `turn_bytes`, `field_bytes`: what exceeds this within a turn, or as one field, is omitted.
    """

    page_bytes: int
    turn_bytes: int
    field_bytes: int


ONE_TURN = CallBounds(1, 8 * 1024 * 1024, 8 * 1024 * 1024)
LISTING = CallBounds(PAGE_BYTES, 1024 * 1024, 64 * 1024)


class CallPage(Struct, frozen=True):
    """The calls of some turns, in ascending or descending order of their ids, up to the turn `last`; None for all."""

    calls: dict[TurnId, list[ToolCall]]
    order: Order
    last: TurnId | None = None

    def includes(self, id: TurnId) -> bool:
        """Whether the calls of this turn have been read, if it has any."""
        if self.last is None:
            return True
        return id <= self.last if self.order == "asc" else id >= self.last


class TurnWithCalls(Struct, frozen=True):
    """A turn in a listing, with its tool calls within the bounds of `LISTING`."""

    turn: Turn
    calls: list[ToolCall]


class TurnWithMessage(Struct, frozen=True):
    """A turn with the user's message, and the client's own id of that message if it has sent one."""

    turn: TurnSummary
    message: Message
    client_id: str | None


class Turns(Protocol):
    """The turns of each conversation. Pages are sorted newest first."""

    async def add(self, turn: Turn) -> None:
        """Add a turn."""
        ...

    async def get(self, id: TurnId, *, for_update: bool = False) -> Turn:
        """Return the turn, locked until the end of the unit of work with `for_update`."""
        ...

    async def lock_for_finish(self, id: TurnId) -> LockedTurn:
        """Lock the turn and its conversation until the end of the unit of work, and return all that finishing needs.

        A tool call that is announced while this method waits for the lock may be missing.
        """
        ...

    async def page(self, conversation_id: ConversationId, window: Window) -> Page[TurnWithCalls]:
        """Return one page of the conversation's turns with their tool calls."""
        ...

    async def page_with_messages(
        self, conversation: str, limit: int, before: TurnId | None = None, after: TurnId | None = None
    ) -> tuple[list[TurnWithMessage], bool]:
        """Return the newest turns that are not replaced, oldest first, each with the user's message.

        The second value is whether there are more turns. There may be fewer than `limit` if messages are large.
        The conversation is named by the client's own name of it, or by its id. An unknown name has no turns.
        They are before the turn `before`. With `after` they are the oldest ones after that turn instead.
        """
        ...

    async def get_with_message(self, id: TurnId) -> TurnWithMessage:
        """Return the turn with the user's message."""
        ...

    async def find_by_message(self, conversation_id: ConversationId, message_id: str) -> TurnWithMessage | None:
        """Return the turn of a message that is not replaced.

        The id is the client's own id of the user's message, the id of that message, or the id of the turn.
        """
        ...

    async def list_running(self) -> list[Turn]:
        """Return all turns of the user that are stored as running, including those whose lease has expired."""
        ...

    async def list_waiting(self, conversation_id: ConversationId) -> list[Turn]:
        """Return the waiting turns of the conversation."""
        ...

    async def update(self, turn: Turn) -> None:
        """Store the turn in place of the one with the same id."""
        ...

    async def set_undone(self, turn: Turn) -> None:
        """Store when the turn was undone, also with its messages, and the number of its last event."""
        ...

    async def find_by_idempotency_key(self, key: str) -> Turn | None:
        """Return the turn that was started with this idempotency key."""
        ...

    async def find_by_run_id(self, run_id: str) -> Turn | None:
        """Return the newest turn to which a client has given this id."""
        ...

    async def has_announced_calls(self, id: TurnId) -> bool:
        """Whether the turn has announced tool calls that have no result yet.

        A unit of work of the turn's token knows it without a query, as of when it was opened.
        """
        ...

    async def lock(self, id: TurnId) -> None:
        """Lock the turn until the end of the unit of work, so that the next event number is certain.

        Raises nothing if there is no such turn: `count_tool_call` does.
        """
        ...

    async def count_tool_call(self, id: TurnId, now: datetime, count: int, most: int) -> int:
        """Count one tool call, take `count` event numbers, and return the first of them.

        Raises `Conflict` if the turn is not running, and `TooManyCalls` if it has made `most` calls already. The
        commit raises `ConcurrentWrite` if the turn is not locked and another unit of work has taken the same numbers.
        """
        ...

    async def take_event_numbers(self, id: TurnId, now: datetime, count: int) -> int:
        """Take `count` event numbers of a locked turn; return the first. Raises `Conflict` if it is not running."""
        ...

    async def record_progress(self, id: TurnId, now: datetime, progress: AnswerProgress, count: int) -> int | None:
        """Store the progress, take `count` event numbers, and return the first of them.

        Returns None and changes nothing if the turn is not running, another attempt runs it, or its answer does not
        end at `progress.offset`.
        """
        ...


class TurnEvents(Protocol):
    """The event log of each turn, sorted by `seq`."""

    async def add(self, *events: TurnEvent) -> None:
        """Append events. Subscribers of the turn receive them after the commit."""
        ...

    async def list_after(self, turn_id: TurnId, seq: int, limit: int, size: int) -> list[TurnEvent]:
        """Return the events after `seq`, at most `limit`; the last one is that which reaches `size` bytes in total."""
        ...

    async def list_of_turns(self, ids: list[TurnId], size: int, order: Order = "desc") -> dict[TurnId, list[TurnEvent]]:
        """Return all events of these turns, by turn.

        The turns are read in this order. The last one is that whose events reach `size` bytes in total.
        """
        ...


class ToolCalls(Protocol):
    """The tool calls of each turn with their results, sorted oldest first."""

    async def add(self, call: ToolCall, turn_id: TurnId, call_id: str | None = None) -> None:
        """Add a call with its result. Raises `DuplicateToolCall` if the turn has a call with this external id."""
        ...

    async def add_if_absent(self, call: ToolCall, turn_id: TurnId, call_id: str) -> bool:
        """Add a call, with or without a result; return False and add nothing if the turn has a call with this id.

        A call without a result is announced: it is about to run.
        """
        ...

    async def set_result(self, turn_id: TurnId, call_id: str, call: ToolCall) -> ToolCallId:
        """Store the result of an announced call. Raises `DuplicateToolCall` if no call with this id waits for one."""
        ...

    async def start(
        self, call: ToolCall, turn_id: TurnId, call_id: str | None, *, is_read: bool = False
    ) -> StartedCall | None:
        """Add a call, or mark the announced one with this external id, as started outside a transaction.

        Its turn cannot be undone unless the tool only reads (`is_read`).

        Returns None, and changes nothing, if it has been started before, maybe by another process, or has a result.
        """
        ...

    async def complete(self, turn_id: TurnId, call: ToolCall) -> bool:
        """Store the result of a started call; return False and change nothing if no such call waits for one."""
        ...

    async def set_external(self, turn_id: TurnId, id: ToolCallId) -> None:
        """Record that the call may change something in another service, so that its turn cannot be undone."""
        ...

    async def close(self, turn_id: TurnId, call: ToolCall) -> None:
        """Store the result of a call that has none, whether it was announced, started or decided."""
        ...

    async def find(self, turn_id: TurnId, call_id: str) -> StoredCall | None:
        """Return the turn's call with this external id."""
        ...

    async def list_started(self, turn_id: TurnId) -> list[ToolCallId]:
        """Return the calls of the turn that were started outside a transaction, or approved, and have no result."""
        ...

    async def list_of_turn(self, id: TurnId) -> list[ToolCall]:
        """Return the calls of one turn within the bounds of `ONE_TURN`."""
        ...

    async def list_by_turn(self, ids: list[TurnId], bounds: CallBounds, order: Order) -> CallPage:
        """Return the calls of these turns, in this order of the turns' ids; a turn without calls is left out."""
        ...


class Questions(Protocol):
    """The questions to the user about tool calls, oldest first."""

    async def add(
        self, call: ToolCall, turn_id: TurnId, call_id: str | None, expires_at: datetime
    ) -> StartedCall | None:
        """Add a call that the user is asked about, or the question to the announced one with this external id.

        Returns None, and changes nothing, if there is another call with this external id.
        """
        ...

    async def list_of_turn(self, turn_id: TurnId) -> list[Question]:
        """Return the calls of the turn that the user is or was asked about, oldest first, each whole."""
        ...

    async def decide(self, turn_id: TurnId, id: ToolCallId, decision: Decision, now: datetime) -> bool:
        """Store the decision on an open question; return False and change nothing if it is not open.

        A call that is approved counts as started: `complete` stores its result.
        """
        ...

    async def page_of_open(self, now: datetime, window: Window) -> Page[Approval]:
        """Return one page of the user's open questions that have not expired, oldest first."""
        ...


class Undo(Protocol):
    """What the tool calls of turns changed."""

    async def revert(self, turn_id: TurnId) -> list[UndoneEffect]:
        """Undo the recorded changes by the tool calls of a turn, newest first, and return them in that order.

        The caller holds the user's lock. Raises `NotUndoable` if there is nothing to undo, and if an effect cannot be
        undone: then the unit of work must not be committed.
        """
        ...


class IdempotentCalls(Protocol):
    """The user's calls outside a turn that may be repeated by their key."""

    async def find(self, caller: str, key: str, now: datetime) -> IdempotentCall | None:
        """Return the call of this caller with this key, unless it is older than `IDEMPOTENCY_PERIOD`."""
        ...

    async def add(self, call: IdempotentCall) -> None:
        """Add a call after `find` has returned None, and remove some of the expired ones.

        The commit raises `DuplicateToolCall` if a concurrent unit of work has added the call.
        """
        ...

    async def complete(self, call: IdempotentCall, pending: str) -> None:
        """Store the response of a call whose response is `pending`; change nothing for any other."""
        ...
