"""Notes: short texts that the user wants the assistant to remember. The table, its entities and its repository."""

import unicodedata
from typing import Annotated, NewType
from uuid import UUID

from msgspec import UNSET, Meta, Struct, UnsetType
from msgspec.structs import asdict
from sqlalchemy import Column, String, bindparam, select

from latchkey import (
    Instant,
    Invalid,
    Page,
    Repository,
    StaleVersion,
    Window,
    entity_table,
    owned_by_user,
)

NoteId = NewType("NoteId", UUID)

NO_NUL = r"^[^\x00]*$"
MAX_CHARS = 2_000
MAX_WORDS = 8
NoteText = Annotated[
    str,
    Meta(min_length=1, max_length=MAX_CHARS, pattern=r"^\s*[^\s\x00][^\x00]*$", description="What to remember."),
]
Words = Annotated[
    str,
    Meta(max_length=200, pattern=NO_NUL, description="Only notes that contain all of these words or parts of words."),
]


class NewNote(Struct, frozen=True, forbid_unknown_fields=True):
    """A note to be stored."""

    text: NoteText


class NoteChanges(Struct, frozen=True, forbid_unknown_fields=True):
    """A merge patch (RFC 7396): a text that is left out stays unchanged. It cannot be null."""

    text: NoteText | UnsetType = UNSET


class Note(Struct, frozen=True):
    """A note of the user."""

    id: NoteId
    text: str
    version: int
    created_at: Instant
    updated_at: Instant

    def check_version(self, version: int | None) -> None:
        """Raises `StaleVersion` unless this is the current version; None is any."""
        if version not in (None, self.version):
            raise StaleVersion(f"The note is at version {self.version}, not {version}: read it again.")


class StoredNote(Struct, frozen=True):
    """A note with its text as it is searched."""

    id: UUID
    text: str
    folded: str
    version: int
    created_at: Instant
    updated_at: Instant

    @property
    def note(self) -> Note:
        """The note as it is published."""
        return Note(**{name: value for name, value in asdict(self).items() if name != "folded"})


notes = entity_table(
    "notes",
    Column("text", String(MAX_CHARS), nullable=False),
    # The text in one case and one form: the databases fold only some letters, and not the same ones.
    Column("folded", String(3 * MAX_CHARS), nullable=False),
)

_PATTERNS = [notes.c.folded.like(bindparam(f"pattern_{nth}"), escape="\\") for nth in range(MAX_WORDS)]
_FOUND = (
    select(*(notes.c[name] for name in StoredNote.__struct_fields__))
    .where(owned_by_user(notes), *_PATTERNS)
    .order_by(notes.c.id.desc())
    .limit(bindparam("limit"))
)
_FOUND_BEFORE = _FOUND.where(notes.c.id < bindparam("before"))
_MAX_FOUND = 50
"""How many notes one page of a search has at most."""


class _Cursor(Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="found notes"):
    id: UUID


class Notes(Repository[StoredNote], table=notes, noun="note"):
    """The notes of the user, newest first."""

    async def search(self, words: str, window: Window) -> Page[StoredNote]:
        """Return the notes that contain all words. Raises `Invalid` for more than `MAX_WORDS` words."""
        folded = fold(words).split()
        if len(folded) > MAX_WORDS:
            raise Invalid.at("words", f"Expected at most {MAX_WORDS} words")
        patterns = [f"%{_escaped(word)}%" for word in folded] + ["%"] * (MAX_WORDS - len(folded))
        values: dict[str, object] = {f"pattern_{nth}": pattern for nth, pattern in enumerate(patterns)}
        last = window.decode_cursor(_Cursor)
        bounded = Window(min(window.limit, _MAX_FOUND), window.cursor)
        if last is None:
            rows = await self.fetch(_FOUND, limit=bounded.limit + 1, **values)
        else:
            rows = await self.fetch(_FOUND_BEFORE, limit=bounded.limit + 1, before=last.id, **values)
        return bounded.to_page([StoredNote(*row) for row in rows], key=lambda note: _Cursor(note.id))


def fold(text: str) -> str:
    """Return the text without differences of case and of compatible forms, in at most three times its length."""
    return unicodedata.normalize("NFKC", text).casefold()[: 3 * MAX_CHARS]


def _escaped(word: str) -> str:
    return word.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
