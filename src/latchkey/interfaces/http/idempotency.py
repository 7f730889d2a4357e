"""`Idempotency-Key`: how a client says that it sends the same message again (draft-ietf-httpapi-idempotency-key)."""

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
    description="`true` where the answer is that of the first request with this key.",
)
IdempotencyKey = Annotated[
    str | None,
    HeaderParameter(
        name="Idempotency-Key",
        description="1 to 255 visible ASCII characters, quoted or bare: the same message sent again under the same key"
        " is taken once, and answered as the first time.",
        schema_extra={"pattern": r'^(?:[!#-~][!-~]{0,254}|"(?:[ !#-\[\]-~]|\\["\\]){1,255}")$'},
    ),
]

_BARE = re.compile(r"[\x21-\x7e]{1,255}")
_QUOTED = re.compile(r'"((?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\["\\]){1,510})"')
_ESCAPED = re.compile(r"\\(.)")
_LONGEST = 255

_encode = msgspec.json.Encoder(order="deterministic").encode


def idempotency_of(header: str | None, body: Struct, request_id: str) -> Idempotency | None:
    """None without a header. Two bodies that mean the same have one fingerprint. Raises `Malformed`."""
    if header is None:
        return None
    return Idempotency(_key(header.strip()), sha256(_encode(body)).hexdigest(), request_id)


def _key(text: str) -> str:
    if quoted := _QUOTED.fullmatch(text):
        key = _ESCAPED.sub(r"\1", quoted[1])
    elif not text.startswith('"') and _BARE.fullmatch(text):
        key = text
    else:
        key = ""
    if not 1 <= len(key) <= _LONGEST:
        raise Malformed('Idempotency-Key: send 1 to 255 visible ASCII characters, bare or as a string in quotes: "…".')
    return key
