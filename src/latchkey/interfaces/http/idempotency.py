"""The `Idempotency-Key` header, with which a client may safely retry a message.

See draft-ietf-httpapi-idempotency-key.
"""

import re
from hashlib import sha256
from typing import Annotated

import msgspec
from litestar.datastructures import ResponseHeader
from litestar.params import HeaderParameter
from msgspec import Struct

from latchkey.domain.errors import Malformed
from latchkey.domain.turn import Idempotency

REPLAYED = ResponseHeader(
    name="Idempotency-Replayed",
    documentation_only=True,
    description="`true` if this is the response to an earlier request with the same key.",
)
IdempotencyKey = Annotated[
    str | None,
    HeaderParameter(
        name="Idempotency-Key",
        description="1 to 255 visible ASCII characters, quoted or bare. A retry with the same key and the same body is"
        " not processed again: it gets the response of the first request.",
        schema_extra={"pattern": r'^(?:[!#-~][!-~]{0,254}|"(?:[ !#-\[\]-~]|\\["\\]){1,255}")$'},
    ),
]

_BARE = re.compile(r"[\x21-\x7e]{1,255}")
_QUOTED = re.compile(r'"((?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\["\\]){1,510})"')
_ESCAPED = re.compile(r"\\(.)")
_MAX_KEY_CHARS = 255

_encode = msgspec.json.Encoder(order="deterministic").encode


def idempotency_of(header: str | None, body: Struct, request_id: str) -> Idempotency | None:
    """Return the key and the fingerprint of the body, or None without a header.

    Bodies that decode to equal values have the same fingerprint. Raises `Malformed` for an invalid key.
    """
    if header is None:
        return None
    return Idempotency(_parse_key(header.strip()), sha256(_encode(body)).hexdigest(), request_id)


def _parse_key(text: str) -> str:
    if quoted := _QUOTED.fullmatch(text):
        key = _ESCAPED.sub(r"\1", quoted[1])
    elif not text.startswith('"') and _BARE.fullmatch(text):
        key = text
    else:
        key = ""
    if not 1 <= len(key) <= _MAX_KEY_CHARS:
        raise Malformed('Idempotency-Key: send 1 to 255 visible ASCII characters, bare or as a quoted string: "…".')
    return key
