"""The parameters of requests: which of them take an id, and sample values for the others."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

NOUNS = ("conversation", "turn", "message", "tool_call", "task", "artifact", "note", "token")
"""Everything that has an id. Some of these ids are accepted by no endpoint, so they must give access to nothing."""

NOUNS_BY_NAME = {"replaces": "turn", "call_id": "tool_call"}
"""The nouns of ids whose parameters have other names."""

OUTSIDE_CONVERSATIONS = ("task", "note")
"""The nouns whose entities belong to the user and to no conversation, so that a bound token sees all of them."""

SAMPLE_VALUES: dict[str, tuple[Any, ...]] = {
    "title": ("Mine now",),
    "description": ("Mine now",),
    "due_at": ("2031-01-01T00:00:00Z",),
    "content_markdown": ("# Mine now",),
    "message": ("Hello",),
    "text": ("Mine now",),
    "words": ("mine", "canary"),
    "artifact_generation": (False, True),
    "timezone": ("Europe/Berlin",),
    "assistant": ("default",),
    "model": (),
    "context": ({"page": "/"},),
    "metadata": ({"source": "web"},),
    "client_conversation_id": ("an-unused-name",),
    "when_busy": ("reject", "interrupt"),
    "decision": ("approve", "decline"),
    "reason": ("Mine now",),
    "replaced": ("false", "true"),
    "artifact_type": ("generated_file", "brd"),
    "grants": (["tasks:read"],),
    "ttl_s": (600,),
    "status": ("completed", "pending"),
    "order": ("asc", "desc"),
    "limit": (1, 200),
    "after": (0, 9),
    "version": (1, 9),
    "If-Match": ('"1"', '"9"', "*"),
    "Last-Event-ID": ("0", "9"),
    "Idempotency-Key": ("a-key-of-nobody",),
    "cursor": (),
}
"""Values for parameters that take no id. A cursor is valid only for the list that returned it: test_cursors.py.

The built-in assistant allows no choice of a model.
"""


class UnknownParameter(Exception):
    """The schema has a parameter without a noun or sample values here, so its endpoint would not be tested."""


@dataclass(frozen=True)
class Parameter:
    """One parameter of a request. `noun` is the kind of entity whose id it takes, None if it takes no id."""

    name: str
    location: str
    required: bool
    noun: str | None

    @classmethod
    def of(cls, name: str, location: str, schema: Any, *, required: bool) -> "Parameter":
        """Raises `UnknownParameter` for an id of an unknown noun, and for an unknown name or location."""
        if "uuid" in formats(schema):
            noun = NOUNS_BY_NAME.get(name, name.removesuffix("_id"))
            if noun not in NOUNS:
                raise UnknownParameter(
                    f"{location} parameter {name} takes an id of an unknown noun: add it to `NOUNS` and to `Tenant`."
                )
            return cls(name, location, required, noun)
        if name not in SAMPLE_VALUES or location not in {"path", "query", "header", "body", "argument"}:
            raise UnknownParameter(
                f"{location} parameter {name} is unknown: add it to `SAMPLE_VALUES`."
                " If it can refer to another user's data, add a test for it."
            )
        return cls(name, location, required, None)


def fill(parameters: tuple[Parameter, ...], ids: Mapping[str, str], values: Mapping[str, Any]) -> dict[str, Any]:
    """The values, completed with ids and valid sample values for all other required parameters."""
    defaults = {
        parameter.name: SAMPLE_VALUES[parameter.name][0] if parameter.noun is None else ids[parameter.noun]
        for parameter in parameters
        if parameter.required and parameter.name not in values
    }
    return {**defaults, **values}


def variants(parameters: tuple[Parameter, ...]) -> Iterator[dict[str, Any]]:
    """No optional parameter, then each sample value of each optional parameter alone."""
    yield {}
    for parameter in parameters:
        if parameter.noun is None and not parameter.required:
            yield from ({parameter.name: value} for value in SAMPLE_VALUES[parameter.name])


def formats(schema: Any) -> Iterator[str]:
    """Every `format` anywhere in a schema."""
    if isinstance(schema, dict):
        if isinstance(schema.get("format"), str):
            yield schema["format"]
        schema = list(schema.values())
    if isinstance(schema, list):
        for part in schema:
            yield from formats(part)
