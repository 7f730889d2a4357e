"""Ids as OpenAI's API writes them: a prefix and the 32 hexadecimal digits of the UUID."""

import re
import sys
from uuid import UUID

from msgspec import Struct

from latchkey.domain.errors import NotFound
from latchkey.domain.tool_call import ToolCallId
from latchkey.domain.turn import TurnId
from latchkey.domain.turn_event import TurnEvent

RESPONSE, CONVERSATION, MESSAGE, TOOL_CALL = "resp", "conv", "msg", "mcp"
APPROVAL_REQUEST, APPROVAL_RESPONSE = "mcpr", "mcpa"

_NOUNS = {RESPONSE: "response", CONVERSATION: "conversation", APPROVAL_REQUEST: "approval"}
_DIGITS, _NUMBER_DIGITS = 32, 8
_HEX = re.compile(r"[0-9a-f]+")
_ITEM = re.compile(
    rf"(?:{MESSAGE}|{TOOL_CALL}|{APPROVAL_REQUEST}|{APPROVAL_RESPONSE})"
    r"_([0-9a-f]{32})(?:[0-9a-f]{4,8}|[0-9a-f]{32})?"
)


class ResponsePart(Struct, frozen=True):
    """The part of a turn that a response is: a turn that waits for the user is answered by several responses.

    It begins after the event with the number `start`. It ends with the turn, or where the turn waits for the user
    after the event `last`: that of the newest decision that the client sent when it asked for the response.
    """

    start: int = 0
    last: int = 0

    def ends_with(self, event: TurnEvent) -> bool:
        """Whether this event, which is not before the part, is its last one."""
        return event.is_last or (event.is_waiting and event.seq > self.last)


FIRST_PART = ResponsePart()
WHOLE_TURN = ResponsePart(0, sys.maxsize)
"""What the items of a conversation are made from: the user's decisions are among them."""


def encode_id(prefix: str, id: UUID) -> str:
    """Return the id with its prefix."""
    return f"{prefix}_{id.hex}"


def decode_id(prefix: str, text: str) -> UUID:
    """Return the UUID of an id with this prefix. Raises `NotFound` for all other texts."""
    return UUID(_digits_of(prefix, text, _DIGITS))


def response_id(turn_id: TurnId, part: ResponsePart) -> str:
    """Return the id of a response. That of the first part of a turn has the digits of the turn alone."""
    id = encode_id(RESPONSE, turn_id)
    return id if part == FIRST_PART else f"{id}{part.start:08x}{part.last:08x}"


def decode_response_id(text: str) -> tuple[TurnId, ResponsePart]:
    """Return the turn of a response, and the part of it. Raises `NotFound`."""
    if len(text) == len(RESPONSE) + 1 + _DIGITS:
        return TurnId(decode_id(RESPONSE, text)), FIRST_PART
    digits = _digits_of(RESPONSE, text, _DIGITS + 2 * _NUMBER_DIGITS)
    start, last = digits[_DIGITS:-_NUMBER_DIGITS], digits[-_NUMBER_DIGITS:]
    return TurnId(UUID(digits[:_DIGITS])), ResponsePart(int(start, 16), int(last, 16))


def approval_request_id(turn_id: UUID, call_id: UUID) -> str:
    """Return the id of the question about a tool call. It has the turn too, so that a client need not name it."""
    return f"{encode_id(APPROVAL_REQUEST, turn_id)}{call_id.hex}"


def decode_approval_request_id(text: str) -> tuple[TurnId, ToolCallId]:
    """Return the turn and the call of a question. Raises `NotFound`."""
    digits = _digits_of(APPROVAL_REQUEST, text, 2 * _DIGITS)
    return TurnId(UUID(digits[:_DIGITS])), ToolCallId(UUID(digits[_DIGITS:]))


def text_item_id(turn_id: UUID, seq: int) -> str:
    """Return the id of a text of the answer whose first event has this number: one turn can have several texts."""
    return f"{encode_id(MESSAGE, turn_id)}{seq:04x}"


def decided_call_item_id(call_id: UUID) -> str:
    """Return the id of a call that was decided. The item that the question has replaced has `encode_id`'s."""
    return f"{encode_id(TOOL_CALL, call_id)}0001"


def uuid_in_item_id(text: str) -> UUID:
    """Return the UUID in the id of an item: of a message, a turn or a tool call. Raises `NotFound` if there is none."""
    match = _ITEM.fullmatch(text)
    if match is None:
        raise NotFound.of("item")
    return UUID(match[1])


def _digits_of(prefix: str, text: str, count: int) -> str:
    start, digits = text[: len(prefix) + 1], text[len(prefix) + 1 :]
    if start != f"{prefix}_" or len(digits) != count or not _HEX.fullmatch(digits):
        raise NotFound.of(_NOUNS[prefix])
    return digits
