"""Examples of requests and responses for the OpenAPI document, made from the schemas.

Fields have the values of `EXAMPLES`, which show one conversation of one user; other nullable fields are null. A test
validates all examples.
"""

from collections.abc import Mapping
from typing import Any

_CONVERSATION = "01a22770-5b1a-7c4e-9a3f-0d6c7e9b2f10"
_TURN = "01a22770-5b1a-7c4e-9a3f-0d6c7e9b2f11"
_TASK = "01a22770-5c0d-7e21-8b7a-4f1e2d3c4b5a"
_ARTIFACT = "01a22770-5d33-7f5c-a2b1-6c5d4e3f2a1b"
_CREATED, _UPDATED = "2026-12-01T08:00:00Z", "2026-12-01T08:00:02.5Z"
_DUE = "2026-12-02T09:00:00Z"
_RESPONSE = "I have put milk on your list."

_USAGE = {"requests": 2, "input_tokens": 914, "output_tokens": 37}
_TASK_ENTITY = {
    "id": _TASK,
    "title": "Buy milk",
    "description": None,
    "due_at": _DUE,
    "status": "pending",
    "version": 1,
    "conversation_id": _CONVERSATION,
    "created_at": _CREATED,
    "updated_at": _CREATED,
    "completed_at": None,
}
_TOOL_CALL = {
    "id": "01a22770-5bf0-7d18-b6a4-7e8f9a0b1c2d",
    "name": "add_task",
    "arguments": {"title": "Buy milk", "due_at": _DUE},
    "result": _TASK_ENTITY,
    "is_error": False,
    "started_at": _CREATED,
    "duration_ms": 4,
}
_MESSAGE = {
    "id": "01a22770-5e77-7a90-8c1d-2e3f4a5b6c7d",
    "conversation_id": _CONVERSATION,
    "turn_id": _TURN,
    "seq": 2,
    "role": "assistant",
    "content": _RESPONSE,
    "tool_calls": [_TOOL_CALL],
    "created_at": _UPDATED,
}
_SAVED = {"id": _ARTIFACT, "artifact_type": "generated_file", "title": "Bakery brief", "version": 1}
_ARTIFACT_ENTITY = {
    **_SAVED,
    "conversation_id": _CONVERSATION,
    "turn_id": _TURN,
    "created_at": _CREATED,
    "updated_at": _CREATED,
}
ARTIFACT_CONTENT = "# Bakery brief\n\nOpen at six, closed on Mondays.\n"
_CONTEXT_TOKEN = {
    "id": "01a22770-6011-7b3c-9d2e-3f4a5b6c7d8e",
    "grants": ["tasks:read"],
    "created_at": _CREATED,
    "expires_at": "2026-12-01T09:00:00Z",
}
_DELETION = {"id": "01a22770-6266-7d3e-9f40-5b6c7d8e9fa0", "name": "delete_task", "arguments": {"task_id": _TASK}}
_EXPIRES = "2026-12-02T08:00:00Z"
_OF_TURN = {"turn_id": _TURN, "conversation_id": _CONVERSATION}
_NOTE = {"text": "Drinks oat milk."}
_NOTE_ENTITY = {
    "id": "01a22770-6155-7c0a-8e1f-4a5b6c7d8e9f",
    **_NOTE,
    "version": 1,
    "created_at": _CREATED,
    "updated_at": _CREATED,
}

EXAMPLES: Mapping[str, Mapping[str, Any]] = {
    "Approval": {**_DELETION, **_OF_TURN, "requested_at": _CREATED, "expires_at": _EXPIRES},
    "Artifact": _ARTIFACT_ENTITY,
    "ArtifactRevision": {"content_markdown": ARTIFACT_CONTENT},
    "ArtifactWithContent": {**_ARTIFACT_ENTITY, "content_markdown": ARTIFACT_CONTENT},
    "AssistantSummary": {
        "name": "default",
        "title": "Assistant",
        "models": [],
        "tools": ["add_task", "list_tasks", "complete_task", "delete_task", "update_task"],
    },
    "ChatAnswer": {
        "conversation_id": _CONVERSATION,
        "turn_id": _TURN,
        "response": _RESPONSE,
        "message": _MESSAGE,
        "tool_calls": [_TOOL_CALL],
        "artifacts": [],
        "usage": _USAGE,
        "agent": "openai",
    },
    "ContextToken": _CONTEXT_TOKEN,
    "Conversation": {
        "id": _CONVERSATION,
        "title": "Shopping",
        "created_at": _CREATED,
        "updated_at": _UPDATED,
        "assistant": "default",
    },
    "ConversationChanges": {"title": "Shopping"},
    "DecidedApproval": {
        **_DELETION,
        **_OF_TURN,
        "decision": "approve",
        "by": "user",
        "decided_at": _UPDATED,
        "result": {"id": _TASK},
        "is_error": False,
    },
    "FreshContextToken": {**_CONTEXT_TOKEN, "token": "lk_…"},
    "Message": _MESSAGE,
    "NewArtifact": {"title": "Bakery brief", "content_markdown": ARTIFACT_CONTENT},
    "NewContextToken": {"grants": ["tasks:read"], "ttl_s": 3600},
    "NewConversation": {"title": "Shopping"},
    "NewDecision": {"decision": "approve"},
    "NewMessage": {"message": "Remind me to buy milk tomorrow at nine.", "timezone": "UTC"},
    "NewNote": _NOTE,
    "NewTask": {"title": "Buy milk", "due_at": _DUE},
    "Note": _NOTE_ENTITY,
    "NoteChanges": _NOTE,
    "OpenApproval": {**_DELETION, "expires_at": _EXPIRES},
    "PublishedTurn": {
        "id": _TURN,
        "conversation_id": _CONVERSATION,
        "status": "completed",
        "agent": "openai",
        "assistant": "default",
        "assistant_digest": "8f14e45fceea167a",
        "model": "gpt-5",
        "usage": _USAGE,
        "tool_calls": [_TOOL_CALL],
        "artifacts": [],
        "started_at": _CREATED,
        "finished_at": _UPDATED,
        "can_undo": True,
    },
    "ResourceMetadata": {
        "resource": "https://assistant.example.com/mcp",
        "authorization_servers": ["https://login.example.com"],
        "bearer_methods_supported": ["header"],
    },
    "Task": _TASK_ENTITY,
    "TaskChanges": {"title": "Buy milk", "due_at": _DUE},
    "WaitingAnswer": {
        **_OF_TURN,
        "status": "waiting",
        "approvals": [{**_DELETION, "expires_at": _EXPIRES}],
        "tool_calls": [{**_DELETION, "result": None, "is_error": True, "started_at": _CREATED, "duration_ms": 0}],
        "usage": _USAGE,
        "agent": "openai",
    },
}

EVENTS: Mapping[str, Mapping[str, Any]] = {
    "turn.started": {"conversation_id": _CONVERSATION, "agent": "openai"},
    "tool_call.started": {name: _TOOL_CALL[name] for name in ("id", "name", "arguments")},
    "tool_call.completed": {name: _TOOL_CALL[name] for name in ("id", "name", "result", "is_error", "duration_ms")},
    "message.delta": {"text": _RESPONSE},
    "turn.completed": {"response": _RESPONSE, "message_id": _MESSAGE["id"], "usage": _USAGE},
}
"""The events of the turn, in order, without the turn and the number."""

PARAMETERS: Mapping[str, Any] = {
    "user_id": "me",
    "artifact_id": _ARTIFACT,
    "conversation_id": _CONVERSATION,
    "note_id": _NOTE_ENTITY["id"],
    "task_id": _TASK,
    "token_id": _CONTEXT_TOKEN["id"],
    "turn_id": _TURN,
    "If-Match": '"1"',
    "Idempotency-Key": "5c6b8f0e-9d53-4c8e-8a55-0b1c1c6b1a10",
    "Last-Event-ID": 2,
}
"""Of parameters that requests of the API reference show: those of paths, and some headers."""

_BY_FORMAT = {"uuid": _CONVERSATION, "date-time": _CREATED}
_BY_TYPE: Mapping[str, Any] = {"string": "text", "boolean": False, "null": None}


def example_of(schema: Mapping[str, Any], schemas: Mapping[str, Any], inside: frozenset[str] = frozenset()) -> Any:
    """Return an example of a schema. `schemas` are those that it refers to by name, `inside` those that contain it.

    An app sets examples of its own with `Meta(examples=[…])` at the fields of its structs.
    """
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        if name in inside:
            return None  # of a type that contains itself
        example = example_of(schemas[name], schemas, inside | {name})
        return {**example, **EXAMPLES[name]} if name in EXAMPLES else example
    values = schema.get("examples") or schema.get("enum")
    if values:
        return values[0]
    if alternatives := schema.get("anyOf") or schema.get("oneOf"):
        return None if {"type": "null"} in alternatives else example_of(alternatives[0], schemas, inside)
    return _of_type(schema, schemas, inside)


def _of_type(schema: Mapping[str, Any], schemas: Mapping[str, Any], inside: frozenset[str]) -> Any:
    match schema.get("type"):
        case "object":
            properties = schema.get("properties", {})
            shown = schema.get("required") or list(properties)[:1]
            return {name: example_of(properties[name], schemas, inside) for name in shown}
        case "array":
            items = schema.get("prefixItems") or [schema.get("items") or {}]
            examples = (example_of(item, schemas, inside) for item in items)
            return [example for example in examples if example is not None]
        case "integer" | "number":
            return schema.get("minimum", 1)
    return _BY_FORMAT.get(schema.get("format", ""), _BY_TYPE.get(schema.get("type", "")))


def stream_examples() -> dict[str, Any]:
    """Return the data of the events of one turn, by the name of the event, as OpenAPI's named examples."""
    numbered = enumerate(EVENTS.items(), 1)
    return {name: {"value": {"turn_id": _TURN, "seq": seq, **data}} for seq, (name, data) in numbered}
