"""Notes over HTTP."""

from typing import Annotated
from uuid import UUID

from litestar import Controller, Response, delete, get, patch, post
from litestar.di import NamedDependency
from litestar.params import FromPath, QueryParameter

from latchkey import (
    DEFAULT_LIMIT,
    ETAG,
    LOCATION,
    REPLAYED,
    ApiRequest,
    CursorQuery,
    Dispatcher,
    IdempotencyKey,
    IdempotencyMismatch,
    IfMatch,
    JsonBody,
    LimitQuery,
    Page,
    PatchBody,
    respond_once,
    version_of,
    versioned,
)
from latchkey.notes import use_cases
from latchkey.notes.note import NO_NUL, NewNote, Note, NoteChanges, NoteId

WordsQuery = Annotated[
    str | None,
    QueryParameter(
        min_length=1,
        max_length=200,
        description="Only notes that contain all of these words, in any case.",
        schema_extra={"pattern": NO_NUL},
    ),
]


class NoteController(Controller):
    path = "/notes"
    tags = ("notes",)

    @post(response_headers=[ETAG, LOCATION, REPLAYED], failures=[IdempotencyMismatch])
    async def add_note(
        self,
        request: ApiRequest,
        dispatcher: NamedDependency[Dispatcher],
        data: JsonBody[NewNote],
        idempotency_key: IdempotencyKey = None,
    ) -> Response[Note]:
        """Add a note of at most 2,000 characters."""

        def respond(note: Note) -> Response[Note]:
            return versioned(note, 201, location=request.location_of("notes", note.id))

        return await respond_once(request, dispatcher, idempotency_key, respond, use_cases.remember, data)

    @get()
    async def list_notes(
        self,
        request: ApiRequest,
        dispatcher: NamedDependency[Dispatcher],
        words: WordsQuery = None,
        limit: LimitQuery = DEFAULT_LIMIT,
        cursor: CursorQuery = None,
    ) -> Page[Note]:
        """List notes, newest first: all, or those that contain all of the words."""
        return await dispatcher.call(request.user, use_cases.recall, words or "", limit, cursor)

    @get("/{note_id:uuid}", response_headers=[ETAG])
    async def get_note(
        self, request: ApiRequest, dispatcher: NamedDependency[Dispatcher], note_id: FromPath[UUID]
    ) -> Response[Note]:
        """Get a note."""
        return versioned(await dispatcher.call(request.user, use_cases.get_note, NoteId(note_id)))

    @patch("/{note_id:uuid}", response_headers=[ETAG])
    async def update_note(
        self,
        request: ApiRequest,
        dispatcher: NamedDependency[Dispatcher],
        note_id: FromPath[UUID],
        data: PatchBody[NoteChanges],
        if_match: IfMatch = None,
    ) -> Response[Note]:
        """Replace the text of a note. An update without any effect keeps the version."""
        version = version_of(if_match)
        return versioned(await dispatcher.call(request.user, use_cases.update_note, NoteId(note_id), data, version))

    @delete("/{note_id:uuid}", essential=True)
    async def delete_note(
        self,
        request: ApiRequest,
        dispatcher: NamedDependency[Dispatcher],
        note_id: FromPath[UUID],
        if_match: IfMatch = None,
    ) -> None:
        """Delete a note permanently."""
        version = version_of(if_match)
        await dispatcher.call(request.user, use_cases.forget, NoteId(note_id), version=version)
