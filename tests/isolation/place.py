"""The places of a request that its caller fills: which of them take an id, and what the others take."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

NOUNS = ("conversation", "turn", "message", "tool_call", "task", "artifact", "token")
"""What there are ids of. Some are never asked for, and must open nothing anywhere."""

FILLINGS: dict[str, tuple[Any, ...]] = {
    "title": ("Mine now",),
    "description": ("Mine now",),
    "due_at": ("2031-01-01T00:00:00Z",),
    "content_markdown": ("# Mine now",),
    "message": ("Hello",),
    "artifact_generation": (False, True),
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
"""What a place that takes no id takes. A cursor fits only the listing that gave it, and has a test of its own."""


class Unfillable(Exception):
    """The schema has a place that nobody has said how to fill, so that what is behind it would go untested."""


@dataclass(frozen=True)
class Place:
    """`noun` is what it takes an id of, if it takes one."""

    name: str
    where: str
    required: bool
    noun: str | None

    @classmethod
    def of(cls, name: str, where: str, schema: Any, *, required: bool) -> "Place":
        """Raises `Unfillable` for an id of nobody knows what, and for a name that is new."""
        if "uuid" in formats(schema):
            noun = name.removesuffix("_id")
            if noun not in NOUNS:
                raise Unfillable(f"{where} {name} takes an id of what? Tell `NOUNS`, and give each resident one.")
            return cls(name, where, required, noun)
        if name not in FILLINGS or where not in {"path", "query", "header", "body", "argument"}:
            raise Unfillable(
                f"{where} {name} takes what? Tell `FILLINGS`, and, if it can name what is another's, try it."
            )
        return cls(name, where, required, None)


def filled(places: tuple[Place, ...], ids: Mapping[str, str], given: Mapping[str, Any]) -> dict[str, Any]:
    """What is given, and what is required besides: ids of one's own, and fillings that work."""
    needed = {
        place.name: FILLINGS[place.name][0] if place.noun is None else ids[place.noun]
        for place in places
        if place.required and place.name not in given
    }
    return {**needed, **given}


def variants(places: tuple[Place, ...]) -> Iterator[dict[str, Any]]:
    """Nothing more than is required, and then each filling of each other place."""
    yield {}
    for place in places:
        if place.noun is None and not place.required:
            yield from ({place.name: filling} for filling in FILLINGS[place.name])


def formats(schema: Any) -> Iterator[str]:
    """Every `format` anywhere in a schema."""
    if isinstance(schema, dict):
        if isinstance(schema.get("format"), str):
            yield schema["format"]
        schema = list(schema.values())
    if isinstance(schema, list):
        for part in schema:
            yield from formats(part)
