"""Use cases on notes. Those that are tools have names that models use well: remember, recall, forget."""

from msgspec import UNSET
from msgspec.structs import replace

from latchkey import DEFAULT_LIMIT, Cursor, Grant, Limit, Page, UnitOfWork, Window, requires, tool
from latchkey.notes.note import NewNote, Note, NoteChanges, NoteId, Notes, StoredNote, Words, fold

READ = Grant("notes:read")
WRITE = Grant("notes:write")


@tool(WRITE, title="Remember a note", destructive=False)
async def remember(uow: UnitOfWork, new: NewNote) -> Note:
    """Remember something that the user has said about themselves or asked to remember, in one short text."""
    stored = StoredNote(NoteId(uow.new_id()), new.text, fold(new.text), 1, uow.now, uow.now)
    await uow.repository(Notes).add(stored)
    return stored.note


@tool(READ, title="Recall notes")
async def recall(
    uow: UnitOfWork, words: Words = "", limit: Limit = DEFAULT_LIMIT, cursor: Cursor | None = None
) -> Page[Note]:
    """Recall what was remembered about the user, newest first: all notes, or those that contain all of the words."""
    window, repository = Window(limit, cursor), uow.repository(Notes)
    page = await (repository.search(words, window) if words.strip() else repository.page(window))
    return Page([stored.note for stored in page.items], page.next_cursor)


@tool(WRITE, title="Forget a note", idempotent=True, stores=False)
async def forget(uow: UnitOfWork, note_id: NoteId, *, version: int | None = None) -> Note:
    """Forget a note permanently, and return it."""
    repository = uow.repository(Notes)
    stored = await repository.get(note_id, for_update=True)
    stored.note.check_version(version)
    await repository.delete(note_id)
    return stored.note


@requires(READ)
async def get_note(uow: UnitOfWork, note_id: NoteId) -> Note:
    """Show one note."""
    return (await uow.repository(Notes).get(note_id)).note


@requires(WRITE, stores=True)
async def update_note(uow: UnitOfWork, note_id: NoteId, changes: NoteChanges, version: int | None = None) -> Note:
    """Change the text of a note. A text that is left out, and the same text, change nothing."""
    repository = uow.repository(Notes)
    stored = await repository.get(note_id, for_update=True)
    stored.note.check_version(version)
    if changes.text is UNSET or changes.text == stored.text:
        return stored.note
    return (await repository.update(replace(stored, text=changes.text, folded=fold(changes.text)))).note
