"""Use cases on artifacts. Some docstrings are published as the descriptions of the MCP tools."""

import msgspec

from latchkey.application.access import creates_artifact, requires
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
from latchkey.domain.tool_call import ToolCall
from latchkey.domain.values import Title


@requires(Grant.ARTIFACTS_WRITE, stores=True)
async def add_artifact(uow: UnitOfWork, new: NewArtifact) -> ArtifactWithContent:
    """Keep a new document."""
    if new.conversation_id is not None:
        await uow.conversations.get(new.conversation_id)
    return await _add(uow, new)


@requires(Grant.ARTIFACTS_WRITE, stores=True)
async def revise_artifact(
    uow: UnitOfWork, artifact_id: ArtifactId, revision: ArtifactRevision, *, version: Version | None = None
) -> ArtifactWithContent:
    """Make the next version of a document. The earlier ones stay."""
    return await _revise(uow, artifact_id, revision, version)


@requires(Grant.ARTIFACTS_WRITE, stores=True, creates_artifact=True)
async def save_artifact(
    uow: UnitOfWork,
    title: Title,
    content_markdown: Markdown,
    artifact_id: ArtifactId | None = None,
    version: Version | None = None,
) -> ArtifactReference:
    """Save a Markdown document for the person: a new one, or with `artifact_id` the next version of that one."""
    if artifact_id is None:
        saved = await _add(uow, NewArtifact(title, content_markdown))
    else:
        saved = await _revise(uow, artifact_id, ArtifactRevision(content_markdown, title), version)
    return ArtifactReference(saved.id, saved.artifact_type, saved.title, saved.version)


@requires(Grant.ARTIFACTS_READ)
async def list_artifacts(uow: UnitOfWork, limit: Limit = DEFAULT_LIMIT, cursor: Cursor | None = None) -> Page[Artifact]:
    """List the person's saved documents, newest activity first, without their contents."""
    return await uow.artifacts.page(None, None, Window(limit, cursor))


@requires(Grant.ARTIFACTS_READ)
async def find_artifacts(
    uow: UnitOfWork, conversation_id: ConversationId | None, artifact_type: ArtifactType | None, window: Window
) -> Page[Artifact]:
    """List the documents of one conversation, or of one type, newest activity first."""
    return await uow.artifacts.page(conversation_id, artifact_type, window)


@requires(Grant.ARTIFACTS_READ)
async def get_artifact(uow: UnitOfWork, artifact_id: ArtifactId, version: Version | None = None) -> ArtifactWithContent:
    """Show one of the person's saved documents with its content, as it is or as it was in an earlier version."""
    return await uow.artifacts.get_content(artifact_id, version)


@requires(Grant.ARTIFACTS_READ)
async def list_versions(uow: UnitOfWork, artifact_id: ArtifactId, window: Window) -> Page[Artifact]:
    """List the versions of a document, the newest first."""
    return await uow.artifacts.list_versions(artifact_id, window)


@requires(Grant.ARTIFACTS_WRITE)
async def delete_artifact(uow: UnitOfWork, artifact_id: ArtifactId, *, version: Version | None = None) -> Artifact:
    """Delete a document with all its versions."""
    artifact = (await uow.artifacts.get(artifact_id, for_update=True)).at_version(version)
    await uow.artifacts.delete(artifact_id)
    return artifact


def created_artifacts(calls: list[ToolCall]) -> list[ArtifactReference]:
    """Return the artifacts that these tool calls created or revised, in order, each at its last version."""
    references = [
        msgspec.json.decode(call.result, type=ArtifactReference)
        for call in calls
        if not call.is_error and creates_artifact(call.name)
    ]
    return list({artifact.id: artifact for artifact in references}.values())


async def _add(uow: UnitOfWork, new: NewArtifact) -> ArtifactWithContent:
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
    await uow.artifacts.add(artifact, checked(new.content_markdown))
    return artifact.saying(new.content_markdown)


async def _revise(
    uow: UnitOfWork, artifact_id: ArtifactId, revision: ArtifactRevision, version: int | None
) -> ArtifactWithContent:
    artifact = (await uow.artifacts.get(artifact_id, for_update=True)).at_version(version)
    revised = artifact.revised(revision, uow.scope.turn_id, uow.now)
    await uow.artifacts.add_version(revised, checked(revision.content_markdown))
    return revised.saying(revision.content_markdown)
