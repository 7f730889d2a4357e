"""The objects of OpenAI's API: responses, conversations, items of the user, models, and lists of them."""

from typing import Any

from latchkey.application.turns.log import TurnLog
from latchkey.domain.assistant import DEFAULT_ASSISTANT
from latchkey.domain.conversation import Conversation
from latchkey.domain.turn import TurnSummary, Usage
from latchkey.interfaces.http.frontends.openai.ids import (
    CONVERSATION,
    FIRST_PART,
    MESSAGE,
    ResponsePart,
    encode_id,
    response_id,
)

MODEL = "latchkey"
"""The model that stands for the default assistant, and in a conversation for the one that it began with."""


def new_response(turn: TurnSummary, part: ResponsePart = FIRST_PART) -> dict[str, Any]:
    """Return the response of a turn, or of a part of it, at its first event."""
    return {
        "id": response_id(turn.id, part),
        "object": "response",
        "created_at": int(turn.started_at.timestamp()),
        "status": "in_progress",
        "conversation": {"id": encode_id(CONVERSATION, turn.conversation_id)},
        "model": MODEL if turn.assistant in {None, DEFAULT_ASSISTANT} else turn.assistant,
        "output": [],
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "metadata": turn.metadata,
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "store": True,
        "temperature": None,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "top_p": None,
        "usage": None,
    }


def usage_of(usage: Usage) -> dict[str, Any]:
    """Return the usage of a completed response."""
    return {
        "input_tokens": usage.input_tokens,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }


def user_item(log: TurnLog) -> dict[str, Any]:
    """Return the message of the user as an item of its conversation."""
    return {
        "id": encode_id(MESSAGE, log.message.id),
        "type": "message",
        "role": "user",
        "status": "completed",
        "content": [{"type": "input_text", "text": log.message.content}],
    }


def conversation_object(conversation: Conversation) -> dict[str, Any]:
    """Return a conversation. Its title is its only metadata."""
    return {
        "id": encode_id(CONVERSATION, conversation.id),
        "object": "conversation",
        "created_at": int(conversation.created_at.timestamp()),
        "metadata": {} if conversation.title is None else {"title": conversation.title},
    }


def model_object(name: str) -> dict[str, Any]:
    """Return a model: an assistant is one."""
    return {"id": name, "object": "model", "created": 0, "owned_by": "latchkey"}


def list_object(items: list[dict[str, Any]], *, has_more: bool) -> dict[str, Any]:
    """Return one page of items."""
    first, last = (items[0]["id"], items[-1]["id"]) if items else (None, None)
    return {"object": "list", "data": items, "first_id": first, "last_id": last, "has_more": has_more}
