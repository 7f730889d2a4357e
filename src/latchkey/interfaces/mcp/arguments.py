"""The arguments of a call as the ledger keeps them: JSON in UTF-8, whatever a client came up with."""

import json
from typing import Any

import msgspec

_encode = msgspec.json.Encoder().encode


def recorded(arguments: dict[str, Any]) -> bytes:
    """As they came; a lone surrogate, which UTF-8 cannot carry, as U+FFFD; and what is nested too deeply as null."""
    try:
        return _encode(arguments)
    except UnicodeEncodeError:
        return _encode(_without_surrogates(arguments))
    except RecursionError:
        return b"null"


def _without_surrogates(arguments: dict[str, Any]) -> Any:
    text = json.dumps(arguments, ensure_ascii=False)
    return json.loads(text.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))
