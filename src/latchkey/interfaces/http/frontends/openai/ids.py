"""Ids as OpenAI's API writes them: a prefix and the 32 hexadecimal digits of the UUID."""

import re
from uuid import UUID

from latchkey.domain.errors import NotFound

RESPONSE, CONVERSATION, MESSAGE, TOOL_CALL = "resp", "conv", "msg", "mcp"

_NOUNS = {RESPONSE: "response", CONVERSATION: "conversation"}
_HEX = re.compile(r"[0-9a-f]{32}")
_ITEM = re.compile(rf"(?:{MESSAGE}|{TOOL_CALL})_([0-9a-f]{{32}})(?:[0-9a-f]{{4,8}})?")


def encode_id(prefix: str, id: UUID) -> str:
    """Return the id with its prefix."""
    return f"{prefix}_{id.hex}"


def decode_id(prefix: str, text: str) -> UUID:
    """Return the UUID of an id with this prefix. Raises `NotFound` for all other texts."""
    start, digits = text[: len(prefix) + 1], text[len(prefix) + 1 :]
    if start != f"{prefix}_" or not _HEX.fullmatch(digits):
        raise NotFound.of(_NOUNS[prefix])
    return UUID(digits)


def text_item_id(turn_id: UUID, seq: int) -> str:
    """Return the id of a text of the answer whose first event has this number: one turn can have several texts."""
    return f"{encode_id(MESSAGE, turn_id)}{seq:04x}"


def uuid_in_item_id(text: str) -> UUID:
    """Return the UUID in the id of an item: of a message, a turn or a tool call. Raises `NotFound` if there is none."""
    match = _ITEM.fullmatch(text)
    if match is None:
        raise NotFound.of("item")
    return UUID(match[1])
