"""Resources: what a caller may read of a person's documents and conversations, by address."""

import re
from typing import Any
from uuid import UUID

import msgspec
from mcp import MCPError
from mcp_types import INVALID_PARAMS, PaginatedRequestParams, ReadResourceRequestParams

from latchkey.application.artifacts import get_artifact, list_artifacts
from latchkey.application.conversations import get_transcript, list_conversations
from latchkey.application.dispatcher import Dispatcher
from latchkey.domain.artifact import Artifact, ArtifactId
from latchkey.domain.conversation import Conversation, ConversationId
from latchkey.domain.credentials import Grant
from latchkey.domain.errors import Forbidden, Invalid, NotFound
from latchkey.domain.page import DEFAULT_LIMIT, Page, Window
from latchkey.interfaces.mcp.error_boundary import error_boundary
from latchkey.interfaces.mcp.principal import PRINCIPAL, Principal
from latchkey.interfaces.mcp.results import Context, Result, complete

MARKDOWN = "text/markdown"
JSON = "application/json"

_ADDRESS = re.compile(r"latchkey://(?P<kind>artifacts|conversations)/(?P<id>[0-9a-f-]{36})\Z")
_TEMPLATES = {
    Grant.ARTIFACTS_READ: {
        "uriTemplate": "latchkey://artifacts/{id}",
        "name": "artifact",
        "title": "A saved document",
        "mimeType": MARKDOWN,
    },
    Grant.CONVERSATIONS_READ: {
        "uriTemplate": "latchkey://conversations/{id}",
        "name": "conversation",
        "title": "The transcript of a conversation",
        "mimeType": JSON,
    },
}


class ResourceHandlers:
    """Where callers read. To them, what their credential does not open is not there."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher

    async def on_list(self, _: Context, asked: PaginatedRequestParams) -> Result:
        principal = PRINCIPAL.get()
        return await error_boundary(principal, self._list(principal, asked.cursor))

    async def on_list_templates(self, _: Context, __: PaginatedRequestParams) -> Result:
        principal = PRINCIPAL.get()
        return await error_boundary(principal, self._templates(principal))

    async def on_read(self, _: Context, asked: ReadResourceRequestParams) -> Result:
        principal = PRINCIPAL.get()
        return await error_boundary(principal, self._read(principal, str(asked.uri)))

    async def _templates(self, principal: Principal) -> Result:
        scope = await principal.scope(self._dispatcher)
        return complete(resourceTemplates=[shown for grant, shown in _TEMPLATES.items() if grant in scope.grants])

    async def _list(self, principal: Principal, cursor: str | None) -> Result:
        """Documents first, then conversations: a cursor says in which of the two it goes on, and after what."""
        grants = (await principal.scope(self._dispatcher)).grants
        kind, _, after = (cursor or "artifacts:").partition(":")
        window = Window(DEFAULT_LIMIT, after or None)
        try:
            if kind == "artifacts" and Grant.ARTIFACTS_READ in grants:
                found = await self._dispatcher.call(principal.credential, list_artifacts, window.limit, window.cursor)
                return _page(found, kind, "conversations:" if Grant.CONVERSATIONS_READ in grants else None)
            if kind in {"artifacts", "conversations"} and Grant.CONVERSATIONS_READ in grants:
                listed = await self._dispatcher.call(principal.credential, list_conversations, window)
                return _page(listed, "conversations", None)
        except Invalid as failure:
            raise MCPError(INVALID_PARAMS, failure.detail) from failure
        if kind not in {"artifacts", "conversations"}:
            raise MCPError(INVALID_PARAMS, "cursor: is not a `nextCursor` of this listing")
        return complete(resources=[])

    async def _read(self, principal: Principal, uri: str) -> Result:
        address = _ADDRESS.match(uri)
        try:
            if address is None:
                await principal.scope(self._dispatcher)
                raise _unknown(uri)
            content = await self._content(principal, address["kind"], UUID(address["id"]))
        except (Forbidden, NotFound, ValueError) as error:
            principal.vouched = True
            raise _unknown(uri) from error
        principal.vouched = True
        return complete(contents=[{"uri": uri, **content}])

    async def _content(self, principal: Principal, kind: str, id: UUID) -> dict[str, Any]:
        if kind == "artifacts":
            artifact = await self._dispatcher.call(principal.credential, get_artifact, ArtifactId(id))
            return {"mimeType": MARKDOWN, "text": artifact.content_markdown}
        transcript = await self._dispatcher.call(principal.credential, get_transcript, ConversationId(id))
        return {"mimeType": JSON, "text": msgspec.json.encode(transcript).decode()}


def _page(found: Page[Artifact] | Page[Conversation], kind: str, then: str | None) -> Result:
    following = f"{kind}:{found.next_cursor}" if found.next_cursor else then
    more = {"nextCursor": following} if following else {}
    return complete(resources=[_listed(item) for item in found.items], **more)


def _listed(item: Artifact | Conversation) -> dict[str, Any]:
    kind, media_type = ("artifacts", MARKDOWN) if isinstance(item, Artifact) else ("conversations", JSON)
    name = item.title or f"Conversation of {item.created_at:%Y-%m-%d %H:%M} UTC"
    return {"uri": f"latchkey://{kind}/{item.id}", "name": name, "title": name, "mimeType": media_type}


def _unknown(uri: str) -> MCPError:
    """The same for what is not there, what another user has, and what the credential does not open."""
    return MCPError(INVALID_PARAMS, f"Unknown resource: {uri}", {"uri": uri})
