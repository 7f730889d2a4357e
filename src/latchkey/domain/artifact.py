"""Artifacts: the user's Markdown documents. Each change adds a version; earlier versions stay."""

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
PublishedArtifactType = Annotated[
    str,
    Meta(title="ArtifactType", description="`brd` or `generated_file`; a later release may add others."),
]

MAX_BYTES = 1024 * 1024
Markdown = Annotated[
    str,
    Meta(
        pattern=PLAIN,
        description="Markdown, at most 1 MiB (1048576 bytes) in UTF-8.",
        extra_json_schema={"maxLength": MAX_BYTES},
    ),
]
"""The schema states the limit, `check_size` enforces it: JSON Schema counts characters, and the limit is in bytes."""
Version = Annotated[int, Meta(ge=1, le=2**31 - 1, description="Versions count from 1.")]


class NewArtifact(Struct, frozen=True, forbid_unknown_fields=True):
    title: Title
    content_markdown: Markdown
    artifact_type: ArtifactType = GENERATED_FILE
    conversation_id: ConversationId | None = None


class ArtifactRevision(Struct, frozen=True, forbid_unknown_fields=True):
    """The content of the next version, and its title if the title changes."""

    content_markdown: Markdown
    title: Title | None = None


class Artifact(Struct, frozen=True):
    """An artifact without its content.

    `artifact_type` may be a value that this release does not know: a newer release has stored it.
    """

    id: ArtifactId
    conversation_id: ConversationId | None
    turn_id: TurnId | None
    artifact_type: PublishedArtifactType
    title: str
    version: int
    created_at: Instant
    updated_at: Instant

    def check_version(self, expected: int | None) -> None:
        """Raises `StaleVersion` if the expected version is not the current one."""
        if expected is not None and expected != self.version:
            raise StaleVersion(f"The artifact is at version {self.version}, not {expected}: read it again.")

    def with_content(self, content: str) -> "ArtifactWithContent":
        """Add the content of this version."""
        return ArtifactWithContent(**asdict(self), content_markdown=content)

    def revised(self, revision: ArtifactRevision, turn_id: TurnId | None, now: datetime) -> "Artifact":
        """Return the next version, made by the turn `turn_id` if there is one."""
        title = revision.title or self.title
        return replace(self, title=title, turn_id=turn_id, version=self.version + 1, updated_at=now)


class ArtifactWithContent(Artifact, Struct, frozen=True):
    """One version of an artifact with its content."""

    content_markdown: str


class ArtifactReference(Struct, frozen=True):
    """A version of an artifact that a turn has saved."""

    id: ArtifactId
    artifact_type: PublishedArtifactType
    title: str
    version: int


def check_size(content: str) -> None:
    """Raises `TooLarge` if the content exceeds `MAX_BYTES`."""
    size = len(content.encode())
    if size > MAX_BYTES:
        raise TooLarge(f"The content has {size} bytes in UTF-8: the limit is {MAX_BYTES} bytes.")
