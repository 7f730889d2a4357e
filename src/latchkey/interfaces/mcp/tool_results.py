"""Checks the results of an app's tools against their schemas and a limit of size, before anything is stored."""

import re
from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Any, get_origin

import msgspec
import structlog

from latchkey.domain.errors import Failure, TooLarge

MAX_RESULT_BYTES = 1024 * 1024
"""The size of a result as JSON."""

_QUOTED = re.compile("'[^']*'")
"""A value in a message of msgspec. Values are not logged."""

_encode = msgspec.json.Encoder().encode
_log = structlog.get_logger(__name__)


def checked(use_case: Callable[..., Awaitable[Any]], function: Callable[..., Any], result_type: Any) -> Any:
    """Return the use case with a check of its results. `function` is the function itself, without decorators.

    Its result must be an instance of the type, with fields that the type allows. A check raises `Failure` otherwise,
    and `TooLarge`: the transaction of the use case is rolled back.
    """
    struct, decode = get_origin(result_type) or result_type, msgspec.json.Decoder(result_type).decode

    @wraps(function)
    async def run(context: Any, *args: Any, **kwargs: Any) -> Any:
        result = await use_case(context, *args, **kwargs)
        json = _encode(result)
        if len(json) > MAX_RESULT_BYTES:
            raise TooLarge(f"The result has {len(json)} bytes; at most {MAX_RESULT_BYTES} are possible: ask for less.")
        if fault := _fault(result, json, struct, decode):
            _log.error("tool_result_invalid", tool=function.__name__, detail=fault)
            raise Failure("The tool returned a result that its schema does not allow: see the service's log.")
        return result

    return run


def _fault(result: Any, json: bytes, struct: type, decode: Callable[[bytes], Any]) -> str | None:
    """Return what is wrong with a result, without values of it; None if it is as declared."""
    if not isinstance(result, struct):
        return f"Expected `{struct.__name__}`, got `{type(result).__name__}`"
    try:
        allowed = _encode(decode(json))
    except msgspec.ValidationError as error:
        return _QUOTED.sub("'…'", str(error))
    if allowed == json:
        return None
    return _unknown_member(msgspec.json.decode(json), msgspec.json.decode(allowed), "$")


def _unknown_member(sent: Any, allowed: Any, path: str) -> str | None:
    """Return the first member that the schema does not have. Other differences, as in the order of sets, are none."""
    if isinstance(sent, dict) and isinstance(allowed, dict):
        if unknown := sent.keys() - allowed.keys():
            return f"Object contains unknown field `{min(unknown)}` - at `{path}`"
        members = [(sent[name], allowed[name], f"{path}.{name}") for name in sent]
    elif isinstance(sent, list) and isinstance(allowed, list):
        members = [(*pair, f"{path}[...]") for pair in zip(sent, allowed, strict=False)]
    else:
        return None
    return next((fault for member in members if (fault := _unknown_member(*member))), None)
