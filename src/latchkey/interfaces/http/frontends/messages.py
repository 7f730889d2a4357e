"""The user's message as front ends send it, with its options."""

from collections.abc import Mapping
from typing import Any

import msgspec

from latchkey.domain.message import NewMessage
from latchkey.interfaces.errors import convert_at

_OPTIONS = ("assistant", "model", "context", "timezone", "metadata", "artifact_generation")
"""The fields of a message that an app can set."""
_FIELD_TYPES: Mapping[str, Any] = {field.name: field.type for field in msgspec.structs.fields(NewMessage)}


def new_message(fields: Mapping[str, Any]) -> NewMessage:
    """Return the message with these fields; those that are None are left out. Raises `Invalid`."""
    return convert_at("$", {name: value for name, value in fields.items() if value is not None}, NewMessage)


def options_of(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that are well-formed: other software may use the same names for something else."""
    return {name: values[name] for name in _OPTIONS if _is_well_formed(name, values.get(name))}


def _is_well_formed(name: str, value: Any) -> bool:
    try:
        msgspec.convert(value, _FIELD_TYPES[name])
    except msgspec.ValidationError:
        return False
    return value is not None
