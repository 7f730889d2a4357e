"""Where an MCP client gets a token for `/mcp` (RFC 9728)."""

from litestar import Request, get
from litestar.datastructures import State
from msgspec import Struct

PATH = "/.well-known/oauth-protected-resource/mcp"


class ResourceMetadata(Struct, frozen=True):
    """What a client must know of a protected resource to ask an authorization server for a token.

    Without scopes: what a person's token opens does not depend on any, and a server may refuse those it does not know.
    """

    resource: str
    authorization_servers: list[str]
    bearer_methods_supported: list[str]


@get(PATH, tags=["mcp"])
async def get_resource_metadata(request: Request[None, None, State]) -> ResourceMetadata:
    """Say who issues tokens for /mcp, and how they are sent (RFC 9728)."""
    metadata: ResourceMetadata = request.app.state.resource_metadata
    return metadata
