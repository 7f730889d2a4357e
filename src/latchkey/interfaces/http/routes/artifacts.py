"""Artifacts over HTTP."""

from typing import Annotated
from uuid import UUID

from litestar import Controller, Response, delete, get, post, put
from litestar.params import FromPath, QueryParameter

from latchkey.application import artifacts
from latchkey.domain.artifact import (
    Artifact,
    ArtifactId,
    ArtifactRevision,
    ArtifactType,
    ArtifactWithContent,
    NewArtifact,
)
from latchkey.domain.conversation import ConversationId
from latchkey.domain.errors import NotFound
from latchkey.domain.page import DEFAULT_LIMIT, Page, Window
from latchkey.interfaces.http.parameters import CursorQuery, LimitQuery
from latchkey.interfaces.http.requests import ApiRequest, JsonBody
from latchkey.interfaces.http.responses import (
    DISPOSITION,
    ETAG,
    LOCATION,
    MARKDOWN,
    IfMatch,
    download,
    tagged,
    version_in,
)

ConversationQuery = Annotated[UUID | None, QueryParameter(description="Only artifacts of this conversation.")]
TypeQuery = Annotated[ArtifactType | None, QueryParameter(description="Only artifacts of this type.")]
VersionQuery = Annotated[
    int | None, QueryParameter(ge=1, le=2**31 - 1, description="This version instead of the newest.")
]


class ArtifactController(Controller):
    path = "/artifacts"
    tags = ("artifacts",)

    @post(response_headers=[ETAG, LOCATION], failures=[NotFound])
    async def add_artifact(self, request: ApiRequest, data: JsonBody[NewArtifact]) -> Response[ArtifactWithContent]:
        """Keep a document in Markdown, of at most 1 MiB."""
        artifact = await request.call(artifacts.add_artifact, data)
        return tagged(artifact, 201, location=request.location_of("artifacts", artifact.id))

    @get()
    async def list_artifacts(
        self,
        request: ApiRequest,
        conversation_id: ConversationQuery = None,
        artifact_type: TypeQuery = None,
        limit: LimitQuery = DEFAULT_LIMIT,
        cursor: CursorQuery = None,
    ) -> Page[Artifact]:
        """List documents without their contents, newest activity first."""
        conversation = None if conversation_id is None else ConversationId(conversation_id)
        return await request.call(artifacts.find_artifacts, conversation, artifact_type, Window(limit, cursor))

    @get("/{artifact_id:uuid}", response_headers=[ETAG])
    async def get_artifact(self, request: ApiRequest, artifact_id: FromPath[UUID]) -> Response[ArtifactWithContent]:
        """Show a document."""
        return tagged(await request.call(artifacts.get_artifact, ArtifactId(artifact_id)))

    @put("/{artifact_id:uuid}", response_headers=[ETAG])
    async def revise_artifact(
        self,
        request: ApiRequest,
        artifact_id: FromPath[UUID],
        data: JsonBody[ArtifactRevision],
        if_match: IfMatch = None,
    ) -> Response[ArtifactWithContent]:
        """Make the next version of a document. The earlier ones stay, and so does a title that is left out."""
        version = version_in(if_match)
        return tagged(await request.call(artifacts.revise_artifact, ArtifactId(artifact_id), data, version=version))

    @delete("/{artifact_id:uuid}")
    async def delete_artifact(self, request: ApiRequest, artifact_id: FromPath[UUID], if_match: IfMatch = None) -> None:
        """Delete a document with all its versions."""
        await request.call(artifacts.delete_artifact, ArtifactId(artifact_id), version=version_in(if_match))

    @get("/{artifact_id:uuid}/versions")
    async def list_versions(
        self,
        request: ApiRequest,
        artifact_id: FromPath[UUID],
        limit: LimitQuery = DEFAULT_LIMIT,
        cursor: CursorQuery = None,
    ) -> Page[Artifact]:
        """List the versions of a document without their contents, the newest first."""
        return await request.call(artifacts.list_versions, ArtifactId(artifact_id), Window(limit, cursor))

    @get("/{artifact_id:uuid}/content", media_type=MARKDOWN, response_headers=[ETAG, DISPOSITION])
    async def get_content(
        self, request: ApiRequest, artifact_id: FromPath[UUID], version: VersionQuery = None
    ) -> Response[str]:
        """Download a document as a Markdown file."""
        return download(await request.call(artifacts.get_artifact, ArtifactId(artifact_id), version))
