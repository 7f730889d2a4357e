"""What is published of the response headers. Their values are made where the response is."""

from litestar.datastructures import ResponseHeader

ETAG = ResponseHeader(name="ETag", documentation_only=True, description='The version, as an entity tag: `"3"`.')
LOCATION = ResponseHeader(name="Location", documentation_only=True, description="The path of what was made.")

REQUEST_ID = {"X-Request-Id": {"$ref": "#/components/headers/X-Request-Id"}}
"""Every response has it, so it is described once."""
