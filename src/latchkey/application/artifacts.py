"""Use cases on artifacts. Some docstrings are published as the descriptions of the MCP tools."""

from latchkey.application.access import needs
from latchkey.domain.artifact import (
    Artifact,
    ArtifactId,
    ArtifactReference,
    ArtifactRevision,
    ArtifactType,
    ArtifactWithContent,
    Markdown,
    NewArtifact,
    Version,
    checked,
)
from latchkey.domain.conversation import ConversationId
from latchkey.domain.credentials import Grant
from latchkey.domain.page import DEFAULT_LIMIT, Cursor, Limit, Page, Window
from latchkey.domain.ports import UnitOfWork
from latchkey.domain.values import Title


@needs(Grant.ARTIFACTS_WRITE, stores=True)
async def add_artifact(work: UnitOfWork, new: NewArtifact) -> ArtifactWithContent:
    """Keep a new document."""
    if new.conversation_id is not None:
        await work.conversations.get(new.conversation_id)
    return await _add(work, new)


@needs(Grant.ARTIFACTS_WRITE, stores=True)
async def revise_artifact(
    work: UnitOfWork, artifact_id: ArtifactId, revision: ArtifactRevision, *, version: Version | None = None
) -> ArtifactWithContent:
    """Make the next version of a document. The earlier ones stay."""
    return await _revise(work, artifact_id, revision, version)


@needs(Grant.ARTIFACTS_WRITE, stores=True)
async def save_artifact(
    work: UnitOfWork,
    title: Title,
    content_markdown: Markdown,
    artifact_id: ArtifactId | None = None,
    version: Version | None = None,
) -> ArtifactReference:
    """Save a Markdown document for the person: a new one, or with `artifact_id` the next version of that one."""
    if artifact_id is None:
        saved = await _add(work, NewArtifact(title, content_markdown))
    else:
        saved = await _revise(work, artifact_id, ArtifactRevision(content_markdown, title), version)
    return ArtifactReference(saved.id, saved.artifact_type, saved.title, saved.version)


@needs(Grant.ARTIFACTS_READ)
async def list_artifacts(
    work: UnitOfWork, limit: Limit = DEFAULT_LIMIT, cursor: Cursor | None = None
) -> Page[Artifact]:
    """List the person's saved documents, newest activity first, without their contents."""
    return await work.artifacts.page(None, None, Window(limit, cursor))


@needs(Grant.ARTIFACTS_READ)
async def find_artifacts(
    work: UnitOfWork, conversation_id: ConversationId | None, artifact_type: ArtifactType | None, window: Window
) -> Page[Artifact]:
    """List the documents of one conversation, or of one type, newest activity first."""
    return await work.artifacts.page(conversation_id, artifact_type, window)


@needs(Grant.ARTIFACTS_READ)
async def get_artifact(
    work: UnitOfWork, artifact_id: ArtifactId, version: Version | None = None
) -> ArtifactWithContent:
    """Show one of the person's saved documents with its content, as it is or as it was in an earlier version."""
    return await work.artifacts.read(artifact_id, version)


@needs(Grant.ARTIFACTS_READ)
async def list_versions(work: UnitOfWork, artifact_id: ArtifactId, window: Window) -> Page[Artifact]:
    """List the versions of a document, the newest first."""
    return await work.artifacts.versions(artifact_id, window)


@needs(Grant.ARTIFACTS_WRITE)
async def delete_artifact(work: UnitOfWork, artifact_id: ArtifactId, *, version: Version | None = None) -> Artifact:
    """Delete a document with all its versions."""
    artifact = (await work.artifacts.get(artifact_id, for_update=True)).at_version(version)
    await work.artifacts.remove(artifact_id)
    return artifact


async def _add(work: UnitOfWork, new: NewArtifact) -> ArtifactWithContent:
    artifact = Artifact(
        id=ArtifactId(work.new_id()),
        conversation_id=new.conversation_id or work.scope.conversation_id,
        turn_id=work.scope.turn_id,
        artifact_type=new.artifact_type,
        title=new.title,
        version=1,
        created_at=work.now,
        updated_at=work.now,
    )
    await work.artifacts.add(artifact, checked(new.content_markdown))
    return artifact.saying(new.content_markdown)


async def _revise(
    work: UnitOfWork, artifact_id: ArtifactId, revision: ArtifactRevision, version: int | None
) -> ArtifactWithContent:
    artifact = (await work.artifacts.get(artifact_id, for_update=True)).at_version(version)
    revised = artifact.revised(revision, work.scope.turn_id, work.now)
    await work.artifacts.revise(revised, checked(revision.content_markdown))
    return revised.saying(revision.content_markdown)
