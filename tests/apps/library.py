"""An app of a team, as it would stand outside this repository: it imports public names only."""

from litestar import Controller, get, post
from litestar.di import NamedDependency
from litestar.params import FromQuery
from msgspec import Struct

from latchkey import ApiRequest, App, Dispatcher, Grant, JsonBody, UnitOfWork, requires, tool

READ, WRITE = Grant("books:read"), Grant("books:write")


class Book(Struct, frozen=True):
    """A book that the user wants to read."""

    title: str
    task_id: str


class Wish(Struct, frozen=True):
    """A book that the user wants to borrow."""

    title: str
    notes: dict[str, str] = {}


class BookCount(Struct, frozen=True):
    """The number of books that the user wants to read."""

    books: int


@tool(WRITE, title="Borrow a book", destructive=False)
async def borrow_book(uow: UnitOfWork, title: str, copies: int = 1) -> Book:
    """Borrow a book, and note it on the to-do list."""
    from latchkey.application.tasks import add_task  # noqa: PLC0415 - a built-in use case, to have an effect
    from latchkey.domain.task import NewTask  # noqa: PLC0415

    task = await add_task(uow, NewTask(f"Read {title} ({copies})"))
    return Book(title, str(task.id))


@tool(READ, title="Count the books")
async def count_books(uow: UnitOfWork) -> BookCount:
    """Count the books that the user wants to read."""
    return await count(uow)


@requires(READ)
async def count(uow: UnitOfWork) -> BookCount:
    """Count the books."""
    from latchkey import Window  # noqa: PLC0415

    return BookCount(len((await uow.tasks.page(None, Window(50, None))).items))


class BookCountController(Controller):
    path = "/book-count"
    tags = ("books",)

    @get()
    async def get_book_count(self, request: ApiRequest, dispatcher: NamedDependency[Dispatcher]) -> BookCount:
        """Count the books that the user wants to read."""
        return await dispatcher.call(request.user, count)

    @get("/words")
    async def find_words(self, words: FromQuery[str]) -> BookCount:
        """Count the words."""
        return BookCount(len(words.split()))

    @post()
    async def borrow(self, request: ApiRequest, data: JsonBody[Wish], dispatcher: NamedDependency[Dispatcher]) -> Book:
        """Borrow a book."""
        return await dispatcher.call(request.user, borrow_book, data.title)


app = App(name="library", tools=[borrow_book, count_books], grants=[READ, WRITE], controllers=[BookCountController])
