"""What is published of the response headers. Their values are made where the response is."""

from litestar.datastructures import ResponseHeader

ETAG = ResponseHeader(name="ETag", documentation_only=True, description='The version, as an entity tag: `"3"`.')
LOCATION = ResponseHeader(name="Location", documentation_only=True, description="The path of what was made.")

DISPOSITION = ResponseHeader(
    name="Content-Disposition", documentation_only=True, description="`attachment`, with a file name (RFC 6266)."
)

REQUEST_ID = {"X-Request-Id": {"$ref": "#/components/headers/X-Request-Id"}}
"""Every response has it, so it is described once."""
