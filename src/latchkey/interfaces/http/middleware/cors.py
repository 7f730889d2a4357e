"""CORS: what pages of an allowed origin may do in a browser (Fetch standard)."""

import re
from collections.abc import Sequence

from litestar.config.cors import CORSConfig

_EXPOSED_HEADERS = [
    "etag",
    "idempotency-replayed",
    "location",
    "retry-after",
    "www-authenticate",
    "x-request-id",
    "x-resumable-stream-id",
    "x-should-retry",
]
_PORT = re.compile(r":\d+\Z")


def cors(origins: Sequence[str]) -> CORSConfig:
    """Allow these origins. An origin without a port allows each of its ports, as in `SecurityMiddleware`.

    Their pages may send any header: front-end libraries add headers of their own, and a page that has the token could
    send the request from elsewhere without CORS.
    """
    patterns = [re.escape(origin) + ("" if _PORT.search(origin) else r"(:\d+)?") for origin in origins]
    return CORSConfig(
        allow_origins=[],
        allow_origin_regex="|".join(patterns) or r"(?!)",
        allow_headers=["*"],
        expose_headers=_EXPOSED_HEADERS,
    )
