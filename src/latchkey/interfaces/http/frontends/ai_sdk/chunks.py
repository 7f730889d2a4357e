"""The chunks of a UI message stream.

They have known fields and types only: early releases of ai 5 refuse other fields, and all releases other types.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from latchkey.domain.artifact import ArtifactReference

Chunk = dict[str, Any]

FINISH_STEP: Chunk = {"type": "finish-step"}
START_STEP: Chunk = {"type": "start-step"}
ABORT: Chunk = {"type": "abort"}
DONE = b"data: [DONE]\n\n"

APPROVAL_RESPONSE = "tool-approval-response"
"""Only ai 7 knows this type: streams leave it out, and histories have its fields in the part of the call."""

_encode = msgspec.json.Encoder().encode


def encode_chunks(chunks: list[Chunk]) -> bytes:
    """Return the server-sent events of the chunks that streams have."""
    return b"".join([b"data: %s\n\n" % _encode(chunk) for chunk in chunks if chunk["type"] != APPROVAL_RESPONSE])


def start(message_id: object, metadata: Mapping[str, Any]) -> Chunk:
    """Return the chunk that begins a message, or continues the one with this id."""
    return {"type": "start", "messageId": message_id, "messageMetadata": metadata}


def finish(metadata: Mapping[str, Any]) -> Chunk:
    """Return the chunk that ends a message."""
    return {"type": "finish", "messageMetadata": metadata}


def failure(status: str, code: str, detail: str) -> list[Chunk]:
    """Return the chunks that end a message that failed."""
    metadata = {"status": status, "error": {"code": code, "detail": detail}}
    return [
        {"type": "message-metadata", "messageMetadata": metadata},
        {"type": "error", "errorText": detail},
        {"type": "finish"},
    ]


def text_delta(id: str, text: str) -> Chunk:
    """Return the chunk of a piece of text."""
    return {"type": "text-delta", "id": id, "delta": text}


def artifact_data(artifact: ArtifactReference) -> Chunk:
    """Return the chunk of a version of an artifact."""
    return {"type": "data-artifact", "id": artifact.id, "data": artifact}
