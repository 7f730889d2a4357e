"""Builders of valid entities and inputs: a test names only the fields that matter to it."""

from datetime import UTC, datetime, timedelta
from typing import Any

from msgspec import Raw
from uuid_utils.compat import uuid7

from latchkey.application.turns.start import AcceptanceLimits, StartedTurn
from latchkey.domain.agent import AgentRun
from latchkey.domain.artifact import Artifact, ArtifactId
from latchkey.domain.conversation import Conversation, ConversationId
from latchkey.domain.credentials import TASKS_READ, TASKS_WRITE, ContextToken, ContextTokenId
from latchkey.domain.message import Message, MessageId
from latchkey.domain.task import Task, TaskId
from latchkey.domain.tool_call import ToolCall, ToolCallId
from latchkey.domain.turn import Turn, TurnId

NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
LONG = timedelta(days=10_000)

LIMITS = AcceptanceLimits(lease=timedelta(minutes=1), turns_per_user=4, history_turns=40, history_chars=100_000)
TASK_GRANTS = [TASKS_READ, TASKS_WRITE]


def a_conversation(title: str | None = "Groceries", **fields: Any) -> Conversation:
    return Conversation(
        **{
            "id": ConversationId(uuid7()),
            "title": title,
            "created_at": NOW,
            "updated_at": NOW,
            **fields,
        }
    )


def a_turn(conversation: Conversation, **fields: Any) -> Turn:
    """A running turn whose lease does not expire during a test."""
    return Turn(
        **{
            "id": TurnId(uuid7()),
            "conversation_id": conversation.id,
            "status": "running",
            "agent": "rehearsal",
            "started_at": NOW,
            "lease_until": NOW + LONG,
            **fields,
        }
    )


def an_agent_run(started: StartedTurn, **fields: Any) -> AgentRun:
    """The run of a started turn."""
    return AgentRun(
        **{
            "turn_id": started.turn.id,
            "instructions": "",
            "history": started.history,
            "message": started.message,
            "secret": started.secret,
            "scope": started.scope,
            "max_steps": 12,
            **fields,
        }
    )


def a_message(turn: Turn, seq: int, content: str = "Buy milk", **fields: Any) -> Message:
    return Message(
        **{
            "id": MessageId(uuid7()),
            "conversation_id": turn.conversation_id,
            "turn_id": turn.id,
            "seq": seq,
            "role": "user",
            "content": content,
            "tool_calls": [],
            "created_at": NOW,
            **fields,
        }
    )


def a_task(title: str = "Buy milk", **fields: Any) -> Task:
    return Task(
        **{
            "id": TaskId(uuid7()),
            "title": title,
            "description": None,
            "due_at": None,
            "status": "pending",
            "version": 1,
            "conversation_id": None,
            "created_at": NOW,
            "updated_at": NOW,
            "completed_at": None,
            **fields,
        }
    )


def an_artifact(title: str = "Groceries", **fields: Any) -> Artifact:
    return Artifact(
        **{
            "id": ArtifactId(uuid7()),
            "conversation_id": None,
            "turn_id": None,
            "artifact_type": "generated_file",
            "title": title,
            "version": 1,
            "created_at": NOW,
            "updated_at": NOW,
            **fields,
        }
    )


def a_tool_call(name: str = "add_task", **fields: Any) -> ToolCall:
    return ToolCall(
        **{
            "id": ToolCallId(uuid7()),
            "name": name,
            "arguments": Raw(b'{"title":"Buy milk"}'),
            "result": Raw(b'{"status":"pending"}'),
            "is_error": False,
            "started_at": NOW,
            "duration_ms": 3,
            **fields,
        }
    )


def a_context_token(**fields: Any) -> ContextToken:
    """A token with the task grants that does not expire during a test."""
    return ContextToken(
        **{
            "id": ContextTokenId(uuid7()),
            "grants": TASK_GRANTS,
            "conversation_id": None,
            "turn_id": None,
            "created_at": NOW,
            "expires_at": NOW + LONG,
            **fields,
        }
    )
