"""Resources: documents and conversations of the user, which clients list and read by URI."""

import re
from collections.abc import Callable
from typing import Any
from uuid import UUID

import msgspec
from mcp_types import PaginatedRequestParams, ReadResourceRequestParams

from latchkey.application.access import permission_of
from latchkey.application.artifacts import get_artifact, list_artifacts
from latchkey.application.conversations import get_transcript, list_conversations
from latchkey.application.dispatcher import Dispatcher
from latchkey.domain.artifact import Artifact, ArtifactId
from latchkey.domain.conversation import Conversation, ConversationId
from latchkey.domain.credentials import ARTIFACTS_READ, CONVERSATIONS_READ, Grant, Scope
from latchkey.domain.errors import Forbidden, Invalid, NotFound
from latchkey.domain.page import DEFAULT_LIMIT, Page, Window
from latchkey.interfaces.mcp.principal import (
    PRINCIPAL,
    Context,
    HandlerError,
    Principal,
    Result,
    complete,
    error_boundary,
)

MARKDOWN = "text/markdown"
JSON = "application/json"

_URI = re.compile(r"latchkey://(?P<collection>artifacts|conversations)/(?P<id>[0-9a-f-]{36})\Z")
_COLLECTIONS = ("artifacts", "conversations")
RESOURCE_TEMPLATES = {
    ARTIFACTS_READ: {
        "uriTemplate": "latchkey://artifacts/{id}",
        "name": "artifact",
        "title": "A saved document",
        "mimeType": MARKDOWN,
    },
    CONVERSATIONS_READ: {
        "uriTemplate": "latchkey://conversations/{id}",
        "name": "conversation",
        "title": "The transcript of a conversation",
        "mimeType": JSON,
    },
}


_READERS: dict[Grant, Callable[..., Any]] = {ARTIFACTS_READ: get_artifact, CONVERSATIONS_READ: get_transcript}


class ResourceHandlers:
    """Handles `resources/*`. A resource that the credential does not grant does not exist for it."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher

    async def list(self, _: Context, params: PaginatedRequestParams) -> Result:
        """Handle `resources/list`."""
        return await error_boundary(self._list(PRINCIPAL.get(), params.cursor))

    async def list_templates(self, _: Context, __: PaginatedRequestParams) -> Result:
        """Handle `resources/templates/list`."""
        return await error_boundary(self._list_templates(PRINCIPAL.get()))

    async def read(self, _: Context, params: ReadResourceRequestParams) -> Result:
        """Handle `resources/read`."""
        return await error_boundary(self._read(PRINCIPAL.get(), str(params.uri)))

    async def _list_templates(self, principal: Principal) -> Result:
        scope = await principal.verify(self._dispatcher)
        return complete(
            resourceTemplates=[
                template for grant, template in RESOURCE_TEMPLATES.items() if _may_run(scope, _READERS[grant])
            ]
        )

    async def _list(self, principal: Principal, cursor: str | None) -> Result:
        """List documents first, then conversations. A cursor is `COLLECTION:CURSOR`, to continue in that collection."""
        scope = await principal.verify(self._dispatcher)
        collection, _, after = (cursor or "artifacts:").partition(":")
        window = Window(DEFAULT_LIMIT, after or None)
        if collection not in _COLLECTIONS:
            detail = "cursor: must be the `nextCursor` of a page of this list"
            raise HandlerError(Invalid(detail), detail)
        try:
            lists_conversations = _may_run(scope, list_conversations)
            if collection == "artifacts" and _may_run(scope, list_artifacts):
                artifacts = await self._dispatcher.call(
                    principal.credential, list_artifacts, window.limit, window.cursor
                )
                return _page(artifacts, collection, "conversations:" if lists_conversations else None)
            if lists_conversations:
                conversations = await self._dispatcher.call(principal.credential, list_conversations, window)
                return _page(conversations, "conversations", None)
        except Invalid as failure:
            raise HandlerError(failure, failure.detail) from failure
        return complete(resources=[])

    async def _read(self, principal: Principal, uri: str) -> Result:
        resource = _parse(uri)
        if resource is None:
            await principal.verify(self._dispatcher)
            raise _unknown(uri)
        try:
            content = await self._content(principal, *resource)
        except (Forbidden, NotFound) as error:
            raise _unknown(uri) from error
        return complete(contents=[{"uri": uri, **content}])

    async def _content(self, principal: Principal, collection: str, id: UUID) -> dict[str, Any]:
        if collection == "artifacts":
            artifact = await self._dispatcher.call(principal.credential, get_artifact, ArtifactId(id))
            return {"mimeType": MARKDOWN, "text": artifact.content_markdown}
        transcript = await self._dispatcher.call(principal.credential, get_transcript, ConversationId(id))
        return {"mimeType": JSON, "text": msgspec.json.encode(transcript).decode()}


def _may_run(scope: Scope, use_case: Callable[..., Any]) -> bool:
    return permission_of(use_case).is_satisfied_by(scope)


def _parse(uri: str) -> tuple[str, UUID] | None:
    match = _URI.match(uri)
    try:
        return None if match is None else (match["collection"], UUID(match["id"]))
    except ValueError:
        return None


def _page(page: Page[Artifact] | Page[Conversation], collection: str, next_collection: str | None) -> Result:
    next_cursor = f"{collection}:{page.next_cursor}" if page.next_cursor else next_collection
    more = {"nextCursor": next_cursor} if next_cursor else {}
    return complete(resources=[_listing(item) for item in page.items], **more)


def _listing(item: Artifact | Conversation) -> dict[str, Any]:
    collection, media_type = ("artifacts", MARKDOWN) if isinstance(item, Artifact) else ("conversations", JSON)
    name = item.title or f"Conversation of {item.created_at:%Y-%m-%d %H:%M} UTC"
    return {"uri": f"latchkey://{collection}/{item.id}", "name": name, "title": name, "mimeType": media_type}


def _unknown(uri: str) -> HandlerError:
    """Return the same error if the resource does not exist, belongs to another user, or is not granted."""
    return HandlerError(NotFound.of("resource"), f"Unknown resource: {uri}", {"uri": uri})
