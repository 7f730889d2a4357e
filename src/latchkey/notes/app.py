"""The app of notes. An assistant offers its tools if it lists them."""

from latchkey import App
from latchkey.notes.note import notes as notes_table
from latchkey.notes.routes import NoteController
from latchkey.notes.use_cases import READ, WRITE, forget, recall, remember

notes = App(
    name="notes",
    tools=[remember, recall, forget],
    grants=[READ, WRITE],
    entities=[notes_table],
    controllers=[NoteController],
)
