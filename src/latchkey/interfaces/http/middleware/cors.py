"""What pages of an allowed origin may do in a browser (the Fetch standard's CORS protocol)."""

import re
from collections.abc import Sequence

from litestar.config.cors import CORSConfig

_SENT = [
    *("authorization", "content-type", "if-match", "idempotency-key", "last-event-id", "x-request-id"),
    *("mcp-protocol-version", "mcp-method", "mcp-name", "mcp-session-id"),
]
_READ = ["etag", "idempotency-replayed", "location", "retry-after", "www-authenticate", "x-request-id"]
_PORT = re.compile(r":\d+\Z")


def cors(origins: Sequence[str]) -> CORSConfig:
    """Those origins; one without a port stands for each of its ports, as at the edge."""
    patterns = [re.escape(origin) + ("" if _PORT.search(origin) else r"(:\d+)?") for origin in origins]
    return CORSConfig(
        allow_origins=[],
        allow_origin_regex="|".join(patterns) or r"(?!)",
        allow_headers=_SENT,
        expose_headers=_READ,
    )
