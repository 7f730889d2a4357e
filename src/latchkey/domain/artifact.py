"""An artifact: a document that a person keeps, in versions none of which is ever lost."""

from datetime import datetime
from typing import Annotated, Literal, NewType
from uuid import UUID

from msgspec import Meta, Struct
from msgspec.structs import asdict, replace

from latchkey.domain.conversation import ConversationId
from latchkey.domain.errors import StaleVersion, TooLarge
from latchkey.domain.turn import TurnId
from latchkey.domain.values import PLAIN, Instant, Title

ArtifactId = NewType("ArtifactId", UUID)
ArtifactType = Literal["brd", "generated_file"]
GENERATED_FILE: ArtifactType = "generated_file"

MAX_BYTES = 1024 * 1024
Markdown = Annotated[
    str,
    Meta(
        pattern=PLAIN,
        description="Markdown, at most 1 MiB (1048576 bytes) in UTF-8.",
        extra_json_schema={"maxLength": MAX_BYTES},
    ),
]
"""The limit is in bytes, so it is published here and kept by `checked`: one failure for whatever is too large."""
Version = Annotated[int, Meta(ge=1, le=2**31 - 1, description="Versions count from 1.")]


class NewArtifact(Struct, frozen=True, forbid_unknown_fields=True):
    title: Title
    content_markdown: Markdown
    artifact_type: ArtifactType = GENERATED_FILE
    conversation_id: ConversationId | None = None


class ArtifactRevision(Struct, frozen=True, forbid_unknown_fields=True):
    """The next version's content, and its title if that changes."""

    content_markdown: Markdown
    title: Title | None = None


class Artifact(Struct, frozen=True):
    """An artifact as listings have it, without its content.

    `artifact_type` is plain text when it is read: a value from a newer release is no reason to fail.
    """

    id: ArtifactId
    conversation_id: ConversationId | None
    turn_id: TurnId | None
    artifact_type: str
    title: str
    version: int
    created_at: Instant
    updated_at: Instant

    def at_version(self, expected: int | None) -> "Artifact":
        """Itself. Raises `StaleVersion` if the caller has seen another version."""
        if expected is not None and expected != self.version:
            raise StaleVersion(f"The artifact is at version {self.version}, not {expected}: read it again.")
        return self

    def saying(self, content: str) -> "ArtifactWithContent":
        return ArtifactWithContent(**asdict(self), content_markdown=content)

    def revised(self, revision: ArtifactRevision, turn_id: TurnId | None, now: datetime) -> "Artifact":
        """The next version, as the turn `turn_id` made it."""
        title = revision.title or self.title
        return replace(self, title=title, turn_id=turn_id, version=self.version + 1, updated_at=now)


class ArtifactWithContent(Artifact, Struct, frozen=True):
    """One version of an artifact with what it says."""

    content_markdown: str


class ArtifactReference(Struct, frozen=True):
    """An artifact as a turn tells of it."""

    id: ArtifactId
    artifact_type: str
    title: str
    version: int


def checked(content: str) -> str:
    """The content. Raises `TooLarge` if it has more bytes than an artifact may."""
    size = len(content.encode())
    if size > MAX_BYTES:
        raise TooLarge(f"The content has {size} bytes in UTF-8; an artifact may have {MAX_BYTES}.")
    return content
