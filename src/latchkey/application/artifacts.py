"""Use cases on artifacts. The docstrings of those that are MCP tools are the tools' descriptions."""

from latchkey.application.access import requires, tool
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
    check_size,
)
from latchkey.domain.conversation import ConversationId
from latchkey.domain.credentials import ARTIFACTS_READ, ARTIFACTS_WRITE
from latchkey.domain.page import DEFAULT_LIMIT, Cursor, Limit, Page, Window
from latchkey.domain.ports import UnitOfWork
from latchkey.domain.values import Title


@requires(ARTIFACTS_WRITE, stores=True)
async def add_artifact(uow: UnitOfWork, new: NewArtifact) -> ArtifactWithContent:
    """Save a new document."""
    if new.conversation_id is not None:
        await uow.conversations.get(new.conversation_id)
    return await _add(uow, new)


@requires(ARTIFACTS_WRITE, stores=True)
async def revise_artifact(
    uow: UnitOfWork, artifact_id: ArtifactId, revision: ArtifactRevision, *, version: Version | None = None
) -> ArtifactWithContent:
    """Save the next version of a document. The earlier versions stay."""
    return await _revise(uow, artifact_id, revision, version)


@tool(ARTIFACTS_WRITE, title="Save a document", destructive=False)
@requires(ARTIFACTS_WRITE, stores=True, creates_artifact=True)
async def save_artifact(
    uow: UnitOfWork,
    title: Title,
    content_markdown: Markdown,
    artifact_id: ArtifactId | None = None,
    version: Version | None = None,
) -> ArtifactReference:
    """Save a Markdown document for the user: a new one, or with `artifact_id` the next version of that document."""
    if artifact_id is None:
        saved = await _add(uow, NewArtifact(title, content_markdown))
    else:
        saved = await _revise(uow, artifact_id, ArtifactRevision(content_markdown, title), version)
    return ArtifactReference(saved.id, saved.artifact_type, saved.title, saved.version)


@tool(ARTIFACTS_READ, title="List saved documents")
async def list_artifacts(uow: UnitOfWork, limit: Limit = DEFAULT_LIMIT, cursor: Cursor | None = None) -> Page[Artifact]:
    """List the user's saved documents, newest activity first, without their contents."""
    return await uow.artifacts.page(None, None, Window(limit, cursor))


@requires(ARTIFACTS_READ)
async def find_artifacts(
    uow: UnitOfWork, conversation_id: ConversationId | None, artifact_type: ArtifactType | None, window: Window
) -> Page[Artifact]:
    """List documents, newest activity first, filtered by conversation and by type."""
    return await uow.artifacts.page(conversation_id, artifact_type, window)


@tool(ARTIFACTS_READ, title="Show a saved document")
async def get_artifact(uow: UnitOfWork, artifact_id: ArtifactId, version: Version | None = None) -> ArtifactWithContent:
    """Show one of the user's saved documents with its content: the newest version, or the one with this number."""
    return await uow.artifacts.get_content(artifact_id, version)


@requires(ARTIFACTS_READ)
async def list_versions(uow: UnitOfWork, artifact_id: ArtifactId, window: Window) -> Page[Artifact]:
    """List the versions of a document, newest first."""
    return await uow.artifacts.list_versions(artifact_id, window)


@requires(ARTIFACTS_WRITE)
async def delete_artifact(uow: UnitOfWork, artifact_id: ArtifactId, *, version: Version | None = None) -> Artifact:
    """Delete a document with all its versions. `remove_deleted` removes what is stored."""
    artifact = await uow.artifacts.get(artifact_id, for_update=True)
    artifact.check_version(version)
    await uow.artifacts.delete(artifact_id, uow.now)
    return artifact


async def _add(uow: UnitOfWork, new: NewArtifact) -> ArtifactWithContent:
    check_size(new.content_markdown)
    artifact = Artifact(
        id=ArtifactId(uow.new_id()),
        conversation_id=new.conversation_id or uow.scope.conversation_id,
        turn_id=uow.scope.turn_id,
        artifact_type=new.artifact_type,
        title=new.title,
        version=1,
        created_at=uow.now,
        updated_at=uow.now,
    )
    await uow.artifacts.add(artifact, new.content_markdown)
    return artifact.with_content(new.content_markdown)


async def _revise(
    uow: UnitOfWork, artifact_id: ArtifactId, revision: ArtifactRevision, version: int | None
) -> ArtifactWithContent:
    artifact = await uow.artifacts.get(artifact_id, for_update=True)
    artifact.check_version(version)
    check_size(revision.content_markdown)
    revised = artifact.revised(revision, uow.scope.turn_id, uow.now)
    await uow.artifacts.add_version(revised, revision.content_markdown)
    return revised.with_content(revision.content_markdown)
