"""Artifacts over HTTP."""

from typing import Annotated
from uuid import UUID

from litestar import Controller, Response, delete, get, post, put
from litestar.di import NamedDependency
from litestar.params import FromPath, QueryParameter

from latchkey.application import artifacts
from latchkey.application.deletion import delete_and_remove
from latchkey.application.dispatcher import Dispatcher
from latchkey.domain.artifact import (
    Artifact,
    ArtifactId,
    ArtifactRevision,
    ArtifactType,
    ArtifactWithContent,
    NewArtifact,
)
from latchkey.domain.conversation import ConversationId
from latchkey.domain.errors import IdempotencyMismatch, NotFound
from latchkey.domain.page import DEFAULT_LIMIT, Page, Window
from latchkey.interfaces.http.examples import ARTIFACT_CONTENT
from latchkey.interfaces.http.requests import REPLAYED, ApiRequest, CursorQuery, IdempotencyKey, JsonBody, LimitQuery
from latchkey.interfaces.http.responses import ETAG, LOCATION, IfMatch, respond_once, version_of, versioned
from latchkey.interfaces.http.routes.artifact_download import DISPOSITION, MARKDOWN, download

_MAX_VERSION = 2**31 - 1

ConversationQuery = Annotated[UUID | None, QueryParameter(description="Only artifacts of this conversation.")]
TypeQuery = Annotated[ArtifactType | None, QueryParameter(description="Only artifacts of this type.")]
VersionQuery = Annotated[
    int | None, QueryParameter(ge=1, le=_MAX_VERSION, description="This version instead of the newest.")
]


class ArtifactController(Controller):
    path = "/artifacts"
    tags = ("artifacts",)

    @post(response_headers=[ETAG, LOCATION, REPLAYED], failures=[NotFound, IdempotencyMismatch])
    async def add_artifact(
        self,
        request: ApiRequest,
        dispatcher: NamedDependency[Dispatcher],
        data: JsonBody[NewArtifact],
        idempotency_key: IdempotencyKey = None,
    ) -> Response[ArtifactWithContent]:
        """Store a Markdown document of at most 1 MiB."""

        def respond(artifact: ArtifactWithContent) -> Response[ArtifactWithContent]:
            return versioned(artifact, 201, location=request.location_of("artifacts", artifact.id))

        return await respond_once(request, dispatcher, idempotency_key, respond, artifacts.add_artifact, data)

    @get()
    async def list_artifacts(
        self,
        request: ApiRequest,
        dispatcher: NamedDependency[Dispatcher],
        *,
        conversation_id: ConversationQuery = None,
        artifact_type: TypeQuery = None,
        limit: LimitQuery = DEFAULT_LIMIT,
        cursor: CursorQuery = None,
    ) -> Page[Artifact]:
        """List artifacts without their contents, most recent activity first."""
        conversation = None if conversation_id is None else ConversationId(conversation_id)
        window = Window(limit, cursor)
        return await dispatcher.call(request.user, artifacts.find_artifacts, conversation, artifact_type, window)

    @get("/{artifact_id:uuid}", response_headers=[ETAG])
    async def get_artifact(
        self, request: ApiRequest, dispatcher: NamedDependency[Dispatcher], artifact_id: FromPath[UUID]
    ) -> Response[ArtifactWithContent]:
        """Get the newest version of an artifact with its content."""
        return versioned(await dispatcher.call(request.user, artifacts.get_artifact, ArtifactId(artifact_id)))

    @put("/{artifact_id:uuid}", response_headers=[ETAG, REPLAYED], failures=[IdempotencyMismatch])
    async def revise_artifact(
        self,
        request: ApiRequest,
        dispatcher: NamedDependency[Dispatcher],
        artifact_id: FromPath[UUID],
        data: JsonBody[ArtifactRevision],
        if_match: IfMatch = None,
        idempotency_key: IdempotencyKey = None,
    ) -> Response[ArtifactWithContent]:
        """Add a new version of an artifact. Earlier versions are kept, and so is a title that is left out."""
        id, version = ArtifactId(artifact_id), version_of(if_match)
        return await respond_once(
            request, dispatcher, idempotency_key, versioned, artifacts.revise_artifact, id, data, version=version
        )

    @delete("/{artifact_id:uuid}", essential=True)
    async def delete_artifact(
        self,
        request: ApiRequest,
        dispatcher: NamedDependency[Dispatcher],
        artifact_id: FromPath[UUID],
        if_match: IfMatch = None,
    ) -> None:
        """Delete an artifact with all its versions."""
        id, version = ArtifactId(artifact_id), version_of(if_match)
        await delete_and_remove(dispatcher, request.user, artifacts.delete_artifact, id, version=version)

    @get("/{artifact_id:uuid}/versions")
    async def list_versions(
        self,
        request: ApiRequest,
        dispatcher: NamedDependency[Dispatcher],
        artifact_id: FromPath[UUID],
        limit: LimitQuery = DEFAULT_LIMIT,
        cursor: CursorQuery = None,
    ) -> Page[Artifact]:
        """List the versions of an artifact without their contents, newest first."""
        id, window = ArtifactId(artifact_id), Window(limit, cursor)
        return await dispatcher.call(request.user, artifacts.list_versions, id, window)

    @get(
        "/{artifact_id:uuid}/content",
        media_type=MARKDOWN,
        response_headers=[ETAG, DISPOSITION],
        example=ARTIFACT_CONTENT,
    )
    async def get_content(
        self,
        request: ApiRequest,
        dispatcher: NamedDependency[Dispatcher],
        artifact_id: FromPath[UUID],
        version: VersionQuery = None,
    ) -> Response[str]:
        """Download the content of an artifact as a Markdown file."""
        return download(await dispatcher.call(request.user, artifacts.get_artifact, ArtifactId(artifact_id), version))
