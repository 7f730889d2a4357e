"""OAuth 2.0 protected resource metadata of `/mcp` (RFC 9728)."""

from litestar import get
from litestar.di import NamedDependency
from msgspec import Struct

from latchkey.domain.errors import Exhausted

PATH = "/.well-known/oauth-protected-resource/mcp"


class ResourceMetadata(Struct, frozen=True):
    """How an MCP client gets a token for the protected resource: from which authorization servers.

    It lists no scopes: access does not depend on any, and an authorization server may refuse unknown ones.
    """

    resource: str
    authorization_servers: list[str]
    bearer_methods_supported: list[str]


@get(PATH, tags=["mcp"], failures=[Exhausted])
async def get_resource_metadata(resource_metadata: NamedDependency[ResourceMetadata]) -> ResourceMetadata:
    """Get the authorization servers that issue tokens for /mcp (RFC 9728)."""
    return resource_metadata
